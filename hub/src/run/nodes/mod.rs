//! The sessions of all nodes.
//!
//! In: what the broker says, changes of the view, stream frames, outcomes of writes. Out: messages to nodes by way
//! of the broker, writes, tokens, ends of streams; liveness for conditions and leases.
//! Never: trusts a node's word about another node's pods (the session core compares).

mod arrival;
mod gate;
mod liveness;
mod sessions;

pub use gate::{NodeGate, Presence};
pub use liveness::Offline;
pub use sessions::{Links, Nodes};

#[cfg(test)]
mod tests;
