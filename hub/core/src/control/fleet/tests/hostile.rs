//! Rollouts against the grain: targets that come late, change or go; two for one thing; waves of nobody; changes that the API
//! does not take.
//!
//! In: fleets and rollouts. Out: a clear word, and nobody changed who should not be. Never: a clock.

use super::*;

fn canary(w: &mut World) {
    w.patch("/nodes", "", "n4", json!({"metadata": {"labels": {"ring": "canary"}}}));
    w.settle();
}

fn waves() -> Value {
    json!([{"name": "canary", "selector": {"matchLabels": {"ring": "canary"}}, "soak": "10m"}])
}

fn message(w: &World) -> &str {
    status(w)["message"].as_str().unwrap_or_default()
}

fn rollout(w: &mut World, name: &str, spec: Value) {
    w.create(ROLLOUTS, json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec}));
}

fn of(w: &World, name: &str) -> (String, String) {
    let status = &w.get(ROLLOUTS, "a", name)["status"];
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    (text("phase"), text("message"))
}

/// Configuration that comes in any order: the rollout first, then what it is about.
#[test]
fn a_target_that_comes_late_begins_with_the_first_wave() {
    let mut w = World::new();
    rollout(&mut w, "r", json!({"target": {"kind": "ConfigMap", "selector": {"matchLabels": {"app": "till"}}},
        "change": {"data": {"k": "2"}}, "waves": waves(), "budget": {"maxUnavailable": "100%"}}));
    w.settle();
    assert_eq!((phase(&w), message(&w)), ("Pending", "no ConfigMap has the labels of spec.target.selector"));
    for (name, ring) in [("c0", "canary"), ("c1", "rest"), ("c2", "rest")] {
        w.create("/configmaps", json!({"metadata": {"name": name, "namespace": "a",
            "labels": {"app": "till", "ring": ring}}, "data": {"k": "1"}}));
    }
    w.settle();
    let new = |w: &World| w.list("/configmaps").iter().filter(|c| c["data"]["k"] == "2").count();
    assert_eq!((new(&w), phase(&w)), (1, "Soaking"), "not all at once");
    w.pass(601);
    assert_eq!((new(&w), phase(&w)), (3, "Complete"));
}

#[test]
fn a_daemonset_that_is_deleted_in_the_middle_is_said_and_comes_back_to_the_same_wave() {
    let mut w = fleet(6);
    canary(&mut w);
    upgrade(&mut w, json!({"budget": {"maxUnavailable": "100%"}, "waves": waves()}));
    w.settle();
    assert_eq!((with(&w, "v2"), phase(&w), &status(&w)["waveIndex"]), (1, "Soaking", &json!(0)));
    let ds = w.get("apps/daemonsets", "a", "till").clone();
    w.delete("apps/daemonsets", "a", "till");
    w.settle();
    assert_eq!((phase(&w), message(&w)), ("Waiting", "there is no DaemonSet till"));
    assert_eq!(status(&w)["waveIndex"], 0, "what was proved so far is kept");
    w.create("apps/daemonsets", json!({"metadata": {"name": "till", "namespace": "a"}, "spec": ds["spec"]}));
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Complete", 6), "a new DaemonSet begins with the new template everywhere");
}

/// Somebody lets the DaemonSet update itself, and takes it back: the canary is not skipped meanwhile.
#[test]
fn a_target_that_cannot_be_used_for_a_while_keeps_its_wave() {
    let mut w = fleet(6);
    canary(&mut w);
    w.patch("/nodes", "", "n4", json!({"metadata": {"annotations": {LOCK: "busy"}}}));
    upgrade(&mut w, json!({"paused": true, "waves": waves()}));
    w.settle();
    let strategy = |w: &mut World, type_: &str, paused: bool| {
        w.patch("apps/daemonsets", "a", "till", json!({"spec": {"updateStrategy": {"type": type_}}}));
        w.patch(ROLLOUTS, "a", "r", json!({"spec": {"paused": paused}}));
    };
    w.kubelet = false;
    strategy(&mut w, "RollingUpdate", true);
    w.step();
    strategy(&mut w, "OnDelete", true);
    w.settle();
    assert_eq!(status(&w)["waveIndex"], 0);
}

#[test]
fn a_wave_of_nobody_holds_the_rollout_and_says_so() {
    let mut w = fleet(4);
    upgrade(&mut w, json!({"budget": {"maxUnavailable": "100%"}, "waves": [
        {"name": "canary", "selector": {"matchLabels": {"ring": "canry"}}, "soak": "10m"}]}));
    w.pass(86400);
    assert_eq!((phase(&w), with(&w, "v2")), ("Waiting", 0));
    assert!(message(&w).contains("spec.waves[0] \"canary\" selects none of them"), "{}", message(&w));
    w.patch(ROLLOUTS, "a", "r", json!({"spec": {"waves": []}}));
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Complete", 4));
}

/// What the first template proved says nothing about the second.
#[test]
fn another_template_in_the_middle_begins_with_the_first_wave() {
    let mut w = fleet(6);
    canary(&mut w);
    upgrade(&mut w, json!({"budget": {"maxUnavailable": "100%"}, "waves": waves()}));
    w.settle();
    w.patch("/nodes", "", "n0", json!({"metadata": {"annotations": {LOCK: "busy"}}}));
    w.pass(601);
    assert_eq!((with(&w, "v2"), phase(&w)), (5, "Waiting"), "all but the one with a lock");
    w.patch("apps/daemonsets", "a", "till", json!({"spec": {"template": template("v3")}}));
    w.settle();
    assert_eq!((with(&w, "v3"), phase(&w)), (1, "Soaking"), "the canary again");
    w.sick = vec!["till-".into()];
    w.patch("/nodes", "", "n0", json!({"metadata": {"annotations": {LOCK: null}}}));
    w.pass(601);
    assert_eq!(phase(&w), "Progressing", "the next wave is at work and does not become healthy");
    w.sick.clear();
    w.pass(700);
    assert_eq!((phase(&w), with(&w, "v1")), ("RolledBack", 6), "to what was there before the rollout");
    let words = ["not healthy within 10m", "; every unit has again what it had before"];
    assert!(words.iter().all(|part| message(&w).contains(part)), "{}", message(&w));
}

/// Both would change pods of the same DaemonSet: together they would close a shop.
#[test]
fn of_two_rollouts_of_one_daemonset_the_older_goes_first() {
    let mut w = fleet(6);
    upgrade(&mut w, json!({"budget": {"groupBy": "shop"}}));
    w.now = w.now.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
    rollout(&mut w, "a-second", json!({"target": {"kind": "DaemonSet", "name": "till"}, "budget": {"groupBy": "shop"}}));
    settle_with_one_a_shop(&mut w);
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Complete", 6));
    assert_eq!(of(&w, "a-second").0, "Complete", "it was woken when the first one ended");
    let waited = w.events.iter().any(|e| e.1 == "a-second" && e.3.contains("FleetRollout r is older and still at work"));
    assert!(waited, "{:?}", w.events);
}

/// They meet in the middle: each has an object that the other wants.
#[test]
fn two_rollouts_of_the_same_objects_both_end() {
    let mut w = World::with_nodes(1);
    for i in 0..6 {
        let labels = json!({"all": "yes", "part": format!("p{}", i % 2)});
        w.create("/configmaps", json!({"metadata": {"name": format!("c{i}"), "namespace": "a", "labels": labels}}));
    }
    let target = |key: &str, value: &str| json!({"kind": "ConfigMap", "selector": {"matchLabels": {key: value}}});
    rollout(&mut w, "r", json!({"target": target("all", "yes"), "change": {"data": {"one": "1"}}, "paused": true}));
    w.settle();
    w.now = w.now.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
    rollout(&mut w, "s", json!({"target": target("part", "p1"), "change": {"data": {"two": "2"}}}));
    w.settle();
    let (is, says) = of(&w, "s");
    assert_eq!((&*is, &*says), ("Waiting", "0 of 3 are healthy; 3 hold a lock"));
    let held = &w.get(ROLLOUTS, "a", "s")["status"]["heldUnits"][0];
    assert_eq!(held, "c1: FleetRollout r is older and still at work on it; it goes first, or somebody deletes it");
    w.patch(ROLLOUTS, "a", "r", json!({"spec": {"paused": false}}));
    w.settle();
    assert_eq!((phase(&w), of(&w, "s").0.as_str()), ("Complete", "Complete"));
    assert!(w.list("/configmaps").iter().all(|c| c["data"]["one"] == "1"));
    // A rollout that is complete does not take up its work again because somebody edits it.
    w.patch(ROLLOUTS, "a", "s", json!({"spec": {"budget": {"maxUnavailable": 2}}}));
    w.patch("/configmaps", "a", "c1", json!({"data": {"two": "3"}, "metadata": {"annotations": {units::OF: null}}}));
    w.settle();
    assert_eq!(w.get("/configmaps", "a", "c1")["data"]["two"], "3");
}

#[test]
fn a_rollout_that_is_deleted_lets_the_next_one_begin() {
    let mut w = fleet(2);
    upgrade(&mut w, json!({"paused": true}));
    w.settle();
    w.now = w.now.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
    rollout(&mut w, "s", json!({"target": {"kind": "DaemonSet", "name": "till"}}));
    w.settle();
    assert_eq!(of(&w, "s").0, "Pending");
    w.delete(ROLLOUTS, "a", "r");
    w.settle();
    assert_eq!(of(&w, "s").0, "Complete");
}

/// A lock holds the way back, too: somebody pays there.
#[test]
fn a_lock_holds_the_way_back() {
    let mut w = fleet(2);
    w.sick = vec!["till-".into()];
    upgrade(&mut w, json!({"success": {"deadline": "5m"}, "waves": [{"percent": 50}]}));
    w.settle();
    let board = w.view.all::<Pod>().find(|p| p.spec.images[0] == "v2".into()).unwrap().node.clone().unwrap();
    w.patch("/nodes", "", &board, json!({"metadata": {"annotations": {LOCK: "card payment"}}}));
    w.pass(301);
    assert_eq!((phase(&w), with(&w, "v2")), ("RollingBack", 1));
    assert!(message(&w).contains("1 of 2 still go back; 1 hold a lock"), "{}", message(&w));
    assert_eq!(status(&w)["heldUnits"], json!([format!("{board}: card payment")]));
    w.sick.clear();
    w.patch("/nodes", "", &board, json!({"metadata": {"annotations": {LOCK: null}}}));
    w.settle();
    assert_eq!((phase(&w), with(&w, "v1")), ("RolledBack", 2));
    assert!(status(&w)["failure"].as_str().unwrap().contains("not healthy within 5m"));
}

/// The DaemonSet goes while its boards go back.
#[test]
fn a_way_back_without_its_target_says_so() {
    let mut w = fleet(2);
    w.sick = vec!["till-".into()];
    upgrade(&mut w, json!({"success": {"deadline": "5m"}}));
    w.settle();
    for n in 0..2 {
        w.patch("/nodes", "", &format!("n{n}"), json!({"metadata": {"annotations": {LOCK: "x"}}}));
    }
    w.pass(301);
    assert_eq!(phase(&w), "RollingBack");
    w.delete("apps/daemonsets", "a", "till");
    w.settle();
    assert_eq!(phase(&w), "RollingBack");
    assert!(message(&w).ends_with("it cannot go back: there is no DaemonSet till"), "{}", message(&w));
}

/// An object that the API does not let change, in the middle of a fleet: those before it go back.
#[test]
fn a_change_that_is_refused_ends_the_rollout() {
    for (on_failure, phase_then, changed) in [("Rollback", "RolledBack", 0), ("Halt", "Failed", 1)] {
        let mut w = World::with_nodes(1);
        for i in 0..3 {
            let labels = json!({"x": "y", "n": i.to_string()});
            w.create("/configmaps", json!({"metadata": {"name": format!("c{i}"), "namespace": "a", "labels": labels},
                "immutable": i == 1, "data": {"k": "1"}}));
        }
        w.refuse_patches_of = Some(("/configmaps", "c1", "Forbidden: field is immutable when `immutable` is set"));
        rollout(&mut w, "r", json!({"target": {"kind": "ConfigMap", "selector": {"matchLabels": {"x": "y"}}},
            "change": {"data": {"k": "2"}}, "onFailure": on_failure, "waves": [{"selector": {"matchLabels": {"n": "0"}}}]}));
        w.settle();
        let new = w.list("/configmaps").iter().filter(|c| c["data"]["k"] == "2").count();
        assert_eq!(phase(&w), phase_then, "{on_failure}: {}", message(&w));
        assert!(message(&w).contains("ConfigMap c1 does not take the change: Forbidden"), "{}", message(&w));
        assert_eq!(new, changed, "{on_failure}");
        assert!(is(&w, "Failed") && w.events.iter().any(|e| e.0 == "FleetRollout" && e.3.contains("does not take")));
    }
}

/// A board that takes the new agent and is not heard of again: nothing more is changed, and that is said.
#[test]
fn a_board_that_went_away_with_the_change_holds_the_rollout() {
    let mut w = fleet(3);
    w.sick = vec!["till-".into()];
    upgrade(&mut w, json!({}));
    w.settle();
    let board = w.view.all::<Pod>().find(|p| p.spec.images[0] == "v2".into()).unwrap().node.clone().unwrap();
    w.patch("/nodes", "", &board, json!({"metadata": {"annotations": {OFFLINE_SINCE: "2026-11-23T10:00:00Z"}}}));
    w.pass(86400);
    assert_eq!((phase(&w), with(&w, "v2")), ("Progressing", 1));
    assert!(message(&w).contains("1 of these went away with the change"), "{}", message(&w));
}
