//! A new agent over old containers, and a board that has been rebooted.

use super::super::*;
use super::world::*;
use crate::Now;
use limpet_protocol::ItemKind;
use serde_json::{Value, json};

fn successor(old: World, found: Vec<AdoptedPod>) -> World {
    let mut w = World::blank();
    w.items = old.items;
    w.now = Now { mono_ms: 5_000, wall_ms: old.now.wall_ms + 60_000 };
    w.running = old.running;
    w.behave = old.behave;
    for memory in old.memories.into_values() {
        w.memories.insert(memory.uid.clone(), memory.clone());
        w.input(Input::Remembered(memory));
    }
    found.into_iter().for_each(|f| w.input(Input::Adopted(f)));
    w.input(Input::Begin);
    w
}

fn found(exit: Option<Exit>, attempt: u32) -> AdoptedPod {
    AdoptedPod {
        uid: "uid-p".into(),
        sandbox: Some(vec!["10.42.0.5".into()]),
        containers: vec![AdoptedContainer { name: "c".into(), attempt, started_ms: START_MS, exit }],
    }
}

#[test]
fn running_containers_are_adopted_and_not_restarted() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({"readinessProbe": {"tcpSocket": {"port": 80}}})));
    w.run(10_000);
    let before = w.container("p", "c").clone();
    let mut w = successor(w, vec![found(None, 0)]);
    assert_eq!(w.condition("p", "Ready").0, "True", "ready from the first report on");
    w.run(60_000);
    assert!(w.plans.is_empty());
    assert!(!w.log.contains(&"sandbox".to_string()));
    let after = w.container("p", "c");
    for field in ["containerID", "restartCount", "state", "imageID"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(w.status["p"]["startTime"], "2026-11-23T11:00:00Z");
    assert!(w.events.is_empty(), "{:?}", w.events);
}

#[test]
fn the_time_of_a_start_stays_what_was_told() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({})));
    w.run(10_000);
    let before = w.container("p", "c")["state"].clone();
    // On record before the program ran, told when it did: in the second after.
    let mut there = found(None, 0);
    there.containers[0].started_ms = START_MS - 700;
    let mut w = successor(w, vec![there]);
    w.run(1000);
    assert_eq!(w.container("p", "c")["state"], before);
}

#[test]
fn what_ended_meanwhile_is_restarted_with_its_exit_code() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({})));
    w.run(10_000);
    w.running.clear();
    let exit = Exit { code: 42, finished_ms: START_MS + 30_000, ..Exit::default() };
    let mut w = successor(w, vec![found(Some(exit), 0)]);
    w.run(1000);
    let c = w.container("p", "c");
    assert_eq!(c["restartCount"], 1);
    assert_eq!(c["lastState"]["terminated"]["exitCode"], 42);
    assert_eq!(c["lastState"]["terminated"]["finishedAt"], "2026-11-23T11:00:30Z");
    assert_eq!(w.state("p", "c"), "running");
}

#[test]
fn after_a_reboot_pods_start_again_and_counts_go_on() {
    let mut w = World::new();
    w.behave.insert("i".into(), Behaviour { exits: Some((100, 0)), ..Behaviour::default() });
    let mut spec = one("Always", json!({}));
    spec["initContainers"] = json!([{"name": "i", "image": "i:1"}]);
    w.pod("p", spec);
    w.run(10_000);
    w.running.clear();
    let mut w = successor(w, vec![]);
    w.run(5000);
    assert_eq!(w.log_without_volumes(), ["sandbox", "start i 1", "start c 1"]);
    assert_eq!(w.container("p", "c")["restartCount"], 1);
    assert_eq!(w.container("p", "c")["lastState"]["terminated"]["reason"], "Unknown");
    assert_eq!(w.phase("p"), "Running");
}

#[test]
fn a_finished_job_stays_finished_after_a_reboot() {
    for (policy, code, phase) in [("Never", 0, "Succeeded"), ("Never", 1, "Failed"), ("OnFailure", 0, "Succeeded")] {
        let mut w = World::new();
        w.behave.insert("c".into(), Behaviour { exits: Some((100, code)), ..Behaviour::default() });
        w.pod("p", one(policy, json!({})));
        w.run(10_000);
        let mut w = successor(w, vec![]);
        w.run(60_000);
        assert!(w.plans.is_empty());
        assert_eq!(w.phase("p"), phase);
        assert_eq!(w.container("p", "c")["state"]["terminated"]["exitCode"], code);
    }
}

/// `Never` is meant: what a power cut ended has failed, and is not run a second time.
#[test]
fn what_runs_once_is_not_run_again_after_a_reboot() {
    let mut w = World::new();
    w.pod("p", one("Never", json!({})));
    w.run(10_000);
    let mut w = w.successor(true);
    w.run(60_000);
    assert!(w.plans.is_empty());
    assert_eq!(w.phase("p"), "Failed");
    let ended = &w.container("p", "c")["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(255), &json!("Unknown")));
    // Also one that has not come to what it is for.
    let mut spec = one("Never", json!({}));
    spec["initContainers"] = json!([{"name": "i", "image": "i:1"}]);
    let mut w = World::new();
    w.pod("p", spec);
    w.run(10_000);
    let mut w = w.successor(true);
    w.run(60_000);
    assert!(w.plans.is_empty());
    assert_eq!(w.phase("p"), "Failed");
}

/// What was not ready is not ready because somebody else looks at it, and what has not started up is left its time.
#[test]
fn readiness_outlives_the_agent() {
    let probed = |probes: Value| one("Always", probes);
    let tcp = json!({"tcpSocket": {"port": 80}, "periodSeconds": 5});
    let fails = |w: &mut World, kind| {
        w.behave.insert("c".into(), Behaviour { probe_fails: Some(kind), ..Behaviour::default() });
    };
    let mut w = World::new();
    fails(&mut w, ProbeKind::Readiness);
    w.pod("p", probed(json!({"readinessProbe": tcp})));
    w.run(60_000);
    let before = w.status["p"].clone();
    assert_eq!(w.condition("p", "Ready").0, "False");
    let mut w = w.successor(false);
    assert_eq!(w.status["p"], before, "not from the first report on");
    w.run(60_000);
    assert_eq!(w.condition("p", "Ready").0, "False");
    w.behave.clear();
    w.run(6000);
    assert_eq!(w.condition("p", "Ready").0, "True");
    let before = w.status["p"].clone();
    let mut w = w.successor(false);
    w.run(60_000);
    assert_eq!(w.status["p"], before, "ready since when it was");

    let mut w = World::new();
    fails(&mut w, ProbeKind::Startup);
    let slow = json!({"tcpSocket": {"port": 80}, "periodSeconds": 10, "failureThreshold": 30});
    w.pod("p", probed(json!({"startupProbe": slow, "livenessProbe": tcp})));
    w.run(60_000);
    let mut w = w.successor(false);
    w.run(0);
    assert_eq!(w.container("p", "c")["started"], false);
    let probes = w.probes;
    w.run(60_000);
    assert_eq!((w.container("p", "c")["restartCount"].clone(), w.probes - probes), (json!(0), 6), "startup's alone");
    w.behave.clear();
    w.run(11_000);
    assert_eq!(w.container("p", "c")["started"], true);
    let mut w = w.successor(false);
    w.run(0);
    assert_eq!(w.container("p", "c")["started"], true, "it is over and does not begin anew");
}

#[test]
fn a_deletion_goes_on_after_a_restart() {
    let mut w = World::new();
    let spec = || one("Always", json!({}));
    w.pod("p", spec());
    w.run(10_000);
    let key = limpet_protocol::ItemKey::new(ItemKind::Pod, "default", "p");
    w.items.put(key, 99, object("p", spec(), Some(30)).to_string().as_bytes());
    let mut w = successor(w, vec![found(None, 0)]);
    w.run(5000);
    assert_eq!(w.gone, ["p"]);
    assert!(w.running.is_empty());
}

#[test]
fn what_nobody_wants_any_more_is_removed() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({})));
    w.run(10_000);
    let key = limpet_protocol::ItemKey::new(ItemKind::Pod, "default", "p");
    w.items.remove(&key);
    let mut w = successor(w, vec![found(None, 0)]);
    w.run(5000);
    assert!(w.running.is_empty() && w.memories.is_empty() && w.gone.is_empty());
}

#[test]
fn a_crash_between_start_and_memory_does_not_run_it_twice() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({})));
    w.run(1000);
    w.memories.clear();
    let mut w = successor(w, vec![found(None, 0)]);
    w.run(5000);
    assert!(w.plans.is_empty());
    assert_eq!(w.running.len(), 1);
}

#[test]
fn a_running_init_container_is_adopted_as_one() {
    let mut w = World::new();
    let mut spec = one("Always", json!({}));
    spec["initContainers"] = json!([{"name": "i", "image": "i:1"}]);
    w.pod("p", spec);
    w.run(1000);
    let mut f = found(None, 0);
    f.containers[0].name = "i".into();
    let mut w = successor(w, vec![f]);
    w.run(1000);
    assert_eq!(w.phase("p"), "Pending");
    assert!(w.plans.is_empty());
    let at = w.running.iter().next().unwrap().clone();
    w.running.clear();
    w.input(Input::ContainerExited { at, exit: Exit::default() });
    w.run(1000);
    assert_eq!(w.log_without_volumes(), ["start c 0"]);
}
