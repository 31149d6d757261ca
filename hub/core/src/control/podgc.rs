//! Removes pods that nobody else will.
//!
//! In: one pod, or all that ended. Out: forced deletion of a pod whose node was deleted or declared out of service, or that
//! is being deleted without ever having had a node; deletion of the oldest ended pods when there are very many.
//! Source: kube-controller-manager's pod garbage collector. Never: removes a pod because its node is silent.

use super::{Controller, common::after};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp, limits,
    view::{Kind, Node, Pod, conditions::rfc3339},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// A pod may be bound to a node that is only about to be made.
const NODE_MAY_COME_S: i64 = 40;
/// Somebody has made sure that nothing runs on the node any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Name of the key under which all ended pods are looked after.
const ENDED: &str = "";

#[derive(Debug)]
pub struct PodGarbageCollector {
    /// Ended pods that are kept.
    pub ended_max: usize,
}

impl Default for PodGarbageCollector {
    fn default() -> Self {
        PodGarbageCollector { ended_max: limits::ENDED_PODS_MAX }
    }
}

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
            let gone = changed.new_as::<Node>().is_none_or(|n| is_out_of_service(n));
            return view.pods_on(&changed.key.name).filter(|_| gone).map(|p| key(p)).collect();
        }
        let Some(pod) = changed.new_as::<Pod>() else { return vec![] };
        let mut keys = Vec::new();
        if pod.is_finished() && changed.old_as::<Pod>().is_none_or(|p| !p.is_finished()) {
            keys.push(Key::new(Pod::RESOURCE, "", ENDED));
        }
        let going = pod.meta.deleting.is_some();
        let node = pod.node.as_ref().map(|n| view.node(n));
        let homeless = matches!(node, Some(None));
        let out_of_service = going && node.flatten().is_some_and(|n| is_out_of_service(n));
        if homeless || out_of_service || (going && pod.node.is_none()) {
            keys.push(key(pod));
        }
        keys
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        if &*key.name == ENDED {
            self.thin_out(view, &mut plan);
            return plan;
        }
        let Some(pod) = view.pod(&key.namespace, &key.name) else { return plan };
        let going = pod.meta.deleting.is_some();
        if going && pod.assumed {
            // Its binding came before the deletion, or is refused because of it: both are told.
            return plan;
        }
        let Some(name) = &pod.node else {
            if going {
                remove(pod, phase_failed(), &mut plan);
            }
            return plan;
        };
        match view.node(name) {
            Some(node) if going && is_out_of_service(node) => {
                plan.because("OutOfService", format!("node {name} of pod {key} is out of service"));
                remove(pod, phase_failed(), &mut plan);
            }
            Some(_) => {}
            None => {
                let due = after(pod.meta.created_at(), NODE_MAY_COME_S);
                if due > now {
                    plan.wake_at(due);
                    return plan;
                }
                plan.because("NodeGone", format!("node {name} of pod {key} was deleted"));
                remove(pod, failed(pod, now), &mut plan);
            }
        }
        plan
    }
}

impl PodGarbageCollector {
    /// Deletes the oldest ended pods beyond the limit, evicted ones first.
    fn thin_out(&self, view: &ObjectStore, plan: &mut Plan) {
        let ended = || view.all::<Pod>().filter(|p| p.is_finished());
        let surplus = ended().count().saturating_sub(self.ended_max);
        if surplus == 0 {
            return;
        }
        let mut all: Vec<&Arc<Pod>> = ended().filter(|p| p.meta.deleting.is_none()).collect();
        all.sort_by_key(|p| (&*p.status.reason != "Evicted", p.meta.created_at(), p.meta.name.clone()));
        plan.because("TooManyEnded", format!("{surplus} pods that ended are more than are kept"));
        for pod in all.into_iter().take(surplus.min(limits::DELETES_PER_STEP_MAX)) {
            plan.delete_with(Pod::RESOURCE, &pod.meta, Some(0), None);
        }
        if surplus > limits::DELETES_PER_STEP_MAX {
            plan.again_at = Some(Timestamp::UNIX_EPOCH);
        }
    }
}

fn is_out_of_service(node: &Node) -> bool {
    !node.status.ready() && node.spec.taints.iter().any(|t| &*t.key == OUT_OF_SERVICE)
}

/// What did not end by itself has failed; then the pod goes without waiting for anybody.
fn remove(pod: &Pod, status: Value, plan: &mut Plan) {
    if !pod.is_finished() {
        plan.patch(Pod::RESOURCE, &pod.meta, Some("status"), status);
    }
    if pod.meta.deleting.is_none() || pod.meta.deletion_grace_s != Some(0) {
        plan.delete_with(Pod::RESOURCE, &pod.meta, Some(0), None);
    }
}

fn phase_failed() -> Value {
    json!({"status": {"phase": "Failed"}})
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
    use super::*;
    use crate::{Change, world::World};
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

    #[test]
    fn pods_without_a_node_fail_when_they_are_deleted() {
        let mut w = World::new();
        w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a", "finalizers": ["x.io/y"]}, "spec": {}}));
        w.settle();
        w.delete("/pods", "a", "p");
        w.settle();
        assert_eq!(w.get("/pods", "a", "p")["status"]["phase"], "Failed", "who holds it can count it");
        w.patch("/pods", "a", "p", json!({"metadata": {"finalizers": null}}));
        w.settle();
        assert!(!w.exists("/pods", "a", "p"));
    }

    #[test]
    fn a_pod_that_is_deleted_while_it_is_being_bound_ends_when_the_binding_is_refused() {
        let mut w = World::with_nodes(1);
        w.kubelet = false;
        w.create(
            "/pods",
            json!({"metadata": {"name": "p", "namespace": "a", "finalizers": ["x.io/y"]}, "spec": {"schedulerName": "somebody"}}),
        );
        w.settle();
        let uid = w.get("/pods", "a", "p")["metadata"]["uid"].as_str().unwrap().to_owned();
        w.view.assume_bound("a", "p", &uid, "n0");
        w.delete("/pods", "a", "p");
        let (collector, key) = (PodGarbageCollector::default(), Key::new("/pods", "a", "p"));
        let plan = collector.reconcile(&w.view, &key, w.now, 7);
        assert!(plan.changes.is_empty(), "the board may have it already");
        let refused = w.view.assume_bound("a", "p", &uid, "").unwrap();
        assert_eq!(collector.keys_for(&w.view, &refused), [key.clone()]);
        let plan = collector.reconcile(&w.view, &key, w.now, 7);
        let fails = |c: &Change| matches!(c, Change::Patch { merge, .. } if merge["status"]["phase"] == "Failed");
        assert!(plan.changes.iter().any(fails));
    }

    #[test]
    fn a_node_out_of_service_gives_up_what_is_going() {
        let mut w = World::with_nodes(1);
        for name in ["going", "staying"] {
            let bears = json!([{"key": "node.kubernetes.io/out-of-service", "operator": "Exists"}]);
            w.create("/pods", json!({"metadata": {"name": name, "namespace": "a"},
                "spec": {"nodeName": "n0", "tolerations": bears}}));
        }
        w.settle();
        w.kubelet = false;
        w.delete("/pods", "a", "going");
        let taint = json!([{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]);
        w.patch("/nodes", "", "n0", json!({"spec": {"taints": taint}}));
        w.settle();
        assert!(w.exists("/pods", "a", "going"), "a node that is ready does it itself");
        w.patch("/nodes", "", "n0", json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}));
        w.settle();
        assert!(!w.exists("/pods", "a", "going") && w.exists("/pods", "a", "staying"));
    }

    #[test]
    fn the_oldest_ended_pods_go_evicted_ones_first() {
        let mut w = World::new();
        for (name, status) in [
            ("a", json!({"phase": "Succeeded"})),
            ("b", json!({"phase": "Failed"})),
            ("c", json!({"phase": "Failed", "reason": "Evicted"})),
            ("d", json!({"phase": "Pending"})),
        ] {
            w.create("/pods", json!({"metadata": {"name": name, "namespace": "a"}, "spec": {}, "status": status}));
            w.now = after(w.now, 1);
        }
        let collector = PodGarbageCollector { ended_max: 1 };
        let plan = collector.reconcile(&w.view, &Key::new("/pods", "", ENDED), w.now, 1);
        plan.changes.iter().for_each(|c| w.apply(c).unwrap());
        let left: Vec<_> = w.list("/pods").iter().map(|p| p["metadata"]["name"].clone()).collect();
        assert_eq!(left, ["b", "d"]);
    }
}
