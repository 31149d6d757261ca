//! How many pods that match something each node holds, kept up to date from event to event.
//!
//! In: what to count, every change of a pod. Out: counts by node. Never: counts finished pods, or grows beyond
//! `KEPT_MAX` questions; the one that was asked longest ago is forgotten.

use crate::{
    Changed, ObjectStore,
    view::{Kind, Labels, Namespace, Pod, Selector},
};
use std::{collections::BTreeMap, sync::Arc};

const KEPT_MAX: usize = 64;

/// Pods that one question is about: those that match all of `terms`, or that `owner` controls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Terms(Vec<Term>),
    Owner(Box<str>),
}

/// Pods of some namespaces with some labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub namespaces: Vec<Box<str>>,
    pub namespace_selector: Option<Selector>,
    /// `None` matches nothing.
    pub labels: Option<Selector>,
    /// Labels whose value must (true) or must not (false) be this.
    pub same: Vec<(Box<str>, Box<str>, bool)>,
}

impl Term {
    pub fn matches(&self, view: &ObjectStore, namespace: &str, labels: &Labels) -> bool {
        let in_namespace = self.namespaces.iter().any(|n| **n == *namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| {
                s.is_empty() || view.get::<Namespace>("", namespace).is_some_and(|n| s.matches(&n.meta.labels))
            });
        in_namespace
            && self.labels.as_ref().is_some_and(|s| s.matches(labels))
            && self.same.iter().all(|(key, value, equal)| (labels.get(key) == Some(&**value)) == *equal)
    }
}

impl Wanted {
    pub fn matches(&self, view: &ObjectStore, pod: &Pod) -> bool {
        match self {
            Wanted::Owner(uid) => pod.meta.controlled_by(uid),
            Wanted::Terms(terms) => terms.iter().all(|t| t.matches(view, &pod.meta.namespace, &pod.meta.labels)),
        }
    }
}

/// Matching pods of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub all: i64,
    /// Those that are not being deleted.
    pub staying: i64,
}

pub type ByNode = BTreeMap<Box<str>, Count>;

#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The newest question last.
    kept: Vec<(Wanted, Arc<ByNode>)>,
}

impl Counts {
    pub fn of(&mut self, view: &ObjectStore, wanted: Wanted) -> Arc<ByNode> {
        if let Some(at) = self.kept.iter().rposition(|k| k.0 == wanted) {
            let found = self.kept.remove(at);
            let counts = Arc::clone(&found.1);
            self.kept.push(found);
            return counts;
        }
        let mut counts = ByNode::new();
        match &wanted {
            Wanted::Owner(uid) => view.controlled_by::<Pod>(uid).for_each(|p| add(&mut counts, p, 1)),
            Wanted::Terms(_) => {
                for (_, pods) in view.nodes_and_pods() {
                    let matching = pods.pods.values().filter(|p| wanted.matches(view, p));
                    matching.for_each(|p| add(&mut counts, p, 1));
                }
            }
        }
        if self.kept.len() >= KEPT_MAX {
            self.kept.remove(0);
        }
        let counts = Arc::new(counts);
        self.kept.push((wanted, Arc::clone(&counts)));
        counts
    }

    pub fn observe(&mut self, view: &ObjectStore, changed: &Changed) {
        if changed.is::<Namespace>() {
            let labels = |o: &Option<crate::view::Object>| o.as_ref().map(|o| o.meta().labels.clone());
            if labels(&changed.old) != labels(&changed.new) {
                self.clear();
            }
        }
        if &*changed.key.resource != Pod::RESOURCE {
            return;
        }
        for (wanted, counts) in &mut self.kept {
            for (pod, n) in [(changed.old_as::<Pod>(), -1), (changed.new_as::<Pod>(), 1)] {
                if let Some(pod) = pod.filter(|p| counts_somewhere(p) && wanted.matches(view, p)) {
                    add(Arc::make_mut(counts), pod, n);
                }
            }
        }
    }

    pub fn clear(&mut self) {
        self.kept.clear();
    }
}

fn counts_somewhere(pod: &Pod) -> bool {
    pod.node.is_some() && !pod.is_finished()
}

fn add(counts: &mut ByNode, pod: &Pod, n: i64) {
    let Some(node) = pod.node.as_ref().filter(|_| counts_somewhere(pod)) else { return };
    let count = counts.entry(node.clone()).or_default();
    count.all += n;
    count.staying += if pod.meta.deleting.is_none() { n } else { 0 };
    if count.all == 0 {
        counts.remove(node);
    }
}
