//! Who starts and stops before whom, and who begins again.

use super::super::*;
use super::world::*;
use limpet_protocol::ItemKind;
use serde_json::{Value, json};

fn ends(w: &mut World, name: &str, after_ms: u64, code: i32) {
    w.behave.insert(name.into(), Behaviour { exits: Some((after_ms, code)), ..Behaviour::default() });
}

fn with_sidecars() -> Value {
    let side = |name: &str| json!({"name": name, "image": "i:1", "restartPolicy": "Always"});
    json!({"restartPolicy": "Always", "initContainers": [side("s1"), side("s2")],
        "containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}]})
}

#[test]
fn sidecars_end_after_the_others_in_reverse_order() {
    let mut w = World::new();
    w.behave.insert("a".into(), Behaviour { ignores_term: true, ..Behaviour::default() });
    w.pod("p", with_sidecars());
    w.run(1000);
    w.log.clear();
    w.delete("p", with_sidecars(), 10);
    w.run(5000);
    assert_eq!(w.log_without_volumes(), ["SIGTERM b", "SIGTERM a"]);
    w.run(10_000);
    // The grace is used up: the sidecars get their signals at once, with two seconds for last words.
    assert_eq!(w.log_without_volumes()[2..], ["SIGKILL a", "SIGTERM s2", "SIGTERM s1", "remove pod"]);
    let mut w = World::new();
    w.pod("p", with_sidecars());
    w.run(1000);
    w.log.clear();
    w.delete("p", with_sidecars(), 10);
    w.run(1000);
    assert_eq!(w.log_without_volumes(), ["SIGTERM b", "SIGTERM a", "SIGTERM s2", "SIGTERM s1", "remove pod"]);
    assert!(w.has_event("Killing", "Stopping container s1"));
}

/// Whoever waits for a pod's last phase may take what it held: nothing of it runs any more.
#[test]
fn a_pod_is_over_when_its_sidecar_is() {
    for (code, last) in [(0, "Succeeded"), (1, "Failed")] {
        let mut w = World::new();
        ends(&mut w, "c", 1000, code);
        w.behave.insert("s".into(), Behaviour { ignores_term: true, ..Behaviour::default() });
        let mut spec = one("Never", json!({}));
        spec["initContainers"] = json!([{"name": "s", "image": "i:1", "restartPolicy": "Always"}]);
        w.pod("p", spec);
        w.run(20_000);
        assert_eq!((w.phase("p"), w.condition("p", "Ready").1.as_str()), ("Running", "ContainersNotReady"), "{code}");
        assert_eq!(w.running.len(), 1);
        w.run(20_000);
        assert_eq!(w.phase("p"), last);
        assert!(w.running.is_empty());
    }
}

#[test]
fn a_sidecars_hook_runs_at_once_and_its_signal_waits_for_its_turn() {
    let mut spec = with_sidecars();
    spec["initContainers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["x"]}}});
    let mut w = World::new();
    w.behave.insert("a".into(), Behaviour { ignores_term: true, ..Behaviour::default() });
    w.pod("p", spec.clone());
    w.run(1000);
    w.log.clear();
    w.delete("p", spec, 30);
    w.run(20_000);
    assert_eq!(w.log_without_volumes(), ["SIGTERM b", "SIGTERM a", "PreStop s1"]);
    w.run(20_000);
    assert_eq!(w.gone, ["p"]);
}

#[test]
fn post_start_holds_the_next_container() {
    let mut w = World::new();
    w.behave.insert("a".into(), Behaviour { hook_takes_ms: 5000, ..Behaviour::default() });
    let hook = json!({"postStart": {"exec": {"command": ["x"]}}});
    w.pod("p", json!({"containers": [{"name": "a", "image": "i:1", "lifecycle": hook}, {"name": "b", "image": "i:1"}]}));
    w.run(4000);
    assert_eq!(w.log_without_volumes(), ["sandbox", "start a 0", "PostStart a"]);
    w.run(2000);
    assert_eq!(w.log_without_volumes(), ["sandbox", "start a 0", "PostStart a", "start b 0"]);
}

#[test]
fn a_container_of_its_own_mind() {
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    for (code, starts, phase) in [(42, 2, "Running"), (1, 1, "Failed"), (0, 1, "Succeeded")] {
        let mut w = World::new();
        ends(&mut w, "c", 1000, code);
        w.pod("p", one("Never", json!({"restartPolicy": "Never", "restartPolicyRules": rules})));
        w.run(3000);
        assert_eq!((w.plans.len(), w.phase("p")), (starts, phase), "{code}");
    }
    // Of two containers one is done for good, the other carries on: the pod runs.
    let mut w = World::new();
    ends(&mut w, "once", 1000, 0);
    w.pod("p", json!({"restartPolicy": "Always", "containers": [
        {"name": "once", "image": "i:1", "restartPolicy": "Never"}, {"name": "c", "image": "i:1"}]}));
    w.run(60_000);
    assert_eq!((w.phase("p"), w.plans.len()), ("Running", 2));
    assert_eq!(w.state("p", "once"), "Completed");
}

#[test]
fn all_begin_again_when_a_rule_says_so() {
    let mut w = World::new();
    ends(&mut w, "i", 100, 0);
    ends(&mut w, "c", 1000, 3);
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [3]}}]);
    let mut spec = one("Never", json!({"restartPolicy": "Never", "restartPolicyRules": rules}));
    spec["initContainers"] = json!([{"name": "i", "image": "i:1"}, {"name": "s", "image": "i:1", "restartPolicy": "Always"}]);
    w.pod("p", spec);
    w.run(1000);
    w.behave.remove("c");
    w.run(5000);
    let log = w.log_without_volumes();
    assert_eq!(log, ["sandbox", "start i 0", "start s 0", "start c 0", "SIGTERM s", "start i 1", "start s 1", "start c 1"]);
    assert_eq!(w.phase("p"), "Running");
}

/// One that waits in CrashLoopBackOff, or whose last start came to nothing, wakes nobody while it is not its turn.
#[test]
fn who_crashes_bears_that_all_begin_again() {
    for fails in [None, Some(StartStage::Run)] {
        let mut w = World::new();
        w.behave.insert("i".into(), Behaviour { exits: Some((100, 0)), ..Behaviour::default() });
        ends(&mut w, "c", 9000, 3);
        w.behave.insert("d".into(), Behaviour { exits: Some((100, 1)), start_fails: fails, ..Behaviour::default() });
        let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [3]}}]);
        let mut spec = one("Never", json!({"restartPolicy": "Never", "restartPolicyRules": rules}));
        spec["initContainers"] = json!([{"name": "i", "image": "i:1"}]);
        let other = json!({"name": "d", "image": "i:1", "restartPolicy": "Always"});
        spec["containers"].as_array_mut().unwrap().push(other);
        w.pod("p", spec);
        w.run(5000);
        assert_eq!(w.state("p", "d"), "CrashLoopBackOff");
        w.behave.insert("i".into(), Behaviour { exits: Some((60_000, 0)), ..Behaviour::default() });
        w.run(50_000);
        assert_eq!((w.state("p", "i"), w.state("p", "d")), ("running".into(), "CrashLoopBackOff".into()));
        w.behave.clear();
        w.run(60_000);
        assert_eq!((w.state("p", "c"), w.state("p", "d")), ("running".into(), "running".into()));
    }
}

#[test]
fn an_ephemeral_container_runs_once() {
    let mut w = World::new();
    let mut spec = one("Always", json!({}));
    w.pod("p", spec.clone());
    w.run(1000);
    spec["ephemeralContainers"] = json!([{"name": "debug", "image": "i:1", "targetContainerName": "c"}]);
    ends(&mut w, "debug", 10_000, 1);
    w.pod("p", spec.clone());
    w.run(1000);
    assert_eq!(w.status["p"]["ephemeralContainerStatuses"][0]["state"]["running"]["startedAt"], "2026-11-23T11:00:01Z");
    assert_eq!(w.plans[1].pid_of.as_deref(), Some(w.plans[0].id.as_str()));
    w.run(60_000);
    assert_eq!(w.plans.len(), 2);
    let status = &w.status["p"]["ephemeralContainerStatuses"][0];
    assert_eq!((&status["state"]["terminated"]["exitCode"], &status["ready"]), (&json!(1), &json!(false)));
    assert_eq!((w.phase("p"), w.condition("p", "Ready").0.as_str()), ("Running", "True"));
    // A reboot does not bring it back; its deletion stops it with the others.
    let mut w = w.successor(true);
    w.run(1000);
    assert_eq!(w.plans.iter().filter(|p| p.name == "debug").count(), 0);
    w.behave.clear();
    spec["ephemeralContainers"].as_array_mut().unwrap().push(json!({"name": "more", "image": "i:1"}));
    w.pod("p", spec.clone());
    w.run(1000);
    w.log.clear();
    w.delete("p", spec, 30);
    w.run(1000);
    assert_eq!(w.log_without_volumes(), ["SIGTERM more", "SIGTERM c", "remove pod"]);
}

/// Somebody who looks into a pod that crashes again and again wants to see the processes of its next try.
#[test]
fn an_ephemeral_container_waits_for_whom_it_looks_at() {
    let mut w = World::new();
    ends(&mut w, "c", 1000, 1);
    let mut spec = one("Always", json!({}));
    w.pod("p", spec.clone());
    w.run(5000);
    assert_eq!(w.state("p", "c"), "CrashLoopBackOff");
    w.behave.remove("c");
    spec["ephemeralContainers"] = json!([{"name": "debug", "image": "i:1", "targetContainerName": "c"}]);
    w.pod("p", spec);
    w.run(1000);
    let waits = json!({"reason": "CreateContainerConfigError", "message": "unable to find target container c"});
    assert_eq!(w.status["p"]["ephemeralContainerStatuses"][0]["state"]["waiting"], waits);
    assert!(w.has_event("Failed", "Error: unable to find target container c"));
    w.run(8000);
    let started = w.plans.iter().find(|p| p.name == "debug").unwrap();
    assert_eq!(started.pid_of.as_deref(), Some(crate::plan::container_id("uid-p", "c", 2).as_str()));
    assert_eq!(w.events.iter().filter(|(_, m)| m.contains("target container")).count(), 1);
}

#[test]
fn a_gate_opens_when_the_hub_says_so() {
    let mut w = World::new();
    let mut spec = one("Always", json!({}));
    spec["readinessGates"] = json!([{"conditionType": "example.com/a"}]);
    w.pod("p", spec.clone());
    w.run(1000);
    assert_eq!(w.condition("p", "Ready"), ("False".into(), "ReadinessGatesNotReady".into()));
    for (status, ready) in [("False", "False"), ("True", "True")] {
        let mut object = object("p", spec.clone(), None);
        object["status"] = json!({"conditions": [{"type": "example.com/a", "status": status}]});
        w.put(ItemKind::Pod, "p", object);
        w.run(0);
        assert_eq!(w.condition("p", "Ready").0, ready);
    }
}

#[test]
fn what_the_hub_holds_for_ended_does_not_run() {
    let mut w = World::new();
    let mut ended = object("p", one("Always", json!({})), None);
    ended["status"] = json!({"phase": "Succeeded"});
    w.put(ItemKind::Pod, "p", ended);
    w.run(60_000);
    assert!(w.plans.is_empty() && w.status.is_empty(), "nothing is known of it here, so nothing is said");
    let mut w = World::new();
    w.pod("p", one("Always", json!({})));
    w.run(1000);
    let mut failed = object("p", one("Always", json!({})), None);
    failed["status"] = json!({"phase": "Failed", "reason": "Lost", "message": "by hand"});
    w.put(ItemKind::Pod, "p", failed);
    w.run(1000);
    assert!(w.running.is_empty());
    assert_eq!((w.phase("p"), &w.status["p"]["reason"]), ("Failed", &json!("Lost")));
}

#[test]
fn an_evicted_pod_fails_with_its_reason() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { ignores_term: true, ..Behaviour::default() });
    w.pod("p", one("Always", json!({})));
    w.run(1000);
    let message = "The node was low on resource: memory.";
    let evict = |w: &mut World| {
        w.input(Input::Evict { uid: "uid-p".into(), message: message.into() });
    };
    evict(&mut w);
    w.run(500);
    assert_eq!((w.phase("p"), &w.status["p"]["reason"]), ("Running", &Value::Null), "it has not ended yet");
    w.run(3000);
    evict(&mut w);
    w.run(1000);
    let status = &w.status["p"];
    assert_eq!((w.phase("p"), &status["reason"], &status["message"]), ("Failed", &json!("Evicted"), &json!(message)));
    assert_eq!(w.condition("p", "DisruptionTarget"), ("True".into(), "TerminationByKubelet".into()));
    assert_eq!(w.events.iter().filter(|(r, _)| r == "Evicted").count(), 1);
    assert!(w.running.is_empty());
}

#[test]
fn a_pod_that_does_not_fit_is_refused() {
    let asks = |cpu: &str| one("Always", json!({"resources": {"requests": {"cpu": cpu}}}));
    let mut w = World::new();
    w.pod("large", asks("3"));
    w.run(1000);
    w.pod("more", asks("2"));
    w.run(1000);
    assert_eq!((w.phase("more"), &w.status["more"]["reason"]), ("Failed", &json!("OutOfcpu")));
    let message = "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000";
    assert_eq!(w.status["more"]["message"], message);
    assert!(w.has_event("OutOfcpu", "Node didn't have enough resource: cpu"));
    let mut critical = asks("2");
    critical["priority"] = 2_000_000_000.into();
    w.pod("critical", critical);
    w.run(1000);
    assert_eq!(w.phase("critical"), "Running");
    // What was here before comes in again, whatever there is.
    let mut w = w.successor(true);
    w.run(5000);
    assert_eq!((w.phase("large"), w.phase("critical"), w.phase("more")), ("Running", "Running", "Failed"));
}

/// The hub counts a pod that has ended no more and binds the next one, which may come before the word that the first is removed.
#[test]
fn what_has_ended_takes_no_room() {
    let asks = |cpu: &str| one("Always", json!({"resources": {"requests": {"cpu": cpu}}}));
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { ignores_term: true, ..Behaviour::default() });
    w.pod("low", asks("3"));
    w.run(1000);
    w.delete("low", asks("3"), 5);
    w.run(1000);
    w.pod("early", asks("3"));
    w.run(500);
    assert_eq!(w.status["early"]["reason"], "OutOfcpu", "what still runs takes its room");
    w.run(10_000);
    assert!(w.running.is_empty());
    w.pod("high", asks("3"));
    w.run(1000);
    assert_eq!(w.phase("high"), "Running");
}
