//! One file a kind: its defaults, its rules and its table row.
//!
//! In: objects as JSON. Out: implementations of `Behaviour`, named by the rows of the registry.
//! Never: what all kinds share (see `strategy`).

pub mod cells;
pub mod cidr;
pub mod fill;
pub mod rules;
pub mod warn;
pub mod workload;

mod admission;
mod api_service;
mod autoscaler;
mod autoscaler_rules;
mod certificate_signing_request;
mod config_map;
mod cron_job;
mod custom_resource;
mod daemon_set;
mod deployment;
mod device_claims;
mod endpoint_rules;
mod endpoints;
mod event;
mod fleet_rollout;
mod link_policy;
mod flow_control;
mod flow_rules;
mod ingress;
mod job;
mod job_rules;
mod lease;
mod limit_range;
mod namespace;
mod network;
mod network_policy;
mod node;
mod node_pool;
mod persistent_volume;
mod persistent_volume_claim;
pub mod pod;
mod pod_disruption_budget;
mod rbac;
mod replica_set;
mod resource_quota;
mod secret;
mod service;
mod service_account;
mod service_rules;
mod small;
mod stateful_set;
mod storage;

pub use admission::{Policy, PolicyBinding, Webhooks};
pub use api_service::ApiService;
pub use autoscaler::{Autoscaler, AutoscalerV1};
pub use certificate_signing_request::CertificateSigningRequest;
pub use config_map::ConfigMap;
pub use cron_job::{CronJob, check_schedule};
pub use custom_resource::CustomResourceDefinition;
pub use daemon_set::DaemonSet;
pub use deployment::Deployment;
pub use endpoints::{EndpointSlice, Endpoints};
pub use event::{CoreEvent, Event};
pub use fleet_rollout::{FleetRollout, clock_minutes};
pub use device_claims::{ResourceClaim, ResourceClaimTemplate};
pub use flow_control::{FlowSchema, PriorityLevel};
pub use ingress::{Ingress, IngressClass};
pub use job::Job;
pub use lease::Lease;
pub use limit_range::LimitRange;
pub use namespace::Namespace;
pub use network::{IpAddress, ServiceCidr};
pub use network_policy::NetworkPolicy;
pub use node::Node;
pub use link_policy::{link_for_board, link_rules};
pub use node_pool::NodePool;
pub use persistent_volume::PersistentVolume;
pub use persistent_volume_claim::PersistentVolumeClaim;
pub use pod::Pod;
pub use pod_disruption_budget::PodDisruptionBudget;
pub use rbac::{Binding, ClusterRole, Role};
pub use replica_set::{ReplicaSet, ReplicationController};
pub use resource_quota::ResourceQuota;
pub use secret::Secret;
pub use service::Service;
pub use service_account::ServiceAccount;
pub use small::{
    ComponentStatus, ControllerRevision, NameAndAge, PodTemplate, PriorityClass, ResourceSlice, RuntimeClass,
};
pub use stateful_set::StatefulSet;
pub use storage::{CsiDriver, CsiNode, CsiStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass};
