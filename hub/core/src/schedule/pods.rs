//! Pod affinity and anti-affinity.
//!
//! In: the pod to place, and how many matching pods each node holds. Out: topology values that are required, forbidden
//! or preferred. Semantics: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
//! Never: looks at other pods again for every node.

use super::{
    config::Profile,
    counts::Counts,
    reason::{Plugin, Reason},
    tally::{Domains, Values},
    terms::{Term, Wanted},
    wishes::Strength,
};
use crate::{
    ObjectStore,
    view::{Node, Pod, PodAffinity},
};
use std::sync::Arc;

/// What the other pods mean for the placement of one pod.
#[derive(Clone, Debug, Default)]
pub struct PodRules {
    /// Required terms: pods count when they match all of them.
    near: Option<Wanted>,
    near_counts: Vec<Domains>,
    /// The pod matches its own required terms: the first of its kind may go anywhere.
    first_of_kind: bool,
    /// Required anti-affinity, one entry a term.
    away: Vec<(Wanted, Box<str>)>,
    /// By topology key.
    away_counts: Vec<Domains>,
    /// Values where pods that run there do not want it, by topology key.
    unwanted: Vec<Domains>,
    /// Preferences of both sides, for scores.
    liked: Vec<Liked>,
}

/// So many points for each pod with a node's value.
#[derive(Clone, Debug)]
struct Liked {
    key: Box<str>,
    values: Arc<Values>,
    points: i64,
}

impl PodRules {
    pub fn gather(view: &ObjectStore, profile: &Profile, pod: &Pod, counts: &mut Counts) -> PodRules {
        let mut rules = PodRules::default();
        rules.of_others(view, profile, pod, counts);
        let Some(affinity) = pod.spec.affinity.as_deref() else { return rules };
        if let Some(a) = &affinity.pod_affinity {
            rules.require(view, pod, a, counts);
            rules.prefer(view, pod, a, 1, counts);
        }
        if let Some(a) = &affinity.pod_anti_affinity {
            for t in &a.required {
                let wanted = Wanted::Terms(vec![Term::of(pod, t)]);
                include(&mut rules.away_counts, &t.topology_key, values(view, counts, &wanted, &t.topology_key));
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
        let wanted = Wanted::Terms(affinity.required.iter().map(|t| Term::of(pod, t)).collect());
        for t in &affinity.required {
            if !self.near_counts.iter().any(|d| d.key == t.topology_key) {
                include(&mut self.near_counts, &t.topology_key, values(view, counts, &wanted, &t.topology_key));
            }
        }
        self.first_of_kind = wanted.matches(view, pod);
        self.near = Some(wanted);
    }

    fn prefer(&mut self, view: &ObjectStore, pod: &Pod, a: &PodAffinity, sign: i64, counts: &mut Counts) {
        for p in &a.preferred {
            let wanted = Wanted::Terms(vec![Term::of(pod, &p.pod_affinity_term)]);
            let key = &p.pod_affinity_term.topology_key;
            self.like(key, values(view, counts, &wanted, key), sign * p.weight);
        }
    }

    fn like(&mut self, key: &str, values: Arc<Values>, points: i64) {
        if points != 0 && !values.is_empty() {
            self.liked.push(Liked { key: key.into(), values, points });
        }
    }

    /// What pods that run already wish about this one.
    fn of_others(&mut self, view: &ObjectStore, profile: &Profile, pod: &Pod, counts: &mut Counts) {
        for (strength, key, values) in counts.wishes.about(view, &counts.topology, pod) {
            match strength {
                Strength::Forbids => include(&mut self.unwanted, key, values),
                Strength::Requires => self.like(key, values, profile.hard_pod_affinity_weight),
                Strength::Prefers(_) if profile.ignores_preferred_of_others => {}
                Strength::Prefers(weight) => self.like(key, values, weight),
            }
        }
    }

    /// Whether placement depends on which pods run where.
    pub fn depends_on_pods(&self) -> bool {
        self.near.is_some() || !self.away.is_empty() || !self.unwanted.is_empty()
    }

    /// As if `other` had come to (1) or gone from (-1) a node, the only one that this is said of.
    pub fn shift(&mut self, view: &ObjectStore, pod: &Pod, other: &Pod, node: &Node, n: i64) {
        if self.near.as_ref().is_some_and(|w| w.matches(view, other)) {
            self.near_counts.iter_mut().for_each(|d| d.shift(node, n));
        }
        for (wanted, key) in &self.away {
            if wanted.matches(view, other) {
                self.away_counts.iter_mut().filter(|d| d.key == *key).for_each(|d| d.shift(node, n));
            }
        }
        let theirs = other.spec.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
        for t in theirs.into_iter().flat_map(|a| &a.required) {
            if Term::of(other, t).matches(view, &pod.meta.namespace, &pod.meta.labels) {
                self.unwanted.iter_mut().filter(|d| d.key == t.topology_key).for_each(|d| d.shift(node, n));
            }
        }
    }

    pub fn against(&self, node: &Node) -> Option<Reason> {
        let there = |domains: &[Domains]| domains.iter().any(|d| d.near(node) > 0);
        if self.near.is_some() {
            let has_key = |d: &Domains| node.meta.labels.contains_key(&d.key);
            let first = || self.first_of_kind && self.near_counts.iter().all(|d| d.total() <= 0);
            let met = self.near_counts.iter().all(|d| d.near(node) > 0)
                || (self.near_counts.iter().all(has_key) && first());
            if !met {
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
        let here = |l: &Liked| {
            let count = node.meta.labels.get(&l.key).and_then(|value| l.values.get(value));
            count.map_or(0, |c| l.points * c.all)
        };
        self.liked.iter().map(here).sum()
    }

    pub fn scores(&self) -> bool {
        !self.liked.is_empty()
    }
}

fn values(view: &ObjectStore, counts: &mut Counts, wanted: &Wanted, key: &str) -> Arc<Values> {
    let (tally, topology) = counts.of(view, wanted);
    tally.by_value(key, topology)
}

fn include(list: &mut Vec<Domains>, key: &str, values: Arc<Values>) {
    if let Some(domains) = list.iter_mut().find(|d| *d.key == *key) {
        return domains.include(values);
    }
    let mut domains = Domains::new(key);
    domains.include(values);
    list.push(domains);
}
