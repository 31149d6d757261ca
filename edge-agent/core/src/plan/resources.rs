//! Resource requests and limits as cgroup numbers, QoS classes, and scores for the kernel's OOM killer.
//!
//! In: the PodSpec. Out: shares, quotas, bytes. The formulas are kubelet's (cpu.shares, CFS quota, oom_score_adj).

use super::HostFacts;
use crate::api::{Container, PodSpec, Quantity, Resources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourcePlan {
    /// cgroup v1 scale, 2 to 262144.
    pub cpu_shares: u64,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: u64,
    pub memory_limit_bytes: Option<i64>,
    pub oom_score_adj: i32,
    /// Bytes by the kernel's name of the page size (`2MB`).
    pub hugepages: BTreeMap<String, u64>,
    /// Extended resources: devices that the node gives out.
    pub extended: BTreeMap<String, u64>,
}

/// The pod's own cgroup: what the pod's `resources` say, otherwise sums over the containers; a limit only when every
/// container has one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodResources {
    pub cpu_shares: u64,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: u64,
    pub memory_limit_bytes: Option<i64>,
    pub hugepages: BTreeMap<String, u64>,
}

impl PodResources {
    /// Room for either: of each the more.
    pub fn or_more(&self, other: &PodResources) -> PodResources {
        let mut hugepages = self.hugepages.clone();
        for (size, bytes) in &other.hugepages {
            let own = hugepages.entry(size.clone()).or_default();
            *own = (*own).max(*bytes);
        }
        PodResources {
            cpu_shares: self.cpu_shares.max(other.cpu_shares),
            cpu_quota_us: self.cpu_quota_us.zip(other.cpu_quota_us).map(|(own, other)| own.max(other)),
            cpu_period_us: self.cpu_period_us,
            memory_limit_bytes: self.memory_limit_bytes.zip(other.memory_limit_bytes).map(|(own, other)| own.max(other)),
            hugepages,
        }
    }
}

const PERIOD_US: u64 = 100_000;

fn cpu(map: &BTreeMap<String, Quantity>) -> Option<i64> {
    map.get("cpu").and_then(Quantity::milli).filter(|v| *v > 0)
}

fn memory(map: &BTreeMap<String, Quantity>) -> Option<i64> {
    map.get("memory").and_then(Quantity::value).filter(|v| *v > 0)
}

fn shares(milli: i64) -> u64 {
    if milli <= 0 { 2 } else { ((milli as u64).saturating_mul(1024) / 1000).clamp(2, 262_144) }
}

fn quota(milli: i64) -> i64 {
    (milli.saturating_mul(PERIOD_US as i64) / 1000).max(1000)
}

/// `hugepages-2Mi: 4Mi` as the kernel names it: `2MB`, bytes.
fn hugepages(map: &BTreeMap<String, Quantity>) -> impl Iterator<Item = (String, u64)> + '_ {
    map.iter().filter_map(|(name, amount)| {
        let size = crate::quantity::value(name.strip_prefix("hugepages-")?).filter(|n| *n > 0)?;
        let units = [("GB", 30), ("MB", 20), ("KB", 10)];
        let (unit, shift) = units.iter().find(|(_, shift)| size.trailing_zeros() >= *shift)?;
        Some((format!("{}{unit}", size >> shift), u64::try_from(amount.value()?).ok()?))
    })
}

/// Whether the pod as a whole asks for something (KEP-2837): then that decides the class.
fn of_pod(spec: &PodSpec) -> Option<&Resources> {
    let said = [&spec.resources.limits, &spec.resources.requests];
    said.iter().any(|map| cpu(map).is_some() || memory(map).is_some()).then_some(&spec.resources)
}

pub fn qos(spec: &PodSpec) -> Qos {
    if let Some(r) = of_pod(spec) {
        return if is_guaranteed(r) { Qos::Guaranteed } else { Qos::Burstable };
    }
    let all = || spec.containers.iter().chain(&spec.init_containers).map(|c| &c.resources);
    let touches = |r: &Resources| [&r.limits, &r.requests].iter().any(|m| cpu(m).is_some() || memory(m).is_some());
    if !all().any(touches) {
        return Qos::BestEffort;
    }
    let guaranteed = all().all(is_guaranteed);
    if guaranteed { Qos::Guaranteed } else { Qos::Burstable }
}

fn is_guaranteed(r: &Resources) -> bool {
    let cpu_equal = cpu(&r.limits).is_some() && cpu(&r.requests).is_none_or(|q| Some(q) == cpu(&r.limits));
    let memory_equal =
        memory(&r.limits).is_some() && memory(&r.requests).is_none_or(|q| Some(q) == memory(&r.limits));
    cpu_equal && memory_equal
}

/// Milli-cpus and bytes that a container may have at most: what itself does not say, its pod says for it, so that programs
/// which look at their own group see a limit.
pub fn limits(pod: &Resources, own: &Resources) -> (Option<i64>, Option<i64>) {
    (cpu(&own.limits).or(cpu(&pod.limits)), memory(&own.limits).or(memory(&pod.limits)))
}

pub fn container(spec: &PodSpec, container: &Container, host: &HostFacts) -> ResourcePlan {
    let r = &container.resources;
    let (limit, memory_limit_bytes) = limits(&spec.resources, r);
    ResourcePlan {
        cpu_shares: shares(cpu(&r.requests).or(limit).unwrap_or(0)),
        cpu_quota_us: limit.map(quota),
        cpu_period_us: PERIOD_US,
        memory_limit_bytes,
        oom_score_adj: oom_score_adj(spec, container, host.memory_bytes),
        hugepages: hugepages(&spec.resources.limits).chain(hugepages(&r.limits)).collect(),
        extended: r.limits.iter().filter(|(name, _)| is_extended(name)).filter_map(count).collect(),
    }
}

/// `example.com/gpio`, but nothing of Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

fn count((name, amount): (&String, &Quantity)) -> Option<(String, u64)> {
    Some((name.clone(), u64::try_from(amount.value()?).ok().filter(|n| *n > 0)?))
}

fn oom_score_adj(spec: &PodSpec, container: &Container, capacity: u64) -> i32 {
    // Of `system-node-critical`; what is critical to the cluster counts like others.
    const NODE_CRITICAL: i64 = 2_000_001_000;
    match qos(spec) {
        _ if spec.priority.is_some_and(|p| p >= NODE_CRITICAL) => -997,
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let own = memory_request(container);
            let sidecar = spec.init_containers.iter().any(|c| c.name == container.name && c.is_restartable_init());
            // A sidecar goes no earlier than those that it serves.
            let least = spec.containers.iter().map(|c| memory_request(c)).min().filter(|_| sidecar).unwrap_or(0);
            let asked = i128::from(own.max(least)) + share_of_rest(spec);
            let score = 1000 - 1000 * asked / i128::from(capacity.max(1));
            score.clamp(3, 999) as i32
        }
    }
}

fn memory_request(c: &Container) -> i64 {
    memory(&c.resources.requests).or(memory(&c.resources.limits)).unwrap_or(0)
}

/// Of what the pod asks for as a whole beyond its containers, an equal part for each of them.
fn share_of_rest(spec: &PodSpec) -> i128 {
    let Some(r) = of_pod(spec) else { return 0 };
    let whole = memory(&r.requests).or(memory(&r.limits)).unwrap_or(0);
    let rest = i128::from(whole) - i128::from(effective(spec, &memory_request));
    rest.max(0) / ((spec.containers.len() + spec.init_containers.len()).max(1) as i128)
}

/// What a pod takes of its node, or what a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
}

impl Requests {
    pub fn without(self, other: Requests) -> Requests {
        Requests {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }

    pub fn with(self, other: Requests) -> Requests {
        Requests {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// The first resource of which this is more than `room`: its name, how much this is, how much there is.
    pub fn first_beyond(self, room: Requests) -> Option<(&'static str, i64, i64)> {
        let all = [("cpu", self.cpu_milli, room.cpu_milli), ("memory", self.memory_bytes, room.memory_bytes)];
        all.into_iter().find(|(_, asked, there)| *asked > 0 && asked > there)
    }
}

/// The pod's effective requests (Kubernetes "Resource sharing within containers").
pub fn requests(spec: &PodSpec) -> Requests {
    let cpu_request = |c: &Container| cpu(&c.resources.requests).or(cpu(&c.resources.limits)).unwrap_or(0);
    // What the pod asks for as a whole counts instead of its containers' sum.
    let whole = of_pod(spec).cloned().unwrap_or_default();
    let own = |of: fn(&BTreeMap<String, Quantity>) -> Option<i64>| of(&whole.requests).or(of(&whole.limits));
    let asked = Requests {
        cpu_milli: own(cpu).unwrap_or_else(|| effective(spec, &cpu_request)),
        memory_bytes: own(memory).unwrap_or_else(|| effective(spec, &memory_request)),
    };
    asked.with(overhead(spec))
}

/// What the runtime of the pod's class takes besides.
fn overhead(spec: &PodSpec) -> Requests {
    Requests { cpu_milli: cpu(&spec.overhead).unwrap_or(0), memory_bytes: memory(&spec.overhead).unwrap_or(0) }
}

/// All that run at the same time at most: containers with all sidecars, or an init container with the sidecars before it.
pub(crate) fn effective(spec: &PodSpec, of: &dyn Fn(&Container) -> i64) -> i64 {
    let (mut sidecars, mut most) = (0i64, 0i64);
    for c in &spec.init_containers {
        if c.is_restartable_init() {
            sidecars = sidecars.saturating_add(of(c));
            most = most.max(sidecars);
        } else {
            most = most.max(sidecars.saturating_add(of(c)));
        }
    }
    most.max(spec.containers.iter().map(|c| of(c)).fold(sidecars, i64::saturating_add))
}

pub fn pod_resources(spec: &PodSpec) -> PodResources {
    let every = |of: &dyn Fn(&Container) -> Option<i64>| {
        spec.containers.iter().chain(&spec.init_containers).all(|c| of(c).is_some())
    };
    let cpu_limit = |c: &Container| cpu(&c.resources.limits);
    let memory_limit = |c: &Container| memory(&c.resources.limits);
    let total = |of: &dyn Fn(&Container) -> Option<i64>| effective(spec, &|c| of(c).unwrap_or(0));
    let running = || spec.containers.iter().chain(spec.init_containers.iter().filter(|c| c.is_restartable_init()));
    let mut pages: BTreeMap<String, u64> = BTreeMap::new();
    for (size, bytes) in running().flat_map(|c| hugepages(&c.resources.limits)) {
        *pages.entry(size).or_default() += bytes;
    }
    let whole = of_pod(spec).cloned().unwrap_or_default();
    pages.extend(hugepages(&spec.resources.limits));
    let cpu_limit = cpu(&whole.limits).or_else(|| every(&cpu_limit).then(|| total(&cpu_limit)));
    let memory_limit = memory(&whole.limits).or_else(|| every(&memory_limit).then(|| total(&memory_limit)));
    let besides = overhead(spec);
    PodResources {
        cpu_shares: shares(requests(spec).cpu_milli),
        cpu_quota_us: cpu_limit.map(|milli| quota(milli.saturating_add(besides.cpu_milli))),
        cpu_period_us: PERIOD_US,
        memory_limit_bytes: memory_limit.map(|bytes| bytes.saturating_add(besides.memory_bytes)),
        hugepages: pages,
    }
}
