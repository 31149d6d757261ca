//! Scenarios of daemonset in the test world.
//!
//! In: objects and disturbances. Out: what the cluster looks like at rest. Never: a clock or a network.

use crate::world::World;
use serde_json::{Value, json};

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn started(nodes: usize) -> World {
    let mut w = World::with_nodes(nodes);
    w.create(
        "apps/daemonsets",
        json!({"metadata": {"name": "d", "namespace": "a"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template("one"),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}}}),
    );
    w.settle();
    w
}

fn set(w: &mut World, spec: Value) {
    w.patch("apps/daemonsets", "a", "d", json!({"spec": spec}));
}

fn status(w: &World) -> &Value {
    &w.get("apps/daemonsets", "a", "d")["status"]
}

/// (node, image), by node.
fn pods(w: &World) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    let one = |p: &&Value| (text(&p["spec"]["nodeName"]), text(&p["spec"]["containers"][0]["image"]));
    let mut all: Vec<_> = w.list("/pods").iter().map(one).collect();
    all.sort();
    all
}

fn images(w: &World) -> Vec<String> {
    pods(w).into_iter().map(|p| p.1).collect()
}

#[test]
fn one_on_every_node_also_on_later_and_cordoned_ones() {
    let mut w = started(2);
    assert_eq!(pods(&w).len(), 2);
    w.node("late", json!({}), json!([]));
    w.patch("/nodes", "", "n0", json!({"spec": {"unschedulable": true}}));
    w.settle();
    assert_eq!(pods(&w).len(), 3);
    let s = status(&w);
    assert_eq!(
        (&s["desiredNumberScheduled"], &s["numberReady"], &s["numberAvailable"]),
        (&json!(3), &json!(3), &json!(3))
    );
    assert_eq!(s["numberUnavailable"], Value::Null);
    assert_eq!(s["updatedNumberScheduled"], 3);
}

#[test]
fn selectors_and_taints_decide() {
    let mut w = started(2);
    set(&mut w, json!({"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}));
    w.settle();
    assert_eq!(pods(&w).len(), 0);
    w.patch("/nodes", "", "n1", json!({"metadata": {"labels": {"disk": "ssd"}}}));
    w.settle();
    assert_eq!(pods(&w)[0].0, "n1");
    w.patch("/nodes", "", "n1", json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}));
    w.settle();
    assert_eq!(pods(&w).len(), 1, "a taint against new pods lets this one stay");
    assert_eq!(status(&w)["numberMisscheduled"], 1);
    w.patch("/nodes", "", "n1", json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
    w.settle();
    assert_eq!(pods(&w).len(), 0);
}

#[test]
fn rolls_within_its_limit_and_back() {
    let mut w = started(3);
    w.sick = vec!["d-".into()];
    set(&mut w, json!({"template": template("two")}));
    w.settle();
    let mut now = images(&w);
    now.sort();
    assert_eq!(now, ["one", "one", "two"]);
    assert_eq!(status(&w)["updatedNumberScheduled"], 1);
    w.heal("d-");
    w.settle();
    assert_eq!(images(&w), ["two", "two", "two"]);
    assert_eq!(w.list("apps/controllerrevisions").len(), 2);
    set(&mut w, json!({"template": template("one")}));
    w.settle();
    let revisions: Vec<_> =
        w.list("apps/controllerrevisions").iter().map(|r| r["revision"].clone()).collect();
    assert_eq!((images(&w)[0].as_str(), revisions.len()), ("one", 2));
    assert!(revisions.contains(&json!(3)), "the first revision came back as the third: {revisions:?}");
    let data = &w.list("apps/controllerrevisions")[0]["data"]["spec"]["template"];
    assert_eq!(data["$patch"], "replace");
}

#[test]
fn history_is_bounded() {
    let mut w = started(1);
    set(&mut w, json!({"revisionHistoryLimit": 1}));
    for image in ["two", "three", "four"] {
        set(&mut w, json!({"template": template(image)}));
        w.settle();
    }
    assert_eq!(w.list("apps/controllerrevisions").len(), 2);
}

#[test]
fn on_delete_waits_for_people() {
    let mut w = started(2);
    set(&mut w, json!({"updateStrategy": {"type": "OnDelete"}, "template": template("two")}));
    w.settle();
    assert_eq!(images(&w), ["one", "one"]);
    let name = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    w.delete("/pods", "a", &name);
    w.settle();
    let mut now = images(&w);
    now.sort();
    assert_eq!(now, ["one", "two"]);
}

#[test]
fn a_surge_brings_the_new_before_the_old_goes() {
    let mut w = started(2);
    let strategy = json!({"rollingUpdate": {"maxSurge": "40%", "maxUnavailable": 0}});
    w.sick = vec!["d-".into()];
    set(&mut w, json!({"updateStrategy": strategy, "template": template("two")}));
    w.settle();
    let mut now = images(&w);
    now.sort();
    assert_eq!(now, ["one", "one", "two"]);
    w.heal("d-");
    w.settle();
    assert_eq!(images(&w), ["two", "two"]);
}

#[test]
fn ended_pods_are_made_anew_without_haste() {
    let mut w = started(1);
    let name = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    w.patch("/pods", "a", &name, json!({"status": {"phase": "Failed"}}));
    w.settle();
    assert!(w.exists("/pods", "a", &name));
    w.pass(11);
    assert!(!w.exists("/pods", "a", &name));
    assert_eq!(pods(&w).len(), 1);
    assert!(w.events.iter().any(|e| e.2 == "FailedDaemonPod"));
}

#[test]
fn a_deleted_node_takes_its_pod_along() {
    let mut w = started(2);
    w.delete("/nodes", "", "n1");
    w.pass(60);
    assert_eq!(pods(&w).len(), 1);
    assert_eq!(status(&w)["desiredNumberScheduled"], 1);
}

#[test]
fn with_a_surge_an_old_pod_that_is_not_ready_goes_at_once() {
    let mut w = started(1);
    set(&mut w, json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}));
    w.settle();
    let old = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    w.sick = vec!["d-".into()];
    set(&mut w, json!({"template": template("two")}));
    w.settle();
    let two = || vec![("n0".to_owned(), "one".to_owned()), ("n0".to_owned(), "two".to_owned())];
    assert_eq!((pods(&w), status(&w)["updatedNumberScheduled"].clone()), (two(), Value::Null), "the old one works");
    let not_ready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-23T10:00:00Z"}]);
    w.patch("/pods", "a", &old, json!({"status": {"conditions": not_ready}}));
    w.settle();
    assert_eq!(pods(&w), [("n0".to_owned(), "two".to_owned())]);
}
