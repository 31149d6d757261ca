//! The words between hub and agent.
//!
//! In: nothing but data. Out: types with a postcard encoding, a version, and a bound on everything.
//! Both sides depend on this crate and never on each other.
//! Never: I/O, clocks, allocation without a bound from `limits`.
#![no_std]

extern crate alloc;

mod byte_string;
pub mod dictionary;
pub mod digest;
pub mod envelope;
pub mod join;
pub mod limits;
pub mod message;
pub mod os_update;
pub mod release;
pub mod schedule;
pub mod squeeze;
pub mod streams;
pub mod topic;

pub use digest::{ItemHash, SetDigest};
pub use envelope::{Bounded, DecodeError, Envelope, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, common_version};
pub use message::{
    Ack, BoardMessage, Down, Extension, Hello, HubMessage, Inventory, InventoryEntry, Item, ItemKey, ItemKind, ItemStep,
    LogPiece, LogPlace, LogTaken, NodeReport, NumberedEvent, PodGone, PodReport, RUNTIME_CLASS_ITEM, Removal, SetChange,
    SetStep, TokenAnswer, TokenAsk, Up, Welcome,
};
pub use streams::{StreamFrame, StreamKind, StreamOpen};
