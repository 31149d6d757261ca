//! What is known of the cluster, in memory, for decisions.
//!
//! In: events of the store, as bytes per (resource, namespace, name). Out: typed objects, indexes, and what changed.
//! Never: waits, writes, or copies an object's bytes (they are shared with the store).

mod beside;
mod changed;
pub mod kinds;
mod layout;
mod memo;
mod meta;
mod object;
pub mod pick;
mod selector;
mod previous;
mod recent;
mod store;
mod used;

pub use changed::Changed;
pub(crate) use kinds::conditions;
pub use kinds::*;
pub use memo::Memo;
pub use meta::{Labels, Meta, OwnerRef};
pub use object::*;
#[cfg(test)]
pub(crate) use layout::Layout;
pub(crate) use recent::{Sent, Which};
pub use selector::{Requirement, Selector};
pub use store::ObjectStore;
pub use used::{NodePods, Used};
