//! Scenarios of job in the test world.
//!
//! In: objects and disturbances. Out: what the cluster looks like at rest. Never: a clock or a network.

use crate::{Change, Key, control::Controller, world::World};
use serde_json::{Value, json};

fn job(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["template"]["spec"]["restartPolicy"] = json!("Never");
    spec["template"]["spec"]["containers"] = json!([{"name": "c"}]);
    json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec})
}

fn run(spec: Value, exits: &[(&str, i32)]) -> World {
    let mut w = World::with_nodes(2);
    w.exit_codes = exits.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect();
    w.create("batch/jobs", job("j", spec));
    w.settle();
    w
}

fn status(w: &World) -> &Value {
    &w.get("batch/jobs", "a", "j")["status"]
}

/// Types of the conditions that are True, with the reason of the last.
fn conditions(w: &World) -> (Vec<String>, String) {
    let all = status(w)["conditions"].as_array().cloned().unwrap_or_default();
    let on: Vec<&Value> = all.iter().filter(|c| c["status"] == "True").collect();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (on.iter().map(|c| text(&c["type"])).collect(), on.last().map(|c| text(&c["reason"])).unwrap_or_default())
}

fn no_finalizers(w: &World) -> bool {
    w.list("/pods").iter().all(|p| p["metadata"]["finalizers"].is_null())
}

#[test]
fn completes_and_counts_every_pod_once() {
    let w = run(json!({"completions": 5, "parallelism": 2}), &[("j-", 0)]);
    assert_eq!(status(&w)["succeeded"], 5);
    assert_eq!(status(&w)["active"], Value::Null);
    assert_eq!(status(&w)["uncountedTerminatedPods"], json!({}));
    assert_eq!(
        conditions(&w),
        (vec!["SuccessCriteriaMet".into(), "Complete".into()], "CompletionsReached".into())
    );
    assert!(status(&w)["completionTime"].is_string() && no_finalizers(&w));
    assert_eq!(w.list("/pods").len(), 5);
    assert!(w.events.iter().any(|e| e.2 == "Completed"));
}

#[test]
fn an_end_that_is_still_to_come_holds_nothing_up() {
    let mut w = World::with_nodes(1);
    w.create("batch/jobs", job("j", json!({"completions": 1, "parallelism": 1, "backoffLimit": 3})));
    w.settle();
    let pod = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    // The board believes that it is 2050.
    let end = json!({"exitCode": 1, "finishedAt": "2050-01-01T00:00:00Z"});
    let ended = json!({"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": end}}]});
    w.patch("/pods", "a", &pod, json!({"status": ended}));
    w.pass(30);
    assert_eq!((&status(&w)["failed"], &status(&w)["active"]), (&json!(1), &json!(1)));
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let mut w = run(json!({"completions": 1, "parallelism": 1, "backoffLimit": 3}), &[("j-", 3)]);
    assert_eq!(status(&w)["failed"], 1);
    w.turn(-48 * 3600);
    let plan = super::JobController.reconcile(&w.view, &Key::new("batch/jobs", "a", "j"), w.now, 1);
    assert!(plan.changes.iter().any(|c| matches!(c, Change::Create { .. })), "waits until {:?}", plan.again_at);
}

#[test]
fn fails_after_its_limit_with_waits_between() {
    let mut w = run(json!({"completions": 1, "parallelism": 1, "backoffLimit": 2}), &[("j-", 3)]);
    assert_eq!(status(&w)["failed"], 1);
    w.pass(11);
    assert_eq!(status(&w)["failed"], 2);
    w.pass(5);
    assert_eq!(status(&w)["failed"], 2, "the second wait is longer");
    w.pass(16);
    assert_eq!(status(&w)["failed"], 3);
    assert_eq!(
        conditions(&w),
        (vec!["FailureTarget".into(), "Failed".into()], "BackoffLimitExceeded".into())
    );
    assert!(no_finalizers(&w));
}

#[test]
fn a_work_queue_is_over_when_one_succeeded_and_all_ended() {
    let mut w = run(json!({"parallelism": 3}), &[]);
    assert_eq!(status(&w)["active"], 3);
    assert_eq!(status(&w)["ready"], 3);
    let one = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    w.exit_codes = vec![(one, 0)];
    w.settle();
    assert_eq!((status(&w)["active"].clone(), status(&w)["succeeded"].clone()), (json!(2), json!(1)));
    w.exit_codes = vec![("j-".into(), 0)];
    w.settle();
    assert_eq!(status(&w)["succeeded"], 3);
    assert!(conditions(&w).0.contains(&"Complete".into()));
}

#[test]
fn indexes_are_each_done_once() {
    let w = run(json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"}), &[("j-", 0)]);
    assert_eq!(status(&w)["completedIndexes"], "0-3");
    assert_eq!(status(&w)["succeeded"], 4);
    let pods = w.list("/pods");
    assert!(pods[3]["metadata"]["name"].as_str().unwrap().starts_with("j-3-"));
    assert_eq!(pods[3]["spec"]["hostname"], "j-3");
    assert_eq!(pods[3]["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    assert_eq!(pods[3]["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"], "3");
}

#[test]
fn an_index_may_fail_alone() {
    let spec =
        json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1});
    let mut w = run(spec, &[("j-1-", 1), ("j-", 0)]);
    w.pass(100);
    assert_eq!(status(&w)["failedIndexes"], "1");
    assert_eq!(status(&w)["completedIndexes"], "0,2");
    assert_eq!(status(&w)["failed"], 2);
    assert_eq!(conditions(&w).1, "FailedIndexes");
}

#[test]
fn policies_ignore_and_end() {
    let rule = |action: &str| {
        json!({"completions": 1, "podFailurePolicy": {"rules": [
        {"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]}})
    };
    let w = run(rule("FailJob"), &[("j-", 42)]);
    assert_eq!(conditions(&w).1, "PodFailurePolicy");
    let message = status(&w)["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("failed with exit code 42 matching FailJob rule at index 0"), "{message}");
    let mut w = run(rule("Ignore"), &[("j-", 42)]);
    w.pass(12);
    assert_eq!(status(&w)["failed"], Value::Null);
    assert_eq!(w.list("/pods").len(), 2);
}

#[test]
fn a_deadline_ends_it_and_its_pods() {
    let mut w = run(json!({"completions": 1, "activeDeadlineSeconds": 30}), &[]);
    assert_eq!(status(&w)["active"], 1);
    w.pass(31);
    assert_eq!(conditions(&w).1, "DeadlineExceeded");
    assert_eq!(w.list("/pods").len(), 0);
    assert_eq!(status(&w)["failed"], 1);
}

#[test]
fn suspended_and_resumed() {
    let mut w = run(json!({"completions": 1, "suspend": true}), &[]);
    assert_eq!((w.list("/pods").len(), status(&w)["startTime"].clone()), (0, Value::Null));
    w.patch("batch/jobs", "a", "j", json!({"spec": {"suspend": false}}));
    w.settle();
    assert_eq!(w.list("/pods").len(), 1);
    w.patch("batch/jobs", "a", "j", json!({"spec": {"suspend": true}}));
    w.settle();
    assert_eq!(w.list("/pods").len(), 0);
    assert_eq!(status(&w)["failed"], Value::Null);
    assert_eq!(conditions(&w), (vec!["Suspended".into()], "JobSuspended".into()));
}

#[test]
fn goes_after_its_time_with_its_pods() {
    let mut w = run(json!({"completions": 1, "ttlSecondsAfterFinished": 60}), &[("j-", 0)]);
    w.pass(59);
    assert!(w.exists("batch/jobs", "a", "j"));
    w.pass(2);
    assert!(!w.exists("batch/jobs", "a", "j"));
    assert_eq!(w.list("/pods").len(), 0);
}

#[test]
fn a_deleted_job_leaves_no_finalizer() {
    let mut w = run(json!({"completions": 2, "parallelism": 2}), &[]);
    w.delete("batch/jobs", "a", "j");
    w.settle();
    assert_eq!(w.list("/pods").len(), 0);
}

#[test]
fn less_parallelism_is_no_failure() {
    let mut w = run(json!({"completions": 9, "parallelism": 4}), &[]);
    w.patch("batch/jobs", "a", "j", json!({"spec": {"parallelism": 1}}));
    w.settle();
    assert_eq!((status(&w)["active"].clone(), status(&w)["failed"].clone()), (json!(1), Value::Null));
}

#[test]
fn a_success_policy_ends_it_before_all_are_done() {
    let rules = [
        (json!({"succeededIndexes": "1-2"}), &[("j-1-", 0), ("j-2-", 0)][..], true),
        (json!({"succeededIndexes": "1-2"}), &[("j-1-", 0), ("j-3-", 0)], false),
        (json!({"succeededCount": 2}), &[("j-0-", 0), ("j-4-", 0)], true),
        (json!({"succeededCount": 3}), &[("j-0-", 0), ("j-4-", 0)], false),
        (json!({"succeededIndexes": "0,2", "succeededCount": 1}), &[("j-2-", 0)], true),
        (json!({"succeededIndexes": "0,2", "succeededCount": 1}), &[("j-1-", 0)], false),
    ];
    for (rule, exits, met) in rules {
        let spec = json!({"completions": 5, "parallelism": 5, "completionMode": "Indexed", "successPolicy": {"rules": [rule]}});
        let w = run(spec, exits);
        let (on, reason) = conditions(&w);
        assert_eq!(on.contains(&"Complete".into()), met, "{rule} {exits:?}");
        assert_eq!(reason, if met { "SuccessPolicy" } else { "" }, "{rule}");
        assert_eq!(status(&w)["active"].is_null(), met, "the others are sent away");
    }
}

#[test]
fn conditions_say_when_they_were_looked_at() {
    let mut w = World::with_nodes(1);
    w.exit_codes = vec![("j-".into(), 0)];
    w.create("batch/jobs", json!({"metadata": {"name": "j", "namespace": "a"}, "spec": {"completions": 1,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}}));
    w.settle();
    let conditions = w.get("batch/jobs", "a", "j")["status"]["conditions"].as_array().unwrap();
    assert!(conditions.len() == 2 && conditions.iter().all(|c| c["lastProbeTime"] == "2026-11-23T10:00:00Z"), "{conditions:?}");
}
