//! Boards that are the agent's own link and cores, with pretend runtimes: one of them or thousands in a process.
//!
//! In: a join token. Out: boards that join, connect and follow the hub; what was seen of each. `limpet-fleet` loads a hub with
//! them; the program beside this, `limpet-board`, shows what the link takes of a board's memory.
//! Never: a line of the link that is not the agent's.
#![allow(clippy::disallowed_methods)]

pub mod board;
mod device;
pub mod fleet;
mod journal;
#[allow(dead_code, unused_imports)]
#[path = "../../../edge-agent/src/link/mod.rs"]
pub mod link;
mod runtime;

pub use fleet::{Fleet, Seen};
