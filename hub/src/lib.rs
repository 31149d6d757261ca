//! The hub: Kubernetes API, store, controllers, broker and registry in one process.
//!
//! In: `HubOptions`. Out: `run`, which ends when the process is asked to.
//! Never: knows the agent; what both know stands in `limpet-protocol`.

pub mod enroll;
pub mod pki;
pub mod run;
pub mod streaming;
