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

fn only_pod(w: &World) -> String {
    w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Lets the only pod fail, and says after how many seconds it was made anew.
fn replaced_after(w: &mut World) -> i64 {
    let name = only_pod(w);
    w.patch("/pods", "a", &name, json!({"status": {"phase": "Failed"}}));
    w.settle();
    let mut seconds = 0;
    while w.exists("/pods", "a", &name) {
        w.pass(1);
        seconds += 1;
        assert!(seconds < 2000, "never");
    }
    assert_eq!(pods(w).len(), 1);
    seconds
}

#[test]
fn a_node_that_fails_pods_again_and_again_gets_new_ones_more_and_more_slowly() {
    let mut w = started(1);
    let waits: Vec<i64> = (0..13).map(|_| replaced_after(&mut w)).collect();
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
    let told = |w: &World| w.events.iter().filter(|e| e.2 == "FailedDaemonPod").count();
    assert_eq!(told(&w), 13, "once for each");
    w.pass(1801);
    assert_eq!((replaced_after(&mut w), replaced_after(&mut w)), (0, 1), "half an hour of peace");
    // Another template is another matter.
    set(&mut w, json!({"template": template("two")}));
    w.settle();
    assert_eq!(replaced_after(&mut w), 0);
    // Each node for itself.
    w.node("n1", json!({}), json!([]));
    w.settle();
    let name = |w: &World, node: &str| {
        let pods = w.list("/pods");
        let found = pods.iter().find(|p| p["spec"]["nodeName"] == node).unwrap();
        found["metadata"]["name"].as_str().unwrap().to_owned()
    };
    let first = name(&w, "n1");
    w.patch("/pods", "a", &first, json!({"status": {"phase": "Failed"}}));
    w.settle();
    assert!(!w.exists("/pods", "a", &first));
}

#[test]
fn a_pod_that_succeeded_is_made_anew_at_once() {
    let mut w = started(1);
    for _ in 0..3 {
        let name = only_pod(&w);
        w.patch("/pods", "a", &name, json!({"status": {"phase": "Succeeded"}}));
        w.settle();
        assert!(!w.exists("/pods", "a", &name));
        let message = format!("Found succeeded daemon pod a/{name} on node n0, will try to delete it");
        assert!(w.events.iter().any(|e| e.2 == "SucceededDaemonPod" && e.3 == message));
    }
}

#[test]
fn with_a_surge_a_new_pod_may_stand_beside_one_that_goes() {
    for (strategy, want) in [
        (json!({"maxSurge": 0, "maxUnavailable": 1}), 1),
        (json!({"maxSurge": 1, "maxUnavailable": 0}), 2),
    ] {
        let mut w = started(1);
        set(&mut w, json!({"updateStrategy": {"rollingUpdate": strategy}}));
        w.settle();
        w.kubelet = false;
        let name = only_pod(&w);
        w.delete("/pods", "a", &name);
        w.settle();
        assert_eq!(w.list("/pods").len(), want, "{strategy}");
    }
}

#[test]
fn a_pod_that_is_meant_for_a_node_that_went_is_deleted() {
    let mut w = started(1);
    w.node("full", json!({}), json!([]));
    w.patch("/nodes", "", "full", json!({"status": {"allocatable": {"pods": "0"}}}));
    w.settle();
    assert_eq!(pods(&w)[0].0, "-", "it waits for room");
    w.delete("/nodes", "", "full");
    w.settle();
    assert_eq!(pods(&w), [("n0".to_owned(), "one".to_owned())]);
    assert!(w.events.iter().any(|e| e.2 == "SuccessfulDelete"));
}

#[test]
fn what_is_refused_is_told_and_what_was_let_in_counts() {
    let mut w = World::with_nodes(3);
    w.refuse = Some(("/pods", "exceeded quota: q"));
    w.room = 2;
    w.create("apps/daemonsets", json!({"metadata": {"name": "d", "namespace": "a"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template("one")}}));
    w.steps(6);
    let s = status(&w);
    let got = (&s["desiredNumberScheduled"], &s["currentNumberScheduled"], &s["observedGeneration"]);
    assert_eq!(got, (&json!(3), &json!(2), &json!(1)), "{s:#}");
    assert!(w.events.iter().any(|e| e.2 == "FailedCreate" && e.3 == "Error creating: exceeded quota: q"));
}

fn revisions(w: &World) -> Vec<&Value> {
    w.list("apps/controllerrevisions")
}

#[test]
fn equal_revisions_become_one_and_their_pods_bear_its_hash() {
    let mut w = started(2);
    let first = revisions(&w)[0].clone();
    let mut double = first.clone();
    double["metadata"] = json!({"name": "d-double", "namespace": "a",
        "labels": {"app": "x", "controller-revision-hash": "double"},
        "annotations": {"kubernetes.io/change-cause": "twice"}});
    double["revision"] = json!(7);
    let before = pods(&w);
    let names: Vec<Value> = w.list("/pods").iter().map(|p| p["metadata"]["name"].clone()).collect();
    w.create("apps/controllerrevisions", double);
    w.settle();
    let left = revisions(&w);
    assert_eq!((left.len(), &left[0]["metadata"]["name"], &left[0]["revision"]), (1, &json!("d-double"), &json!(7)));
    assert_eq!(left[0]["metadata"]["ownerReferences"][0]["name"], "d", "it was adopted");
    assert_eq!(pods(&w), before);
    for pod in w.list("/pods") {
        assert_eq!(pod["metadata"]["labels"]["controller-revision-hash"], "double");
        assert!(names.contains(&pod["metadata"]["name"]), "no pod is made anew for that");
    }
    assert_eq!(status(&w)["updatedNumberScheduled"], 2);
    set(&mut w, json!({"template": template("two")}));
    w.settle();
    assert!(revisions(&w).iter().any(|r| r["revision"] == 8), "{:#?}", revisions(&w));
}

#[test]
fn one_made_anew_takes_its_pods_and_its_history() {
    let mut w = started(2);
    w.patch("apps/daemonsets", "a", "d", json!({"metadata": {"annotations": {"kubernetes.io/change-cause": "why"}}}));
    set(&mut w, json!({"template": template("two")}));
    w.settle();
    let cause = |r: &&Value| r["metadata"]["annotations"]["kubernetes.io/change-cause"] == "why";
    assert_eq!(revisions(&w).into_iter().filter(cause).count(), 1, "the revision says why");
    let uids = |w: &World| -> Vec<Value> { w.list("/pods").iter().map(|p| p["metadata"]["uid"].clone()).collect() };
    let (before, spec) = (uids(&w), w.get("apps/daemonsets", "a", "d")["spec"].clone());
    w.delete_with(&crate::Key::new("apps/daemonsets", "a", "d"), None, Some(crate::Propagation::Orphan));
    w.settle();
    assert_eq!(uids(&w), before);
    w.create("apps/daemonsets", json!({"metadata": {"name": "d", "namespace": "a"}, "spec": spec}));
    w.settle();
    assert_eq!((uids(&w), revisions(&w).len()), (before, 2), "nothing is rolled out anew");
    assert_eq!((&status(&w)["updatedNumberScheduled"], &status(&w)["collisionCount"]), (&json!(2), &Value::Null));
}

#[test]
fn revisions_that_pods_have_count_against_the_limit_and_stay() {
    let mut w = started(1);
    set(&mut w, json!({"updateStrategy": {"type": "OnDelete"}, "revisionHistoryLimit": 2}));
    for image in ["two", "three", "four", "five"] {
        set(&mut w, json!({"template": template(image)}));
        w.settle();
    }
    let mut left: Vec<i64> = revisions(&w).iter().map(|r| r["revision"].as_i64().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, [1, 4, 5], "the pod's, the last and the current one");
}

#[test]
fn a_taken_revision_name_counts_as_a_collision() {
    let name = revisions(&started(1))[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let mut w = World::with_nodes(1);
    w.create("apps/controllerrevisions", json!({"metadata": {"name": name, "namespace": "a"}, "revision": 1, "data": {}}));
    w.create("apps/daemonsets", json!({"metadata": {"name": "d", "namespace": "a"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template("one")}}));
    w.settle();
    assert_eq!((&status(&w)["collisionCount"], revisions(&w).len()), (&json!(1), 2));
    assert_eq!(status(&w)["updatedNumberScheduled"], 1);
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

#[test]
fn pods_bear_the_generation_of_their_template() {
    let mut w = started(1);
    assert_eq!(w.list("/pods")[0]["metadata"]["labels"]["pod-template-generation"], Value::Null);
    let generation = json!({"metadata": {"annotations": {"deprecated.daemonset.template.generation": "2"}},
        "spec": {"template": template("two")}});
    w.patch("apps/daemonsets", "a", "d", generation);
    w.settle();
    assert_eq!(w.list("/pods")[0]["metadata"]["labels"]["pod-template-generation"], "2");
}
