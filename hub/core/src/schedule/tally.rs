//! Numbers of pods by node, and by the values of topology keys.
//!
//! In: pods that come to nodes and go, nodes whose labels change. Out: numbers that are shared, not copied.
//! Never: walks pods or nodes to answer, except when a key is asked for the first time.

use super::topology::Topology;
use crate::view::{Labels, Node};
use std::{collections::HashMap, sync::Arc};

/// Keys that one tally keeps numbers for.
const KEYS_MAX: usize = 8;

/// Matching pods of a node or a topology value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub all: i64,
    /// Those that are not being deleted.
    pub staying: i64,
}

impl Count {
    pub fn times(self, n: i64) -> Count {
        Count { all: self.all * n, staying: self.staying * n }
    }
}

/// Numbers by name of a node or by topology value; what is not there is zero.
pub type Values = HashMap<Box<str>, Count>;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    by_node: Arc<Values>,
    /// By topology key, the newest last. Nodes that do not exist or have no such label do not count there.
    by_value: Vec<(Box<str>, Arc<Values>)>,
}

impl Tally {
    /// `labels`: of the node, when it exists.
    pub fn add(&mut self, node: &str, labels: Option<&Labels>, count: Count) {
        bump(Arc::make_mut(&mut self.by_node), node, count);
        for (key, values) in &mut self.by_value {
            if let Some(value) = labels.and_then(|l| l.get(key)) {
                bump(Arc::make_mut(values), value, count);
            }
        }
    }

    /// A node came, went or has other labels.
    pub fn relabel(&mut self, node: &str, old: Option<&Labels>, new: Option<&Labels>) {
        let Some(count) = self.by_node.get(node).copied() else { return };
        for (key, values) in &mut self.by_value {
            let (old, new) = (old.and_then(|l| l.get(key)), new.and_then(|l| l.get(key)));
            if old == new {
                continue;
            }
            for (value, n) in [(old, -1), (new, 1)] {
                if let Some(value) = value {
                    bump(Arc::make_mut(values), value, count.times(n));
                }
            }
        }
    }

    pub fn by_node(&self) -> Arc<Values> {
        Arc::clone(&self.by_node)
    }

    pub fn by_value(&mut self, key: &str, topology: &Topology) -> Arc<Values> {
        if let Some(found) = self.by_value.iter().find(|v| *v.0 == *key) {
            return Arc::clone(&found.1);
        }
        let mut values = Values::new();
        for (node, count) in &*self.by_node {
            if let Some(value) = topology.node(node).and_then(|n: &Arc<Node>| n.meta.labels.get(key)) {
                bump(&mut values, value, *count);
            }
        }
        if self.by_value.len() >= KEYS_MAX {
            self.by_value.remove(0);
        }
        let values = Arc::new(values);
        self.by_value.push((key.into(), Arc::clone(&values)));
        values
    }

    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }
}

fn bump(values: &mut Values, at: &str, count: Count) {
    let Some(here) = values.get_mut(at) else {
        values.insert(at.into(), count);
        return;
    };
    here.all += count.all;
    here.staying += count.staying;
    if *here == Count::default() {
        values.remove(at);
    }
}

/// The numbers of one topology key, as one decision sees them: the sum of some tallies, and for the trial of a
/// preemption what would change on one node.
#[derive(Clone, Debug)]
pub struct Domains {
    pub key: Box<str>,
    parts: Vec<Arc<Values>>,
    /// Value of the node on trial, and how many more there.
    shift: Option<(Box<str>, i64)>,
}

impl Domains {
    pub fn new(key: &str) -> Domains {
        Domains { key: key.into(), parts: Vec::new(), shift: None }
    }

    pub fn include(&mut self, values: Arc<Values>) {
        self.parts.push(values);
    }

    /// How many pods there are with this value.
    pub fn at(&self, value: &str) -> i64 {
        let sum: i64 = self.parts.iter().filter_map(|p| p.get(value)).map(|c| c.all).sum();
        sum + self.shift.as_ref().filter(|s| *s.0 == *value).map_or(0, |s| s.1)
    }

    /// How many pods there are on a node's value; none without the label.
    pub fn near(&self, node: &Node) -> i64 {
        node.meta.labels.get(&self.key).map_or(0, |value| self.at(value))
    }

    pub fn total(&self) -> i64 {
        let sum: i64 = self.parts.iter().flat_map(|p| p.values()).map(|c| c.all).sum();
        sum + self.shift.as_ref().map_or(0, |s| s.1)
    }

    /// As if so many more were at a node; there is one node on trial.
    pub fn shift(&mut self, node: &Node, n: i64) {
        if let Some(value) = node.meta.labels.get(&self.key) {
            self.shift.get_or_insert_with(|| (value.into(), 0)).1 += n;
        }
    }
}
