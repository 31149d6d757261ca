//! Which of the possible nodes is best.
//!
//! In: nodes that would do. Out: points, 0 to 100 for each aspect, weighted by the profile.
//! Semantics: kube-scheduler's default score plugins. Never: refuses a node.

use super::{
    config::{Profile, Strategy, StrategyKind},
    filter::Rules,
    images::Images,
    reason::Plugin,
    room::Spot,
};
use crate::view::{Node, Pod, Used};

/// Weighted sums, in the order of `spots`.
pub fn totals(rules: &Rules<'_>, spots: &[Spot<'_>], images: &Images, all_nodes: usize) -> Vec<i64> {
    let (profile, pod) = (rules.profile, rules.pod);
    let mut totals = vec![0; spots.len()];
    let mut add = |plugin: Plugin, points: Vec<i64>| {
        let weight = profile.weight(plugin);
        totals.iter_mut().zip(points).for_each(|(t, p)| *t += weight * p);
    };
    let on = |plugin: Plugin| profile.weight(plugin) > 0;
    if on(Plugin::NodeResourcesFit) || on(Plugin::NodeResourcesBalancedAllocation) {
        let mut own = Used::default();
        own.add(pod);
        let each = |f: &dyn Fn(&Spot<'_>) -> i64| spots.iter().map(f).collect();
        add(Plugin::NodeResourcesFit, each(&|s| fit(&profile.strategy, s.node, &s.used, &own)));
        // Who asks for nothing changes no balance.
        if own.requests.cpu_milli > 0 || own.requests.memory > 0 {
            add(Plugin::NodeResourcesBalancedAllocation, each(&|s| balanced(s.node, &s.used, &own)));
        }
    }
    if on(Plugin::ImageLocality) {
        let held = images.of(pod);
        add(Plugin::ImageLocality, spots.iter().map(|s| held.points(&s.node.meta.name, all_nodes)).collect());
    }
    if on(Plugin::TaintToleration) {
        let raw: Vec<i64> = spots.iter().map(|s| soft_taints(s.node, pod)).collect();
        let most = raw.iter().copied().max().unwrap_or(0);
        let points = |n: i64| if most == 0 { 100 } else { 100 - n * 100 / most };
        add(Plugin::TaintToleration, raw.into_iter().map(points).collect());
    }
    if on(Plugin::NodeAffinity) {
        let raw: Vec<i64> = spots.iter().map(|s| node_affinity(profile, s.node, pod)).collect();
        let most = raw.iter().copied().max().unwrap_or(0);
        add(Plugin::NodeAffinity, raw.into_iter().map(|n| if most == 0 { 0 } else { n * 100 / most }).collect());
    }
    if on(Plugin::InterPodAffinity) && rules.pods.scores() {
        let raw: Vec<i64> = spots.iter().map(|s| rules.pods.liking(s.node)).collect();
        let (low, high) = range(raw.iter().copied());
        let points = |n: i64| if high > low { (n - low) * 100 / (high - low) } else { 0 };
        add(Plugin::InterPodAffinity, raw.into_iter().map(points).collect());
    }
    if on(Plugin::PodTopologySpread) && rules.spread.scores() {
        let nodes: Vec<&Node> = spots.iter().map(|s| s.node).collect();
        let raw = rules.spread.crowds(&nodes);
        let (low, high) = range(raw.iter().filter_map(|c| *c));
        let points = |crowd: Option<i64>| match crowd {
            None => 0,
            Some(_) if high == 0 => 100,
            Some(n) => 100 * (high + low - n) / high,
        };
        add(Plugin::PodTopologySpread, raw.into_iter().map(points).collect());
    }
    totals
}

fn range(values: impl Iterator<Item = i64> + Clone) -> (i64, i64) {
    (values.clone().min().unwrap_or(0), values.max().unwrap_or(0))
}

/// NodeResourcesFit's points, with the pod's own wants added to what is used.
fn fit(strategy: &Strategy, node: &Node, used: &Used, own: &Used) -> i64 {
    let (mut sum, mut weights) = (0, 0);
    for (name, weight) in &strategy.resources {
        let can = node.status.allocatable.get(name);
        if can <= 0 {
            continue;
        }
        let wanted = match &**name {
            "cpu" => used.assumed_cpu_milli + own.assumed_cpu_milli,
            "memory" => used.assumed_memory + own.assumed_memory,
            other => used.requests.get(other) + own.requests.get(other),
        };
        let points = match &strategy.kind {
            StrategyKind::LeastAllocated => (can - wanted).max(0).saturating_mul(100) / can,
            StrategyKind::MostAllocated => wanted.clamp(0, can).saturating_mul(100) / can,
            StrategyKind::RequestedToCapacityRatio(shape) => {
                let utilisation = if wanted > can { 100 } else { wanted.max(0).saturating_mul(100) / can };
                on_line(shape, utilisation)
            }
        };
        if points > 0 || !matches!(strategy.kind, StrategyKind::RequestedToCapacityRatio(_)) {
            sum += points * weight;
            weights += weight;
        }
    }
    match strategy.kind {
        _ if weights == 0 => 0,
        // This one is rounded, the others are cut, as upstream.
        StrategyKind::RequestedToCapacityRatio(_) => (2 * sum + weights) / (2 * weights),
        _ => sum / weights,
    }
}

/// The value at `x` of a line through points, flat beyond its ends.
fn on_line(shape: &[(i64, i64)], x: i64) -> i64 {
    let Some(at) = shape.iter().position(|p| x <= p.0) else { return shape.last().map_or(0, |p| p.1) };
    let (x1, y1) = shape[at];
    match at.checked_sub(1).map(|i| shape[i]) {
        None => y1,
        Some((x0, y0)) => y0 + (y1 - y0) * (x - x0) / (x1 - x0).max(1),
    }
}

/// How even the use of CPU and memory is.
fn balanced(node: &Node, used: &Used, own: &Used) -> i64 {
    let can = &node.status.allocatable;
    let share = |can: i64, used: i64| (can > 0).then(|| (used as f64 / can as f64).clamp(0.0, 1.0));
    let cpu = share(can.cpu_milli, used.requests.cpu_milli + own.requests.cpu_milli);
    let memory = share(can.memory, used.requests.memory + own.requests.memory);
    match (cpu, memory) {
        (Some(a), Some(b)) => ((1.0 - (a - b).abs() / 2.0) * 100.0) as i64,
        _ => 100,
    }
}

fn soft_taints(node: &Node, pod: &Pod) -> i64 {
    let soft = node.spec.taints.iter().filter(|t| &*t.effect == "PreferNoSchedule");
    soft.filter(|t| !pod.spec.tolerations.iter().any(|x| x.tolerates(t))).count() as i64
}

fn node_affinity(profile: &Profile, node: &Node, pod: &Pod) -> i64 {
    let own = pod.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let preferred = own.into_iter().chain(&profile.added_affinity).flat_map(|a| &a.preferred);
    preferred.filter(|p| p.preference.matches(&node.meta.name, &node.meta.labels)).map(|p| p.weight).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        let raw = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}});
        match crate::view::Object::parse("/nodes", raw.to_string().into_bytes().into()) {
            Some(crate::view::Object::Node(n)) => std::sync::Arc::into_inner(n).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn strategies_give_upstreams_points() {
        let mut used = Used { assumed_cpu_milli: 1000, assumed_memory: 4 << 30, ..Used::default() };
        let both = || vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)];
        let strategy = |kind| Strategy { kind, resources: both() };
        assert_eq!(fit(&strategy(StrategyKind::LeastAllocated), &node(), &used, &Used::default()), (75 + 50) / 2);
        assert_eq!(fit(&strategy(StrategyKind::MostAllocated), &node(), &used, &Used::default()), (25 + 50) / 2);
        let line = StrategyKind::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]);
        // 37.5 is rounded here.
        assert_eq!(fit(&strategy(line), &node(), &used, &Used::default()), 38);
        used.requests.cpu_milli = 1000;
        used.requests.memory = 2 << 30;
        assert_eq!(balanced(&node(), &used, &Used::default()), 100);
        used.requests.memory = 6 << 30;
        assert_eq!(balanced(&node(), &used, &Used::default()), 75);
    }

    #[test]
    fn a_line_is_flat_beyond_its_ends() {
        let shape = [(20, 0), (80, 100)];
        let points: Vec<i64> = [0, 20, 50, 80, 100].into_iter().map(|x| on_line(&shape, x)).collect();
        assert_eq!(points, [0, 0, 50, 100, 100]);
    }
}
