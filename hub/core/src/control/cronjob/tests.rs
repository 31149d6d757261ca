//! Cases of CronJobs in the test world.
//!
//! In: CronJobs and what passes. Out: Jobs, Events, status. Never: a clock or a network.

use super::*;
use crate::control::common::after;
use crate::world::World;

fn started(spec: Value) -> World {
    let mut w = World::with_nodes(1);
    let mut spec = spec;
    spec["schedule"] = json!("*/10 * * * *");
    spec["jobTemplate"] = json!({"metadata": {"labels": {"l": "1"}}, "spec": {"completions": 1, "template":
        {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}});
    w.create("batch/cronjobs", json!({"metadata": {"name": "c", "namespace": "a"}, "spec": spec}));
    w.settle();
    w
}

fn jobs(w: &World) -> Vec<String> {
    w.list("batch/jobs").iter().map(|j| j["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_job_a_time_and_a_short_history() {
    let mut w = started(json!({}));
    w.exit_codes = vec![("c-".into(), 0)];
    assert_eq!(jobs(&w).len(), 0);
    w.pass(600);
    // 2026-11-23T10:10:00Z in minutes.
    assert_eq!(jobs(&w), ["c-29923810"]);
    let job = &w.list("batch/jobs")[0]["metadata"];
    assert_eq!(job["annotations"][SCHEDULED_AT], "2026-11-23T10:10:00Z");
    assert_eq!(w.get("batch/cronjobs", "a", "c")["status"]["lastScheduleTime"], "2026-11-23T10:10:00Z");
    w.pass(3600);
    assert_eq!(jobs(&w).len(), 3);
    let status = &w.get("batch/cronjobs", "a", "c")["status"];
    assert_eq!(
        (&status["active"], &status["lastSuccessfulTime"]),
        (&Value::Null, &json!("2026-11-23T11:10:00Z"))
    );
}

#[test]
fn policies_decide_about_running_jobs() {
    for (policy, expect) in [("Allow", 3), ("Forbid", 1), ("Replace", 1)] {
        let mut w = started(json!({"concurrencyPolicy": policy}));
        w.pass(1900);
        assert_eq!(jobs(&w).len(), expect, "{policy}");
        let newest = w.get("batch/cronjobs", "a", "c")["status"]["active"].as_array().unwrap().len();
        assert_eq!(newest, expect, "{policy}");
    }
}

#[test]
fn only_the_last_missed_time_counts_and_not_after_the_deadline() {
    let mut w = started(json!({"suspend": true, "startingDeadlineSeconds": 200}));
    w.pass(6150);
    assert_eq!(jobs(&w).len(), 0);
    w.patch("batch/cronjobs", "a", "c", json!({"spec": {"suspend": false}}));
    w.settle();
    assert_eq!(jobs(&w).len(), 1, "the time 150 seconds ago");
    let mut w = started(json!({"suspend": true, "startingDeadlineSeconds": 100}));
    w.pass(6150);
    w.patch("batch/cronjobs", "a", "c", json!({"spec": {"suspend": false}}));
    w.settle();
    assert_eq!(jobs(&w).len(), 0);
}

#[test]
fn a_run_on_one_node_has_the_identity_that_the_node_knows() {
    let mut w = World::with_nodes(2);
    w.kubelet = false;
    let spec = json!({"schedule": "*/10 * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": {"completions": 1,
        "template": {"spec": {"restartPolicy": "Never", "nodeSelector": {"kubernetes.io/hostname": "n1"},
            "containers": [{"name": "c"}]}}}}});
    w.create("batch/cronjobs", json!({"metadata": {"name": "c", "namespace": "a"}, "spec": spec}));
    w.pass(600);
    let uid = w.get("batch/cronjobs", "a", "c")["metadata"]["uid"].as_str().unwrap().to_owned();
    let due: Timestamp = "2026-11-23T10:10:00Z".parse().unwrap();
    let run = limpet_protocol::schedule::Run::of(&uid, "c", due.as_second());
    assert_eq!(jobs(&w), [run.job]);
    let pod = w.get("/pods", "a", &run.pod);
    assert_eq!((&pod["metadata"]["uid"], &pod["spec"]["nodeName"]), (&json!(run.pod_uid), &json!("n1")));
    w.pass(1200);
    assert_eq!(jobs(&w).len(), 1, "the first still runs");
    // While the node is away it is not known what runs there: every time has its Job.
    let away = json!([{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]);
    w.patch("/nodes", "", "n1", json!({"status": {"conditions": away}}));
    w.pass(1200);
    assert_eq!(jobs(&w).len(), 4, "the last one missed at once, then each");
}

fn told(w: &World, reason: &str) -> Vec<String> {
    let mut all: Vec<String> =
        w.events.iter().filter(|e| e.0 == "CronJob" && e.2 == reason).map(|e| e.3.clone()).collect();
    all.dedup();
    all
}

#[test]
fn what_is_missed_is_told() {
    let mut w = started(json!({"suspend": true}));
    w.pass(100 * 600 + 5);
    w.patch("batch/cronjobs", "a", "c", json!({"spec": {"suspend": false}}));
    w.settle();
    assert_eq!((jobs(&w).len(), told(&w, "TooManyMissedTimes").len()), (1, 0), "a hundred are not too many");
    let mut w = started(json!({"suspend": true}));
    w.pass(101 * 600 + 5);
    w.patch("batch/cronjobs", "a", "c", json!({"spec": {"suspend": false}}));
    w.settle();
    assert_eq!((jobs(&w).len(), told(&w, "TooManyMissedTimes").len()), (1, 1));
    let mut w = started(json!({"suspend": true, "startingDeadlineSeconds": 100}));
    w.pass(1900);
    w.patch("batch/cronjobs", "a", "c", json!({"spec": {"suspend": false}}));
    w.settle();
    assert_eq!(jobs(&w).len(), 0);
    let missed = "Missed scheduled time to start a job: Mon, 23 Nov 2026 10:30:00 +0000";
    assert_eq!(told(&w, "MissSchedule"), [missed]);
}

#[test]
fn what_cannot_be_read_is_told_and_starts_nothing() {
    for (spec, reason, words) in [
        (json!({"timeZone": "Mars/Olympus"}), "UnknownTimeZone", "invalid timeZone: \"Mars/Olympus\": unknown time zone"),
        (json!({"schedule": "every day"}), "UnparseableSchedule", "unparseable schedule: \"every day\""),
    ] {
        let mut w = started(json!({}));
        w.patch("batch/cronjobs", "a", "c", json!({"spec": spec}));
        w.pass(3600);
        assert_eq!(jobs(&w).len(), 0);
        let told = told(&w, reason);
        assert!(told.first().is_some_and(|m| m.starts_with(words)), "{told:?}");
    }
}

#[test]
fn jobs_come_to_light_and_go_missing() {
    let mut w = started(json!({"concurrencyPolicy": "Forbid"}));
    let uid = w.get("batch/cronjobs", "a", "c")["metadata"]["uid"].clone();
    let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": uid, "controller": true}]);
    let spec = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
    let by_hand = json!({"name": "by-hand", "namespace": "a", "ownerReferences": owner,
        "annotations": {"cronjob.kubernetes.io/instantiate": "manual"}});
    w.create("batch/jobs", json!({"metadata": by_hand, "spec": spec}));
    w.settle();
    assert_eq!(told(&w, "UnexpectedJob"), ["Saw a job that the controller did not create or forgot: by-hand"]);
    assert_eq!(w.get("batch/cronjobs", "a", "c")["status"]["active"], Value::Null);
    w.pass(600);
    assert_eq!(jobs(&w), ["by-hand", "c-29923810"], "a Job made by hand holds nothing back");
    w.pass(600);
    assert_eq!(told(&w, "JobAlreadyActive").len(), 1);
    w.delete_with(&Key::new("batch/jobs", "a", "c-29923810"), None, Some(crate::Propagation::Background));
    w.settle();
    assert_eq!(told(&w, "MissingJob"), ["Active job went missing: c-29923810"]);
    assert_eq!(jobs(&w), ["by-hand", "c-29923820"], "the time that was held back comes now");
}

#[test]
fn a_strangers_job_of_the_same_name_is_left_to_the_stranger() {
    let mut w = started(json!({}));
    let spec = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
    w.create("batch/jobs", json!({"metadata": {"name": "c-29923810", "namespace": "a"}, "spec": spec}));
    w.pass(600);
    assert_eq!(jobs(&w).len(), 1);
    assert_eq!(w.get("batch/cronjobs", "a", "c")["status"]["lastScheduleTime"], Value::Null);
    w.pass(600);
    assert_eq!(jobs(&w), ["c-29923810", "c-29923820"]);
}

#[test]
fn what_the_api_refuses_is_told() {
    let mut w = started(json!({}));
    w.refuse = Some(("batch/jobs", "exceeded quota: q"));
    w.now = after(w.now, 600);
    w.steps(4);
    assert_eq!(told(&w, "FailedCreate").first().map(String::as_str), Some("Error creating job: exceeded quota: q"));
}
