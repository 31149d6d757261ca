//! Topology spread constraints, and the wish to spread pods of one owner.
//!
//! In: the pod to place, nodes, and how many matching pods each holds. Out: which nodes would break a constraint, and
//! how crowded each is. Semantics:
//! https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
//! Never: counts pods that are being deleted.

use super::{
    config::Profile,
    counts::Counts,
    filter::{affinity_matches, untolerated},
    reason::{Plugin, Reason},
    tally::{Count, Values},
    terms::{Term, Wanted},
};
use crate::{
    ObjectStore,
    view::{Node, Pod, SpreadConstraint},
};
use std::{collections::BTreeSet, sync::Arc};

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
    by_node: Arc<Values>,
    /// Matching pods by topology value, over the nodes that take part.
    domains: Arc<Values>,
    /// How many values there are; those without a pod may be missing in `domains`.
    values: usize,
    /// The node of a preemption's trial: its value, and how many more there.
    shift: Option<(Box<str>, i64)>,
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
            let everyone = everybody_takes_part(pod, constraint, list, self.needs_all_keys, counts);
            let (tally, topology) = counts.of(view, &wanted);
            let mut counted = Counted {
                key: constraint.topology_key.clone(),
                max_skew: constraint.max_skew,
                min_domains: constraint.min_domains,
                own: i64::from(wanted.matches(view, pod)),
                by_node: tally.by_node(),
                wanted,
                domains: Arc::default(),
                values: 0,
                shift: None,
                least: 0,
            };
            // Hostname domains of soft constraints are looked up node by node.
            let by_name = soft && *counted.key == *HOSTNAME;
            if !by_name && everyone {
                counted.domains = tally.by_value(&counted.key, topology);
                counted.values = topology.values(&counted.key).0;
            } else if !by_name {
                counted.count(view, pod, constraint, list, self.needs_all_keys);
            }
            if !soft {
                counted.find_least();
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
            // Where a matching pod is, `domains` has the value, if the node takes part.
            if let Some(value) = node.meta.labels.get(&c.key).filter(|v| c.domains.contains_key(*v)) {
                c.shift.get_or_insert_with(|| (value.into(), 0)).1 += n;
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
            let here = c.at(value);
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
                    _ => c.at(value),
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
        let mut domains = Values::new();
        for (node, _) in view.nodes_and_pods().filter(|(n, _)| takes_part(n, pod, constraint, list, needs_all_keys)) {
            let Some(value) = node.meta.labels.get(&self.key) else { continue };
            let here = self.by_node.get(&node.meta.name).copied().unwrap_or_default();
            match domains.get_mut(value) {
                Some(count) => count.staying += here.staying,
                None => _ = domains.insert(value.into(), Count { all: 0, ..here }),
            }
        }
        self.values = domains.len();
        self.domains = Arc::new(domains);
    }

    /// Matching pods with this value.
    fn at(&self, value: &str) -> i64 {
        let shifted = self.shift.as_ref().filter(|s| *s.0 == *value).map_or(0, |s| s.1);
        self.domains.get(value).map_or(0, |c| c.staying) + shifted
    }

    fn find_least(&mut self) {
        let few = self.min_domains.is_some_and(|m| (self.values as i64) < m);
        // A value that is not in `domains` has no pod.
        let empty = self.values > self.domains.len();
        self.least = match few || empty {
            true => 0,
            false => self.domains.keys().map(|value| self.at(value)).min().unwrap_or(0),
        };
    }

    /// Number of domains among the possible nodes.
    fn width(&self, nodes: &[&Node]) -> usize {
        if *self.key == *HOSTNAME {
            return nodes.len();
        }
        nodes.iter().filter_map(|n| n.meta.labels.get(&self.key)).collect::<BTreeSet<_>>().len()
    }
}

/// Whether no node is left out, so that the numbers that are kept can be used as they are.
fn everybody_takes_part(
    pod: &Pod,
    constraint: &SpreadConstraint,
    list: &[SpreadConstraint],
    needs_all_keys: bool,
    counts: &mut Counts,
) -> bool {
    let own = pod.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let anywhere = pod.spec.node_selector.is_empty() && own.is_none_or(|a| a.required.is_none());
    let affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    let soft = |c: &SpreadConstraint| &*c.when_unsatisfiable == "ScheduleAnyway";
    let mut keys = list.iter().filter(|c| soft(c) == soft(constraint));
    (anywhere || !affinity) && !taints && (!needs_all_keys || keys.all(|c| counts.topology.values(&c.topology_key).1))
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
    let own = |k: &str| pod.meta.labels.get(k).map(Box::<str>::from);
    let same = constraint.match_label_keys.iter().filter_map(|k| Some((k.clone(), own(k)?, true)));
    Wanted::Terms(vec![Term {
        namespaces: vec![pod.meta.namespace.clone()],
        namespace_selector: None,
        labels: constraint.label_selector.clone(),
        same: same.collect(),
    }])
}
