//! Pod affinity and anti-affinity.
//!
//! In: the pod to place and all other pods, looked at once. Out: topology values that are required, forbidden or
//! preferred. Never: looks at other pods again for every node.

use super::filter::Reason;
use crate::{
    ObjectStore,
    view::{Namespace, Node, Pod, PodAffinity, PodTerm},
};
use std::collections::{BTreeMap, BTreeSet};

type Near = (Box<str>, Option<BTreeSet<Box<str>>>);
type Domain = (Box<str>, Box<str>);

/// What the other pods mean for the placement of one pod.
#[derive(Debug, Default)]
pub struct PodRules {
    /// A required affinity term: its topology key and the values where it holds. `None`: holds nowhere yet and the pod
    /// is the first of its kind, so every value will do.
    near: Vec<Near>,
    /// Values that the pod itself must not share.
    away: BTreeSet<Domain>,
    /// Values where pods that run there do not want it.
    unwanted: BTreeSet<Domain>,
    /// Preferences, for scores.
    liked: BTreeMap<Domain, i64>,
}

impl PodRules {
    pub fn gather(view: &ObjectStore, pod: &Pod) -> PodRules {
        let mut rules = PodRules::default();
        let affinity = pod.spec.affinity.as_deref();
        rules.unwanted(view, pod);
        let Some(affinity) = affinity else { return rules };
        if let Some(a) = &affinity.pod_affinity {
            rules.near = a.required.iter().map(|t| required(view, pod, t)).collect();
            rules.prefer(view, pod, a, 1);
        }
        if let Some(a) = &affinity.pod_anti_affinity {
            for term in &a.required {
                let values = values_where(view, pod, term);
                rules.away.extend(values.into_iter().map(|v| (term.topology_key.clone(), v)));
            }
            rules.prefer(view, pod, a, -1);
        }
        rules
    }

    fn unwanted(&mut self, view: &ObjectStore, pod: &Pod) {
        for (node, other) in view.pods_with_anti_affinity() {
            let (Some(n), Some(affinity)) = (view.node(node), &other.spec.affinity) else { continue };
            let terms = affinity.pod_anti_affinity.iter().flat_map(|a| &a.required);
            for term in terms.filter(|t| matches(view, other, t, pod)) {
                if let Some(value) = n.meta.labels.get(&term.topology_key) {
                    self.unwanted.insert((term.topology_key.clone(), value.into()));
                }
            }
        }
    }

    fn prefer(&mut self, view: &ObjectStore, pod: &Pod, affinity: &PodAffinity, sign: i64) {
        for p in &affinity.preferred {
            for value in values_where(view, pod, &p.pod_affinity_term) {
                let domain = (p.pod_affinity_term.topology_key.clone(), value);
                *self.liked.entry(domain).or_insert(0) += sign * p.weight;
            }
        }
    }

    pub fn against(&self, node: &Node) -> Option<Reason> {
        let labels = &node.meta.labels;
        let here = |d: &Domain| labels.get(&d.0) == Some(&*d.1);
        let met = |(key, values): &Near| match (labels.get(key), values) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(v), Some(values)) => values.contains(v),
        };
        let (text, preemptible) = if !self.near.iter().all(met) {
            ("node(s) didn't match pod affinity rules", false)
        } else if self.away.iter().any(here) {
            ("node(s) didn't match pod anti-affinity rules", true)
        } else if self.unwanted.iter().any(here) {
            ("node(s) didn't satisfy existing pods anti-affinity rules", true)
        } else {
            return None;
        };
        Some(Reason { text: text.into(), preemptible })
    }

    /// Sum of the weights of preferences that a node meets.
    pub fn liking(&self, node: &Node) -> i64 {
        let here = |d: &Domain| node.meta.labels.get(&d.0) == Some(&*d.1);
        self.liked.iter().filter(|(d, _)| here(d)).map(|(_, w)| w).sum()
    }
}

fn required(view: &ObjectStore, pod: &Pod, term: &PodTerm) -> Near {
    let values = values_where(view, pod, term);
    let first = values.is_empty() && matches(view, pod, term, pod);
    (term.topology_key.clone(), (!first).then_some(values))
}

/// Values of the term's topology key on nodes where a pod matches it.
fn values_where(view: &ObjectStore, pod: &Pod, term: &PodTerm) -> BTreeSet<Box<str>> {
    let mut values = BTreeSet::new();
    for node in view.nodes_with_pods() {
        let Some(n) = view.node(node) else { continue };
        let Some(value) = n.meta.labels.get(&term.topology_key) else { continue };
        if view.pods_on(node).filter(|p| !p.is_finished()).any(|p| matches(view, pod, term, p)) {
            values.insert(value.into());
        }
    }
    values
}

/// Whether a term of `owner` means `other`.
fn matches(view: &ObjectStore, owner: &Pod, term: &PodTerm, other: &Pod) -> bool {
    let same = |k: &str| other.meta.labels.get(k) == owner.meta.labels.get(k);
    let given = |k: &str| owner.meta.labels.contains_key(k);
    in_namespaces(view, owner, term, &other.meta.namespace)
        && term.label_selector.as_ref().is_some_and(|s| s.matches(&other.meta.labels))
        && term.match_label_keys.iter().filter(|k| given(k)).all(|k| same(k))
        && !term.mismatch_label_keys.iter().filter(|k| given(k)).any(|k| same(k))
}

fn in_namespaces(view: &ObjectStore, owner: &Pod, term: &PodTerm, namespace: &str) -> bool {
    if term.namespaces.is_empty() && term.namespace_selector.is_none() {
        return *owner.meta.namespace == *namespace;
    }
    let labels = view.get::<Namespace>("", namespace).map(|n| &n.meta.labels);
    term.namespaces.iter().any(|n| **n == *namespace)
        || term.namespace_selector.as_ref().is_some_and(|s| labels.is_some_and(|l| s.matches(l)))
}
