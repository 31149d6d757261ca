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

fn cron(spec: Value) -> Value {
    let mut spec = spec;
    spec["jobTemplate"] = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    json!({"metadata": {"name": "c", "namespace": "a"}, "spec": spec})
}

#[test]
fn schedules_say_when_they_run_next_or_why_never() {
    let cases = [
        (json!({"schedule": "30 2 * * *", "timeZone": "Europe/Berlin"}), "it runs next at 2026-11-24T01:30:00Z"),
        (json!({"schedule": "0 0 30 2 *"}), "it never runs again"),
        (json!({"schedule": "now and then"}), "it never runs: \"now and then\" is not a schedule"),
        (json!({"schedule": "* * * * *", "timeZone": "Mars/Base"}), "it never runs: \"Mars/Base\" is not a time zone"),
        (json!({"schedule": "* * * * *", "suspend": true}), "it is suspended"),
    ];
    for (spec, verdict) in cases {
        let mut w = World::with_nodes(1);
        w.create("batch/cronjobs", cron(spec.clone()));
        let answer = ask(&w, "cj", "c");
        assert!(answer.verdict.contains(verdict), "{spec}: {answer:?}");
    }
}

#[test]
fn jobs_say_what_ended_them() {
    let job = |spec: Value| {
        let mut spec = spec;
        spec["template"] = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
        json!({"metadata": {"name": "j", "namespace": "a"}, "spec": spec})
    };
    for (spec, exit, verdict) in [
        (json!({}), 0, "nothing is wrong: it has done its work"),
        (json!({"backoffLimit": 0}), 127, "it has failed: BackoffLimitExceeded"),
        (json!({"suspend": true}), 0, "it is suspended"),
        (json!({"managedBy": "example.com/x"}), 0, "it is left to example.com/x"),
    ] {
        let mut w = World::with_nodes(1);
        w.exit_codes = vec![("j-".into(), exit)];
        w.create("batch/jobs", job(spec.clone()));
        w.pass(600);
        let answer = ask(&w, "job", "j");
        assert!(answer.verdict.contains(verdict), "{spec}: {answer:?}");
        let told = answer.because.iter().any(|b| b.contains("exit code 127 (its command was not found)"));
        assert_eq!(told, exit == 127, "{answer:?}");
    }
}

#[test]
fn claims_say_what_they_wait_for() {
    let class = |w: &mut World, name: &str| {
        w.create("storage.k8s.io/storageclasses", json!({"metadata": {"name": name}, "provisioner": "limpet.dev/local",
            "volumeBindingMode": "WaitForFirstConsumer"}));
    };
    let claim = |spec: Value| {
        let mut spec = spec;
        spec["accessModes"] = json!(["ReadWriteOnce"]);
        spec["resources"] = json!({"requests": {"storage": "1Gi"}});
        json!({"metadata": {"name": "data", "namespace": "a"}, "spec": spec})
    };
    for (spec, verdict) in [
        (json!({"storageClassName": "sd"}), "it waits for its first pod"),
        (json!({"storageClassName": "ssd"}), "its StorageClass ssd does not exist"),
        (json!({}), "it names no StorageClass, and none is the default"),
        (json!({"storageClassName": ""}), "it wants a volume without a class"),
        (json!({"storageClassName": "", "volumeName": "gone"}), "it names volume gone, which does not exist"),
    ] {
        let mut w = World::with_nodes(1);
        class(&mut w, "sd");
        w.create("/persistentvolumeclaims", claim(spec.clone()));
        w.settle();
        let answer = ask(&w, "pvc", "data");
        assert!(answer.verdict.contains(verdict), "{spec}: {answer:?}");
    }
}

#[test]
fn services_say_whom_they_reach() {
    let mut w = World::with_nodes(1);
    let service = |selector: Value, port: Value| json!({"metadata": {"name": "web", "namespace": "a"},
        "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": port}]}});
    w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a", "labels": {"app": "web"}}, "spec": {
        "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]}}));
    w.create("/pods", json!({"metadata": {"name": "sick", "namespace": "a", "labels": {"app": "web"}}, "spec": {
        "nodeSelector": {"a": "b"}, "containers": [{"name": "c", "image": "i"}]}}));
    w.settle();
    for (selector, port, verdict, because) in [
        (json!({"app": "web"}), json!("http"), "1 of its 2 pods answer", "sick does not answer: it has no node"),
        (json!({"app": "web"}), json!("htp"), "1 of its 2 pods answer", "a port called \"htp\", which none of its pods has"),
        (
            json!({"app": "wbe"}),
            json!(1),
            "it reaches nobody: no pod has the labels app=wbe",
            "app of pods in this namespace is web",
        ),
        (Value::Null, json!(1), "it selects no pods: somebody else keeps its endpoints", ""),
    ] {
        w.create("/services", service(selector.clone(), port));
        w.settle();
        let answer = ask(&w, "svc", "web");
        assert!(answer.verdict.contains(verdict), "{selector}: {answer:?}");
        assert!(because.is_empty() || answer.because.iter().any(|b| b.contains(because)), "{answer:?}");
        w.delete("/services", "a", "web");
        w.settle();
    }
}

#[test]
fn pools_namespaces_and_wrong_words_answer() {
    let mut w = World::new();
    w.node("n0", json!({"role": "till"}), json!([]));
    w.node("n1", json!({"role": "till"}), json!([]));
    for (name, role) in [("a", "till"), ("b", "till"), ("c", "tlil")] {
        w.create("limpet.dev/nodepools", json!({"metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": {"role": role}}, "offline": {"lostAfter": "15m"}}}));
    }
    w.patch("/nodes", "", "n1", json!({"metadata": {"annotations": {"limpet.dev/offline-since": "2026-11-23T09:58:00Z",
        "limpet.dev/lost-after": "banana"}}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}));
    w.settle();
    let pool = ask(&w, "nodepool", "a");
    assert_eq!(pool.verdict, "1 of its 2 boards are ready");
    assert!(pool.because.contains(&"board n1 is away: last heard of 2m ago".into()), "{pool:?}");
    assert!(pool.because.contains(&"lostAfter is 15m, and replace is not true: nothing is replaced".into()), "{pool:?}");
    assert!(ask(&w, "pool", "b").because.contains(&"board n0 belongs to pool a, which comes first by name".into()));
    assert!(ask(&w, "pool", "c").verdict.starts_with("it has no boards"));
    let node = ask(&w, "node", "n1");
    assert!(node.because.iter().any(|b| b.contains("\"banana\" cannot be read and counts as never")), "{node:?}");

    w.create("/namespaces", json!({"metadata": {"name": "shop"}}));
    w.create("/configmaps", json!({"metadata": {"name": "x", "namespace": "shop", "finalizers": ["example.com/wait"]}}));
    w.delete("/namespaces", "", "shop");
    w.settle();
    let namespace = ask(&w, "ns", "shop");
    assert!(namespace.verdict.starts_with("it is being deleted, and goes with the last of"), "{namespace:?}");
    assert!(namespace.because.iter().any(|b| b.contains("finalizer example.com/wait")), "{namespace:?}");
}

#[test]
fn rollouts_name_the_boards_that_they_wait_for() {
    let mut w = World::with_nodes(3);
    let template = |image: &str| {
        json!({"metadata": {"labels": {"app": "till"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
    };
    w.create("apps/daemonsets", json!({"metadata": {"name": "till", "namespace": "a"}, "spec": {
        "selector": {"matchLabels": {"app": "till"}}, "updateStrategy": {"type": "OnDelete"}, "template": template("v1")}}));
    w.settle();
    w.patch("/nodes", "", "n1", json!({"metadata": {"annotations": {"limpet.dev/offline-since": "2026-11-23T09:58:00Z"}}}));
    w.patch("/nodes", "", "n2", json!({"metadata": {"annotations": {"limpet.dev/update-lock": "paying"}}}));
    w.patch("apps/daemonsets", "a", "till", json!({"spec": {"template": template("v2")}}));
    w.sick = vec!["till-".into()];
    w.create("limpet.dev/fleetrollouts", json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {
        "target": {"kind": "DaemonSet", "name": "till"}, "budget": {"maxUnavailable": "100%"}}}));
    w.settle();
    w.now = w.now.checked_add(jiff::SignedDuration::from_secs(65)).unwrap();
    let answer = ask(&w, "fr", "r");
    for words in [
        "n0 has the change since 65s ago and is not healthy yet",
        "n1 is away and gets the change when it returns",
        "held: n2: paying",
    ] {
        assert!(answer.because.contains(&words.to_owned()), "{words}: {answer:?}");
    }
}
