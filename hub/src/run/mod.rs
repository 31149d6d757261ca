//! Carries out what the core decides: feeds its view, applies its plans, runs its controllers and node sessions.
//!
//! In: the store's events, messages of nodes, time. Out: writes through the API's own path, messages to nodes.
//! Never: decides what should be; that is `limpet-hub-core`.

pub mod apply;
mod attempts;
mod approver;
mod clock;
mod control;
pub mod events;
mod figures;
mod heat;
mod histogram;
pub mod lead;
mod measures;
pub mod nodes;
pub mod peers;
mod queue;
mod schedule;
mod signer;
pub mod streams;
mod tokens;
pub mod usage;
mod workqueue;
pub mod world;

pub use apply::{Answer, Api, Applier, Delete, Patch, Refused};
pub use clock::{Clock, now, seed};
pub use control::Controllers;
pub use figures::Figures;
pub use lead::Lead;
pub use measures::Measures;
pub use nodes::Nodes;
pub use peers::Peers;
pub use schedule::Scheduling;
pub use signer::Signer;
pub use streams::{FromNode, StreamError, StreamHandle, Streams};
pub use usage::Usage;
pub use world::{Listener, World};

#[cfg(test)]
mod tests;
