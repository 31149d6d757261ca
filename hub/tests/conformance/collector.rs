//! Who goes with its owner, who stays, and in which order.
//!
//! In: the hub of `live` with its controllers. Out: fails when something stays or goes against the options.
//! Source: the "Garbage collector" tests of the conformance suite.

use crate::live::{Client, names};
use serde_json::{Value, json};

fn template() -> Value {
    json!({"metadata": {"labels": {"gc": "yes"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn controller(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"gc": "yes"}, "template": template()}})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": 1, "selector": {"matchLabels": {"gc": "yes"}},
        "template": template()}})
}

fn owned(c: &mut Client, collection: &str) -> Vec<Value> {
    c.got(collection)["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn pods_go_with_their_controller_in_the_background() {
    let mut c = Client::new("gc");
    let (rcs, pods) = (c.at("v1", "replicationcontrollers"), c.at("v1", "pods"));
    c.made(&rcs, controller("rc", 2));
    c.until("two pods", |c| owned(c, &pods).len() == 2);
    c.deleted(&format!("{rcs}/rc"), json!({"propagationPolicy": "Background"}));
    assert_eq!(c.get(&format!("{rcs}/rc")).0, 404, "it goes at once");
    c.until("no pods", |c| owned(c, &pods).is_empty());
}

#[test]
fn orphans_stay_without_their_owner() {
    let mut c = Client::new("gc");
    let (rcs, pods) = (c.at("v1", "replicationcontrollers"), c.at("v1", "pods"));
    c.made(&rcs, controller("rc", 2));
    c.until("two pods", |c| owned(c, &pods).len() == 2);
    c.deleted(&format!("{rcs}/rc"), json!({"orphanDependents": true}));
    c.gone(&format!("{rcs}/rc"));
    let left = owned(&mut c, &pods);
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|pod| pod["metadata"].get("ownerReferences").is_none()), "{left:?}");
}

#[test]
fn replica_sets_go_with_their_deployment_or_stay() {
    let mut c = Client::new("gc");
    let (deployments, sets, pods) = (c.at("apps/v1", "deployments"), c.at("apps/v1", "replicasets"), c.at("v1", "pods"));
    c.made(&deployments, deployment("goes"));
    c.until("a pod", |c| owned(c, &pods).len() == 1);
    c.deleted(&format!("{deployments}/goes"), json!({}));
    c.until("no ReplicaSet, no pod", |c| owned(c, &sets).is_empty() && owned(c, &pods).is_empty());

    c.made(&deployments, deployment("stays"));
    c.until("a pod", |c| owned(c, &pods).len() == 1);
    c.deleted(&format!("{deployments}/stays"), json!({"propagationPolicy": "Orphan"}));
    c.gone(&format!("{deployments}/stays"));
    let left = owned(&mut c, &sets);
    assert_eq!((left.len(), left[0]["metadata"].get("ownerReferences")), (1, None));
    assert_eq!(owned(&mut c, &pods).len(), 1);
    // A Deployment of the same selector takes it over.
    c.made(&deployments, deployment("stays"));
    c.until("the ReplicaSet is adopted", |c| owned(c, &sets)[0]["metadata"]["ownerReferences"][0]["name"] == "stays");
}

#[test]
fn in_the_foreground_the_owner_goes_last() {
    let mut c = Client::new("gc");
    let (rcs, pods) = (c.at("v1", "replicationcontrollers"), c.at("v1", "pods"));
    c.made(&rcs, controller("rc", 2));
    c.until("two pods", |c| owned(c, &pods).len() == 2);
    let held = owned(&mut c, &pods)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let held = format!("{pods}/{held}");
    c.changed(&held, |pod| pod["metadata"]["finalizers"] = json!(["example.org/held"]));
    let rc = format!("{rcs}/rc");
    c.deleted(&rc, json!({"propagationPolicy": "Foreground"}));
    c.until("only the held pod is left", |c| owned(c, &pods).len() == 1);
    let waiting = c.got(&rc);
    assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert!(waiting["metadata"]["deletionTimestamp"].is_string());
    c.changed(&held, |pod| pod["metadata"]["finalizers"] = json!([]));
    c.gone(&rc);
    assert!(owned(&mut c, &pods).is_empty());
}

#[test]
fn with_another_owner_that_lives_a_dependent_stays() {
    let mut c = Client::new("gc");
    let maps = c.at("v1", "configmaps");
    let one = c.made(&maps, json!({"metadata": {"name": "one"}}));
    let two = c.made(&maps, json!({"metadata": {"name": "two"}}));
    let reference = |owner: &Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": true})
    };
    c.made(&maps, json!({"metadata": {"name": "both", "ownerReferences": [reference(&one), reference(&two)]}}));
    c.made(&maps, json!({"metadata": {"name": "only", "ownerReferences": [reference(&one)]}}));
    c.deleted(&format!("{maps}/one"), json!({"propagationPolicy": "Foreground"}));
    c.gone(&format!("{maps}/one"));
    c.gone(&format!("{maps}/only"));
    let left = c.got(&format!("{maps}/both"));
    assert_eq!(left["metadata"]["ownerReferences"], json!([reference(&two)]), "the owner that went is not named any more");
}

#[test]
fn a_circle_of_owners_blocks_nobody() {
    let mut c = Client::new("gc");
    let maps = c.at("v1", "configmaps");
    let made: Vec<Value> = ["a", "b", "c"].map(|name| c.made(&maps, json!({"metadata": {"name": name}}))).to_vec();
    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        let owner = &made[(at + 1) % 3];
        let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}]);
        c.changed(&format!("{maps}/{name}"), |map| map["metadata"]["ownerReferences"] = reference.clone());
    }
    c.deleted(&format!("{maps}/a"), json!({"propagationPolicy": "Foreground"}));
    c.until("all three are gone", |c| names(&c.got(&maps)).iter().all(|name| !["a", "b", "c"].contains(&name.as_str())));
}
