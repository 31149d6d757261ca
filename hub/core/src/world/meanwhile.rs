//! A board reports of a pod in the moment in which it is decided that the pod has to go: neither may undo the other's word.
//!
//! In: a reason to go, a report between the decision and its write. Out: both conditions. Never: a list of conditions that was
//! made of an older one.

use super::World;
use serde_json::{Value, json};

/// A pod on n0, and a board that does not end it: the pod can be looked at while it goes.
fn with_pod(spec: Value) -> World {
    let mut w = World::with_nodes(1);
    w.kubelet = false;
    w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec}));
    w.settle();
    assert_eq!(w.get("/pods", "a", "p")["spec"]["nodeName"], "n0");
    w.reports_meanwhile = Some("p");
    w
}

fn goes_with_both_conditions(w: &World, reason: &str) {
    assert_eq!(w.reports_meanwhile, None, "nothing was decided");
    let pod = w.get("/pods", "a", "p");
    assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{pod:#}");
    let of = |what: &str| {
        let all = pod["status"]["conditions"].as_array().into_iter().flatten();
        all.filter(|c| c["type"] == what).cloned().collect::<Vec<Value>>()
    };
    assert_eq!(of("Reported").len(), 1, "{pod:#}");
    let told = of("DisruptionTarget");
    assert_eq!(told.len(), 1, "{pod:#}");
    assert_eq!(told[0]["reason"], reason);
}

#[test]
fn a_taint_of_the_node() {
    let mut w = with_pod(json!({"containers": [{"name": "c"}]}));
    w.patch("/nodes", "", "n0", json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
    w.settle();
    goes_with_both_conditions(&w, "DeletionByTaintManager");
}

#[test]
fn a_taint_of_a_device() {
    const SLICES: &str = "resource.k8s.io/resourceslices";
    let mut w = World::with_nodes(1);
    w.kubelet = false;
    let slice = |taints: Value| {
        json!({"driver": "x.example.org", "nodeName": "n0", "pool": {"name": "n0", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "d", "taints": taints}]})
    };
    w.create("resource.k8s.io/deviceclasses", json!({"metadata": {"name": "any"}, "spec": {}}));
    w.create(SLICES, json!({"metadata": {"name": "s"}, "spec": slice(json!([]))}));
    let exactly = json!({"deviceClassName": "any", "allocationMode": "ExactCount", "count": 1});
    w.create("resource.k8s.io/resourceclaims", json!({"metadata": {"name": "p", "namespace": "a"},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}}));
    w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"containers": [{"name": "c"}],
        "resourceClaims": [{"name": "d", "resourceClaimName": "p"}]}}));
    w.settle();
    w.reports_meanwhile = Some("p");
    let now = crate::view::conditions::rfc3339(w.now);
    w.patch(SLICES, "", "s", json!({"spec": slice(json!([{"key": "hot", "effect": "NoExecute", "timeAdded": now}]))}));
    w.settle();
    goes_with_both_conditions(&w, "DeletionByDeviceTaintManager");
}

#[test]
fn a_pod_that_matters_more() {
    let half = json!([{"name": "c", "resources": {"requests": {"cpu": "3"}}}]);
    let mut w = with_pod(json!({"containers": half}));
    w.create("/pods", json!({"metadata": {"name": "more", "namespace": "a"}, "spec": {"containers": half, "priority": 10}}));
    w.settle();
    goes_with_both_conditions(&w, "PreemptionByScheduler");
    assert_eq!(w.get("/pods", "a", "more")["status"]["nominatedNodeName"], "n0");
}
