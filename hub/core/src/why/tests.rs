//! Questions that people ask, and the sentences that they get.
//!
//! In: worlds in trouble. Out: verdicts. Never: a clock.

use super::*;
use crate::world::World;
use serde_json::{Value, json};

fn ask(w: &World, kind: &str, name: &str) -> Answer {
    why(&w.view, &Config::default(), kind, "a", name, w.now).unwrap().unwrap()
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    spec["containers"] = json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]);
    json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec})
}

#[test]
fn pods_say_what_holds_them_back() {
    let waiting = |reason: &str| {
        json!({"status": {"phase": "Running", "startTime": "2026-11-23T10:00:00Z", "containerStatuses": [{"name": "c",
        "restartCount": 7, "state": {"waiting": {"reason": reason, "message": "back-off 5m0s"}},
        "lastState": {"terminated": {"exitCode": 137}}}]}})
    };
    let cases = [
        (json!({}), json!({}), "nothing is wrong: it is ready on node n0"),
        (json!({"nodeSelector": {"disk": "ssd"}}), json!({}), "it has no node: none of the 2 will take it"),
        (json!({"schedulingGates": [{"name": "g"}]}), json!({}), "it waits for somebody to remove its scheduling gates"),
        (json!({"schedulerName": "mine"}), json!({}), "it waits for a scheduler called \"mine\""),
        (json!({"nodeName": "n0"}), waiting("CrashLoopBackOff"), "1 of its containers do not run as they should"),
        (json!({"nodeName": "nx"}), json!({}), "it is bound to node nx, which does not exist"),
        (json!({"nodeName": "n1"}), json!({}), "its board n1 is away"),
        (json!({"nodeName": "n0"}), json!({"status": {"phase": "Failed", "containerStatuses": [
            {"name": "c", "state": {"terminated": {"exitCode": 127}}}]}}), "it has failed and will not run again"),
    ];
    for (spec, change, verdict) in cases {
        let mut w = World::with_nodes(2);
        w.patch("/nodes", "", "n1", json!({"metadata": {"annotations": {"limpet.dev/offline-since": "2026-11-23T09:58:00Z"}},
            "spec": {"unschedulable": true}}));
        w.create("/pods", pod(spec.clone()));
        w.scheduler_only();
        if spec["nodeName"].is_null() {
            w.settle();
        }
        w.patch("/pods", "a", "p", change);
        let answer = ask(&w, "pod", "p");
        assert!(answer.verdict.contains(verdict), "{spec}: {answer:?}");
    }
}

#[test]
fn every_node_answers_and_crashes_are_explained() {
    let mut w = World::new();
    w.node("n0", json!({}), json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]));
    w.node("n1", json!({}), json!([]));
    w.create("/pods", json!({"metadata": {"name": "big", "namespace": "a"}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "4"}}}]}}));
    w.create("/pods", pod(json!({"volumes": [{"name": "v", "configMap": {"name": "nope"}}]})));
    w.scheduler_only();
    let answer = ask(&w, "po", "p");
    assert_eq!(
        answer.nodes,
        [("n0".into(), "node(s) had untolerated taint {k: v}".into()), ("n1".into(), "Insufficient cpu".into())]
    );
    assert!(answer.because.contains(&"1 nodes would do if fewer pods ran there".into()), "{answer:?}");
    assert!(answer.because[0].contains("ConfigMap nope, which does not exist"));
}

#[test]
fn nodes_and_workloads_answer_too() {
    let mut w = World::with_nodes(1);
    w.patch("/nodes", "", "n0", json!({"spec": {"unschedulable": true},
        "metadata": {"annotations": {"limpet.dev/update-lock": "paying"}}}));
    let answer = ask(&w, "node", "n0");
    assert_eq!(answer.verdict, "it is ready");
    assert!(answer.because.iter().any(|b| b.contains("cordoned")) && answer.because.iter().any(|b| b.contains("paying")));
    assert_eq!(answer.advice, ["kubectl uncordon n0"]);
    w.create("apps/deployments", json!({"metadata": {"name": "d", "namespace": "a"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}}));
    w.settle();
    let answer = ask(&w, "deploy", "d");
    assert_eq!(answer.verdict, "0 of 2 pods are available");
    assert!(answer.because.iter().any(|b| b.contains("node(s) were unschedulable")), "{answer:?}");
    assert!(why(&w.view, &Config::default(), "pod", "a", "none", w.now).unwrap().is_none());
    assert!(why(&w.view, &Config::default(), "planet", "a", "x", w.now).is_err());
}
