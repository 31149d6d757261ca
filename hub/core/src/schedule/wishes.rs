//! What the pods that run wish about pods near them.
//!
//! In: pods with affinity as they come to nodes and go. Out: the wishes that are about one pod, each with its numbers.
//! The same wish of many pods is kept once. Never: walks the pods for a decision.

use super::{
    tally::{Count, Tally, Values},
    terms::Term,
    topology::Topology,
};
use crate::{
    ObjectStore,
    view::{Labels, Pod, PodTerm},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
};

/// How strong a wish is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// Required anti-affinity: keeps the others out.
    Forbids,
    /// Required affinity: they would be welcome.
    Requires,
    /// A preference; negative for anti-affinity.
    Prefers(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    strength: Strength,
    key: Box<str>,
    about: Term,
}

#[derive(Clone, Debug, Default)]
pub struct Wishes {
    all: BTreeMap<Wish, Tally>,
}

impl Wishes {
    /// A pod came to a node (1) or went (-1).
    pub fn add(&mut self, topology: &Topology, pod: &Pod, node: &str, n: i64) {
        let labels = topology.node(node).map(|n| &n.meta.labels);
        for (strength, term) in wishes_of(pod) {
            let wish = Wish { strength, key: term.topology_key.clone(), about: Term::of(pod, term) };
            let count = Count { all: n, staying: n };
            match self.all.get_mut(&wish) {
                Some(tally) => {
                    tally.add(node, labels, count);
                    if tally.is_empty() {
                        self.all.remove(&wish);
                    }
                }
                None => {
                    let mut tally = Tally::default();
                    tally.by_value(&wish.key, topology);
                    tally.add(node, labels, count);
                    self.all.insert(wish, tally);
                }
            }
        }
    }

    pub fn relabel(&mut self, node: &str, old: Option<&Labels>, new: Option<&Labels>) {
        self.all.values_mut().for_each(|t| t.relabel(node, old, new));
    }

    /// The wishes that are about this pod: (how strong, topology key, where those who have it are).
    pub fn about<'a>(
        &'a mut self,
        view: &'a ObjectStore,
        topology: &'a Topology,
        pod: &'a Pod,
    ) -> impl Iterator<Item = (Strength, &'a str, Arc<Values>)> {
        let (namespace, labels) = (&pod.meta.namespace, &pod.meta.labels);
        let meant = self.all.iter_mut().filter(move |(w, _)| w.about.matches(view, namespace, labels));
        meant.map(|(wish, tally)| (wish.strength, &*wish.key, tally.by_value(&wish.key, topology)))
    }
}

fn wishes_of(pod: &Pod) -> impl Iterator<Item = (Strength, &PodTerm)> {
    let affinity = pod.spec.affinity.as_deref();
    let near = affinity.and_then(|a| a.pod_affinity.as_ref());
    let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    let forbids = apart.into_iter().flat_map(|a| &a.required).map(|t| (Strength::Forbids, t));
    let requires = near.into_iter().flat_map(|a| &a.required).map(|t| (Strength::Requires, t));
    let likes = |sign: i64| move |a| preferred(a, sign);
    forbids.chain(requires).chain(near.into_iter().flat_map(likes(1))).chain(apart.into_iter().flat_map(likes(-1)))
}

fn preferred(affinity: &crate::view::PodAffinity, sign: i64) -> impl Iterator<Item = (Strength, &PodTerm)> {
    affinity.preferred.iter().map(move |p| (Strength::Prefers(sign * p.weight), &p.pod_affinity_term))
}
