//! What is left on a node.
//!
//! In: a node and the pods bound to it. Out: what they use, which ports they hold.
//! Never: counts pods that are finished.

use crate::{
    ObjectStore,
    view::{Node, Pod, PodPort, Requests, Used},
};

/// Pods that count on a node.
pub fn running<'a>(view: &'a ObjectStore, node: &str) -> impl Iterator<Item = &'a Pod> {
    view.pods_on(node).map(|p| &**p).filter(|p| !p.is_finished())
}

/// Names of the resources that a node has too little of.
pub fn lacking(node: &Node, used: &Used, wanted: &Requests) -> Vec<(String, bool)> {
    let can = &node.status.allocatable;
    let mut out = Vec::new();
    if used.requests.pods + 1 > can.pods {
        out.push(("Too many pods".to_owned(), can.pods >= 1));
    }
    let basics = [
        ("cpu", wanted.cpu_milli, can.cpu_milli, used.requests.cpu_milli),
        ("memory", wanted.memory, can.memory, used.requests.memory),
        ("ephemeral-storage", wanted.ephemeral, can.ephemeral, used.requests.ephemeral),
    ];
    let others = wanted.extended.iter().map(|(n, w)| (&**n, *w, can.get(n), used.requests.get(n)));
    for (name, want, can, used) in basics.into_iter().chain(others) {
        if want > 0 && want > can.saturating_sub(used) {
            out.push((format!("Insufficient {name}"), want <= can));
        }
    }
    out
}

/// Whether a port of the node that `pod` wants is held by another.
pub fn ports_taken(view: &ObjectStore, node: &Node, pod: &Pod) -> bool {
    let wanted = || pod.spec.ports.iter().filter(|p| p.host_port != 0);
    wanted().next().is_some()
        && running(view, &node.meta.name)
            .flat_map(|p| p.spec.ports.iter().filter(|p| p.host_port != 0))
            .any(|held| wanted().any(|w| clash(w, held)))
}

fn clash(a: &PodPort, b: &PodPort) -> bool {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    a.host_port == b.host_port
        && a.protocol == b.protocol
        && (a.host_ip == b.host_ip || any(&a.host_ip) || any(&b.host_ip))
}
