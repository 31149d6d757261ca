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
    assert_eq!(w.log_without_volumes(), ["resize first Some(100000)", "resize c Some(100000)", "resize last Some(100000)"]);
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

/// Nothing else happens on the board when the room is there: it is not the next news that brings the size. Whose turn comes first
/// is by uid, so whoever waits comes before and after who leaves.
#[test]
fn room_that_others_leave_is_given_at_once() {
    for name in ["before", "rather"] {
        let waiting = |policy: &str| {
            let mut leaves = sized("3", "NotRequired");
            leaves["restartPolicy"] = policy.into();
            let mut w = World::new();
            w.pod(name, leaves.clone());
            w.pod("p", sized("500m", "NotRequired"));
            w.run(1000);
            w.pod("p", sized("2", "NotRequired"));
            assert_eq!(w.condition("p", "PodResizePending"), ("True".into(), "Deferred".into()));
            (w, leaves)
        };
        let has_it = |mut w: World, how: &str| {
            w.run(60_000);
            assert_eq!(shown(&w, "resources")["limits"]["cpu"], "2", "{how}: {name}");
        };
        let (mut w, leaves) = waiting("Always");
        w.delete(name, leaves, 0);
        w.remove(limpet_protocol::ItemKind::Pod, name);
        has_it(w, "gone from the hub before its containers end");
        let (mut w, leaves) = waiting("Always");
        w.delete(name, leaves, 0);
        w.run(60_000);
        w.remove(limpet_protocol::ItemKind::Pod, name);
        has_it(w, "gone after its containers");
        let (mut w, _) = waiting("Never");
        let at = w.running.iter().find(|r| r.uid.contains(name)).unwrap().clone();
        w.end(at, 0);
        has_it(w, "ended");
        let (mut w, _) = waiting("Always");
        w.pod(name, sized("1", "NotRequired"));
        has_it(w, "smaller now");
    }
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

/// A pod of 500m in all, with a container that has no limit of its own, and one that has.
fn whole(cpu: &str, policy: &str) -> Value {
    json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}, "containers": [
        {"name": "c", "image": "i:1", "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]},
        {"name": "own", "image": "i:1", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "100m"}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]}]})
}

#[test]
fn a_pod_as_a_whole_is_resized_with_those_that_have_its_limit() {
    let mut w = World::new();
    w.pod("p", whole("500m", "NotRequired"));
    w.run(1000);
    assert_eq!(w.status["p"]["resources"]["limits"]["cpu"], "500m");
    for (cpu, first, last) in [("2", 200_000, 200_000), ("250m", 200_000, 25_000)] {
        w.log.clear();
        w.pod("p", whole(cpu, "NotRequired"));
        assert_eq!(w.condition("p", "PodResizeInProgress").0, "True");
        assert_eq!(w.status["p"]["allocatedResources"]["cpu"], cpu);
        assert_ne!(w.status["p"]["resources"]["limits"]["cpu"], cpu, "not before it is so");
        w.run(1000);
        let want = [format!("resize first Some({first})"), format!("resize c Some({last})"), format!("resize last Some({last})")];
        assert_eq!(w.log_without_volumes(), want);
        assert_eq!(w.status["p"]["resources"]["limits"]["cpu"], cpu);
        let conditions = w.status["p"]["conditions"].as_array().unwrap();
        assert!(!conditions.iter().any(|c| c["type"] == "PodResizeInProgress"));
    }
    assert!(w.has_event("ResizeCompleted", "\"resources\":{\"limits\":{\"cpu\":\"250m\"}"));
    assert_eq!(w.container("p", "c")["restartCount"], 0);
    assert!(w.memories.values().all(|m| m.resources.is_none()));
}

#[test]
fn only_those_that_have_the_pods_limit_restart_for_it() {
    let mut w = World::new();
    w.pod("p", whole("500m", "RestartContainer"));
    w.run(1000);
    w.pod("p", whole("1", "RestartContainer"));
    w.run(5000);
    assert_eq!((&w.container("p", "c")["restartCount"], &w.container("p", "own")["restartCount"]), (&json!(1), &json!(0)));
    assert_eq!(w.status["p"]["resources"]["limits"]["cpu"], "1");
    let plans: Vec<_> = w.plans.iter().filter(|p| p.name == "c").map(|p| p.resources.cpu_quota_us).collect();
    assert_eq!(plans, [Some(50_000), Some(100_000)]);
    assert!(w.has_event("ResizeCompleted", ""));
}

#[test]
fn a_whole_pod_waits_for_room_and_starts_with_what_it_has() {
    let mut w = World::new();
    w.pod("other", sized("3", "NotRequired"));
    w.pod("p", whole("500m", "NotRequired"));
    w.run(1000);
    w.pod("p", whole("5", "NotRequired"));
    assert_eq!(w.condition("p", "PodResizePending"), ("True".into(), "Infeasible".into()));
    w.pod("p", whole("2", "NotRequired"));
    assert_eq!(w.condition("p", "PodResizePending"), ("True".into(), "Deferred".into()));
    assert_eq!(w.status["p"]["allocatedResources"]["cpu"], "500m");
    // A power cut: what starts again has what the pod was given, not what it waits for.
    let mut w = w.successor(true);
    w.run(30_000);
    assert_eq!(w.plans.iter().rfind(|p| p.name == "c").map(|p| p.resources.cpu_quota_us), Some(Some(50_000)));
    assert_eq!(w.condition("p", "PodResizePending"), ("True".into(), "Deferred".into()));
    w.delete("other", sized("3", "NotRequired"), 0);
    w.run(1000);
    w.remove(limpet_protocol::ItemKind::Pod, "other");
    w.run(1000);
    assert_eq!(w.status["p"]["resources"]["limits"]["cpu"], "2");
    assert!(w.memories.values().all(|m| m.resources.is_none()));
}

#[test]
fn a_group_that_refuses_is_tried_again() {
    let mut w = World::new();
    w.pod("p", whole("500m", "NotRequired"));
    w.run(1000);
    w.behave.insert("the pod".into(), Behaviour { resize_fails: true, ..Behaviour::default() });
    w.pod("p", whole("250m", "NotRequired"));
    w.run(500);
    assert_eq!(w.condition("p", "PodResizeInProgress"), ("True".into(), "Error".into()));
    assert_eq!(w.status["p"]["resources"]["limits"]["cpu"], "500m");
    w.behave.clear();
    w.run(5000);
    assert_eq!(w.status["p"]["resources"]["limits"]["cpu"], "250m");
    assert_eq!(w.events.iter().filter(|(r, _)| r == "ResizeError").count(), 1);
}

/// Whenever the agent is killed on the way, the next one brings containers and group to the same end, tells so, and is done.
#[test]
fn the_next_agent_ends_what_the_last_one_began() {
    let containers: fn(&str) -> Value = |cpu| sized(cpu, "NotRequired");
    let pods: fn(&str) -> Value = |cpu| whole(cpu, "NotRequired");
    for (spec, from, to, back) in [
        (containers, "500m", "1", false), (containers, "1", "500m", false), (containers, "500m", "1", true),
        (pods, "500m", "1", false), (pods, "1", "500m", false), (pods, "500m", "1", true),
    ] {
        // Before the first action the journal has the manifest, and what it had to have before that.
        for actions in 0.. {
            let mut w = World::new();
            w.pod("p", spec(from));
            w.run(1000);
            w.actions_left = Some(actions);
            w.pod("p", spec(to));
            w.run(1000);
            let killed = w.actions_left == Some(0);
            let mut w = w.successor(false);
            let (end, quota) = if back { (from, from) } else { (to, to) };
            if back {
                w.pod("p", spec(from));
            }
            w.run(10_000);
            let quota = if quota == "1" { 100_000 } else { 50_000 };
            let case = format!("{from} to {end} by {to}, killed after {actions} actions: {:?}", w.log);
            let c = w.quotas.iter().find(|(at, _)| *at.container == *"c").unwrap();
            assert_eq!(*c.1, Some(quota), "{case}");
            assert_eq!(w.group_quotas.values().collect::<Vec<_>>(), [&Some(quota)], "{case}");
            let conditions = w.status["p"]["conditions"].as_array().unwrap();
            assert!(!conditions.iter().any(|c| c["type"].as_str().unwrap().starts_with("PodResize")), "{case}");
            assert!(w.plans.is_empty(), "{case}");
            let mut w = w.successor(false);
            w.run(10_000);
            assert_eq!(w.log_without_volumes(), [""; 0], "{case}");
            if !killed {
                break;
            }
        }
    }
}

#[test]
fn a_resize_ends_with_the_boards_power() {
    let mut w = World::new();
    w.pod("p", sized("500m", "NotRequired"));
    w.run(1000);
    w.actions_left = Some(4);
    w.pod("p", sized("1", "NotRequired"));
    w.run(1000);
    let mut w = w.successor(true);
    w.run(60_000);
    assert_eq!(w.group_quotas.values().collect::<Vec<_>>(), [&Some(100_000)]);
    assert!(!w.status["p"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "PodResizeInProgress"));
    assert!(w.memories.values().all(|m| !m.resizing));
}
