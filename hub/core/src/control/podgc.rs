//! Removes pods that nobody else will.
//!
//! In: one pod. Out: forced deletion of a pod whose node was deleted, or that is being deleted without ever having had
//! a node. Never: removes a pod because its node is silent.

use super::{Controller, common::after};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    view::{Kind, Node, Pod, conditions::rfc3339},
};
use serde_json::{Value, json};

/// A pod may be bound to a node that is only about to be made.
const NODE_MAY_COME_S: i64 = 40;

#[derive(Debug)]
pub struct PodGarbageCollector;

impl Controller for PodGarbageCollector {
    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Pod::RESOURCE, Node::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let key = |p: &Pod| Key::new(Pod::RESOURCE, &p.meta.namespace, &p.meta.name);
        if changed.is::<Node>() {
            let gone = changed.new.is_none();
            return view.pods_on(&changed.key.name).filter(|_| gone).map(|p| key(p)).collect();
        }
        let Some(pod) = changed.new_as::<Pod>() else { return vec![] };
        let homeless = pod.node.as_ref().is_some_and(|n| view.node(n).is_none());
        let stuck = pod.node.is_none() && pod.meta.deleting.is_some();
        if homeless || stuck { vec![key(pod)] } else { vec![] }
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = view.pod(&key.namespace, &key.name) else { return plan };
        let forced = pod.meta.deleting.is_some() && pod.meta.deletion_grace_s == Some(0);
        let Some(node) = &pod.node else {
            if pod.meta.deleting.is_some() && !forced {
                plan.delete_with(Pod::RESOURCE, &pod.meta, Some(0), None);
            }
            return plan;
        };
        if view.node(node).is_some() || forced {
            return plan;
        }
        let due = after(pod.meta.created_at(), NODE_MAY_COME_S);
        if due > now {
            plan.wake_at(due);
            return plan;
        }
        plan.because("NodeGone", format!("node {node} of pod {key} was deleted"));
        if !pod.is_finished() {
            plan.patch(Pod::RESOURCE, &pod.meta, Some("status"), failed(pod, now));
        }
        plan.delete_with(Pod::RESOURCE, &pod.meta, Some(0), None);
        plan
    }
}

fn failed(pod: &Pod, now: Timestamp) -> Value {
    disrupted(pod, "DeletionByPodGC", "PodGC: node no longer exists", Some("Failed"), now)
}

/// Status patch with the condition DisruptionTarget.
pub(super) fn disrupted(
    pod: &Pod,
    reason: &str,
    message: &str,
    phase: Option<&str>,
    now: Timestamp,
) -> Value {
    let mut list = pod.field("/status/conditions").as_array().cloned().unwrap_or_default();
    list.retain(|c| c["type"] != "DisruptionTarget");
    list.push(json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": rfc3339(now)}));
    let mut status = json!({"conditions": list});
    if let Some(phase) = phase {
        status["phase"] = json!(phase);
    }
    json!({"status": status})
}

#[cfg(test)]
mod tests {
    use crate::world::World;
    use serde_json::json;

    #[test]
    fn pods_of_a_deleted_node_go_after_a_while() {
        let mut w = World::with_nodes(1);
        w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n0"}}));
        w.create("/pods", json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {"nodeName": "nx"}}));
        w.settle();
        w.kubelet = false;
        w.delete("/nodes", "", "n0");
        w.settle();
        assert_eq!(w.list("/pods").len(), 2, "a node may still come");
        w.node("nx", json!({}), json!([]));
        w.pass(41);
        assert!(!w.exists("/pods", "a", "p") && w.exists("/pods", "a", "q"));
    }
}
