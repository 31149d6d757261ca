//! New sizes of a pod that runs.

use super::world::*;
use serde_json::{Value, json};

fn sized(cpu: &str, policy: &str) -> Value {
    one("Always", json!({"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}},
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]}))
}

fn shown<'a>(w: &'a World, what: &str) -> &'a Value {
    &w.container("p", "c")[what]
}

#[test]
fn a_size_that_fits_is_set_without_a_restart() {
    let mut w = World::new();
    w.pod("p", sized("500m", "NotRequired"));
    w.run(1000);
    w.log.clear();
    w.pod("p", sized("1", "NotRequired"));
    assert_eq!(w.condition("p", "PodResizeInProgress").0, "True");
    w.run(1000);
    assert_eq!(w.log_without_volumes(), ["resize c Some(100000) Some(100000)"]);
    assert_eq!((shown(&w, "resources")["limits"]["cpu"].as_str(), shown(&w, "restartCount")), (Some("1"), &json!(0)));
    assert_eq!(shown(&w, "allocatedResources")["cpu"], "1");
    let conditions = w.status["p"]["conditions"].as_array().unwrap();
    assert!(!conditions.iter().any(|c| c["type"].as_str().unwrap().starts_with("PodResize")));
    assert!(w.has_event("ResizeStarted", "Pod resize started: {") && w.has_event("ResizeCompleted", "\"cpu\":\"1\""));
}

#[test]
fn a_policy_may_want_a_restart_also_of_what_never_restarts() {
    let mut w = World::new();
    let never = |cpu: &str| {
        let mut spec = sized(cpu, "RestartContainer");
        spec["restartPolicy"] = "Never".into();
        spec
    };
    w.pod("p", never("500m"));
    w.run(1000);
    w.pod("p", never("1"));
    w.run(5000);
    assert_eq!((w.phase("p"), shown(&w, "restartCount")), ("Running", &json!(1)));
    assert_eq!(shown(&w, "resources")["limits"]["cpu"], "1");
    assert!(w.has_event("Killing", "Container c resize requires restart"));
    assert!(w.has_event("ResizeCompleted", ""));
}

#[test]
fn what_does_not_fit_waits_or_is_refused() {
    let mut w = World::new();
    w.pod("other", sized("3", "NotRequired"));
    w.pod("p", sized("500m", "NotRequired"));
    w.run(1000);
    w.pod("p", sized("5", "NotRequired"));
    assert_eq!(w.condition("p", "PodResizePending"), ("True".into(), "Infeasible".into()));
    w.pod("p", sized("2", "NotRequired"));
    assert_eq!(w.condition("p", "PodResizePending"), ("True".into(), "Deferred".into()));
    assert!(w.has_event("ResizeDeferred", "Node didn't have enough resource: cpu, requested: 2000, available: 1000"));
    assert_eq!(shown(&w, "resources")["limits"]["cpu"], "500m");
    // The next agent knows that the container has its old size.
    let mut w = w.successor(false);
    assert_eq!(shown(&w, "resources")["limits"]["cpu"], "500m");
    w.delete("other", sized("3", "NotRequired"), 0);
    w.run(1000);
    w.remove(limpet_protocol::ItemKind::Pod, "other");
    w.run(1000);
    assert_eq!(shown(&w, "resources")["limits"]["cpu"], "2");
    assert!(w.memories.values().all(|m| m.containers["c"].resources.is_none()));
}

#[test]
fn a_size_that_cannot_be_set_is_tried_again() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { resize_fails: true, ..Behaviour::default() });
    w.pod("p", sized("1", "NotRequired"));
    w.run(1000);
    w.pod("p", sized("500m", "NotRequired"));
    w.run(500);
    assert_eq!(w.condition("p", "PodResizeInProgress"), ("True".into(), "Error".into()));
    w.behave.clear();
    w.run(5000);
    assert_eq!(shown(&w, "resources")["limits"]["cpu"], "500m");
    assert_eq!(w.events.iter().filter(|(r, _)| r == "ResizeError").count(), 1);
}
