//! Pod affinity and anti-affinity.
//!
//! In: the pod to place, and how many matching pods each node holds. Out: topology values that are required, forbidden
//! or preferred. Semantics: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
//! Never: looks at other pods again for every node.

use super::{
    config::Profile,
    counts::{ByNode, Counts, Term, Wanted},
    reason::{Plugin, Reason},
};
use crate::{
    ObjectStore,
    view::{Node, Pod, PodAffinity, PodTerm},
};
use std::collections::{BTreeMap, HashMap};

/// (topology key, value)
type Domains = BTreeMap<(Box<str>, Box<str>), i64>;

/// What the other pods mean for the placement of one pod.
#[derive(Clone, Debug, Default)]
pub struct PodRules {
    /// Required terms: pods count when they match all of them.
    near: Option<Wanted>,
    near_keys: Vec<Box<str>>,
    near_counts: Domains,
    /// The pod matches its own required terms: the first of its kind may go anywhere.
    first_of_kind: bool,
    /// Required anti-affinity, one entry a term.
    away: Vec<(Wanted, Box<str>)>,
    away_counts: Domains,
    /// Values where pods that run there do not want it.
    unwanted: Domains,
    /// Preferences of both sides, for scores.
    liked: BTreeMap<Box<str>, HashMap<Box<str>, i64>>,
}

impl PodRules {
    pub fn gather(view: &ObjectStore, profile: &Profile, pod: &Pod, counts: &mut Counts) -> PodRules {
        let mut rules = PodRules::default();
        rules.of_others(view, profile, pod);
        let Some(affinity) = pod.spec.affinity.as_deref() else { return rules };
        if let Some(a) = &affinity.pod_affinity {
            rules.require(view, pod, a, counts);
            rules.prefer(view, pod, a, 1, counts);
        }
        if let Some(a) = &affinity.pod_anti_affinity {
            for t in &a.required {
                let wanted = Wanted::Terms(vec![term(pod, t)]);
                sum(view, &counts.of(view, wanted.clone()), &t.topology_key, &mut rules.away_counts);
                rules.away.push((wanted, t.topology_key.clone()));
            }
            rules.prefer(view, pod, a, -1, counts);
        }
        rules
    }

    fn require(&mut self, view: &ObjectStore, pod: &Pod, affinity: &PodAffinity, counts: &mut Counts) {
        if affinity.required.is_empty() {
            return;
        }
        let wanted = Wanted::Terms(affinity.required.iter().map(|t| term(pod, t)).collect());
        let by_node = counts.of(view, wanted.clone());
        for t in &affinity.required {
            if !self.near_keys.contains(&t.topology_key) {
                sum(view, &by_node, &t.topology_key, &mut self.near_counts);
                self.near_keys.push(t.topology_key.clone());
            }
        }
        self.first_of_kind = wanted.matches(view, pod);
        self.near = Some(wanted);
    }

    fn prefer(&mut self, view: &ObjectStore, pod: &Pod, a: &PodAffinity, sign: i64, counts: &mut Counts) {
        for p in &a.preferred {
            let wanted = Wanted::Terms(vec![term(pod, &p.pod_affinity_term)]);
            let key = &p.pod_affinity_term.topology_key;
            let mut domains = Domains::new();
            sum(view, &counts.of(view, wanted), key, &mut domains);
            for ((key, value), n) in domains {
                self.like(&key, &value, sign * p.weight * n);
            }
        }
    }

    fn like(&mut self, key: &str, value: &str, points: i64) {
        *self.liked.entry(key.into()).or_default().entry(value.into()).or_insert(0) += points;
    }

    /// What pods that run already wish about this one.
    fn of_others(&mut self, view: &ObjectStore, profile: &Profile, pod: &Pod) {
        for (node, other) in view.pods_with_affinity() {
            let Some(affinity) = other.spec.affinity.as_deref() else { continue };
            let means = |t: &PodTerm| {
                node.meta.labels.contains_key(&t.topology_key)
                    && term(other, t).matches(view, &pod.meta.namespace, &pod.meta.labels)
            };
            let value = |t: &PodTerm| node.meta.labels.get(&t.topology_key).unwrap_or_default().to_owned();
            for t in affinity.pod_anti_affinity.iter().flat_map(|a| &a.required).filter(|t| means(t)) {
                *self.unwanted.entry((t.topology_key.clone(), value(t).into())).or_insert(0) += 1;
            }
            let hard = profile.hard_pod_affinity_weight;
            if hard > 0 {
                for t in affinity.pod_affinity.iter().flat_map(|a| &a.required).filter(|t| means(t)) {
                    self.like(&t.topology_key, &value(t), hard);
                }
            }
            if profile.ignores_preferred_of_others {
                continue;
            }
            for (a, sign) in [(&affinity.pod_affinity, 1), (&affinity.pod_anti_affinity, -1)] {
                for p in a.iter().flat_map(|a| &a.preferred).filter(|p| means(&p.pod_affinity_term)) {
                    self.like(&p.pod_affinity_term.topology_key, &value(&p.pod_affinity_term), sign * p.weight);
                }
            }
        }
    }

    /// Whether placement depends on which pods run where.
    pub fn depends_on_pods(&self) -> bool {
        self.near.is_some() || !self.away.is_empty() || !self.unwanted.is_empty()
    }

    /// As if `other` had come to (1) or gone from (-1) a node.
    pub fn shift(&mut self, view: &ObjectStore, pod: &Pod, other: &Pod, node: &Node, n: i64) {
        let labels = &node.meta.labels;
        if self.near.as_ref().is_some_and(|w| w.matches(view, other)) {
            for key in &self.near_keys {
                if let Some(value) = labels.get(key) {
                    bump(&mut self.near_counts, key, value, n);
                }
            }
        }
        for (wanted, key) in &self.away {
            if let Some(value) = labels.get(key).filter(|_| wanted.matches(view, other)) {
                bump(&mut self.away_counts, key, value, n);
            }
        }
        let theirs = other.spec.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
        for t in theirs.into_iter().flat_map(|a| &a.required) {
            let means = term(other, t).matches(view, &pod.meta.namespace, &pod.meta.labels);
            if let Some(value) = labels.get(&t.topology_key).filter(|_| means) {
                bump(&mut self.unwanted, &t.topology_key, value, n);
            }
        }
    }

    pub fn against(&self, node: &Node) -> Option<Reason> {
        let labels = &node.meta.labels;
        let there = |domains: &Domains| {
            domains.iter().any(|((key, value), n)| *n > 0 && labels.get(key) == Some(value))
        };
        if self.near.is_some() {
            let nowhere = self.near_counts.values().all(|n| *n <= 0);
            let met = |key: &Box<str>| match labels.get(key) {
                None => false,
                Some(_) if nowhere && self.first_of_kind => true,
                Some(value) => self.near_counts.get(&(key.clone(), value.into())).is_some_and(|n| *n > 0),
            };
            if !self.near_keys.iter().all(met) {
                let text = "node(s) didn't match pod affinity rules";
                return Some(Reason::hopeless(Plugin::InterPodAffinity, text));
            }
        }
        let text = if there(&self.away_counts) {
            "node(s) didn't match pod anti-affinity rules"
        } else if there(&self.unwanted) {
            "node(s) didn't satisfy existing pods anti-affinity rules"
        } else {
            return None;
        };
        Some(Reason::crowded(Plugin::InterPodAffinity, text))
    }

    /// Sum of the weights of preferences that a node meets.
    pub fn liking(&self, node: &Node) -> i64 {
        let here = |(key, values): (&Box<str>, &HashMap<Box<str>, i64>)| {
            node.meta.labels.get(key).and_then(|v| values.get(v)).copied().unwrap_or(0)
        };
        self.liked.iter().map(here).sum()
    }
}

fn bump(domains: &mut Domains, key: &str, value: &str, n: i64) {
    *domains.entry((key.into(), value.into())).or_insert(0) += n;
}

fn sum(view: &ObjectStore, by_node: &ByNode, key: &str, domains: &mut Domains) {
    for (node, count) in by_node {
        if let Some(value) = view.node(node).and_then(|n| n.meta.labels.get(key)) {
            *domains.entry((key.into(), value.into())).or_insert(0) += count.all;
        }
    }
}

/// A term of `owner`, with everything that depends on `owner` filled in.
fn term(owner: &Pod, t: &PodTerm) -> Term {
    let mut namespaces = t.namespaces.to_vec();
    if namespaces.is_empty() && t.namespace_selector.is_none() {
        namespaces.push(owner.meta.namespace.clone());
    }
    let own = |k: &Box<str>| owner.meta.labels.get(k).map(Box::<str>::from);
    let same = t.match_label_keys.iter().filter_map(|k| Some((k.clone(), own(k)?, true)));
    let differs = t.mismatch_label_keys.iter().filter_map(|k| Some((k.clone(), own(k)?, false)));
    Term {
        namespaces,
        namespace_selector: t.namespace_selector.clone(),
        labels: t.label_selector.clone(),
        same: same.chain(differs).collect(),
    }
}
