//! Which nodes hold which images already.
//!
//! In: changes of nodes. Out: the points of ImageLocality. Never: compares an image's name with a node's list twice.

use crate::{
    Changed,
    view::{Node, Pod},
};
use std::collections::{HashMap, HashSet};

const BYTES_SMALL: i64 = 23 * 1024 * 1024;
const BYTES_LARGE: i64 = 1000 * 1024 * 1024;

#[derive(Clone, Debug, Default)]
struct Held {
    bytes: i64,
    nodes: HashSet<Box<str>>,
}

/// Images by name (tag `latest` when none is written).
#[derive(Clone, Debug, Default)]
pub struct Images {
    held: HashMap<Box<str>, Held>,
}

impl Images {
    pub fn observe(&mut self, changed: &Changed) {
        if !changed.is::<Node>() {
            return;
        }
        let (old, new) = (changed.old_as::<Node>(), changed.new_as::<Node>());
        if let (Some(old), Some(new)) = (old, new)
            && old.status.images == new.status.images
        {
            return;
        }
        for name in old.into_iter().flat_map(|n| &n.status.images).flat_map(|i| &i.names) {
            if let Some(held) = self.held.get_mut(name) {
                held.nodes.remove(&changed.key.name);
                if held.nodes.is_empty() {
                    self.held.remove(name);
                }
            }
        }
        for image in new.into_iter().flat_map(|n| &n.status.images) {
            for name in &image.names {
                let held = self.held.entry(name.clone()).or_default();
                held.bytes = image.size_bytes;
                held.nodes.insert(changed.key.name.clone());
            }
        }
    }

    /// The pod's images that some node holds.
    pub fn of<'a>(&'a self, pod: &Pod) -> PodImages<'a> {
        let found = |image: &str| {
            let tail = image.rsplit('/').next().unwrap_or(image);
            match tail.contains([':', '@']) {
                true => self.held.get(image),
                false => self.held.get(&*format!("{image}:latest")),
            }
        };
        PodImages {
            held: pod.spec.images.iter().filter_map(|i| found(i)).collect(),
            containers: pod.spec.images.len().max(1) as i64,
        }
    }
}

#[derive(Debug)]
pub struct PodImages<'a> {
    held: Vec<&'a Held>,
    containers: i64,
}

impl PodImages<'_> {
    /// 0 to 100. An image counts in proportion to how many of all nodes have it, so that it does not gather pods on
    /// the few nodes that started with it.
    pub fn points(&self, node: &str, all_nodes: usize) -> i64 {
        if self.held.is_empty() {
            return 0;
        }
        let scaled = |h: &&Held| (h.bytes as f64 * h.nodes.len() as f64 / all_nodes.max(1) as f64) as i64;
        let sum: i64 = self.held.iter().filter(|h| h.nodes.contains(node)).map(scaled).sum();
        let most = BYTES_LARGE.saturating_mul(self.containers);
        (sum.clamp(BYTES_SMALL, most) - BYTES_SMALL) * 100 / (most - BYTES_SMALL).max(1)
    }
}
