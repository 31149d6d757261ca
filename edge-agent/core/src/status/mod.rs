//! What the hub is told about the node and its pods.
//!
//! In: reports from the pods' machines, facts of the device. Out: messages, most urgent first, latest wins.
//! Never: a queue without a bound.

mod events;
mod node;
mod outbox;

pub use events::{beginning, node_event, turned};
pub use node::{BoardCondition, NodeFacts, NodeProblem, OwnCondition, kubelet_version, node_report};
pub use outbox::{Outbox, OutboxOutput};
