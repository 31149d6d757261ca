//! A Pod as decisions see it.
//!
//! In: canonical JSON. Out: `PodData`: where it runs, what it asks for, what it references, how it is.
//! Never: keeps containers as such; what is needed of them is computed once, in `pod_raw`.

use super::{
    Affinity, Requests, SpreadConstraint, Toleration,
    pod_raw::RawPod,
};
use crate::{
    Timestamp,
    view::{Labels, Obj},
};
use serde::Deserialize;

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "RawPod")]
pub struct PodData {
    /// Node that the pod is bound to (`spec.nodeName`, or assumed by the scheduler).
    pub node: Option<Box<str>>,
    /// The node is the scheduler's word alone: the store has no binding yet, and a hub that dies now may decide otherwise.
    /// Nobody outside hears of it.
    pub assumed: bool,
    pub spec: PodSpec,
    pub status: PodStatus,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSpec {
    pub scheduler_name: Box<str>,
    pub service_account: Box<str>,
    pub priority: i32,
    /// `preemptionPolicy: Never`: waits for room, and makes none.
    pub never_preempts: bool,
    pub node_selector: Labels,
    pub affinity: Option<Box<Affinity>>,
    pub tolerations: Box<[Toleration]>,
    pub spread: Box<[SpreadConstraint]>,
    pub scheduling_gates: Box<[Box<str>]>,
    pub host_network: bool,
    /// Empty: the node's own runtime.
    pub runtime_class: Box<str>,
    pub restart_policy: Box<str>,
    /// The end of some container restarts all of them, which not every node can do.
    pub restarts_all: bool,
    pub hostname: Box<str>,
    pub subdomain: Box<str>,
    pub active_deadline_s: Option<i64>,
    /// What the scheduler counts against a node, overhead included.
    pub requests: Requests,
    /// The limits that are named at all, summed in the same way.
    pub limits: Option<Box<Requests>>,
    /// Ports that have a name or want a port of the node.
    pub ports: Box<[PodPort]>,
    /// Images of all containers, as written.
    pub images: Box<[Box<str>]>,
    pub refs: Box<[PodRef]>,
    /// Volumes whose claim is made for this pod alone, and named after both.
    pub ephemeral_volumes: Box<[Box<str>]>,
    /// Claims on devices: (name in the pod, name of the ResourceClaim when it is not made of a template).
    pub device_claims: Box<[(Box<str>, Option<Box<str>>)]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPort {
    pub name: Box<str>,
    pub protocol: Box<str>,
    pub port: i32,
    /// 0: none.
    pub host_port: i32,
    pub host_ip: Box<str>,
}

/// Something that must be on the node before the pod can run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodRef {
    ConfigMap(Box<str>),
    Secret(Box<str>),
    Claim(Box<str>),
    /// A ServiceAccount token of a projected volume; `index` is its place among the volume's sources.
    Token {
        volume: Box<str>,
        index: u32,
        audience: Box<str>,
        expiration_s: i64,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodStatus {
    pub phase: Phase,
    pub reason: Box<str>,
    pub ips: Box<[Box<str>]>,
    pub nominated_node: Option<Box<str>>,
    pub started: Option<Timestamp>,
    /// Condition Ready is True.
    pub ready: bool,
    /// When condition Ready last changed.
    pub ready_since: Option<Timestamp>,
    /// Conditions as lines of `type=status`: one allocation, since there are many pods.
    pub conditions: Box<str>,
    /// Message of condition PodScheduled when it is not True.
    pub unscheduled: Option<Box<str>>,
    /// Newest end of a container.
    pub finished: Option<Timestamp>,
    /// Of all containers together.
    pub restarts: i32,
    /// Of the container, and of the sidecar, that was started anew most often.
    pub restarts_max: [i32; 2],
    /// (name in the pod, ResourceClaim made for it).
    pub device_claims: Box<[(Box<str>, Box<str>)]>,
    /// ResourceClaim that the scheduler made for the pod's extended resources.
    pub extended_claim: Option<Box<str>>,
    /// (container, exit code) of containers that ended.
    pub exits: Box<[(Box<str>, i32)]>,
}

impl PodStatus {
    pub fn condition(&self, type_: &str) -> Option<&str> {
        self.conditions.lines().filter_map(|l| l.split_once('=')).find(|c| c.0 == type_).map(|c| c.1)
    }
}

impl Obj<PodData> {
    /// Succeeded or Failed: will never run again.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Not finished and not being deleted.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && self.meta.deleting.is_none()
    }

    /// Ready for at least `min_ready_s`; otherwise, when ready, the time from which it will be. When nobody says since when
    /// it is ready, that is never long enough.
    pub fn available(&self, min_ready_s: i64, now: Timestamp) -> Available {
        if !self.status.ready {
            return Available::No;
        }
        if min_ready_s <= 0 {
            return Available::Yes;
        }
        let Some(since) = self.status.ready_since else { return Available::No };
        // A board's clock may be years ahead: a time that is still to come is not believed.
        let since = if since > now { self.meta.created_at() } else { since };
        let at = since.checked_add(jiff::SignedDuration::from_secs(min_ready_s)).unwrap_or(Timestamp::MAX);
        if at <= now { Available::Yes } else { Available::At(at) }
    }
}

/// Whether a pod counts as available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Available {
    Yes,
    /// Ready, and available from this time on.
    At(Timestamp),
    No,
}
