//! Which nodes could take a pod.
//!
//! In: a node, a pod, and what was gathered about other pods. Out: no reason, or the reasons against it, in the order
//! in which kube-scheduler's plugins look (the first that objects speaks).
//! Never: prefers one node over another; see `score`.

use super::{pods::PodRules, room, spread::SpreadRules};
use crate::{
    ObjectStore,
    view::{Node, Pod, Taint},
};
use std::borrow::Cow;

/// One reason against a node; `preemptible` when fewer pods on it would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub text: Cow<'static, str>,
    pub preemptible: bool,
}

fn hopeless(text: impl Into<Cow<'static, str>>) -> Vec<Reason> {
    vec![Reason { text: text.into(), preemptible: false }]
}

fn crowded(text: &'static str) -> Vec<Reason> {
    vec![Reason { text: text.into(), preemptible: true }]
}

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Reasons against a node that only the node itself gives: also asked by the DaemonSet controller.
pub fn against_itself(node: &Node, pod: &Pod) -> Vec<Reason> {
    if node.spec.unschedulable {
        let taint =
            Taint { key: UNSCHEDULABLE_TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
        if !pod.spec.tolerations.iter().any(|t| t.tolerates(&taint)) {
            return hopeless("node(s) were unschedulable");
        }
    }
    if let Some(taint) = untolerated(node, pod, &["NoSchedule", "NoExecute"]) {
        return hopeless(format!("node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value));
    }
    if !affinity_matches(node, pod) {
        return hopeless("node(s) didn't match Pod's node affinity/selector");
    }
    Vec::new()
}

/// The first taint with one of these effects that the pod does not tolerate.
pub fn untolerated<'a>(node: &'a Node, pod: &Pod, effects: &[&str]) -> Option<&'a Taint> {
    let strict = |t: &&Taint| effects.contains(&&*t.effect);
    node.spec.taints.iter().filter(strict).find(|t| !pod.spec.tolerations.iter().any(|x| x.tolerates(t)))
}

/// nodeSelector and required node affinity.
pub fn affinity_matches(node: &Node, pod: &Pod) -> bool {
    let labels = &node.meta.labels;
    let required =
        pod.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    pod.spec.node_selector.iter().all(|(k, v)| labels.get(k) == Some(v))
        && required.is_none_or(|terms| terms.matches(&node.meta.name, labels))
}

/// All reasons of the first objection to a node; empty: the pod fits.
pub fn against(
    view: &ObjectStore,
    node: &Node,
    pod: &Pod,
    pods: &PodRules,
    spread: &SpreadRules<'_>,
) -> Vec<Reason> {
    let own = against_itself(node, pod);
    if !own.is_empty() {
        return own;
    }
    if room::ports_taken(view, node, pod) {
        return crowded("node(s) didn't have free ports for the requested pod ports");
    }
    let lacking = room::lacking(node, &view.used_on(&node.meta.name), &pod.spec.requests);
    if !lacking.is_empty() {
        let reason = |(text, preemptible): (String, bool)| Reason { text: text.into(), preemptible };
        return lacking.into_iter().map(reason).collect();
    }
    if let Some(reason) = spread.against(node) {
        return vec![reason];
    }
    pods.against(node).into_iter().collect()
}
