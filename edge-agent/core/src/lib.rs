//! What the agent decides: which desired state holds, what each pod needs next, what the hub is told.
//!
//! In: messages, journal records, and what happened on the device, always with the time as an argument.
//! Out: things to persist, to do and to send, in that order.
//! Never: files, sockets, the clock, randomness, threads, or iteration over hash maps.

pub mod api;
pub mod clock;
pub mod kept;
pub mod messages;
pub mod metered;
pub mod os_update;
pub mod plan;
pub mod pods;
pub mod pressure;
pub mod quantity;
pub mod schedules;
pub mod services;
pub mod spare;
pub mod status;
pub mod sync;
pub mod update;
pub mod volumes;
pub mod yaml;

pub use clock::Now;
pub use pods::{Action, Input, PodManager};
pub use sync::{Items, Record, Sync};
