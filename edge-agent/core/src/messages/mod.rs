//! The board's own broker for workloads: who hears what, and what goes to the hub.
//!
//! In: clients, subscriptions, messages. Out: deliveries; messages for the hub.
//! Never: sockets; lets a namespace hear another.

pub mod hall;
mod session;
mod store;
pub mod topics;

pub use hall::{Answer, Delivery, Hall};
pub use session::Step;
pub use store::{STORE_BYTES_MAX, Store};

/// Annotation of a pod that gets the broker.
pub const ANNOTATION: &str = "limpet.dev/broker";
