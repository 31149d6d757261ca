//! Objects that nobody should write and somebody will.
//!
//! In: overlapping selectors, owners in circles, very long lists. Out: rest, at a state that can be explained.
//! Never: work without an end.

use super::World;
use crate::{Key, Propagation};
use serde_json::{Value, json};

fn set(name: &str, replicas: i32) -> Value {
    json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c"}]}}}})
}

#[test]
fn sets_with_one_selector_share_nothing() {
    let mut w = World::with_nodes(2);
    w.create("/pods", json!({"metadata": {"name": "loose", "namespace": "a", "labels": {"app": "x"}}, "spec": {}}));
    w.create("apps/replicasets", set("one", 3));
    w.create("apps/replicasets", set("two", 2));
    w.create("apps/deployments", set("three", 2));
    w.create("apps/statefulsets", set("four", 2));
    w.create("apps/daemonsets", set("five", 0));
    w.settle();
    let of = |w: &World, kind: &str, name: &str| {
        let owned = |p: &&&Value| {
            let owner = &p["metadata"]["ownerReferences"][0];
            owner["kind"] == kind && owner["name"].as_str().is_some_and(|n| n.starts_with(name))
        };
        w.list("/pods").iter().filter(owned).count()
    };
    let all = [("ReplicaSet", "one", 3), ("ReplicaSet", "two", 2), ("ReplicaSet", "three", 2), ("StatefulSet", "four", 2),
        ("DaemonSet", "five", 2)];
    for (kind, name, want) in all {
        assert_eq!(of(&w, kind, name), want, "{kind} {name}");
    }
    assert!(w.list("/pods").iter().all(|p| p["metadata"]["ownerReferences"].as_array().unwrap().len() == 1));
    w.delete_with(&Key::new("apps/replicasets", "a", "one"), None, Some(Propagation::Orphan));
    w.settle();
    assert_eq!(w.list("/pods").len(), 8, "one of the others takes them, and lets go of what is too much");
}

#[test]
fn owners_in_a_circle_go_together_or_stay() {
    let mut w = World::new();
    let uid = |w: &World, name: &str| w.get("/configmaps", "a", name)["metadata"]["uid"].clone();
    for name in ["x", "y", "z"] {
        w.create("/configmaps", json!({"metadata": {"name": name, "namespace": "a"}}));
    }
    for (name, owner) in [("x", "y"), ("y", "z"), ("z", "x")] {
        let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid(&w, owner),
            "blockOwnerDeletion": true}]);
        w.patch("/configmaps", "a", name, json!({"metadata": {"ownerReferences": reference}}));
    }
    w.settle();
    assert_eq!(w.list("/configmaps").len(), 3, "each has an owner that is there");
    w.delete_with(&Key::new("/configmaps", "a", "x"), None, Some(Propagation::Foreground));
    w.settle();
    assert!(w.list("/configmaps").is_empty(), "{:#?}", w.list("/configmaps"));
    let mut w = World::new();
    w.create("/configmaps", json!({"metadata": {"name": "self", "namespace": "a"}}));
    let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "self", "uid": uid(&w, "self")}]);
    w.patch("/configmaps", "a", "self", json!({"metadata": {"ownerReferences": reference}}));
    w.settle();
    w.delete_with(&Key::new("/configmaps", "a", "self"), None, Some(Propagation::Foreground));
    w.settle();
    assert!(w.list("/configmaps").is_empty(), "its own owner");
}

#[test]
fn ten_thousand_terms_are_read_once() {
    let mut w = World::with_nodes(3);
    let on = |node: &str| json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
    let term = |n: usize| on(&format!("x{n}"));
    let mut terms: Vec<Value> = (0..10_000).map(term).collect();
    let pod = |name: &str, terms: &[Value]| json!({"metadata": {"name": name, "namespace": "a"}, "spec": {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}},
        "containers": [{"name": "c"}]}});
    w.create("/pods", pod("nowhere", &terms));
    terms.push(on("n2"));
    w.create("/pods", pod("last", &terms));
    let near = |n: usize| json!({"topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": format!("x{n}")}}});
    let apart: Vec<Value> = (0..10_000).map(near).collect();
    w.create("/pods", json!({"metadata": {"name": "shy", "namespace": "a"}, "spec": {"containers": [{"name": "c"}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}}}}));
    w.settle();
    assert_eq!(w.get("/pods", "a", "last")["spec"]["nodeName"], "n2");
    assert_eq!(w.get("/pods", "a", "nowhere")["spec"]["nodeName"], Value::Null);
    assert!(w.get("/pods", "a", "shy")["spec"]["nodeName"].is_string());
    let told: Vec<&str> = w.events.iter().filter(|e| e.1 == "nowhere").map(|e| &*e.3).collect();
    assert!(!told.is_empty() && told.iter().all(|m| m.len() <= 1024), "bounded words");
}
