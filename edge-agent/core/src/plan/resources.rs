//! Resource requests and limits as cgroup numbers, QoS classes, and scores for the kernel's OOM killer.
//!
//! In: the PodSpec. Out: shares, quotas, bytes. The formulas are kubelet's (cpu.shares, CFS quota, oom_score_adj).

use super::HostFacts;
use crate::api::{Container, PodSpec, Quantity, Resources};
use serde::{Deserialize, Serialize};

/// Quality of service, from requests and limits (Kubernetes "Pod Quality of Service Classes").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Qos {
    Guaranteed,
    Burstable,
    #[default]
    BestEffort,
}

impl Qos {
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourcePlan {
    /// cgroup v1 scale, 2 to 262144.
    pub cpu_shares: u64,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: u64,
    pub memory_limit_bytes: Option<i64>,
    pub oom_score_adj: i32,
}

/// The pod's own cgroup: sums over the containers; a limit only when every container has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodResources {
    pub cpu_shares: u64,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: u64,
    pub memory_limit_bytes: Option<i64>,
}

const PERIOD_US: u64 = 100_000;

fn cpu(map: &std::collections::BTreeMap<String, Quantity>) -> Option<i64> {
    map.get("cpu").and_then(Quantity::milli).filter(|v| *v > 0)
}

fn memory(map: &std::collections::BTreeMap<String, Quantity>) -> Option<i64> {
    map.get("memory").and_then(Quantity::value).filter(|v| *v > 0)
}

fn shares(milli: i64) -> u64 {
    if milli <= 0 { 2 } else { ((milli as u64).saturating_mul(1024) / 1000).clamp(2, 262_144) }
}

fn quota(milli: i64) -> i64 {
    (milli.saturating_mul(PERIOD_US as i64) / 1000).max(1000)
}

pub fn qos(spec: &PodSpec) -> Qos {
    let all = || spec.containers.iter().chain(&spec.init_containers).map(|c| &c.resources);
    let touches = |r: &Resources| [&r.limits, &r.requests].iter().any(|m| cpu(m).is_some() || memory(m).is_some());
    if !all().any(touches) {
        return Qos::BestEffort;
    }
    let guaranteed = all().all(|r| {
        let cpu_equal = cpu(&r.limits).is_some() && cpu(&r.requests).is_none_or(|q| Some(q) == cpu(&r.limits));
        let memory_equal =
            memory(&r.limits).is_some() && memory(&r.requests).is_none_or(|q| Some(q) == memory(&r.limits));
        cpu_equal && memory_equal
    });
    if guaranteed { Qos::Guaranteed } else { Qos::Burstable }
}

pub(super) fn container(spec: &PodSpec, container: &Container, host: &HostFacts) -> ResourcePlan {
    let r = &container.resources;
    let limit = cpu(&r.limits);
    ResourcePlan {
        cpu_shares: shares(cpu(&r.requests).or(limit).unwrap_or(0)),
        cpu_quota_us: limit.map(quota),
        cpu_period_us: PERIOD_US,
        memory_limit_bytes: memory(&r.limits),
        oom_score_adj: oom_score_adj(spec, container, host.memory_bytes),
    }
}

fn oom_score_adj(spec: &PodSpec, container: &Container, capacity: u64) -> i32 {
    const NODE_CRITICAL: i64 = 2_000_000_000;
    match qos(spec) {
        _ if spec.priority.is_some_and(|p| p >= NODE_CRITICAL) => -997,
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let r = &container.resources;
            let asked = memory(&r.requests).or(memory(&r.limits)).unwrap_or(0) as i128;
            let score = 1000 - 1000 * asked / i128::from(capacity.max(1));
            score.clamp(3, 999) as i32
        }
    }
}

pub fn pod_resources(spec: &PodSpec) -> PodResources {
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let running = || spec.containers.iter().chain(spec.init_containers.iter().filter(sidecar));
    let passing = || spec.init_containers.iter().filter(|c| !sidecar(c));
    let sum = |of: &dyn Fn(&Container) -> Option<i64>| -> i64 { running().filter_map(of).sum() };
    let most = |of: &dyn Fn(&Container) -> Option<i64>| passing().filter_map(of).max().unwrap_or(0);
    let total = |of: &dyn Fn(&Container) -> Option<i64>| sum(of).max(most(of));
    let every = |of: &dyn Fn(&Container) -> Option<i64>| {
        spec.containers.iter().chain(&spec.init_containers).all(|c| of(c).is_some())
    };
    let cpu_limit = |c: &Container| cpu(&c.resources.limits);
    let cpu_request = |c: &Container| cpu(&c.resources.requests).or(cpu(&c.resources.limits));
    let memory_limit = |c: &Container| memory(&c.resources.limits);
    PodResources {
        cpu_shares: shares(total(&cpu_request)),
        cpu_quota_us: every(&cpu_limit).then(|| quota(total(&cpu_limit))),
        cpu_period_us: PERIOD_US,
        memory_limit_bytes: every(&memory_limit).then(|| total(&memory_limit)),
    }
}
