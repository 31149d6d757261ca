//! What the hub decides: controllers, scheduler, nodes, rights.
//!
//! In: a read-only `view::ObjectStore`, `now` and a seed as arguments. Out: `plan::Plan`s and session outputs,
//! which the shell carries out. Decisions are made on small structs that hold just the fields they need, read
//! from the canonical bytes; whatever else an object holds travels along as JSON and is never lost.
//! Never: tokio, files, sockets, the clock, randomness, threads, iteration over hash maps.

pub mod limits;
pub mod plan;
pub mod view;

pub mod clocks;
pub mod control;
pub mod election;
pub mod events;
pub mod nodes;
pub mod quota;
pub mod pod_security;
pub mod abac;
pub mod audit;
pub mod flow;
pub mod rbac;
pub mod schedule;
pub mod why;

mod canonical;
mod names;
#[cfg(any(test, feature = "world"))]
pub mod world;

pub use canonical::{json_diff, merge as json_merge};
pub use jiff::Timestamp;
pub use names::random_suffix;
pub use plan::{Change, EventType, Plan, Propagation, Regarding, Why};
pub use view::{Changed, Key, ObjectStore};
