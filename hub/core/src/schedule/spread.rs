//! Topology spread constraints, and the wish to spread pods of one owner.
//!
//! In: the pod to place, nodes, and how many matching pods each holds. Out: which nodes would break a constraint, and
//! how crowded each is. Semantics:
//! https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
//! Never: counts pods that are being deleted.

use super::{
    config::Profile,
    counts::{ByNode, Counts, Term, Wanted},
    filter::{affinity_matches, untolerated},
    reason::{Plugin, Reason},
};
use crate::{
    ObjectStore,
    view::{Node, Pod, SpreadConstraint},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The counts behind one pod's constraints.
#[derive(Clone, Debug, Default)]
pub struct SpreadRules {
    hard: Vec<Counted>,
    soft: Vec<Counted>,
    /// Nodes without a key of the soft constraints get no points for spreading.
    needs_all_keys: bool,
}

#[derive(Clone, Debug)]
struct Counted {
    key: Box<str>,
    max_skew: i64,
    min_domains: Option<i64>,
    wanted: Wanted,
    own: i64,
    by_node: Arc<ByNode>,
    /// Matching pods by topology value, over the nodes that take part.
    domains: BTreeMap<Box<str>, i64>,
    least: i64,
}

impl SpreadRules {
    pub fn gather(view: &ObjectStore, profile: &Profile, pod: &Pod, counts: &mut Counts) -> SpreadRules {
        let mut rules = SpreadRules { needs_all_keys: true, ..SpreadRules::default() };
        if !pod.spec.spread.is_empty() {
            rules.add(view, pod, &pod.spec.spread, counts, |c| wanted(pod, c));
            return rules;
        }
        let kinds = ["ReplicaSet", "ReplicationController", "StatefulSet"];
        let Some(owner) = pod.meta.controller().filter(|o| kinds.contains(&&*o.kind)) else { return rules };
        let of_owner = Wanted::Owner(owner.uid.clone());
        match &profile.default_spread {
            Some(list) => rules.add(view, pod, list, counts, |_| of_owner.clone()),
            None => {
                rules.needs_all_keys = false;
                let one = |key: &str, max_skew| SpreadConstraint {
                    topology_key: key.into(),
                    max_skew,
                    when_unsatisfiable: "ScheduleAnyway".into(),
                    ..SpreadConstraint::default()
                };
                let usual = [one(HOSTNAME, 3), one(ZONE, 5)];
                rules.add(view, pod, &usual, counts, |_| of_owner.clone());
            }
        }
        rules
    }

    fn add(
        &mut self,
        view: &ObjectStore,
        pod: &Pod,
        list: &[SpreadConstraint],
        counts: &mut Counts,
        of: impl Fn(&SpreadConstraint) -> Wanted,
    ) {
        for constraint in list {
            let soft = &*constraint.when_unsatisfiable == "ScheduleAnyway";
            let wanted = of(constraint);
            let mut counted = Counted {
                key: constraint.topology_key.clone(),
                max_skew: constraint.max_skew,
                min_domains: constraint.min_domains,
                own: i64::from(wanted.matches(view, pod)),
                by_node: counts.of(view, wanted.clone()),
                wanted,
                domains: BTreeMap::new(),
                least: 0,
            };
            // Hostname domains of soft constraints are looked up node by node.
            if !soft || *counted.key != *HOSTNAME {
                counted.count(view, pod, constraint, list, self.needs_all_keys);
            }
            if soft { self.soft.push(counted) } else { self.hard.push(counted) }
        }
    }

    pub fn depends_on_pods(&self) -> bool {
        !self.hard.is_empty()
    }

    /// As if `other` had come to (1) or gone from (-1) a node.
    pub fn shift(&mut self, view: &ObjectStore, other: &Pod, node: &Node, n: i64) {
        for c in &mut self.hard {
            if other.meta.deleting.is_some() || !c.wanted.matches(view, other) {
                continue;
            }
            if let Some(count) = node.meta.labels.get(&c.key).and_then(|v| c.domains.get_mut(v)) {
                *count += n;
                c.find_least();
            }
        }
    }

    pub fn against(&self, node: &Node) -> Option<Reason> {
        for c in &self.hard {
            let Some(value) = node.meta.labels.get(&c.key) else {
                let text = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Some(Reason::hopeless(Plugin::PodTopologySpread, text));
            };
            let here = c.domains.get(value).copied().unwrap_or(0);
            if here + c.own - c.least > c.max_skew {
                let text = "node(s) didn't match pod topology spread constraints";
                return Some(Reason::crowded(Plugin::PodTopologySpread, text));
            }
        }
        None
    }

    pub fn scores(&self) -> bool {
        !self.soft.is_empty()
    }

    /// How crowded each of the possible nodes is; `None`: it has not the labels to tell.
    pub fn crowds(&self, nodes: &[&Node]) -> Vec<Option<i64>> {
        let weights: Vec<f64> = self.soft.iter().map(|c| (c.width(nodes) as f64 + 2.0).ln()).collect();
        let crowd = |node: &&Node| {
            let mut sum = 0.0;
            for (c, weight) in self.soft.iter().zip(&weights) {
                let Some(value) = node.meta.labels.get(&c.key) else {
                    if self.needs_all_keys {
                        return None;
                    }
                    continue;
                };
                let here = match &*c.key {
                    HOSTNAME => c.by_node.get(&node.meta.name).map_or(0, |n| n.staying),
                    _ => c.domains.get(value).copied().unwrap_or(0),
                };
                sum += here as f64 * weight + (c.max_skew - 1) as f64;
            }
            Some(sum.round() as i64)
        };
        nodes.iter().map(crowd).collect()
    }
}

impl Counted {
    fn count(
        &mut self,
        view: &ObjectStore,
        pod: &Pod,
        constraint: &SpreadConstraint,
        list: &[SpreadConstraint],
        needs_all_keys: bool,
    ) {
        for (node, _) in view.nodes_and_pods().filter(|(n, _)| takes_part(n, pod, constraint, list, needs_all_keys)) {
            let Some(value) = node.meta.labels.get(&self.key) else { continue };
            let here = self.by_node.get(&node.meta.name).map_or(0, |c| c.staying);
            match self.domains.get_mut(value) {
                Some(count) => *count += here,
                None => _ = self.domains.insert(value.into(), here),
            }
        }
        self.find_least();
    }

    fn find_least(&mut self) {
        let few = self.min_domains.is_some_and(|m| (self.domains.len() as i64) < m);
        self.least = if few { 0 } else { self.domains.values().min().copied().unwrap_or(0) };
    }

    /// Number of domains among the possible nodes.
    fn width(&self, nodes: &[&Node]) -> usize {
        if *self.key == *HOSTNAME {
            return nodes.len();
        }
        nodes.iter().filter_map(|n| n.meta.labels.get(&self.key)).collect::<BTreeSet<_>>().len()
    }
}

fn takes_part(
    node: &Node,
    pod: &Pod,
    constraint: &SpreadConstraint,
    list: &[SpreadConstraint],
    needs_all_keys: bool,
) -> bool {
    let affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    let soft = |c: &SpreadConstraint| &*c.when_unsatisfiable == "ScheduleAnyway";
    let mut keys = list.iter().filter(|c| soft(c) == soft(constraint));
    (!needs_all_keys || keys.all(|c| node.meta.labels.contains_key(&c.topology_key)))
        && (!affinity || affinity_matches(node, pod))
        && (!taints || untolerated(node, pod, &["NoSchedule", "NoExecute"]).is_none())
}

fn wanted(pod: &Pod, constraint: &SpreadConstraint) -> Wanted {
    let own = |k: &Box<str>| pod.meta.labels.get(k).map(Box::<str>::from);
    let same = constraint.match_label_keys.iter().filter_map(|k| Some((k.clone(), own(k)?, true)));
    Wanted::Terms(vec![Term {
        namespaces: vec![pod.meta.namespace.clone()],
        namespace_selector: None,
        labels: constraint.label_selector.clone(),
        same: same.collect(),
    }])
}
