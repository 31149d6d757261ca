//! Scenarios of deployment in the test world.
//!
//! In: objects and disturbances. Out: what the cluster looks like at rest. Never: a clock or a network.

use crate::{Change, Key, control::Controller, world::World};
use serde_json::{Value, json};

fn deployment(replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": "web", "namespace": "a", "annotations": {"who": "me"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": template(image)}})
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn started(replicas: i32) -> World {
    let mut w = World::with_nodes(3);
    w.create("apps/deployments", deployment(replicas, "one"));
    w.settle();
    w
}

fn status(w: &World) -> &Value {
    &w.get("apps/deployments", "a", "web")["status"]
}

fn condition<'a>(w: &'a World, type_: &str) -> &'a Value {
    let list = status(w)["conditions"].as_array().unwrap();
    list.iter().find(|c| c["type"] == type_).unwrap_or(&Value::Null)
}

/// (image, replicas, revision) of the ReplicaSets, by revision.
fn sets(w: &World) -> Vec<(String, i64, String)> {
    let one = |rs: &&Value| {
        let revision = rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap();
        let image = rs["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
        (image.to_owned(), rs["spec"]["replicas"].as_i64().unwrap(), revision.to_owned())
    };
    let mut all: Vec<_> = w.list("apps/replicasets").iter().map(one).collect();
    all.sort_by_key(|s| s.2.parse::<i64>().unwrap());
    all
}

#[test]
fn a_new_deployment_comes_up_with_upstreams_words() {
    let w = started(3);
    let s = status(&w);
    for field in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
        assert_eq!(s[field], 3, "{field}");
    }
    assert_eq!(s["observedGeneration"], 1);
    assert_eq!(condition(&w, "Available")["reason"], "MinimumReplicasAvailable");
    assert_eq!(condition(&w, "Progressing")["reason"], "NewReplicaSetAvailable");
    let rs = w.list("apps/replicasets")[0];
    let name = rs["metadata"]["name"].as_str().unwrap();
    let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
    assert_eq!(condition(&w, "Progressing")["message"], message);
    assert_eq!(rs["metadata"]["annotations"]["who"], "me");
    let hash = &rs["metadata"]["labels"]["pod-template-hash"];
    assert_eq!(name, format!("web-{}", hash.as_str().unwrap()));
    assert!(w.list("/pods").iter().all(|p| p["metadata"]["labels"]["pod-template-hash"] == *hash));
    let scaled = format!("Scaled up replica set {name} from 0 to 3");
    assert!(w.events.iter().any(|e| e.2 == "ScalingReplicaSet" && e.3 == scaled));
    assert_eq!(w.events.iter().filter(|e| e.2 == "SuccessfulCreate").count(), 3);
}

#[test]
fn rolls_forward_and_back_and_keeps_history() {
    let mut w = started(4);
    w.patch("apps/deployments", "a", "web", json!({"spec": {"template": template("two")}}));
    w.settle();
    assert_eq!(sets(&w), [("one".into(), 0, "1".into()), ("two".into(), 4, "2".into())]);
    w.patch("apps/deployments", "a", "web", json!({"spec": {"template": template("one")}}));
    w.settle();
    assert_eq!(sets(&w), [("two".into(), 0, "2".into()), ("one".into(), 4, "3".into())]);
    let d = w.get("apps/deployments", "a", "web");
    assert_eq!(d["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    w.patch("apps/deployments", "a", "web", json!({"spec": {"revisionHistoryLimit": 0}}));
    w.settle();
    assert_eq!(sets(&w), [("one".into(), 4, "3".into())]);
}

#[test]
fn a_sick_version_stops_at_the_fence_and_times_out() {
    let mut w = started(4);
    w.sick = vec!["web-".into()];
    w.patch("apps/deployments", "a", "web", json!({"spec": {"template": template("bad")}}));
    w.settle();
    // 25% of 4: one more, one fewer.
    assert_eq!(sets(&w), [("one".into(), 3, "1".into()), ("bad".into(), 2, "2".into())]);
    assert_eq!(status(&w)["unavailableReplicas"], 2);
    w.pass(700);
    assert_eq!(condition(&w, "Progressing")["reason"], "ProgressDeadlineExceeded");
    assert_eq!(condition(&w, "Progressing")["status"], "False");
    w.heal("web-");
    w.settle();
    assert_eq!(sets(&w), [("one".into(), 0, "1".into()), ("bad".into(), 4, "2".into())]);
    assert_eq!(condition(&w, "Progressing")["reason"], "NewReplicaSetAvailable");
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_in_proportion() {
    let mut w = started(10);
    w.sick = vec!["web-".into()];
    let strategy = json!({"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    w.patch(
        "apps/deployments",
        "a",
        "web",
        json!({"spec": {"strategy": strategy, "template": template("bad")}}),
    );
    w.settle();
    assert_eq!(sets(&w), [("one".into(), 8, "1".into()), ("bad".into(), 5, "2".into())]);
    w.patch("apps/deployments", "a", "web", json!({"spec": {"replicas": 15}}));
    w.settle();
    // The example of the Kubernetes documentation: 18 pods, 11 of the old and 7 of the new.
    assert_eq!(sets(&w), [("one".into(), 11, "1".into()), ("bad".into(), 7, "2".into())]);
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut w = World::with_nodes(1);
    let mut d = deployment(2, "one");
    d["spec"]["strategy"] = json!({"type": "Recreate"});
    w.create("apps/deployments", d);
    w.settle();
    w.kubelet = false;
    w.patch("apps/deployments", "a", "web", json!({"spec": {"template": template("two")}}));
    w.settle();
    assert_eq!(sets(&w), [("one".into(), 0, "1".into())]);
    w.kubelet = true;
    w.settle();
    assert_eq!(sets(&w), [("one".into(), 0, "1".into()), ("two".into(), 2, "2".into())]);
}

#[test]
fn pause_scales_but_does_not_roll() {
    let mut w = started(2);
    w.patch("apps/deployments", "a", "web", json!({"spec": {"paused": true, "template": template("two")}}));
    w.settle();
    assert_eq!(condition(&w, "Progressing")["reason"], "DeploymentPaused");
    w.patch("apps/deployments", "a", "web", json!({"spec": {"replicas": 5}}));
    w.settle();
    assert_eq!(sets(&w), [("one".into(), 5, "1".into())]);
    w.patch("apps/deployments", "a", "web", json!({"spec": {"paused": null}}));
    w.settle();
    assert_eq!(sets(&w), [("one".into(), 0, "1".into()), ("two".into(), 5, "2".into())]);
}

#[test]
fn min_ready_seconds_delays_availability() {
    let mut w = World::with_nodes(1);
    let mut d = deployment(2, "one");
    d["spec"]["minReadySeconds"] = json!(30);
    w.create("apps/deployments", d);
    w.settle();
    assert_eq!(status(&w)["availableReplicas"], Value::Null);
    assert_eq!(status(&w)["readyReplicas"], 2);
    w.pass(31);
    assert_eq!(status(&w)["availableReplicas"], 2);
}

#[test]
fn scales_to_zero_and_takes_in_orphans() {
    let mut w = started(3);
    w.patch("apps/deployments", "a", "web", json!({"spec": {"replicas": 0}}));
    w.settle();
    assert_eq!(w.list("/pods").len(), 0);
    assert_eq!(status(&w)["replicas"], Value::Null);
    w.patch("apps/deployments", "a", "web", json!({"spec": {"replicas": 1}}));
    w.settle();
    let name = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    w.patch("/pods", "a", &name, json!({"metadata": {"ownerReferences": null}}));
    w.settle();
    assert_eq!(w.list("/pods").len(), 1);
    assert!(w.list("/pods")[0]["metadata"]["ownerReferences"][0]["controller"] == true);
    w.patch("/pods", "a", &name, json!({"metadata": {"labels": {"app": "other"}}}));
    w.settle();
    assert_eq!(w.list("/pods").len(), 2);
}

#[test]
fn a_taken_name_counts_as_a_collision() {
    let w = started(1);
    let name = w.list("apps/replicasets")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let mut w = World::with_nodes(1);
    w.create(
        "apps/replicasets",
        json!({"metadata": {"name": name, "namespace": "a"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"x": "y"}}, "template": template("else")}}),
    );
    w.create("apps/deployments", deployment(1, "one"));
    w.settle();
    assert_eq!(status(&w)["collisionCount"], 1);
    assert_eq!(status(&w)["availableReplicas"], 1);
}

#[test]
fn a_refused_replica_set_is_told_and_shown() {
    let mut w = World::with_nodes(1);
    w.refuse = Some(("apps/replicasets", "exceeded quota: q"));
    w.create("apps/deployments", deployment(1, "one"));
    w.steps(4);
    let message = |m: &str| m.starts_with("Failed to create new replica set \"web-") && m.ends_with("exceeded quota: q");
    assert!(w.events.iter().any(|e| e.2 == "ReplicaSetCreateError" && message(&e.3)), "{:?}", w.events);
    let c = condition(&w, "Progressing");
    assert_eq!((&c["status"], &c["reason"]), (&json!("False"), &json!("ReplicaSetCreateError")));
    w.refuse = None;
    w.pass(1);
    assert_eq!(status(&w)["readyReplicas"], 1);
}

/// Two ReplicaSets of a rollout are there, and in one change the strategy, the size and the template become others.
#[test]
fn a_rollout_that_is_to_recreate_and_to_grow_goes_on() {
    let mut w = started(2);
    w.sick = vec!["web-".into()];
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    w.patch("apps/deployments", "a", "web", json!({"spec": {"strategy": rolling, "template": template("two")}}));
    w.settle();
    assert_eq!(sets(&w).iter().filter(|s| s.1 > 0).count(), 2, "in the middle of it");
    w.sick.clear();
    let recreate = json!({"type": "Recreate", "rollingUpdate": null});
    let all = json!({"spec": {"strategy": recreate, "replicas": 4, "template": template("three")}});
    w.patch("apps/deployments", "a", "web", all);
    w.settle();
    let of_three: Vec<i64> = sets(&w).iter().filter(|s| s.0 == "three").map(|s| s.1).collect();
    assert_eq!((of_three, &status(&w)["readyReplicas"]), (vec![4], &json!(4)));
}

/// The old ReplicaSet was made smaller, has deleted nothing yet, and its status does not know of its pods: they count.
#[test]
fn pods_that_are_there_leave_no_room_for_others() {
    let mut w = started(2);
    let old = w.list("apps/replicasets")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    w.patch("apps/replicasets", "a", &old, json!({"spec": {"replicas": 1}, "status": {"replicas": 0}}));
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    w.patch("apps/deployments", "a", "web", json!({"spec": {"strategy": strategy, "template": template("two")}}));
    let key = Key::new("apps/deployments", "a", "web");
    let plan = super::DeploymentController.reconcile(&w.view, &key, w.now, 1);
    let made = plan.changes.iter().find_map(|change| match change {
        Change::Create { object, .. } => Some(&object["spec"]["replicas"]),
        _ => None,
    });
    assert_eq!(made, Some(&json!(0)), "two of two are there");
}
