//! One file a kind: its defaults, its rules and its table row.
//!
//! In: objects as JSON. Out: implementations of `Behaviour`, named by the rows of the registry.
//! Never: what all kinds share (see `strategy`).

pub mod cells;
pub mod fill;
pub mod rules;
pub mod workload;

mod config_map;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoints;
mod event;
mod job;
mod lease;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
pub mod pod;
mod rbac;
mod replica_set;
mod secret;
mod service;
mod service_account;
mod stateful_set;

pub use config_map::ConfigMap;
pub use cron_job::{CronJob, check_schedule};
pub use daemon_set::DaemonSet;
pub use deployment::Deployment;
pub use endpoints::{EndpointSlice, Endpoints};
pub use event::{CoreEvent, Event};
pub use job::Job;
pub use lease::Lease;
pub use namespace::Namespace;
pub use node::Node;
pub use persistent_volume::PersistentVolume;
pub use persistent_volume_claim::PersistentVolumeClaim;
pub use pod::Pod;
pub use rbac::{Binding, ClusterRole, Role};
pub use replica_set::{ReplicaSet, ReplicationController};
pub use secret::Secret;
pub use service::Service;
pub use service_account::ServiceAccount;
pub use stateful_set::StatefulSet;
