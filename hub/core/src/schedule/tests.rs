//! Scenarios of schedule in the test world.
//!
//! In: objects and disturbances. Out: what the cluster looks like at rest. Never: a clock or a network.

use super::*;
use crate::world::World;
use serde_json::json;

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "a", "labels": {"app": "x"}}, "spec": spec})
}

fn decide(w: &mut World, spec: Value) -> Result<String, String> {
    w.create("/pods", pod(spec));
    let p = w.view.pod("a", "p").unwrap_or_else(|| panic!("cannot be read: {:?}", w.objects)).clone();
    let found = Scheduler::default().decide(&w.view, &p, w.now, 3);
    w.delete("/pods", "a", "p");
    found.map(|p| p.node).map_err(|w| w.message)
}

fn no(reasons: &str, preemption: &str) -> Result<String, String> {
    Err(format!("0/2 nodes are available: {reasons}. preemption: 0/2 nodes are available: {preemption}."))
}

const HOPELESS: &str = "2 Preemption is not helpful for scheduling";

#[test]
fn nodes_are_chosen_or_refused_in_kubernetes_words() {
    let mut w = World::new();
    let spec = |s: Value| s;
    assert_eq!(decide(&mut w, json!({})), Err("no nodes available to schedule pods".into()));
    w.node("n0", json!({"disk": "ssd", "zone": "z0"}), json!([]));
    w.node("n1", json!({"zone": "z1"}), json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]));
    let taint = "1 node(s) had untolerated taint {k: v}";
    let tolerate = json!([{"key": "k", "operator": "Exists"}]);
    let container = |r: Value| json!([{"name": "c", "resources": {"requests": r}}]);
    let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "y"}}, "topologyKey": "zone"}]}});
    let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "y"}}, "topologyKey": "zone"}]}});
    let node = |names: Value| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]}]}}})
    };
    w.create(
        "/pods",
        json!({"metadata": {"name": "y", "namespace": "a", "labels": {"app": "y"}},
        "spec": {"nodeName": "n0", "containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}},
            "ports": [{"containerPort": 80, "hostPort": 80}]}]}}),
    );
    let cases: Vec<(Value, Result<String, String>)> = vec![
        (json!({}), Ok("n0".into())),
        (json!({"tolerations": tolerate}), Ok("n1".into())),
        (json!({"nodeSelector": {"disk": "ssd"}}), Ok("n0".into())),
        (
            json!({"nodeSelector": {"disk": "none"}, "tolerations": tolerate}),
            no("2 node(s) didn't match Pod's node affinity/selector", HOPELESS),
        ),
        (
            json!({"nodeSelector": {"disk": "none"}}),
            no(&format!("1 node(s) didn't match Pod's node affinity/selector, {taint}"), HOPELESS),
        ),
        (
            json!({"containers": container(json!({"cpu": "2"}))}),
            no(
                &format!("1 Insufficient cpu, {taint}"),
                "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling",
            ),
        ),
        (
            json!({"containers": container(json!({"cpu": "20", "x.io/y": 1})), "tolerations": tolerate}),
            no("2 Insufficient cpu, 2 Insufficient x.io/y", HOPELESS),
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
            no(
                &format!("1 node(s) didn't have free ports for the requested pod ports, {taint}"),
                "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling",
            ),
        ),
        (json!({"affinity": anti, "tolerations": tolerate}), Ok("n1".into())),
        (json!({"affinity": near, "tolerations": tolerate}), Ok("n0".into())),
        (json!({"affinity": node(json!(["n1"])), "tolerations": tolerate}), Ok("n1".into())),
        (
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
            no("persistentvolumeclaim \"c\" not found", HOPELESS),
        ),
    ];
    for (s, expect) in cases {
        assert_eq!(decide(&mut w, spec(s.clone())), expect, "{s}");
    }
    w.patch("/nodes", "", "n0", json!({"spec": {"unschedulable": true}}));
    assert_eq!(decide(&mut w, json!({})), no(&format!("{taint}, 1 node(s) were unschedulable"), HOPELESS));
}

#[test]
fn constraints_spread_pods_over_zones() {
    let mut w = World::new();
    w.node("n0", json!({"zone": "z0"}), json!([]));
    w.node("n1", json!({"zone": "z1"}), json!([]));
    let running = |name: &str| {
        json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": "x"}},
        "spec": {"nodeName": "n0"}})
    };
    w.create("/pods", running("a1"));
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}]});
    assert_eq!(decide(&mut w, spread.clone()), Ok("n1".into()));
    w.patch("/nodes", "", "n1", json!({"spec": {"unschedulable": true}}));
    let message = decide(&mut w, spread).unwrap_err();
    assert!(message.contains("1 node(s) didn't match pod topology spread constraints"), "{message}");
}

#[test]
fn a_pod_without_a_node_says_why_once_and_is_woken() {
    let mut w = World::with_nodes(1);
    w.create("/pods", pod(json!({"nodeSelector": {"disk": "ssd"}})));
    w.settle();
    let p = w.get("/pods", "a", "p");
    assert_eq!(p["status"]["conditions"][0]["reason"], "Unschedulable");
    assert_eq!(w.events.iter().filter(|e| e.2 == "FailedScheduling").count(), 1);
    w.patch("/nodes", "", "n0", json!({"metadata": {"labels": {"disk": "ssd"}}}));
    w.settle();
    assert_eq!(w.get("/pods", "a", "p")["spec"]["nodeName"], "n0");
    assert!(w.events.iter().any(|e| e.3 == "Successfully assigned a/p to n0"));
}

#[test]
fn gates_hold_a_pod_back() {
    let mut w = World::with_nodes(1);
    w.create("/pods", pod(json!({"schedulingGates": [{"name": "g"}]})));
    w.settle();
    assert_eq!(w.get("/pods", "a", "p")["status"]["conditions"][0]["reason"], "SchedulingGated");
    w.patch("/pods", "a", "p", json!({"spec": {"schedulingGates": null}}));
    w.settle();
    assert_eq!(w.get("/pods", "a", "p")["spec"]["nodeName"], "n0");
}

#[test]
fn only_what_could_make_room_wakes_everybody() {
    let mut w = World::with_nodes(1);
    let key = w.create("/pods", pod(json!({})));
    let look = |w: &World, old: Option<crate::view::Object>| {
        let new = w.view.object(&key).cloned();
        w.wakes(&Changed { key: key.clone(), old, new })
    };
    assert_eq!(look(&w, None), Wake::Pod(key.clone()));
    let before = w.view.object(&key).cloned();
    w.patch("/pods", "a", "p", json!({"status": {"conditions": []}}));
    assert_eq!(look(&w, before), Wake::Nothing);
    w.settle();
    let running = w.view.object(&key).cloned();
    w.patch("/pods", "a", "p", json!({"status": {"phase": "Succeeded"}}));
    assert_eq!(look(&w, running), Wake::All);
}
