//! Which nodes a DaemonSet's pods belong on, and how a pod is tied to one.
//!
//! In: a node and a pod as the DaemonSet would make it. Out: whether it should run and may stay there.
//! Never: asks about room: a node that is full still should have its pod, which then waits.

use crate::{
    schedule::{affinity_matches, untolerated},
    view::{Node, Pod},
};
use serde_json::{Value, json};

/// Taints that every daemon pod bears.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// (should run, should stay). A NoSchedule taint keeps new pods away and lets running ones stay.
pub fn fits(node: &Node, probe: &Pod) -> (bool, bool) {
    let named = probe.node.as_deref().is_none_or(|wanted| *wanted == *node.meta.name);
    // The probe is tied to no node yet: only the template's own selector and affinity count.
    if !named || !affinity_matches(node, probe) {
        return (false, false);
    }
    let run = untolerated(node, probe, &["NoSchedule", "NoExecute"]).is_none();
    let stay = untolerated(node, probe, &["NoExecute"]).is_none();
    (run, stay)
}

/// Adds the tolerations that daemon pods have, and the affinity for the node (none for the probe).
pub fn tie(spec: &mut Value, node: &str) {
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let network = ("node.kubernetes.io/network-unavailable", "NoSchedule");
    let host_network = spec["hostNetwork"] == true;
    for (key, effect) in BORNE.into_iter().chain(host_network.then_some(network)) {
        let toleration = json!({"key": key, "operator": "Exists", "effect": effect});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    spec["tolerations"] = json!(tolerations);
    if node.is_empty() {
        return;
    }
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
}

/// The node that a daemon pod is on or is meant for.
pub fn node_of(pod: &Pod) -> Option<&str> {
    if let Some(node) = &pod.node {
        return Some(node);
    }
    let affinity = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let mut fields = affinity.required.as_ref()?.node_selector_terms.iter().flat_map(|t| &t.match_fields);
    let by_name = fields.find(|f| &*f.key == "metadata.name" && &*f.operator == "In")?;
    by_name.values.first().map(|v| &**v)
}
