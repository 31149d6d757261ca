//! Scenarios of statefulset in the test world.
//!
//! In: objects and disturbances. Out: what the cluster looks like at rest. Never: a clock or a network.

use crate::world::World;
use serde_json::{Value, json};

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn started(replicas: i32, spec: Value) -> World {
    let mut w = World::with_nodes(2);
    let mut s = json!({"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "serviceName": "svc",
        "template": template("one")});
    crate::json_merge(&mut s, &spec);
    w.create("apps/statefulsets", json!({"metadata": {"name": "s", "namespace": "a"}, "spec": s}));
    w.settle();
    w
}

fn set(w: &mut World, spec: Value) {
    w.patch("apps/statefulsets", "a", "s", json!({"spec": spec}));
}

/// (name, image) by name.
fn pods(w: &World) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    let one = |p: &&Value| (text(&p["metadata"]["name"]), text(&p["spec"]["containers"][0]["image"]));
    w.list("/pods").iter().map(one).collect()
}

fn want(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn comes_up_in_order_and_waits_for_the_sick() {
    let mut w = World::with_nodes(1);
    w.sick = vec!["s-1".into()];
    w.create(
        "apps/statefulsets",
        json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"replicas": 3,
        "selector": {"matchLabels": {"app": "x"}}, "serviceName": "svc", "template": template("one")}}),
    );
    w.settle();
    assert_eq!(pods(&w), want(&[("s-0", "one"), ("s-1", "one")]));
    w.heal("s-1");
    w.settle();
    let p = w.get("/pods", "a", "s-2");
    assert_eq!((&p["spec"]["hostname"], &p["spec"]["subdomain"]), (&json!("s-2"), &json!("svc")));
    assert_eq!(p["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"], "s-2");
    let status = &w.get("apps/statefulsets", "a", "s")["status"];
    assert_eq!((&status["readyReplicas"], &status["currentReplicas"]), (&json!(3), &json!(3)));
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn parallel_does_not_wait() {
    let mut w = World::with_nodes(1);
    w.sick = vec!["s-".into()];
    w.create("apps/statefulsets", json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"replicas": 3,
        "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": "x"}}, "template": template("one")}}));
    w.settle();
    assert_eq!(pods(&w).len(), 3);
    set(&mut w, json!({"replicas": 0}));
    w.settle();
    assert_eq!(pods(&w).len(), 0);
}

#[test]
fn rolls_from_the_top_down_to_the_partition() {
    let mut w = started(3, json!({}));
    set(&mut w, json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}, "template": template("two")}));
    w.settle();
    assert_eq!(pods(&w), want(&[("s-0", "one"), ("s-1", "two"), ("s-2", "two")]));
    w.delete("/pods", "a", "s-0");
    w.settle();
    assert_eq!(pods(&w)[0].1, "one", "below the partition the old revision comes back");
    set(&mut w, json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}));
    w.settle();
    assert_eq!(pods(&w), want(&[("s-0", "two"), ("s-1", "two"), ("s-2", "two")]));
    let status = &w.get("apps/statefulsets", "a", "s")["status"];
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    assert_eq!(status["updatedReplicas"], 3);
}

#[test]
fn a_sick_update_stops_at_the_first_pod_and_can_be_taken_back() {
    let mut w = started(3, json!({}));
    w.sick = vec!["s-2".into()];
    set(&mut w, json!({"template": template("bad")}));
    w.settle();
    assert_eq!(pods(&w), want(&[("s-0", "one"), ("s-1", "one"), ("s-2", "bad")]));
    w.sick.clear();
    set(&mut w, json!({"template": template("one")}));
    w.settle();
    assert_eq!(pods(&w), want(&[("s-0", "one"), ("s-1", "one"), ("s-2", "one")]));
}

#[test]
fn scales_down_from_the_top_and_keeps_claims() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let mut w = started(2, json!({"volumeClaimTemplates": claims}));
    assert!(w.exists("/persistentvolumeclaims", "a", "data-s-0"));
    assert!(!w.exists("/persistentvolumeclaims", "a", "data-s-1"), "the first pod waits for its volume");
    for i in 0..2 {
        w.patch(
            "/persistentvolumeclaims",
            "a",
            &format!("data-s-{i}"),
            json!({"status": {"phase": "Bound"}}),
        );
        w.settle();
    }
    assert_eq!(pods(&w).len(), 2);
    let volume = &w.get("/pods", "a", "s-1")["spec"]["volumes"][0];
    assert_eq!(*volume, json!({"name": "data", "persistentVolumeClaim": {"claimName": "data-s-1"}}));
    set(&mut w, json!({"replicas": 1}));
    w.settle();
    assert_eq!(pods(&w).len(), 1);
    assert!(w.exists("/persistentvolumeclaims", "a", "data-s-1"));
}

#[test]
fn a_failed_pod_comes_back_under_its_name() {
    let mut w = started(2, json!({"ordinals": {"start": 5}}));
    w.patch("/pods", "a", "s-5", json!({"status": {"phase": "Failed"}}));
    w.settle();
    assert_eq!(w.get("/pods", "a", "s-5")["status"]["phase"], "Running");
    assert_eq!(pods(&w).len(), 2);
}

#[test]
fn claims_go_with_their_pod_or_their_set_when_the_policy_says_so() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let names = |w: &World| -> Vec<String> {
        let claims = w.list("/persistentvolumeclaims");
        claims.iter().map(|c| c["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    for (scaled, deleted, after_scale, after_delete) in [
        ("Retain", "Retain", 3, 3),
        ("Delete", "Retain", 1, 1),
        ("Retain", "Delete", 3, 0),
        ("Delete", "Delete", 1, 0),
    ] {
        let policy = json!({"whenScaled": scaled, "whenDeleted": deleted});
        let spec = json!({"volumeClaimTemplates": claims, "persistentVolumeClaimRetentionPolicy": policy,
            "podManagementPolicy": "Parallel"});
        let mut w = started(3, spec);
        assert_eq!(names(&w).len(), 3);
        w.patch("apps/statefulsets", "a", "s", json!({"spec": {"replicas": 1}}));
        w.settle();
        assert_eq!(names(&w).len(), after_scale, "{policy}");
        w.delete("apps/statefulsets", "a", "s");
        w.settle();
        assert_eq!(names(&w).len(), after_delete, "{policy}");
    }
}

#[test]
fn what_happens_to_pods_and_claims_is_told_in_the_usual_words() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]);
    let mut w = started(1, json!({"volumeClaimTemplates": claims, "podManagementPolicy": "Parallel"}));
    let told = |w: &World, reason: &str| -> Vec<String> {
        w.events.iter().filter(|e| e.0 == "StatefulSet" && e.2 == reason).map(|e| e.3.clone()).collect()
    };
    assert_eq!(
        told(&w, "SuccessfulCreate"),
        ["create Claim data-s-0 Pod s-0 in StatefulSet s success", "create Pod s-0 in StatefulSet s successful"]
    );
    w.patch("/pods", "a", "s-0", json!({"metadata": {"labels": {"statefulset.kubernetes.io/pod-name": null}}}));
    w.settle();
    assert_eq!(w.get("/pods", "a", "s-0")["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"], "s-0");
    assert_eq!(told(&w, "SuccessfulUpdate"), ["update Pod s-0 in StatefulSet s successful"]);
    w.patch("/pods", "a", "s-0", json!({"status": {"phase": "Failed"}}));
    w.settle();
    assert_eq!(told(&w, "RecreatingFailedPod"), ["StatefulSet a/s is recreating failed Pod s-0"]);
    w.refuse = Some(("/persistentvolumeclaims", "exceeded quota: q"));
    set(&mut w, json!({"replicas": 2}));
    w.steps(4);
    let refused = "create Claim data-s-1 for Pod s-1 in StatefulSet s failed error: exceeded quota: q";
    assert_eq!(told(&w, "FailedCreate").first().map(String::as_str), Some(refused), "{:?}", w.events);
    assert!(!w.exists("/pods", "a", "s-1"), "no pod without its claim");
}

#[test]
fn a_taken_revision_name_counts_as_a_collision() {
    let w = started(1, json!({}));
    let name = w.list("apps/controllerrevisions")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let mut w = World::with_nodes(1);
    w.create("apps/controllerrevisions", json!({"metadata": {"name": name, "namespace": "a"}, "revision": 1, "data": {}}));
    w.create("apps/statefulsets", json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"app": "x"}}, "serviceName": "svc", "template": template("one")}}));
    w.settle();
    assert_eq!(w.get("apps/statefulsets", "a", "s")["status"]["collisionCount"], 1);
    assert_eq!(w.list("apps/controllerrevisions").len(), 2);
}

fn revisions(w: &World) -> Vec<i64> {
    let mut all: Vec<i64> = w.list("apps/controllerrevisions").iter().map(|r| r["revision"].as_i64().unwrap()).collect();
    all.sort_unstable();
    all
}

fn uids(w: &World) -> Vec<Value> {
    w.list("/pods").iter().map(|p| p["metadata"]["uid"].clone()).collect()
}

#[test]
fn one_made_anew_takes_its_pods_and_its_history() {
    let mut w = started(2, json!({}));
    w.patch("apps/statefulsets", "a", "s", json!({"metadata": {"annotations": {"kubernetes.io/change-cause": "why"}}}));
    set(&mut w, json!({"template": template("two")}));
    w.settle();
    let newest = w.list("apps/controllerrevisions").into_iter().find(|r| r["revision"] == 2).unwrap();
    assert_eq!(newest["metadata"]["annotations"]["kubernetes.io/change-cause"], "why");
    let name = newest["metadata"]["name"].clone();
    let hash = newest["metadata"]["labels"]["controller.kubernetes.io/hash"].clone();
    assert_eq!(name, format!("s-{}", hash.as_str().unwrap()));
    let (before, spec) = (uids(&w), w.get("apps/statefulsets", "a", "s")["spec"].clone());
    w.delete_with(&crate::Key::new("apps/statefulsets", "a", "s"), None, Some(crate::Propagation::Orphan));
    w.settle();
    w.create("apps/statefulsets", json!({"metadata": {"name": "s", "namespace": "a"}, "spec": spec}));
    w.settle();
    assert_eq!((uids(&w), revisions(&w)), (before, vec![1, 2]), "nothing is rolled out anew");
    let status = &w.get("apps/statefulsets", "a", "s")["status"];
    assert_eq!((&status["currentRevision"], &status["updateRevision"], &status["collisionCount"]), (&name, &name, &json!(0)));
}

#[test]
fn of_equal_revisions_the_newest_counts() {
    let mut w = started(1, json!({}));
    let mut double = w.list("apps/controllerrevisions")[0].clone();
    double["metadata"] = json!({"name": "s-double", "namespace": "a", "labels": {"app": "x"}});
    double["revision"] = json!(7);
    w.create("apps/controllerrevisions", double);
    w.settle();
    let status = &w.get("apps/statefulsets", "a", "s")["status"];
    assert_eq!((&status["updateRevision"], revisions(&w)), (&json!("s-double"), vec![1, 7]));
    assert_eq!(w.get("/pods", "a", "s-0")["metadata"]["labels"]["controller-revision-hash"], "s-double");
}

#[test]
fn revisions_in_use_are_kept_beside_the_limit() {
    let mut w = started(1, json!({"updateStrategy": {"type": "OnDelete"}, "revisionHistoryLimit": 2}));
    for image in ["two", "three", "four", "five", "six"] {
        set(&mut w, json!({"template": template(image)}));
        w.settle();
    }
    assert_eq!(revisions(&w), [1, 4, 5, 6], "the pod's, which is also the current one, two of the past, and the newest");
    // A current revision that somebody deleted is made up for.
    let current = w.get("apps/statefulsets", "a", "s")["status"]["currentRevision"].as_str().unwrap().to_owned();
    w.delete("apps/controllerrevisions", "a", &current);
    w.settle();
    let status = &w.get("apps/statefulsets", "a", "s")["status"];
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn only_pods_of_its_names_are_adopted() {
    let mut w = World::with_nodes(1);
    for name in ["s-1", "s-x", "t-0", "s"] {
        let labels = json!({"app": "x"});
        w.create("/pods", json!({"metadata": {"name": name, "namespace": "a", "labels": labels}, "spec": {}}));
    }
    w.create("apps/statefulsets", json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "x"}}, "serviceName": "svc", "template": template("one")}}));
    w.settle();
    let (ours, nobodys) = (json!("s"), Value::Null);
    for (name, owner) in [("s-0", &ours), ("s-1", &ours), ("s-x", &nobodys), ("t-0", &nobodys), ("s", &nobodys)] {
        assert_eq!(w.get("/pods", "a", name)["metadata"]["ownerReferences"][0]["name"], *owner, "{name}");
    }
    w.patch("/pods", "a", "s-1", json!({"metadata": {"labels": {"app": "y"}}}));
    w.settle();
    assert_eq!(w.get("/pods", "a", "s-1")["metadata"]["ownerReferences"], Value::Null, "let go, and its name is taken");
    w.delete("/pods", "a", "s-1");
    w.settle();
    assert_eq!(w.get("/pods", "a", "s-1")["metadata"]["ownerReferences"][0]["name"], "s");
}

#[test]
fn one_that_is_being_deleted_only_counts() {
    let mut w = started(2, json!({}));
    w.patch("apps/statefulsets", "a", "s", json!({"metadata": {"finalizers": ["x/y"]}}));
    w.delete("apps/statefulsets", "a", "s");
    set(&mut w, json!({"replicas": 5}));
    w.delete("/pods", "a", "s-1");
    w.settle();
    let o = w.get("apps/statefulsets", "a", "s");
    assert_eq!((&o["status"]["replicas"], &o["status"]["observedGeneration"]), (&json!(1), &o["metadata"]["generation"]));
}

#[test]
fn a_pod_that_is_made_anew_in_the_middle_of_a_rollout_is_of_the_new_revision() {
    let mut w = started(3, json!({}));
    w.sick = vec!["s-2".into()];
    set(&mut w, json!({"template": template("two")}));
    w.settle();
    assert_eq!(pods(&w), want(&[("s-0", "one"), ("s-1", "one"), ("s-2", "two")]));
    w.delete("/pods", "a", "s-0");
    w.settle();
    assert_eq!(pods(&w), want(&[("s-0", "two"), ("s-1", "one"), ("s-2", "two")]));
}
