//! What upstream's own tests of the Job controller name, row by row.
//!
//! In: a Job and pods as they were left behind. Out: what the controller makes of them. Never: a clock or a network.

use crate::{Key, world::World};
use serde_json::{Value, json};

const JOBS: &str = "batch/jobs";

fn spec(more: Value) -> Value {
    let mut spec = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
    crate::canonical::merge(&mut spec, &more);
    spec
}

fn world(more: Value) -> World {
    let mut w = World::with_nodes(2);
    w.create(JOBS, json!({"metadata": {"name": "j", "namespace": "a"}, "spec": spec(more)}));
    w.settle();
    w
}

fn status(w: &World) -> Value {
    w.get(JOBS, "a", "j")["status"].clone()
}

fn reason(w: &World) -> String {
    let status = status(w);
    let on = status["conditions"].as_array().into_iter().flatten().rfind(|c| c["status"] == "True");
    on.and_then(|c| c["reason"].as_str()).unwrap_or_default().to_owned()
}

/// Names of the pods that are not going, with their index.
fn indexes(w: &World) -> Vec<String> {
    let live = |p: &&&Value| p["metadata"]["deletionTimestamp"].is_null() && p["status"]["phase"] == "Running";
    let index = |p: &Value| p["metadata"]["annotations"][super::INDEX].as_str().unwrap_or("none").to_owned();
    let mut all: Vec<String> = w.list("/pods").iter().filter(live).map(|p| index(p)).collect();
    all.sort();
    all
}

fn pod_of(w: &World, index: &str) -> Key {
    let is = |p: &&&Value| p["metadata"]["annotations"][super::INDEX] == index;
    let pods = w.list("/pods");
    let pod = pods.iter().find(is).unwrap();
    Key::new("/pods", "a", pod["metadata"]["name"].as_str().unwrap())
}

fn fail(w: &mut World, key: &Key) {
    w.patch("/pods", &key.namespace, &key.name, json!({"status": {"phase": "Failed"}}));
}

#[test]
fn an_elastic_job_shrinks_to_the_indexes_that_are_left_and_grows_again() {
    let mut w = world(json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4}));
    assert_eq!(indexes(&w), ["0", "1", "2", "3"]);
    w.patch(JOBS, "a", "j", json!({"spec": {"completions": 2, "parallelism": 2}}));
    w.settle();
    assert_eq!(indexes(&w), ["0", "1"], "those beyond the end go, whichever they are");
    assert_eq!(status(&w)["failed"], Value::Null);
    w.patch(JOBS, "a", "j", json!({"spec": {"completions": 3, "parallelism": 3}}));
    w.settle();
    assert_eq!(indexes(&w), ["0", "1", "2"]);
}

#[test]
fn of_two_pods_with_one_index_the_less_advanced_goes() {
    let mut w = world(json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2}));
    w.kubelet = false;
    let mut twin = w.get("/pods", "a", &pod_of(&w, "1").name).clone();
    twin["metadata"]["name"] = json!("twin");
    twin["metadata"]["uid"] = Value::Null;
    twin["status"] = json!({"phase": "Pending"});
    w.create("/pods", twin);
    for label in ["none", "7"] {
        let mut stray = w.get("/pods", "a", &pod_of(&w, "0").name).clone();
        stray["metadata"]["name"] = json!(format!("stray-{label}"));
        stray["metadata"]["uid"] = Value::Null;
        stray["metadata"]["annotations"] = json!({super::INDEX: label});
        w.create("/pods", stray);
    }
    w.kubelet = true;
    w.settle();
    assert_eq!(indexes(&w), ["0", "1"]);
    assert!(!w.exists("/pods", "a", "twin") && !w.exists("/pods", "a", "stray-7"));
    assert_eq!(status(&w)["failed"], Value::Null);
}

#[test]
fn each_index_waits_for_itself_and_its_failures_travel_with_it() {
    let policy = json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]});
    let mut w = world(json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 2,
        "podReplacementPolicy": "Failed", "podFailurePolicy": policy}));
    let first = pod_of(&w, "1");
    fail(&mut w, &first);
    w.settle();
    let held = w.get("/pods", "a", &first.name)["metadata"]["finalizers"].clone();
    assert_eq!(held, json!([super::TRACKING]), "it bears the count until its index has a new pod");
    assert_eq!(indexes(&w), ["0"], "the other index goes on");
    w.pass(11);
    assert_eq!(indexes(&w), ["0", "1"]);
    assert_eq!((status(&w)["failed"].clone(), status(&w)["active"].clone()), (json!(1), json!(2)));
    let annotations = |w: &World, name: &str| w.get("/pods", "a", name)["metadata"]["annotations"].clone();
    let live = |w: &World| {
        let pods = w.list("/pods");
        let running = |p: &&&Value| {
            p["status"]["phase"] == "Running" && p["metadata"]["annotations"][super::INDEX] == "1"
        };
        pods.iter().find(running).unwrap()["metadata"]["name"].as_str().unwrap().to_owned()
    };
    let second = live(&w);
    assert_eq!(annotations(&w, &second)[super::INDEX_FAILURES], "1");
    let disrupted = json!([{"type": "DisruptionTarget", "status": "True"}]);
    w.patch("/pods", "a", &second, json!({"status": {"phase": "Failed", "conditions": disrupted}}));
    w.pass(21);
    let third = live(&w);
    let now = annotations(&w, &third);
    assert_eq!((&now[super::INDEX_FAILURES], &now[super::INDEX_IGNORED]), (&json!("1"), &json!("1")));
    assert_eq!(status(&w)["failed"], 1, "the disruption does not count");
    fail(&mut w, &Key::new("/pods", "a", &third));
    w.pass(41);
    let fourth = live(&w);
    fail(&mut w, &Key::new("/pods", "a", &fourth));
    w.settle();
    assert_eq!(status(&w)["failedIndexes"], "1");
    assert_eq!(status(&w)["failed"], 3);
    assert_eq!(indexes(&w), ["0"]);
    assert_eq!(reason(&w), "", "the other index may still succeed");
}

#[test]
fn an_index_may_be_failed_by_policy_and_too_many_end_the_job() {
    let rules = json!([{"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [0, 1]}}]);
    let mut w = World::with_nodes(2);
    w.exit_codes = vec![("j-0".into(), 42), ("j-2".into(), 43)];
    w.create(JOBS, json!({"metadata": {"name": "j", "namespace": "a"}, "spec": spec(json!({
        "completionMode": "Indexed", "completions": 4, "parallelism": 4, "backoffLimitPerIndex": 5,
        "maxFailedIndexes": 1, "podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": rules}}))}));
    w.settle();
    assert_eq!((status(&w)["failedIndexes"].clone(), reason(&w)), (json!("0,2"), "MaxFailedIndexesExceeded".into()));
    assert_eq!(status(&w)["failed"], 4, "those that were still running count, too");
    assert!(w.list("/pods").iter().all(|p| p["metadata"]["finalizers"].is_null()));
}

#[test]
fn a_pod_on_its_way_out_holds_its_place_when_only_failed_ones_are_replaced() {
    for (policy, active, failed) in [("Failed", Value::Null, Value::Null), ("TerminatingOrFailed", json!(1), json!(1))] {
        let mut w = world(json!({"completions": 1, "podReplacementPolicy": policy}));
        w.kubelet = false;
        let name = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
        w.delete("/pods", "a", &name);
        w.settle();
        let s = status(&w);
        assert_eq!((&s["active"], &s["failed"], &s["terminating"]), (&active, &failed, &json!(1)), "{policy}");
        assert_eq!(w.list("/pods").len(), if policy == "Failed" { 1 } else { 2 }, "{policy}");
    }
}

#[test]
fn a_pod_on_its_way_out_is_no_reason_to_send_away_another() {
    let mut w = world(json!({"completions": 4, "parallelism": 3, "podReplacementPolicy": "Failed"}));
    w.kubelet = false;
    let name = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    w.delete("/pods", "a", &name);
    for (parallelism, active, going) in [(3, 2, 1), (2, 2, 1), (1, 1, 2), (2, 1, 2), (4, 2, 2)] {
        w.patch(JOBS, "a", "j", json!({"spec": {"parallelism": parallelism}}));
        w.settle();
        let s = status(&w);
        assert_eq!((&s["active"], &s["terminating"]), (&json!(active), &json!(going)), "{parallelism}");
    }
}

#[test]
fn a_queue_that_had_a_success_lets_the_rest_run() {
    let mut w = world(json!({"parallelism": 3}));
    let name = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    w.patch("/pods", "a", &name, json!({"status": {"phase": "Succeeded"}}));
    w.patch(JOBS, "a", "j", json!({"spec": {"parallelism": 1}}));
    w.settle();
    assert_eq!((status(&w)["active"].clone(), status(&w)["succeeded"].clone()), (json!(2), json!(1)));
    assert_eq!(reason(&w), "");
}

#[test]
fn who_is_sent_away_by_a_success_is_no_failure() {
    let rules = json!([{"succeededIndexes": "0"}]);
    for policy in ["Failed", "TerminatingOrFailed"] {
        let mut w = world(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
            "podReplacementPolicy": policy, "successPolicy": {"rules": rules}}));
        let first = pod_of(&w, "0");
        w.patch("/pods", "a", &first.name, json!({"status": {"phase": "Succeeded"}}));
        w.settle();
        let s = status(&w);
        assert_eq!((&s["succeeded"], &s["failed"], reason(&w)), (&json!(1), &Value::Null, "SuccessPolicy".into()), "{policy}");
        assert_eq!(s["conditions"][0]["message"], "Matched rules at index 0");
        assert_eq!(w.list("/pods").len(), 1);
    }
}

#[test]
fn somebody_elses_job_is_left_alone_and_goes_in_its_time() {
    let mut w = world(json!({"managedBy": "example.org/queue", "ttlSecondsAfterFinished": 60}));
    assert_eq!((w.list("/pods").len(), status(&w)), (0, Value::Null));
    let done = json!([{"type": "Complete", "status": "True", "lastTransitionTime": "2026-11-23T10:00:00Z"}]);
    w.patch(JOBS, "a", "j", json!({"status": {"conditions": done}}));
    w.pass(59);
    assert!(w.exists(JOBS, "a", "j"));
    w.pass(2);
    assert!(!w.exists(JOBS, "a", "j"));
}

#[test]
fn restarts_count_where_the_kubelet_restarts() {
    for (limit, restarts, over) in [(0, 0, false), (0, 1, true), (3, 2, false), (3, 3, true)] {
        let mut w = world(json!({"completions": 1, "backoffLimit": limit, "template": {"spec": {"restartPolicy": "OnFailure"}}}));
        let name = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
        let status = json!([{"name": "c", "restartCount": restarts, "state": {"running": {}}}]);
        w.patch("/pods", "a", &name, json!({"status": {"containerStatuses": status}}));
        w.settle();
        assert_eq!(reason(&w), if over { "BackoffLimitExceeded" } else { "" }, "{restarts} of {limit}");
    }
}

#[test]
fn suspension_is_told_once_and_takes_the_clock_back() {
    let mut w = world(json!({"completions": 1, "activeDeadlineSeconds": 100}));
    w.pass(60);
    w.patch(JOBS, "a", "j", json!({"spec": {"suspend": true}}));
    w.pass(60);
    assert_eq!((status(&w)["startTime"].clone(), reason(&w)), (Value::Null, "JobSuspended".into()));
    w.patch(JOBS, "a", "j", json!({"spec": {"suspend": false}}));
    w.pass(60);
    assert_eq!(reason(&w), "", "the deadline begins anew");
    let told = |reason: &str| w.events.iter().filter(|e| e.2 == reason).count();
    assert_eq!((told("Suspended"), told("Resumed")), (1, 1));
    assert_eq!(status(&w)["conditions"][0]["reason"], "JobResumed");
    w.pass(60);
    assert_eq!(reason(&w), "DeadlineExceeded");
}

#[test]
fn a_long_name_keeps_its_index() {
    let name = "x".repeat(60);
    let mut w = World::with_nodes(1);
    let spec = spec(json!({"completionMode": "Indexed", "completions": 12, "parallelism": 12}));
    w.create(JOBS, json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec}));
    w.settle();
    let names: Vec<String> =
        w.list("/pods").iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    assert!(names.iter().all(|n| n.len() == 63) && names.iter().any(|n| n.contains("x-11-")), "{names:?}");
}
