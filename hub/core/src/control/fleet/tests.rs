//! Rollouts in the test world: every controller works, boards come and go.
//!
//! In: fleets and rollouts. Out: who has the change at which time. Never: a clock.

mod hostile;

use super::*;
use crate::{nodes::offline::OFFLINE_SINCE, world::World};

const ROLLOUTS: &str = "limpet.dev/fleetrollouts";

/// `n` boards, two in each shop, with a DaemonSet that only changes when somebody deletes its pods.
fn fleet(n: usize) -> World {
    let mut w = World::new();
    for i in 0..n {
        w.node(&format!("n{i}"), json!({"shop": format!("s{}", i / 2)}), json!([]));
    }
    w.create("apps/daemonsets", json!({"metadata": {"name": "till", "namespace": "a"}, "spec": {
        "selector": {"matchLabels": {"app": "till"}}, "updateStrategy": {"type": "OnDelete"},
        "template": template("v1")}}));
    w.settle();
    w
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "till"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn upgrade(w: &mut World, spec: Value) {
    w.patch("apps/daemonsets", "a", "till", json!({"spec": {"template": template("v2")}}));
    w.settle();
    let mut spec = spec;
    spec["target"] = json!({"kind": "DaemonSet", "name": "till"});
    w.create(ROLLOUTS, json!({"metadata": {"name": "r", "namespace": "a"}, "spec": spec}));
}

fn images(w: &World) -> Vec<String> {
    let image = |p: &&Value| Some(p["spec"]["containers"][0]["image"].as_str()?.to_owned());
    let mut all: Vec<String> = w.list("/pods").iter().filter_map(image).collect();
    all.sort();
    all
}

fn with(w: &World, image: &str) -> usize {
    images(w).iter().filter(|i| *i == image).count()
}

fn status(w: &World) -> &Value {
    &w.get(ROLLOUTS, "a", "r")["status"]
}

fn phase(w: &World) -> &str {
    status(w)["phase"].as_str().unwrap_or_default()
}

fn is(w: &World, type_: &str) -> bool {
    let list = status(w)["conditions"].as_array().unwrap();
    list.iter().any(|c| c["type"] == type_ && c["status"] == "True")
}

/// As `settle`, and no shop ever has more than one board without a pod that is ready.
fn settle_with_one_a_shop(w: &mut World) {
    for _ in 0..200 {
        let before = w.list("/pods").iter().map(|p| p["metadata"]["uid"].clone()).collect::<Vec<_>>();
        w.step();
        for shop in 0..3 {
            let down = (shop * 2..shop * 2 + 2).filter(|n| {
                let ready = |p: &&Arc<Pod>| p.status.ready && p.is_active();
                !w.view.pods_on(&format!("n{n}")).any(|p| ready(&p))
            });
            assert!(down.count() <= 1, "shop s{shop} is closed");
        }
        let after = w.list("/pods").iter().map(|p| p["metadata"]["uid"].clone()).collect::<Vec<_>>();
        if before == after && Phase::is_over(phase(w)) {
            return;
        }
    }
}

#[test]
fn one_board_a_shop_until_all_are_done() {
    let mut w = fleet(6);
    upgrade(&mut w, json!({"budget": {"groupBy": "shop", "maxUnavailable": 1}}));
    settle_with_one_a_shop(&mut w);
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Complete", 6));
    assert!(is(&w, "Complete") && !is(&w, "Progressing"));
    assert_eq!((&status(&w)["healthy"], &status(&w)["total"]), (&json!(6), &json!(6)));
}

#[test]
fn waves_follow_each_other_after_their_soak() {
    let mut w = fleet(6);
    w.patch("/nodes", "", "n4", json!({"metadata": {"labels": {"ring": "canary"}}}));
    w.settle();
    upgrade(&mut w, json!({"budget": {"maxUnavailable": "100%"}, "waves": [
        {"name": "canary", "selector": {"matchLabels": {"ring": "canary"}}, "soak": "10m"},
        {"name": "some", "percent": 40, "soak": "1h"}]}));
    w.settle();
    assert_eq!((with(&w, "v2"), phase(&w)), (1, "Soaking"));
    assert_eq!(w.view.pods_on("n4").next().unwrap().spec.images[0], "v2".into());
    assert_eq!(status(&w)["wave"], "canary (1/3)");
    w.pass(599);
    assert_eq!(with(&w, "v2"), 1);
    w.pass(2);
    assert_eq!(with(&w, "v2"), 3, "two of the five that are left");
    w.pass(3500);
    assert_eq!(with(&w, "v2"), 3);
    w.pass(200);
    assert_eq!((with(&w, "v2"), phase(&w)), (6, "Complete"));
}

/// The hub's clock was set back by days in the middle of a soak: it begins again, and does not wait until the old time comes.
#[test]
fn a_soak_does_not_wait_for_a_time_that_was_wrong() {
    let mut w = fleet(6);
    upgrade(&mut w, json!({"waves": [{"name": "canary", "percent": 20, "soak": "10m"}]}));
    w.settle();
    assert_eq!((with(&w, "v2"), phase(&w)), (2, "Soaking"));
    w.patch(ROLLOUTS, "a", "r", json!({"status": {"waveReachedAt": "2099-01-01T00:00:00Z"}}));
    w.pass(599);
    assert_eq!((with(&w, "v2"), phase(&w)), (2, "Soaking"));
    w.pass(10);
    w.settle();
    assert_eq!((with(&w, "v2"), phase(&w)), (6, "Complete"));
}

/// The hub's clock is set by days in the middle: who is not healthy in time has failed, no sooner and no later.
#[test]
fn a_deadline_does_not_depend_on_what_the_clock_is_set_to() {
    for days in [-2, 2] {
        for halfway in [0, 200] {
            let mut w = fleet(6);
            w.sick = vec!["till-".into()];
            upgrade(&mut w, json!({"waves": [{"name": "canary", "percent": 20}], "success": {"deadline": "5m"}}));
            w.pass(halfway);
            assert_eq!((with(&w, "v2"), phase(&w)), (1, "Progressing"));
            w.turn(days * 86_400);
            w.patch("/nodes", "", "n0", json!({"metadata": {"labels": {"so": "on"}}}));
            w.pass(299);
            assert_eq!(phase(&w), "Progressing", "{days} {halfway}: its time begins again");
            w.sick.clear();
            w.pass(10);
            assert_eq!((phase(&w), with(&w, "v1")), ("RolledBack", 6), "{days} {halfway}");
        }
    }
}

/// Set forward in the middle of a soak.
#[test]
fn a_soak_is_not_over_because_somebody_set_the_clock() {
    let mut w = fleet(6);
    upgrade(&mut w, json!({"waves": [{"name": "canary", "percent": 20, "soak": "10m"}]}));
    w.pass(60);
    assert_eq!((with(&w, "v2"), phase(&w)), (2, "Soaking"));
    w.turn(2 * 86_400);
    w.patch("/nodes", "", "n0", json!({"metadata": {"labels": {"so": "on"}}}));
    w.pass(590);
    assert_eq!((with(&w, "v2"), phase(&w)), (2, "Soaking"));
    w.pass(20);
    assert_eq!((with(&w, "v2"), phase(&w)), (6, "Complete"));
}

#[test]
fn a_bad_version_goes_back_by_itself() {
    let mut w = fleet(6);
    w.sick = vec!["till-".into()];
    upgrade(&mut w, json!({"waves": [{"name": "canary", "percent": 20}], "success": {"deadline": "5m"}}));
    w.settle();
    assert_eq!((with(&w, "v1"), with(&w, "v2"), phase(&w)), (5, 1, "Progressing"), "one at a time");
    w.pass(290);
    assert_eq!(phase(&w), "Progressing");
    w.sick.clear();
    w.pass(20);
    assert_eq!((phase(&w), with(&w, "v1")), ("RolledBack", 6));
    let image = &w.get("apps/daemonsets", "a", "till")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "v1", "the template too");
    assert!(is(&w, "Failed") && w.events.iter().any(|e| e.2 == "RollingBack" && e.3.contains("not healthy within")));
}

#[test]
fn halting_leaves_everything_as_it_is_for_people_to_look() {
    let mut w = fleet(4);
    w.sick = vec!["till-".into()];
    upgrade(&mut w, json!({"onFailure": "Halt"}));
    w.pass(700);
    assert_eq!((phase(&w), with(&w, "v2")), ("Failed", 1));
    w.heal("till-");
    w.patch(ROLLOUTS, "a", "r", json!({"spec": {"success": {"maxFailed": 1}}}));
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Complete", 4), "a changed rollout goes on");
}

#[test]
fn a_lock_that_was_made_at_the_board_holds_it_until_it_is_gone() {
    let mut w = fleet(2);
    let told = |status: &str| json!([{"type": "Ready", "status": "True"},
        {"type": "UpdateLocked", "status": status, "reason": "x", "message": "till: a card payment"}]);
    w.patch("/nodes", "", "n0", json!({"status": {"conditions": told("True")}}));
    w.settle();
    upgrade(&mut w, json!({"budget": {"maxUnavailable": "100%"}}));
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Waiting", 1));
    assert_eq!(status(&w)["heldUnits"], json!(["n0: on the board: till: a card payment"]));
    w.patch("/nodes", "", "n0", json!({"status": {"conditions": told("False")}}));
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Complete", 2));
}

#[test]
fn locks_hold_a_board_and_who_is_away_gets_it_on_return() {
    let mut w = fleet(4);
    w.patch("/nodes", "", "n0", json!({"metadata": {"annotations": {LOCK: "card payment"}}}));
    w.create("/pods", json!({"metadata": {"name": "app", "namespace": "b", "annotations": {LOCK: ""}},
        "spec": {"nodeName": "n1"}}));
    w.patch("/nodes", "", "n2", json!({"metadata": {"annotations": {OFFLINE_SINCE: "2026-11-23T09:00:00Z"}}}));
    w.settle();
    upgrade(&mut w, json!({"budget": {"maxUnavailable": "100%"}}));
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Waiting", 1));
    assert_eq!(
        status(&w)["message"],
        "1 of 4 are healthy; 2 hold a lock, 1 are away and get the change when they return"
    );
    assert_eq!(status(&w)["heldUnits"], json!(["n0: card payment", "n1: pod b/app: locked, without a reason"]));
    w.patch("/nodes", "", "n0", json!({"metadata": {"annotations": {LOCK: null}}}));
    w.settle();
    assert_eq!(with(&w, "v2"), 2);
    w.patch(ROLLOUTS, "a", "r", json!({"metadata": {"annotations": {"limpet.dev/override-locks": "true"}}}));
    w.settle();
    assert_eq!(with(&w, "v2"), 3, "in spite of the lock");
    w.patch("/nodes", "", "n2", json!({"metadata": {"annotations": {OFFLINE_SINCE: null}}}));
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Complete", 4));
}

#[test]
fn pauses_and_windows_hold_back() {
    let mut w = fleet(3);
    upgrade(&mut w, json!({"paused": true, "windows": [{"start": "22:00", "end": "23:00"}]}));
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Paused", 0));
    w.patch(ROLLOUTS, "a", "r", json!({"spec": {"paused": false}}));
    w.settle();
    assert_eq!(phase(&w), "Waiting");
    assert_eq!(status(&w)["message"], "no window is open; the next one opens at 2026-11-23T22:00:00Z");
    w.pass(12 * 3600 + 10);
    assert_eq!((phase(&w), with(&w, "v2")), ("Complete", 3));
}

#[test]
fn a_daemonset_that_updates_itself_is_refused_in_words() {
    let mut w = fleet(1);
    w.patch("apps/daemonsets", "a", "till", json!({"spec": {"updateStrategy": {"type": "RollingUpdate"}}}));
    upgrade(&mut w, json!({}));
    w.settle();
    assert!(status(&w)["message"].as_str().unwrap().contains("set its spec.updateStrategy.type to OnDelete"));
    w.patch("apps/daemonsets", "a", "till", json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}));
    w.settle();
    assert_eq!(phase(&w), "Complete");
}

/// One Deployment a shop; the change goes through them, and back with all fields as they were.
#[test]
fn deployments_of_many_shops_change_and_go_back() {
    let mut w = World::with_nodes(2);
    for shop in 0..4 {
        w.create("apps/deployments", json!({"metadata": {"name": format!("web{shop}"), "namespace": "a",
            "labels": {"app": "web", "region": format!("r{}", shop % 2)}}, "spec": {"replicas": 1,
            "selector": {"matchLabels": {"shop": format!("{shop}")}}, "template": {
                "metadata": {"labels": {"shop": format!("{shop}")}},
                "spec": {"nodeSelector": {"shop": "old"}, "containers": [{"name": "c", "image": "i"}]}}}}));
    }
    w.patch("/nodes", "", "n0", json!({"metadata": {"labels": {"shop": "old"}}}));
    w.settle();
    let before: Vec<Value> = w.list("apps/deployments").iter().map(|d| d["spec"].clone()).collect();
    w.create(ROLLOUTS, json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {
        "target": {"kind": "Deployment", "selector": {"matchLabels": {"app": "web"}}},
        "change": {"spec": {"template": {"spec": {"nodeSelector": {"shop": null, "nowhere": "x"}}}}},
        "waves": [{"selector": {"matchLabels": {"region": "r0"}}}],
        "budget": {"maxUnavailable": 1}, "success": {"deadline": "2m"}}}));
    w.settle();
    let changed = |w: &World| {
        let has = |d: &&&Value| d["metadata"]["annotations"][units::OF].is_string();
        w.list("apps/deployments").iter().filter(has).count()
    };
    assert_eq!((changed(&w), phase(&w)), (1, "Progressing"));
    w.pass(130);
    w.settle();
    assert_eq!((changed(&w), phase(&w)), (0, "RolledBack"));
    let after: Vec<Value> = w.list("apps/deployments").iter().map(|d| d["spec"].clone()).collect();
    assert_eq!(before, after);
    assert!(w.list("apps/deployments").iter().all(|d| d["metadata"]["annotations"][units::UNDO].is_null()));
}

#[test]
fn statefulsets_are_changed_one_by_one_and_waited_for() {
    let mut w = World::with_nodes(1);
    for name in ["db0", "db1"] {
        w.create("apps/statefulsets", json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": "db"}},
            "spec": {"replicas": 2, "serviceName": name, "selector": {"matchLabels": {"db": name}}, "template": {
                "metadata": {"labels": {"db": name}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}}));
    }
    w.settle();
    let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
    w.sick = vec!["db".into()];
    w.create(ROLLOUTS, json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {"change": change,
        "target": {"kind": "StatefulSet", "selector": {"matchLabels": {"app": "db"}}}}}));
    w.settle();
    assert_eq!((phase(&w), &status(&w)["updated"], with(&w, "v2")), ("Progressing", &json!(1), 1));
    w.sick.clear();
    w.heal("db");
    w.settle();
    assert_eq!((phase(&w), with(&w, "v2")), ("Complete", 4));
}

#[test]
fn agents_get_their_version_board_by_board() {
    let mut w = World::with_nodes(3);
    w.create(ROLLOUTS, json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {
        "target": {"kind": "Node", "selector": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "Exists"}]}},
        "change": {"metadata": {"annotations": {AGENT_VERSION: "0.3.0"}}}}}));
    w.settle();
    let asked = |w: &World| {
        let has = |n: &&&Value| n["metadata"]["annotations"][AGENT_VERSION] == "0.3.0";
        w.list("/nodes").iter().filter(has).count()
    };
    assert_eq!(asked(&w), 1, "the next one waits until this one runs it");
    for n in 1..=3 {
        for i in 0..3 {
            let name = format!("n{i}");
            if w.get("/nodes", "", &name)["metadata"]["annotations"][AGENT_VERSION] == "0.3.0" {
                let info = json!({"kubeletVersion": "v1.36.0+limpet-0.3.0"});
                w.patch("/nodes", "", &name, json!({"status": {"nodeInfo": info}}));
            }
        }
        w.settle();
        assert_eq!(asked(&w), (n + 1).min(3));
    }
    assert_eq!(phase(&w), "Complete");
}

#[test]
fn a_board_that_left_the_new_agent_ends_the_rollout_and_all_go_back() {
    let mut w = World::with_nodes(2);
    for name in ["n0", "n1"] {
        let info = json!({"kubeletVersion": "v1.36.0+limpet-0.2.0"});
        w.patch("/nodes", "", name, json!({"status": {"nodeInfo": info}}));
    }
    w.create(ROLLOUTS, json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {
        "success": {"maxFailed": 0}, "onFailure": "Rollback",
        "target": {"kind": "Node", "selector": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "Exists"}]}},
        "change": {"metadata": {"annotations": {AGENT_VERSION: "0.3.0"}}}}}));
    w.settle();
    let asked = |w: &World, version: &str| {
        let has = |n: &&&Value| n["metadata"]["annotations"][AGENT_VERSION] == version;
        w.list("/nodes").iter().filter(has).map(|n| n["metadata"]["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let first = asked(&w, "0.3.0").remove(0);
    let mut conditions = w.get("/nodes", "", &first)["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.push(json!({"type": "AgentUpToDate", "status": "False", "reason": "RolledBack", "message": "0.3.0: it broke"}));
    w.patch("/nodes", "", &first, json!({"status": {"conditions": conditions}}));
    w.settle();
    assert_eq!(phase(&w), "RolledBack");
    assert_eq!((asked(&w, "0.3.0").len(), asked(&w, "0.2.0")), (0, vec![first]), "back to what it ran, by name");
}

/// What a board of Limpet OS says of itself.
fn runs(w: &mut World, name: &str, version: &str, reason: &str, message: &str) {
    w.patch("/nodes", "", name, json!({"status": {"nodeInfo": {"osImage": format!("Limpet OS {version}")}}}));
    let mut all = w.get("/nodes", "", name)["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.retain(|c| c["type"] != "OsUpToDate");
    all.push(json!({"type": "OsUpToDate", "status": "False", "reason": reason, "message": message}));
    w.patch("/nodes", "", name, json!({"status": {"conditions": all}}));
    w.settle();
}

fn systems(w: &mut World, on_failure: &str) {
    w.create(ROLLOUTS, json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {
        "success": {"maxFailed": 0}, "onFailure": on_failure, "budget": {"maxUnavailable": 3, "maxConcurrent": 3},
        "waves": [{"percent": 1}],
        "target": {"kind": "Node", "selector": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "Exists"}]}},
        "change": {"metadata": {"annotations": {"limpet.dev/os-version": "0.3.0"}, "labels": {"new": "yes"}}}}}));
    w.settle();
}

fn asked_for(w: &World, version: &Value) -> Vec<String> {
    let has = |n: &&&Value| n["metadata"]["annotations"]["limpet.dev/os-version"] == *version;
    w.list("/nodes").iter().filter(has).map(|n| n["metadata"]["name"].as_str().unwrap().to_string()).collect()
}

/// A new system counts when its board says that it stayed up; one that it left ends the rollout.
#[test]
fn systems_go_wave_by_wave_and_one_on_trial_is_waited_for() {
    let mut w = World::with_nodes(2);
    for name in ["n0", "n1"] {
        runs(&mut w, name, "0.2.0", "AsWanted", "0.2.0: runs");
    }
    systems(&mut w, "Halt");
    let asked = |w: &World| asked_for(w, &json!("0.3.0"));
    let first = asked(&w);
    assert_eq!(first.len(), 1);
    runs(&mut w, &first[0], "0.3.0", "Updating", "0.3.0: runs, and is on trial");
    assert_eq!(asked(&w), first, "on trial is not healthy");
    runs(&mut w, &first[0], "0.3.0", "AsWanted", "0.3.0: runs");
    let both = asked(&w);
    assert_eq!((both.len(), phase(&w)), (2, "Progressing"));
    let second = both.iter().find(|n| **n != first[0]).unwrap();
    runs(&mut w, second, "0.2.0", "RolledBack", "0.3.0: it did not stay up");
    assert_eq!(phase(&w), "Failed");
    assert!(status(&w).to_string().contains("Limpet OS 0.3.0: it did not stay up"), "{}", status(&w));
}

/// No board takes an older system: who runs the new one keeps it and its name, who has it in hand is waited for, all others have
/// what they had.
#[test]
fn systems_that_run_stay_when_a_rollout_goes_back() {
    let mut w = World::with_nodes(5);
    for name in ["n0", "n1", "n2", "n3", "n4"] {
        runs(&mut w, name, "0.2.0", "AsWanted", "0.2.0: runs");
    }
    // One was given its version by hand, the others have none.
    w.patch("/nodes", "", "n0", json!({"metadata": {"annotations": {"limpet.dev/os-version": "0.2.0"}}}));
    systems(&mut w, "Rollback");
    let good = asked_for(&w, &json!("0.3.0")).remove(0);
    runs(&mut w, &good, "0.3", "AsWanted", "0.3.0: runs");
    let asked: Vec<String> = asked_for(&w, &json!("0.3.0")).into_iter().filter(|n| *n != good).collect();
    let [bad, trial, fetching] = &asked[..] else { panic!("{asked:?}") };
    runs(&mut w, fetching, "0.2.0", "Updating", "0.3.0: being fetched");
    runs(&mut w, trial, "0.2.0", "Updating", "0.3.0: is being installed; the board restarts");
    runs(&mut w, bad, "0.2.0", "RolledBack", "0.3.0: it did not stay up");
    let message = |w: &World| status(w)["message"].as_str().unwrap_or_default().to_string();
    assert_eq!(phase(&w), "RollingBack", "{}", message(&w));
    assert!(message(&w).ends_with("1 of 5 still go back; 1 try the new system first"), "{}", message(&w));
    runs(&mut w, trial, "0.3.0", "Updating", "0.3.0: runs, and is on trial");
    assert_eq!(phase(&w), "RollingBack", "{}", message(&w));
    runs(&mut w, trial, "0.3.0", "AsWanted", "0.3.0: runs");
    assert_eq!(phase(&w), "RolledBack", "{}", message(&w));
    let says = "again what it had before; 2 of 5 run the new Limpet OS and keep it: no board takes an older one";
    assert!(message(&w).ends_with(says), "{}", message(&w));
    let mut kept = [good, trial.clone()];
    kept.sort();
    assert_eq!(asked_for(&w, &json!("0.3.0")), kept);
    let named = usize::from(!kept.contains(&"n0".into()));
    assert_eq!((asked_for(&w, &json!("0.2.0")).len(), asked_for(&w, &Value::Null).len()), (named, 3 - named));
    let left = |n: &&&Value| !n["metadata"]["labels"]["new"].is_null() || n.to_string().contains("limpet.dev/rollout");
    assert_eq!(w.list("/nodes").iter().filter(left).count(), 0, "all else of the change is gone");
}
