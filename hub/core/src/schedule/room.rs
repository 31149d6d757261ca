//! What is left on a node, and the node as a pod would find it.
//!
//! In: a node, the pods bound to it, pods that are thought away or are meant to come. Out: what it lacks, which ports
//! are held. Never: counts pods that are finished.

use super::reason::{Plugin, Reason};
use crate::view::{Node, NodePods, Pod, PodPort, Requests, Used};
use std::{borrow::Cow, sync::Arc};

/// One node with the pods that count there for one decision.
#[derive(Clone, Debug)]
pub struct Spot<'a> {
    pub node: &'a Node,
    pub used: Cow<'a, Used>,
    pods: &'a NodePods,
    /// Pods that are thought away (victims of a preemption that is considered).
    gone: Vec<Arc<Pod>>,
    /// Pods that are not bound yet but have a claim to this node.
    expected: Vec<Arc<Pod>>,
}

impl<'a> Spot<'a> {
    pub fn new(node: &'a Node, pods: &'a NodePods) -> Spot<'a> {
        Spot { node, used: Cow::Borrowed(&pods.used), pods, gone: Vec::new(), expected: Vec::new() }
    }

    /// Unfinished pods that count.
    pub fn running(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let there = self.pods.pods.values().filter(|p| !p.is_finished());
        there.filter(|p| !self.gone.iter().any(|g| Arc::ptr_eq(g, p))).chain(&self.expected)
    }

    pub fn expect(&mut self, pod: Arc<Pod>) {
        self.used.to_mut().add(&pod);
        self.expected.push(pod);
    }

    pub fn think_away(&mut self, pod: Arc<Pod>) {
        self.used.to_mut().subtract(&pod);
        self.gone.push(pod);
    }

    pub fn bring_back(&mut self, pod: &Arc<Pod>) {
        if let Some(at) = self.gone.iter().position(|g| Arc::ptr_eq(g, pod)) {
            self.gone.swap_remove(at);
            self.used.to_mut().add(pod);
        }
    }
}

/// The resources that a node has too little of. `elsewhere`: extended resources that need not be the node's own.
pub fn lacking(node: &Node, used: &Used, wanted: &Requests, elsewhere: impl Fn(&str) -> bool) -> Vec<Reason> {
    let can = &node.status.allocatable;
    let mut out = Vec::new();
    let mut lack = |text: Cow<'static, str>, preemptible| {
        out.push(Reason { plugin: Plugin::NodeResourcesFit, text, preemptible });
    };
    if used.requests.pods + 1 > can.pods {
        lack("Too many pods".into(), can.pods >= 1);
    }
    let basics = [
        ("Insufficient cpu", wanted.cpu_milli, can.cpu_milli, used.requests.cpu_milli),
        ("Insufficient memory", wanted.memory, can.memory, used.requests.memory),
        ("Insufficient ephemeral-storage", wanted.ephemeral, can.ephemeral, used.requests.ephemeral),
    ];
    for (text, want, can, used) in basics {
        if want > 0 && want > can.saturating_sub(used) {
            lack(text.into(), want <= can);
        }
    }
    for (name, want) in &wanted.extended {
        let (can, used) = (can.get(name), used.requests.get(name));
        if can == 0 && elsewhere(name) {
            continue;
        }
        if *want > 0 && *want > can.saturating_sub(used) {
            lack(format!("Insufficient {name}").into(), *want <= can);
        }
    }
    out
}

/// Whether a port of the node that `pod` wants is held by another.
pub fn ports_taken(spot: &Spot<'_>, pod: &Pod) -> bool {
    let wanted = || pod.spec.ports.iter().filter(|p| p.host_port != 0);
    wanted().next().is_some()
        && spot
            .running()
            .flat_map(|p| p.spec.ports.iter().filter(|p| p.host_port != 0))
            .any(|held| wanted().any(|w| clash(w, held)))
}

fn clash(a: &PodPort, b: &PodPort) -> bool {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    a.host_port == b.host_port
        && a.protocol == b.protocol
        && (a.host_ip == b.host_ip || any(&a.host_ip) || any(&b.host_ip))
}
