//! The hub's side of every node: what it must know, what it says, whether it is there.
//!
//! In: the view, messages of the node's session, silence. Out: messages to the node, and changes to the store.
//! Never: evicts a pod because its node is silent.

pub mod desired;
pub mod devices;
mod differs;
pub mod holder;
pub mod ipam;
pub mod leaf;
mod mirrors;
pub mod offline;
pub mod queued;
pub(crate) mod schedules;
pub mod session;
pub mod status;
pub mod volumes;
