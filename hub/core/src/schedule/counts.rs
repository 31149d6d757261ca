//! What the scheduler keeps count of, from event to event: nodes, bound pods, answers to questions about them.
//!
//! In: what to count, every change of a pod or node. Out: numbers by node and by topology value. Each change replaces what
//! is known of its object, so that one that was seen already does no harm. Never: counts finished pods, or
//! grows beyond `KEPT_MAX` questions; the one that was asked longest ago is forgotten.

use super::{
    devices::InFlight,
    tally::{Count, Tally},
    terms::Wanted,
    topology::Topology,
    wishes::Wishes,
};
use crate::{
    Changed, Key, ObjectStore,
    view::{Kind, Namespace, Node, Pod},
};
use std::{collections::BTreeMap, sync::Arc};

const KEPT_MAX: usize = 64;

#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Everything was taken in once; before, changes are not followed.
    filled: bool,
    pub topology: Topology,
    pub wishes: Wishes,
    pub devices: InFlight,
    /// Bound, unfinished pods as they are counted.
    placed: BTreeMap<Key, Arc<Pod>>,
    /// The newest question last.
    kept: Vec<(Wanted, Tally)>,
}

impl Counts {
    /// Takes in the whole view, unless it did so before.
    pub fn fill(&mut self, view: &ObjectStore) {
        if self.filled {
            return;
        }
        for (node, _) in view.nodes_and_pods() {
            self.topology.set(&node.meta.name, Some(node));
        }
        for pod in view.all::<Pod>() {
            let key = Key::new(Pod::RESOURCE, &pod.meta.namespace, &pod.meta.name);
            self.set_pod(view, &key, Some(pod));
        }
        self.filled = true;
    }

    pub fn observe(&mut self, view: &ObjectStore, changed: &Changed) {
        self.devices.observe(changed);
        if !self.filled {
            return;
        }
        match &*changed.key.resource {
            Namespace::RESOURCE => {
                let labels = |o: &Option<crate::view::Object>| o.as_ref().map(|o| o.meta().labels.clone());
                if labels(&changed.old) != labels(&changed.new) {
                    self.kept.clear();
                }
            }
            Node::RESOURCE => self.set_node(&changed.key.name, changed.new_as::<Node>()),
            Pod::RESOURCE => self.set_pod(view, &changed.key, changed.new_as::<Pod>()),
            _ => {}
        }
    }

    fn set_node(&mut self, name: &str, node: Option<&Arc<Node>>) {
        let old = self.topology.set(name, node);
        let (old, new) = (old.as_ref().map(|n| &n.meta.labels), node.map(|n| &n.meta.labels));
        if old != new {
            self.kept.iter_mut().for_each(|(_, tally)| tally.relabel(name, old, new));
            self.wishes.relabel(name, old, new);
        }
    }

    fn set_pod(&mut self, view: &ObjectStore, key: &Key, pod: Option<&Arc<Pod>>) {
        let new = pod.filter(|p| p.node.is_some() && !p.is_finished());
        let old = match new {
            Some(pod) => self.placed.insert(key.clone(), Arc::clone(pod)),
            None => self.placed.remove(key),
        };
        for (pod, n) in [(old.as_ref(), -1), (new, 1)] {
            let Some((pod, node)) = pod.and_then(|p| Some((p, p.node.as_deref()?))) else { continue };
            let labels = self.topology.node(node).map(|n| &n.meta.labels);
            for (wanted, tally) in &mut self.kept {
                if wanted.matches(view, pod) {
                    tally.add(node, labels, one(pod).times(n));
                }
            }
            if pod.spec.affinity.is_some() {
                self.wishes.add(&self.topology, pod, node, n);
            }
        }
    }

    /// How many matching pods there are on each node, and by each topology key that was asked for.
    pub fn of(&mut self, view: &ObjectStore, wanted: &Wanted) -> (&mut Tally, &mut Topology) {
        let known = self.kept.iter().rposition(|k| k.0 == *wanted);
        let entry = known.map(|at| self.kept.remove(at)).unwrap_or_else(|| self.fresh(view, wanted));
        if self.kept.len() >= KEPT_MAX {
            self.kept.remove(0);
        }
        self.kept.push(entry);
        let at = self.kept.len() - 1;
        (&mut self.kept[at].1, &mut self.topology)
    }

    fn fresh(&self, view: &ObjectStore, wanted: &Wanted) -> (Wanted, Tally) {
        let mut tally = Tally::default();
        let mut add = |pod: &Arc<Pod>| {
            if let Some(node) = pod.node.as_deref().filter(|_| wanted.matches(view, pod)) {
                tally.add(node, None, one(pod));
            }
        };
        match wanted {
            Wanted::Owner(uid) => view.owned_by(uid).filter_map(|k| self.placed.get(k)).for_each(&mut add),
            Wanted::Terms(_) => self.placed.values().for_each(&mut add),
        }
        (wanted.clone(), tally)
    }
}

fn one(pod: &Pod) -> Count {
    Count { all: 1, staying: i64::from(pod.meta.deleting.is_none()) }
}
