//! The shell of a leaf board: one TCP connection over embassy-net, TLS 1.3, MQTT, two records in flash.
//!
//! In: a network stack, a source of randomness, flash, the firmware's own `App`. Out: a node of the hub.
//! Never: std, a second task, more than one connection at a time, a session whose hub has not proven that it has its key.
#![no_std]

extern crate alloc;

mod app;
mod carry;
mod der;
mod http;
mod join;
mod mqtt;
mod pem;
mod run;
mod store;
mod tls;
mod trust;

pub use app::{App, State};
pub use limpet_leaf_core::{Condition, Config, Facts, Reading};
pub use run::{Settings, run};
pub use store::{FLASH_BYTES, Store, StoreError};
