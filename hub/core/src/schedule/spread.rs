//! Topology spread constraints, and the wish to spread pods of one owner.
//!
//! In: the pod to place, nodes and pods. Out: which nodes would break a constraint, and how crowded each is.
//! Semantics: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
//! Never: counts pods that are being deleted.

use super::filter::{Reason, affinity_matches, untolerated};
use crate::{
    ObjectStore,
    view::{Labels, Node, Pod, SpreadConstraint},
};
use std::collections::BTreeMap;

/// The counts behind one pod's constraints.
#[derive(Debug, Default)]
pub struct SpreadRules<'a> {
    hard: Vec<Counted<'a>>,
    soft: Vec<Counted<'a>>,
    /// Pods with the same controller, by node.
    siblings: BTreeMap<&'a str, i64>,
}

#[derive(Debug)]
struct Counted<'a> {
    constraint: &'a SpreadConstraint,
    /// Matching pods by topology value, over the nodes that take part.
    domains: BTreeMap<&'a str, i64>,
    least: i64,
    own: i64,
}

impl<'a> SpreadRules<'a> {
    pub fn gather(view: &'a ObjectStore, pod: &'a Pod) -> SpreadRules<'a> {
        let mut rules = SpreadRules::default();
        for constraint in &pod.spec.spread {
            let counted = count(view, pod, constraint);
            match &*constraint.when_unsatisfiable {
                "ScheduleAnyway" => rules.soft.push(counted),
                _ => rules.hard.push(counted),
            }
        }
        if let Some(owner) = pod.meta.controller() {
            for sibling in view.controlled_by::<Pod>(&owner.uid).filter(|p| p.is_active()) {
                if let Some(node) = &sibling.node {
                    *rules.siblings.entry(node).or_insert(0) += 1;
                }
            }
        }
        rules
    }

    pub fn against(&self, node: &Node) -> Option<Reason> {
        for c in &self.hard {
            let Some(value) = node.meta.labels.get(&c.constraint.topology_key) else {
                let text = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Some(Reason { text: text.into(), preemptible: false });
            };
            let here = c.domains.get(value).copied().unwrap_or(0);
            if here + c.own - c.least > c.constraint.max_skew {
                let text = "node(s) didn't match pod topology spread constraints";
                return Some(Reason { text: text.into(), preemptible: true });
            }
        }
        None
    }

    /// Pods that this one should keep away from, on a node or in its domains.
    pub fn crowd(&self, node: &Node) -> i64 {
        let soft = self.soft.iter().map(|c| {
            let value = node.meta.labels.get(&c.constraint.topology_key);
            value.and_then(|v| c.domains.get(v)).copied().unwrap_or(0)
        });
        soft.sum::<i64>() + self.siblings.get(&*node.meta.name).copied().unwrap_or(0)
    }
}

fn count<'a>(view: &'a ObjectStore, pod: &'a Pod, constraint: &'a SpreadConstraint) -> Counted<'a> {
    let mut domains: BTreeMap<&str, i64> = BTreeMap::new();
    for node in view.all::<Node>().filter(|n| takes_part(n, pod, constraint)) {
        let Some(value) = node.meta.labels.get(&constraint.topology_key) else { continue };
        let pods =
            view.pods_on(&node.meta.name).filter(|p| p.is_active() && p.meta.namespace == pod.meta.namespace);
        *domains.entry(value).or_insert(0) +=
            pods.filter(|p| matches(constraint, pod, &p.meta.labels)).count() as i64;
    }
    let few = constraint.min_domains.is_some_and(|m| (domains.len() as i64) < m);
    let least = if few { 0 } else { domains.values().min().copied().unwrap_or(0) };
    Counted { constraint, domains, least, own: i64::from(matches(constraint, pod, &pod.meta.labels)) }
}

fn takes_part(node: &Node, pod: &Pod, constraint: &SpreadConstraint) -> bool {
    let affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    let keys = || pod.spec.spread.iter().filter(|c| c.when_unsatisfiable == constraint.when_unsatisfiable);
    keys().all(|c| node.meta.labels.contains_key(&c.topology_key))
        && (!affinity || affinity_matches(node, pod))
        && (!taints || untolerated(node, pod, &["NoSchedule", "NoExecute"]).is_none())
}

fn matches(constraint: &SpreadConstraint, pod: &Pod, labels: &Labels) -> bool {
    let given = |k: &str| pod.meta.labels.contains_key(k);
    constraint.label_selector.as_ref().is_some_and(|s| s.matches(labels))
        && constraint
            .match_label_keys
            .iter()
            .filter(|k| given(k))
            .all(|k| labels.get(k) == pod.meta.labels.get(k))
}
