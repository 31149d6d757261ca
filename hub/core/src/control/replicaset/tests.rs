//! Cases of ReplicaSets and ReplicationControllers, row by row as upstream's own tests name them.
//!
//! In: pods as they can be, objects and disturbances. Out: who is deleted first, what is counted, and what the cluster looks
//! like at rest. Never: a clock or a network.

use super::{rank::*, *};
use crate::{Propagation, view::Object, world::World};
use std::collections::BTreeMap;

const SETS: &str = "apps/replicasets";
const NOW: &str = "2026-11-23T10:00:00Z";

fn set(replicas: i32) -> Value {
    json!({"metadata": {"name": "r", "namespace": "a"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x", "more": "1"}}, "spec": {"containers": []}}}})
}

fn world(nodes: usize, replicas: i32) -> World {
    let mut w = World::with_nodes(nodes);
    w.create(SETS, set(replicas));
    w.settle();
    w
}

fn scale(w: &mut World, replicas: i32) {
    w.patch(SETS, "a", "r", json!({"spec": {"replicas": replicas}}));
}

fn status(w: &World) -> &Value {
    &w.get(SETS, "a", "r")["status"]
}

fn names(w: &World) -> Vec<String> {
    w.list("/pods").iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn owner<'w>(w: &'w World, pod: &str) -> &'w Value {
    &w.get("/pods", "a", pod)["metadata"]["ownerReferences"][0]["name"]
}

fn told(w: &World, reason: &str) -> Vec<String> {
    w.events.iter().filter(|e| e.2 == reason).map(|e| e.3.clone()).collect()
}

fn at(seconds_ago: i64) -> String {
    let now: Timestamp = NOW.parse().unwrap();
    now.checked_sub(jiff::SignedDuration::from_secs(seconds_ago)).unwrap().to_string()
}

/// A running, ready pod on node n, an hour old, with changes.
fn pod(uid: &str, change: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": uid, "namespace": "a", "uid": uid, "creationTimestamp": at(3600), "annotations": {}},
        "spec": {"nodeName": "n", "initContainers": [{"name": "side", "restartPolicy": "Always"}, {"name": "init"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(3600)}]}});
    crate::json_merge(&mut pod, &change);
    match Object::parse(Pod::RESOURCE, pod.to_string().into_bytes().into()) {
        Some(Object::Pod(pod)) => pod,
        other => panic!("no pod: {other:?}"),
    }
}

fn ready(status: &str, seconds_ago: i64) -> Value {
    json!([{"type": "Ready", "status": status, "lastTransitionTime": at(seconds_ago)}])
}

fn costs(cost: &str) -> Value {
    json!({"metadata": {"annotations": {DELETION_COST: cost}}})
}

fn restarts(containers: &[i32], side: i32, init: i32) -> Value {
    let each = |(i, n): (usize, &i32)| json!({"name": format!("c{i}"), "restartCount": n});
    let main: Vec<Value> = containers.iter().enumerate().map(each).collect();
    json!({"status": {"containerStatuses": main, "initContainerStatuses": [
        {"name": "side", "restartCount": side}, {"name": "init", "restartCount": init}]}})
}

#[test]
fn who_is_deleted_first() {
    let now: Timestamp = NOW.parse().unwrap();
    let crowd = BTreeMap::from([("n", 3), ("full", 4)]);
    let phase = |p: &str| json!({"status": {"phase": p}});
    let none = json!({});
    let ready_at = |status: &str, ago| json!({"status": {"conditions": ready(status, ago)}});
    let born = |ago| json!({"metadata": {"creationTimestamp": at(ago)}});
    let rows = [
        ("without a node", json!({"spec": {"nodeName": null}}), phase("Pending")),
        ("pending before unknown", phase("Pending"), phase("Unknown")),
        ("unknown before running", phase("Unknown"), none.clone()),
        ("not ready before ready", ready_at("False", 9), none.clone()),
        ("not ready before cheap", ready_at("False", 9), costs("-7")),
        ("cheap before dear", costs("-7"), none.clone()),
        ("nothing said is 0", none.clone(), costs("1")),
        ("cost before crowd", none.clone(), json!({"spec": {"nodeName": "full"}, "metadata": costs("1")["metadata"]})),
        ("a plus sign is no number", costs("+10"), costs("1")),
        ("leading zeros are no number", costs("008"), costs("1")),
        ("too large is no number", costs("2147483648"), costs("1")),
        ("a crowded node", json!({"spec": {"nodeName": "full"}}), none.clone()),
        ("ready for a shorter time", ready_at("True", 60), none.clone()),
        ("no ready time at all", json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}), ready_at("True", 1)),
        ("ready for a shorter time before restarts", ready_at("True", 60), restarts(&[9], 0, 0)),
        ("more restarts", restarts(&[3], 0, 0), restarts(&[2], 0, 0)),
        ("of one container, not of all together", restarts(&[3, 0], 0, 0), restarts(&[2, 2], 0, 0)),
        ("of sidecars when the others are equal", restarts(&[2], 1, 0), restarts(&[2], 0, 0)),
        ("containers before sidecars", restarts(&[3], 0, 0), restarts(&[2], 9, 0)),
        ("younger", born(60), none.clone()),
        ("no birthday at all", json!({"metadata": {"creationTimestamp": null}}), born(60)),
    ];
    for (what, first, second) in rows {
        // The uid would say the contrary.
        let (first, second) = (pod("z", first), pod("b", second));
        assert!(rank(&first, &crowd, 0, now) < rank(&second, &crowd, 0, now), "{what}");
    }
    let (late, dear) = (pod("z", ready_at("True", 3000)), pod("b", costs("-7")));
    assert!(rank(&late, &crowd, 0, now) > rank(&dear, &crowd, 0, now));
    assert!(rank(&late, &crowd, 3300, now) < rank(&dear, &crowd, 3300, now), "not available yet");
    let same = [
        ("ages of one magnitude", born(3500), born(3600)),
        ("readiness of one magnitude", ready_at("True", 3500), ready_at("True", 3600)),
        ("restarts of what only starts up", restarts(&[1], 0, 5), restarts(&[1], 0, 0)),
    ];
    for (what, a, b) in same {
        assert!(rank(&pod("a", a.clone()), &crowd, 0, now) < rank(&pod("b", b.clone()), &crowd, 0, now), "{what}");
        assert!(rank(&pod("z", a), &crowd, 0, now) > rank(&pod("b", b), &crowd, 0, now), "{what}: the uid decides");
    }
}

#[test]
fn what_the_status_counts() {
    // (labels, phase, ready since so many seconds, being deleted)
    let (both, one) = (json!({"app": "x", "more": "1"}), json!({"app": "x"}));
    let rows = [
        ("nobody", vec![], json!([0, null, null, null, 0])),
        ("all there is", vec![(&both, "Running", Some(100), false)], json!([1, 1, 1, 1, 0])),
        ("not all of the template's labels", vec![(&one, "Running", Some(100), false)], json!([1, null, 1, 1, 0])),
        ("not ready", vec![(&both, "Running", None, false)], json!([1, 1, null, null, 0])),
        ("not ready for long enough", vec![(&both, "Running", Some(5), false)], json!([1, 1, 1, null, 0])),
        ("finished", vec![(&both, "Failed", None, false), (&both, "Succeeded", None, false)], json!([0, null, null, null, 0])),
        ("on its way out", vec![(&both, "Running", Some(100), true)], json!([0, null, null, null, 1])),
        ("out", vec![(&both, "Failed", None, true)], json!([0, null, null, null, 0])),
        (
            "some of each",
            vec![(&both, "Running", Some(100), false), (&one, "Running", Some(5), false), (&both, "Pending", None, false)],
            json!([3, 2, 2, 1, 0]),
        ),
    ];
    for (what, pods, want) in rows {
        let mut w = World::new();
        w.kubelet = false;
        let mut set = set(pods.iter().filter(|p| p.1 != "Failed" && p.1 != "Succeeded" && !p.3).count() as i32);
        set["spec"]["minReadySeconds"] = json!(10);
        w.create(SETS, set);
        let uid = w.get(SETS, "a", "r")["metadata"]["uid"].clone();
        let reference = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true}]);
        for (n, (labels, phase, since, going)) in pods.into_iter().enumerate() {
            let conditions = since.map_or(json!([]), |s| ready("True", s));
            w.create("/pods", json!({"metadata": {"name": format!("p{n}"), "namespace": "a", "labels": labels,
                "ownerReferences": reference, "finalizers": (if going { json!(["x/y"]) } else { Value::Null })},
                "spec": {"nodeName": "n"}, "status": {"phase": phase, "conditions": conditions}}));
            if going {
                w.delete("/pods", "a", &format!("p{n}"));
            }
        }
        // One look; nobody else has a say.
        let key = Key::new(SETS, "a", "r");
        let plan = ReplicaSetController::new().reconcile(&w.view, &key, w.now, 1);
        plan.changes.iter().for_each(|c| w.apply(c).unwrap());
        let s = status(&w);
        let got = json!([s["replicas"], s["fullyLabeledReplicas"], s["readyReplicas"], s["availableReplicas"],
            s["terminatingReplicas"]]);
        assert_eq!(got, want, "{what}: {s}");
        assert_eq!(s["observedGeneration"], 1, "{what}");
    }
}

#[test]
fn what_is_refused_is_told_once_and_what_was_let_in_counts() {
    let mut w = world(1, 1);
    w.refuse = Some(("/pods", "exceeded quota: q"));
    w.room = 2;
    scale(&mut w, 5);
    w.steps(12);
    let s = status(&w).clone();
    assert_eq!((&s["replicas"], &s["observedGeneration"]), (&json!(3), &json!(2)), "{s:#}");
    let failure = &s["conditions"][0];
    let got = (&failure["type"], &failure["status"], &failure["reason"], &failure["message"]);
    let want = (&json!("ReplicaFailure"), &json!("True"), &json!("FailedCreate"), &json!("exceeded quota: q"));
    assert_eq!(got, want);
    assert_eq!(told(&w, "FailedCreate")[0], "Error creating: exceeded quota: q");
    w.refuse = Some(("/pods", "something else"));
    w.steps(6);
    assert_eq!(status(&w)["conditions"], s["conditions"], "the first word stays until it is over");
    w.refuse = None;
    w.settle();
    let want = json!({"replicas": 5, "fullyLabeledReplicas": 5, "readyReplicas": 5, "availableReplicas": 5,
        "terminatingReplicas": 0, "observedGeneration": 2});
    assert_eq!(*status(&w), want);
    w.keep_pods = Some("not now");
    scale(&mut w, 4);
    w.steps(6);
    let failure = &status(&w)["conditions"][0];
    assert_eq!((&failure["reason"], &failure["message"]), (&json!("FailedDelete"), &json!("not now")));
    assert_eq!(told(&w, "FailedDelete")[0], "Error deleting: not now");
    w.keep_pods = None;
    w.settle();
    assert_eq!((&status(&w)["conditions"], &status(&w)["replicas"]), (&Value::Null, &json!(4)));
    // A namespace that goes is no failure.
    w.create("/namespaces", json!({"metadata": {"name": "a"}}));
    w.refuse = Some(("/pods", "is being terminated"));
    let before = told(&w, "FailedCreate").len();
    w.delete("/namespaces", "", "a");
    w.settle();
    assert!(names(&w).is_empty());
    assert_eq!(told(&w, "FailedCreate").len(), before);
}

#[test]
fn who_is_adopted_and_let_go() {
    let mut w = World::with_nodes(1);
    w.kubelet = false;
    let loose = |name: &str, labels: Value, phase: &str, owner: Value| {
        json!({"metadata": {"name": name, "namespace": "a", "labels": labels, "ownerReferences": owner},
            "spec": {"nodeName": "n0"}, "status": {"phase": phase}})
    };
    let app = json!({"app": "x"});
    w.create("/configmaps", json!({"metadata": {"name": "other", "namespace": "a"}}));
    let other = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "controller": true,
        "uid": w.get("/configmaps", "a", "other")["metadata"]["uid"]}]);
    w.create("/pods", loose("mine", app.clone(), "Running", Value::Null));
    w.create("/pods", loose("stranger", json!({"app": "y"}), "Running", Value::Null));
    w.create("/pods", loose("ended", app.clone(), "Succeeded", Value::Null));
    w.create("/pods", loose("failed", app.clone(), "Failed", Value::Null));
    w.create("/pods", loose("theirs", app.clone(), "Running", other));
    let mut going = loose("going", app.clone(), "Running", Value::Null);
    going["metadata"]["finalizers"] = json!(["x/y"]);
    w.create("/pods", going);
    w.delete("/pods", "a", "going");
    let mut far = loose("far", app, "Running", Value::Null);
    far["metadata"]["namespace"] = json!("b");
    w.create("/pods", far);
    w.create(SETS, set(2));
    w.settle();
    let held: Vec<String> = names(&w).into_iter().filter(|n| n != "far" && owner(&w, n) == "r").collect();
    assert_eq!((held.len(), held.contains(&"mine".to_owned())), (2, true), "{held:?}");
    assert_eq!(w.get("/pods", "b", "far")["metadata"]["ownerReferences"], Value::Null);
    let reference = &w.get("/pods", "a", "mine")["metadata"]["ownerReferences"][0];
    assert_eq!((&reference["controller"], &reference["blockOwnerDeletion"]), (&json!(true), &json!(true)));
    // Whoever no longer matches is let go, and made up for; who ended keeps its owner.
    w.patch("/pods", "a", "mine", json!({"metadata": {"labels": {"app": "free"}}}));
    w.settle();
    assert_eq!((owner(&w, "mine"), status(&w)["replicas"].clone()), (&Value::Null, json!(2)));
    let second = held.iter().find(|n| *n != "mine").unwrap().clone();
    w.patch("/pods", "a", &second, json!({"status": {"phase": "Failed"}}));
    w.settle();
    w.patch("/pods", "a", &second, json!({"metadata": {"labels": {"app": "free"}}}));
    w.settle();
    assert_eq!((owner(&w, &second), status(&w)["replicas"].clone()), (&json!("r"), json!(2)));
}

#[test]
fn one_that_is_being_deleted_makes_adopts_and_lets_go_of_nothing() {
    let mut w = world(1, 1);
    w.patch(SETS, "a", "r", json!({"metadata": {"finalizers": ["x/y"]}}));
    let name = names(&w)[0].clone();
    w.delete(SETS, "a", "r");
    w.create("/pods", json!({"metadata": {"name": "loose", "namespace": "a", "labels": {"app": "x"}}, "spec": {}}));
    w.patch("/pods", "a", &name, json!({"metadata": {"labels": {"app": "free"}}}));
    scale(&mut w, 7);
    w.settle();
    assert_eq!((owner(&w, &name), owner(&w, "loose")), (&json!("r"), &Value::Null));
    assert_eq!(names(&w).len(), 2);
    assert_eq!(status(&w)["replicas"], 0, "it still counts");
}

#[test]
fn very_many_come_and_go_in_steps() {
    let mut w = World::new();
    w.create(SETS, set(1200));
    let key = Key::new(SETS, "a", "r");
    let of = |w: &World, what: fn(&Change) -> bool| {
        let plan = ReplicaSetController::new().reconcile(&w.view, &key, w.now, 1);
        plan.changes.iter().filter(|c| what(c)).count()
    };
    let creates = |c: &Change| matches!(c, Change::Create { .. });
    let deletes = |c: &Change| matches!(c, Change::Delete { .. });
    assert_eq!(of(&w, creates), 500);
    w.settle();
    assert_eq!(names(&w).len(), 1200);
    scale(&mut w, 0);
    assert_eq!(of(&w, deletes), 500);
    w.settle();
    assert_eq!(names(&w).len(), 0);
}

#[test]
fn available_is_who_was_ready_for_long_enough() {
    let mut w = World::with_nodes(1);
    let mut set = set(2);
    set["spec"]["minReadySeconds"] = json!(30);
    w.create(SETS, set);
    w.settle();
    assert_eq!((&status(&w)["readyReplicas"], &status(&w)["availableReplicas"]), (&json!(2), &Value::Null));
    w.pass(29);
    assert_eq!(status(&w)["availableReplicas"], Value::Null);
    w.pass(1);
    assert_eq!(status(&w)["availableReplicas"], 2);
}

#[test]
fn a_pod_on_its_way_out_is_made_up_for_at_once() {
    let mut w = world(1, 2);
    w.kubelet = false;
    let name = names(&w)[0].clone();
    w.delete("/pods", "a", &name);
    w.settle();
    let s = status(&w);
    assert_eq!((&s["replicas"], &s["terminatingReplicas"], names(&w).len()), (&json!(2), &json!(1), 3));
    w.kubelet = true;
    w.settle();
    assert_eq!(status(&w)["terminatingReplicas"], 0);
    let created = told(&w, "SuccessfulCreate");
    assert_eq!((created.len(), created[0].starts_with("Created pod: r-")), (3, true), "{created:?}");
    scale(&mut w, 1);
    w.settle();
    assert!(told(&w, "SuccessfulDelete")[0].starts_with("Deleted pod: r-"));
}

#[test]
fn a_rollout_takes_pods_from_where_both_versions_are() {
    let mut w = World::with_nodes(2);
    w.create("apps/deployments", json!({"metadata": {"name": "d", "namespace": "a", "uid": "d"}, "spec": {}}));
    let uid = w.get("apps/deployments", "a", "d")["metadata"]["uid"].clone();
    let reference = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": uid, "controller": true}]);
    for (name, app) in [("r", "x"), ("s", "y"), ("alone", "z")] {
        let mut set = set(0);
        set["metadata"] = json!({"name": name, "namespace": "a", "ownerReferences": reference});
        if name == "alone" {
            set["metadata"]["ownerReferences"] = Value::Null;
        }
        set["spec"]["selector"]["matchLabels"]["app"] = json!(app);
        w.create(SETS, set);
    }
    for (name, app, set, node) in
        [("x0", "x", "r", "n0"), ("x1", "x", "r", "n1"), ("y0", "y", "s", "n1"), ("z0", "z", "alone", "n1")]
    {
        let uid = w.get(SETS, "a", set)["metadata"]["uid"].clone();
        w.create("/pods", json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": app}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": uid, "controller": true}]},
            "spec": {"nodeName": node}, "status": {"phase": "Running"}}));
    }
    let crowd = |name: &str| pods_per_node(&w.view, &**w.view.get::<ReplicaSet>("a", name).unwrap());
    assert_eq!(crowd("r"), BTreeMap::from([("n0", 1), ("n1", 2)]));
    assert_eq!(crowd("s"), crowd("r"));
    assert_eq!(crowd("alone"), BTreeMap::new(), "nobody is related to one without a controller");
}

#[test]
fn a_replication_controller_keeps_its_pods_too() {
    let mut w = World::with_nodes(1);
    let rc = |replicas: i32| json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {"replicas": replicas,
        "selector": {"app": "x"}, "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}}});
    const CONTROLLERS: &str = "/replicationcontrollers";
    w.create("/pods", json!({"metadata": {"name": "loose", "namespace": "a", "labels": {"app": "x"}}, "spec": {}}));
    w.create(CONTROLLERS, rc(3));
    w.settle();
    let want = json!({"replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
        "observedGeneration": 1});
    assert_eq!(w.get(CONTROLLERS, "a", "r")["status"], want);
    let reference = &w.get("/pods", "a", "loose")["metadata"]["ownerReferences"][0];
    assert_eq!((&reference["apiVersion"], &reference["kind"]), (&json!("v1"), &json!("ReplicationController")));
    w.refuse = Some(("/pods", "exceeded quota: q"));
    w.patch(CONTROLLERS, "a", "r", json!({"spec": {"replicas": 4}}));
    w.steps(4);
    let failure = &w.get(CONTROLLERS, "a", "r")["status"]["conditions"][0];
    assert_eq!((&failure["type"], &failure["reason"]), (&json!("ReplicaFailure"), &json!("FailedCreate")));
    assert!(w.events.iter().any(|e| e.0 == "ReplicationController" && e.2 == "FailedCreate"));
    w.refuse = None;
    w.patch(CONTROLLERS, "a", "r", json!({"spec": {"replicas": 1}}));
    w.settle();
    assert_eq!(names(&w).len(), 1);
    w.delete(CONTROLLERS, "a", "r");
    w.settle();
    assert!(names(&w).is_empty());
}

#[test]
fn two_with_one_selector_do_not_fight() {
    let mut w = World::with_nodes(1);
    let mut second = set(2);
    second["metadata"]["name"] = json!("s");
    w.create(SETS, set(2));
    w.create(SETS, second);
    w.settle();
    assert_eq!(names(&w).len(), 4);
    w.delete_with(&Key::new(SETS, "a", "r"), None, Some(Propagation::Orphan));
    w.settle();
    assert_eq!(names(&w).len(), 2, "the other adopts them and has too many");
}

#[test]
fn those_that_are_not_ready_go_first() {
    let mut w = world(2, 3);
    w.sick = vec!["-".into()];
    scale(&mut w, 5);
    w.settle();
    assert_eq!((&status(&w)["replicas"], &status(&w)["readyReplicas"]), (&json!(5), &json!(3)));
    scale(&mut w, 3);
    w.settle();
    assert_eq!(status(&w)["readyReplicas"], 3);
}

#[test]
fn finished_and_failed_pods_are_replaced() {
    for phase in ["Failed", "Succeeded"] {
        let mut w = world(1, 1);
        let name = names(&w)[0].clone();
        w.patch("/pods", "a", &name, json!({"status": {"phase": phase, "reason": "Evicted"}}));
        w.settle();
        assert_eq!((names(&w).len(), &status(&w)["replicas"]), (2, &json!(1)), "{phase}");
    }
}

#[test]
fn one_made_anew_under_its_name_takes_its_orphans() {
    let mut w = world(1, 2);
    let before = names(&w);
    w.delete_with(&Key::new(SETS, "a", "r"), None, Some(Propagation::Orphan));
    w.settle();
    assert_eq!((names(&w), owner(&w, &before[0])), (before.clone(), &Value::Null));
    w.create(SETS, set(2));
    w.settle();
    assert_eq!((names(&w), owner(&w, &before[0])), (before, &json!("r")));
}
