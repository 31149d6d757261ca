//! The hub: Kubernetes API, store, controllers, broker and registry in one process.
//!
//! In: `HubOptions`. Out: `run`, which ends when the process is asked to.
//! Never: knows the agent; what both know stands in `limpet-protocol`.

#![allow(clippy::result_large_err)] // metav1.Status is the error of every verb; it is made where requests fail

mod hub;

pub mod admission;
pub mod audit;
pub mod api;
pub mod auth;
pub mod enroll;
pub mod flow;
pub mod guard;
mod kept;
mod messages;
pub mod operate;
pub mod pki;
pub mod run;
pub mod streaming;
mod webhook;

mod addresses;
mod mdns;
mod meeting;
mod registry;
mod relay;
mod share;

pub use addresses::remembered_broker;
pub use meeting::{BrokerSettings, acl};
pub use hub::{EtcdSettings, HubError, HubOptions, run};
pub use limpet_store::EtcdFiles;
pub use limpet_hub_core::nodes::ipam::Ranges as PodRanges;
