//! What the pods of a node use, kept up to date with every event.
//!
//! In: pods that come and go. Out: sums, so that the scheduler does not look at every pod for every node.
//! Never: counts a finished pod.

use super::{Key, Node, Pod, Requests};
use std::{collections::BTreeMap, sync::Arc};

/// What a pod without requests counts as when nodes are compared, as upstream.
const CPU_MILLI_ASSUMED: i64 = 100;
const MEMORY_ASSUMED: i64 = 200 * 1024 * 1024;

/// Sums over the unfinished pods of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// `pods` is their number.
    pub requests: Requests,
    /// CPU and memory with assumed amounts for pods without requests: for scores only.
    pub assumed_cpu_milli: i64,
    pub assumed_memory: i64,
    /// Pods with required anti-affinity.
    pub anti_affine: usize,
}

impl Used {
    pub fn add(&mut self, pod: &Pod) {
        self.requests.add(&pod.spec.requests);
        self.requests.pods += 1;
        let (cpu, memory) = assumed(pod);
        self.assumed_cpu_milli += cpu;
        self.assumed_memory += memory;
        self.anti_affine += usize::from(counts_as_anti_affine(pod));
    }

    pub fn subtract(&mut self, pod: &Pod) {
        self.requests.subtract(&pod.spec.requests);
        self.requests.pods -= 1;
        let (cpu, memory) = assumed(pod);
        self.assumed_cpu_milli -= cpu;
        self.assumed_memory -= memory;
        self.anti_affine -= usize::from(counts_as_anti_affine(pod));
    }
}

fn assumed(pod: &Pod) -> (i64, i64) {
    let or = |n: i64, assumed: i64| if n == 0 { assumed } else { n };
    (or(pod.spec.requests.cpu_milli, CPU_MILLI_ASSUMED), or(pod.spec.requests.memory, MEMORY_ASSUMED))
}

pub fn counts_as_anti_affine(pod: &Pod) -> bool {
    let affinity = pod.spec.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref());
    !pod.is_finished() && affinity.is_some_and(|a| !a.required.is_empty())
}

/// One node with its pods; either may be missing.
#[derive(Debug, Default)]
pub struct NodePods {
    pub node: Option<Arc<Node>>,
    pub pods: BTreeMap<Arc<Key>, Arc<Pod>>,
    pub used: Used,
}

impl NodePods {
    pub fn insert(&mut self, key: Arc<Key>, pod: Arc<Pod>) {
        if !pod.is_finished() {
            self.used.add(&pod);
        }
        let old = match self.pods.get_mut(&key) {
            Some(there) => Some(std::mem::replace(there, pod)),
            None => self.pods.insert(key, pod),
        };
        if let Some(old) = old.filter(|p| !p.is_finished()) {
            self.used.subtract(&old);
        }
    }

    pub fn remove(&mut self, key: &Key) {
        if let Some(pod) = self.pods.remove(key).filter(|p| !p.is_finished()) {
            self.used.subtract(&pod);
        }
    }
}
