//! The nodes and the values of their labels.
//!
//! In: nodes as they come, change and go. Out: how many there are, and how many have a label or one of its values.
//! Never: counts a key that nobody asked for, or more than `KEYS_MAX` of them.

use crate::view::{Labels, Node};
use std::{
    collections::BTreeMap,
    sync::Arc,
};

const KEYS_MAX: usize = 64;

#[derive(Clone, Debug, Default)]
pub struct Topology {
    nodes: BTreeMap<Box<str>, Arc<Node>>,
    /// Nodes that are not being deleted.
    staying: usize,
    /// Numbers of nodes by value, by key.
    keys: BTreeMap<Box<str>, BTreeMap<Box<str>, usize>>,
}

impl Topology {
    /// The node that was there before.
    pub fn set(&mut self, name: &str, node: Option<&Arc<Node>>) -> Option<Arc<Node>> {
        let old = match node {
            Some(node) => self.nodes.insert(name.into(), Arc::clone(node)),
            None => self.nodes.remove(name),
        };
        let stays = |n: &Arc<Node>| usize::from(n.meta.deleting.is_none());
        self.staying = self.staying + node.map_or(0, stays) - old.as_ref().map_or(0, stays);
        let (before, after) = (old.as_ref().map(|n| &n.meta.labels), node.map(|n| &n.meta.labels));
        if before != after {
            self.relabel(before, after);
        }
        old
    }

    fn relabel(&mut self, old: Option<&Labels>, new: Option<&Labels>) {
        for (key, values) in &mut self.keys {
            if let Some(value) = new.and_then(|l| l.get(key)) {
                *values.entry(value.into()).or_default() += 1;
            }
            let Some(value) = old.and_then(|l| l.get(key)) else { continue };
            if let Some(n) = values.get_mut(value) {
                *n -= 1;
                if *n == 0 {
                    values.remove(value);
                }
            }
        }
    }

    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// Nodes that are not being deleted.
    pub fn staying(&self) -> usize {
        self.staying
    }

    /// How many values a label has, and whether every node has it.
    pub fn values(&mut self, key: &str) -> (usize, bool) {
        if !self.keys.contains_key(key) {
            if self.keys.len() >= KEYS_MAX {
                self.keys.clear();
            }
            let mut values = BTreeMap::new();
            for value in self.nodes.values().filter_map(|n| n.meta.labels.get(key)) {
                *values.entry(Box::from(value)).or_default() += 1;
            }
            self.keys.insert(key.into(), values);
        }
        let values = &self.keys[key];
        (values.len(), values.values().sum::<usize>() == self.nodes.len())
    }
}
