//! What the hub is told about the node and its pods.
//!
//! In: reports from the pods' machines, facts of the device. Out: messages, most urgent first, latest wins.
//! Never: a queue without a bound.

mod node;
mod outbox;

pub use node::{NodeFacts, NodeProblem, node_report};
pub use outbox::{Outbox, OutboxOutput};
