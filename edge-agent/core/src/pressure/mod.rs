//! When the node runs short of something, and which pod has to go.
//!
//! In: what the board has left, thresholds, what pods use. Out: conditions of the node, and a pod to evict with kubelet's
//! sentence. The order is Kubernetes' ("Node-pressure Eviction"): who uses more than requested, then who matters less,
//! then who is furthest above its request.
//! Never: a critical pod, more than one pod at a time, or a condition that flickers.

mod storage;

pub use storage::{StorageUse, excess, is_limited};

use crate::{
    api::{Container, PodSpec, Quantity},
    plan::effective,
    pods::Uid,
    status::NodeProblem,
};

/// From here on a pod belongs to the system and is not evicted.
const CRITICAL_PRIORITY: i64 = 2_000_000_000;

/// Less than this is not worth an eviction.
const WORTH_BYTES_MIN: u64 = 1 << 20;

/// What can run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    Memory,
    Disk,
    Inodes,
    Pids,
}

impl Signal {
    pub const ALL: [Signal; 4] = [Signal::Memory, Signal::Disk, Signal::Inodes, Signal::Pids];

    /// The name in `evictionHard`.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Memory => "memory.available",
            Signal::Disk => "nodefs.available",
            Signal::Inodes => "nodefs.inodesFree",
            Signal::Pids => "pid.available",
        }
    }

    fn resource(self) -> &'static str {
        match self {
            Signal::Memory => "memory",
            Signal::Disk => "ephemeral-storage",
            Signal::Inodes => "inodes",
            Signal::Pids => "pids",
        }
    }

    fn amount(self, count: u64) -> String {
        match self {
            Signal::Memory | Signal::Disk => crate::quantity::binary(count),
            Signal::Inodes | Signal::Pids => count.to_string(),
        }
    }
}

/// How much must be left: an amount, or a share of all in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    Amount(u64),
    Thousandths(u32),
}

impl Threshold {
    /// `100Mi`, `10%`, `7.5%`.
    pub fn parse(text: &str) -> Option<Threshold> {
        match text.trim().strip_suffix('%') {
            Some(share) => {
                let thousandths = crate::quantity::milli(share.trim())? / 100;
                u32::try_from(thousandths).ok().filter(|t| *t <= 1000).map(Threshold::Thousandths)
            }
            None => crate::quantity::value(text).and_then(|n| u64::try_from(n).ok()).map(Threshold::Amount),
        }
    }

    pub fn of(self, all: u64) -> u64 {
        match self {
            Threshold::Amount(amount) => amount,
            Threshold::Thousandths(share) => (u128::from(all) * u128::from(share) / 1000) as u64,
        }
    }
}

/// What the board has, and what is left of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub all: u64,
    pub free: u64,
}

/// One signal past its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub signal: Signal,
    pub wanted: u64,
    pub free: u64,
}

/// What one pod uses now. Containers are named for the sentence.
#[derive(Clone, Debug)]
pub struct PodUse<'a> {
    pub uid: &'a Uid,
    pub spec: &'a PodSpec,
    /// Working set.
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub inodes: u64,
    pub pids: u64,
    pub containers: Vec<(&'a str, u64)>,
}

/// Thresholds, and since when which of them was last crossed.
#[derive(Clone, Debug)]
pub struct Pressure {
    thresholds: Vec<(Signal, Threshold)>,
    /// So long a condition stays after its cause has gone.
    transition_ms: u64,
    crossed_ms: Vec<(Signal, u64)>,
}

impl Pressure {
    pub fn new(thresholds: Vec<(Signal, Threshold)>, transition_ms: u64) -> Pressure {
        Pressure { thresholds, transition_ms, crossed_ms: Vec::new() }
    }

    /// Memory that pods cannot count on, because eviction begins before it is used up.
    pub fn memory_kept_free(&self, all: u64) -> u64 {
        self.thresholds.iter().find(|(s, _)| *s == Signal::Memory).map_or(0, |(_, t)| t.of(all))
    }

    /// What is short now, the worst kind first (memory before disk, as kubelet).
    pub fn look(&mut self, now_ms: u64, left: impl Fn(Signal) -> Left) -> Vec<Shortage> {
        let mut short = Vec::new();
        for (signal, threshold) in &self.thresholds {
            let left = left(*signal);
            let wanted = threshold.of(left.all);
            if left.all == 0 || left.free >= wanted {
                continue;
            }
            short.push(Shortage { signal: *signal, wanted, free: left.free });
            self.crossed_ms.retain(|(known, _)| known != signal);
            self.crossed_ms.push((*signal, now_ms));
        }
        let transition = self.transition_ms;
        self.crossed_ms.retain(|(_, at)| now_ms < at + transition || *at == now_ms);
        short.sort_by_key(|s| s.signal);
        short
    }

    /// When conditions may have changed without anything else happening.
    pub fn wake_at(&self) -> Option<u64> {
        self.crossed_ms.iter().map(|(_, at)| at + self.transition_ms).min()
    }

    /// The node's conditions. The sentences name no figure that changes: every change is a message to the hub.
    pub fn problems(&self) -> Vec<NodeProblem> {
        let has = |signals: &[Signal]| self.crossed_ms.iter().any(|(signal, _)| signals.contains(signal));
        let mut problems = Vec::new();
        if has(&[Signal::Memory]) {
            problems.push(NodeProblem::MemoryPressure("kubelet has insufficient memory available".into()));
        }
        if has(&[Signal::Disk, Signal::Inodes]) {
            problems.push(NodeProblem::DiskPressure("kubelet has disk pressure".into()));
        }
        if has(&[Signal::Pids]) {
            problems.push(NodeProblem::PidPressure("kubelet has insufficient PID available".into()));
        }
        problems
    }
}

/// The pod that goes first, and the sentence for its status.
pub fn choose(short: Shortage, pods: &[PodUse<'_>]) -> Option<(Uid, String)> {
    // Unlike kubelet: a pod whose end frees nothing to speak of stays.
    let matters = |pod: &&PodUse<'_>| match short.signal {
        Signal::Memory | Signal::Disk => used(short.signal, pod) >= WORTH_BYTES_MIN,
        Signal::Inodes | Signal::Pids => used(short.signal, pod) > 0,
    };
    let evictable = pods.iter().filter(|pod| pod.spec.priority.unwrap_or(0) < CRITICAL_PRIORITY).filter(matters);
    let first = evictable.max_by_key(|pod| {
        let (used, asked) = (used(short.signal, pod), requested(short.signal, pod.spec));
        (used > asked, std::cmp::Reverse(pod.spec.priority.unwrap_or(0)), i128::from(used) - i128::from(asked))
    })?;
    Some((first.uid.clone(), sentence(short, first)))
}

fn used(signal: Signal, pod: &PodUse<'_>) -> u64 {
    match signal {
        Signal::Memory => pod.memory_bytes,
        Signal::Disk => pod.disk_bytes,
        Signal::Inodes => pod.inodes,
        Signal::Pids => pod.pids,
    }
}

/// Inodes and processes cannot be requested: there the whole use counts.
fn requested(signal: Signal, spec: &PodSpec) -> u64 {
    let name = match signal {
        Signal::Memory => "memory",
        Signal::Disk => "ephemeral-storage",
        Signal::Inodes | Signal::Pids => return 0,
    };
    match spec.resources.requests.get(name).and_then(Quantity::value) {
        Some(whole) => u64::try_from(whole).unwrap_or(0),
        None => effective(spec, &|c| i64::try_from(request(c, name)).unwrap_or(i64::MAX)).unsigned_abs(),
    }
}

fn request(container: &Container, name: &str) -> u64 {
    let resources = &container.resources;
    let asked = resources.requests.get(name).or_else(|| resources.limits.get(name)).and_then(Quantity::value);
    asked.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

fn sentence(short: Shortage, pod: &PodUse<'_>) -> String {
    let signal = short.signal;
    let mut text = format!(
        "The node was low on resource: {}. Threshold quantity: {}, available: {}. ",
        signal.resource(),
        signal.amount(short.wanted),
        signal.amount(short.free)
    );
    if matches!(signal, Signal::Memory | Signal::Disk) {
        let resource = signal.resource();
        for (name, used) in &pod.containers {
            let Some(container) = pod.spec.containers.iter().find(|c| c.name == *name) else { continue };
            let asked = request(container, resource);
            if *used > asked {
                text.push_str(&format!(
                    "Container {name} was using {}, request is {}, has larger consumption of {resource}. ",
                    signal.amount(*used),
                    signal.amount(asked)
                ));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
