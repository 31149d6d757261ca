//! Which of the possible nodes is best.
//!
//! In: a node that would do. Out: points, 0 to 100 for each aspect, weighted as kube-scheduler does.
//! Never: refuses a node.

use super::{pods::PodRules, spread::SpreadRules};
use crate::{
    ObjectStore,
    view::{Node, Pod},
};

const IMAGE_BYTES_SMALL: i64 = 23 * 1024 * 1024;
const IMAGE_BYTES_LARGE: i64 = 1000 * 1024 * 1024;

/// Raw points of one node; those marked "relative" are compared with the other nodes' in `total`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Points {
    least_allocated: i64,
    balanced: i64,
    image: i64,
    /// Relative: taints that are only preferred not to be there.
    soft_taints: i64,
    /// Relative: preferred node affinity.
    node_affinity: i64,
    /// Relative: preferred pod affinity.
    pod_affinity: i64,
    /// Relative: pods to keep away from.
    crowd: i64,
}

pub fn points(
    view: &ObjectStore,
    node: &Node,
    pod: &Pod,
    pods: &PodRules,
    spread: &SpreadRules<'_>,
) -> Points {
    let mut used = view.used_on(&node.meta.name);
    used.add(pod);
    let free = |can: i64, used: i64| if can <= 0 { 0 } else { ((can - used).max(0) * 100) / can };
    let can = &node.status.allocatable;
    let cpu = free(can.cpu_milli, used.assumed_cpu_milli);
    let memory = free(can.memory, used.assumed_memory);
    let share = |can: i64, used: i64| if can <= 0 { 100 } else { (used * 100 / can).clamp(0, 100) };
    let cpu_share = share(can.cpu_milli, used.requests.cpu_milli);
    let memory_share = share(can.memory, used.requests.memory);
    Points {
        least_allocated: (cpu + memory) / 2,
        balanced: 100 - (cpu_share - memory_share).abs() / 2,
        image: image(node, pod),
        soft_taints: soft_taints(node, pod),
        node_affinity: node_affinity(node, pod),
        pod_affinity: pods.liking(node),
        crowd: spread.crowd(node),
    }
}

/// Weighted sums, in the order of `all`.
pub fn totals(all: &[Points]) -> Vec<i64> {
    let range = |f: fn(&Points) -> i64| {
        let values = || all.iter().map(f);
        (values().min().unwrap_or(0), values().max().unwrap_or(0))
    };
    // 100 for the best, 0 for the worst; `up` when larger is better.
    let relative = |value: i64, (low, high): (i64, i64), up: bool| match high - low {
        0 => 100,
        span if up => (value - low) * 100 / span,
        span => (high - value) * 100 / span,
    };
    let taints = range(|p| p.soft_taints);
    let nodes = range(|p| p.node_affinity);
    let pods = range(|p| p.pod_affinity);
    let crowd = range(|p| p.crowd);
    let total = |p: &Points| {
        p.least_allocated
            + p.balanced
            + p.image
            + 3 * relative(p.soft_taints, taints, false)
            + 2 * relative(p.node_affinity, nodes, true)
            + 2 * relative(p.pod_affinity, pods, true)
            + 2 * relative(p.crowd, crowd, false)
    };
    all.iter().map(total).collect()
}

fn soft_taints(node: &Node, pod: &Pod) -> i64 {
    let soft = node.spec.taints.iter().filter(|t| &*t.effect == "PreferNoSchedule");
    soft.filter(|t| !pod.spec.tolerations.iter().any(|x| x.tolerates(t))).count() as i64
}

fn node_affinity(node: &Node, pod: &Pod) -> i64 {
    let affinity = pod.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let preferred = affinity.into_iter().flat_map(|a| &a.preferred);
    preferred.filter(|p| p.preference.matches(&node.meta.name, &node.meta.labels)).map(|p| p.weight).sum()
}

fn image(node: &Node, pod: &Pod) -> i64 {
    let there = |name: &str| {
        let has = |i: &&crate::view::NodeImage| i.names.iter().any(|n| same_image(n, name));
        node.status.images.iter().find(has).map_or(0, |i| i.size_bytes)
    };
    let bytes: i64 = pod.spec.images.iter().map(|i| there(i)).fold(0, i64::saturating_add);
    let most = IMAGE_BYTES_LARGE.saturating_mul(pod.spec.images.len().max(1) as i64);
    let bytes = bytes.clamp(IMAGE_BYTES_SMALL, most);
    (bytes - IMAGE_BYTES_SMALL) * 100 / (most - IMAGE_BYTES_SMALL).max(1)
}

fn same_image(listed: &str, wanted: &str) -> bool {
    listed == wanted || listed.strip_prefix(wanted) == Some(":latest")
}
