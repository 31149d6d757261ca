//! Budgets and quotas, while controllers, people and boards do what they like.
//!
//! In: seeds; evictions as the API lets them through, pods that fall ill, scales; creates as the API's quota lets them through.
//! Out: a panic at the eviction or the pod that was one too many. Never: a change between two looks.

use super::{
    Api, World,
    dice::{Dice, seeds},
};
use crate::{Key, control::Controller, view::Pod};
use serde_json::{Value, json};

const BUDGETS: &str = "policy/poddisruptionbudgets";
const DEPLOYMENTS: &str = "apps/deployments";

fn deployment(replicas: u64) -> Value {
    json!({"metadata": {"name": "d", "namespace": "a"}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": "x"}}, "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [
            {"name": "c", "image": "v1", "resources": {"requests": {"cpu": "70m"}}}]}}}})
}

fn healthy(w: &World) -> i64 {
    w.view.list::<Pod>("a").filter(|p| p.meta.deleting.is_none() && p.status.ready).count() as i64
}

/// What the API does: one is spent from what the budget's status says, then the pod is deleted.
fn evict(w: &mut World, name: &str) -> bool {
    let budget = w.get(BUDGETS, "a", "b").clone();
    let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
    let seen = budget["status"]["observedGeneration"] == budget["metadata"]["generation"];
    let pod = w.view.pod("a", name).unwrap().clone();
    if !pod.status.ready || pod.meta.deleting.is_some() || !seen || allowed <= 0 {
        return false;
    }
    let now = crate::view::conditions::rfc3339(w.now);
    let spent = json!({"status": {"disruptionsAllowed": allowed - 1, "disruptedPods": {name: now}}});
    w.patch(BUDGETS, "a", "b", spent);
    w.delete("/pods", "a", name);
    true
}

/// What must stay healthy, from the budget's own words.
fn desired(w: &World) -> i64 {
    let wanted = w.get(DEPLOYMENTS, "a", "d")["spec"]["replicas"].as_i64().unwrap();
    let spec = &w.get(BUDGETS, "a", "b")["spec"];
    let amount = |v: &Value| match v.as_str() {
        Some(text) => (text.trim_end_matches('%').parse::<i64>().unwrap() * wanted + 99) / 100,
        None => v.as_i64().unwrap(),
    };
    match &spec["minAvailable"] {
        Value::Null => (wanted - amount(&spec["maxUnavailable"])).max(0),
        least => amount(least),
    }
}

fn names(w: &World) -> Vec<String> {
    w.list("/pods").iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Several people drain boards at the same moment; nobody waits for the controller.
fn drain(w: &mut World, d: &mut Dice) -> usize {
    let mut evicted = 0;
    for _ in 0..1 + d.roll(5) {
        let all = names(w);
        let Some(name) = d.pick(&all) else { return evicted };
        if evict(w, name) {
            evicted += 1;
            let (left, least) = (healthy(w), desired(w));
            assert!(left >= least, "{left} are healthy after an eviction, {least} must stay");
        }
    }
    evicted
}

#[test]
fn evictions_leave_what_the_budget_protects() {
    let mut evicted = 0;
    for seed in seeds(25) {
        let mut d = Dice(seed);
        let replicas = 1 + d.roll(9);
        let (field, n) = (["minAvailable", "maxUnavailable"][d.roll(2) as usize], d.roll(6));
        let amount = if d.chance(2) { json!(format!("{}%", n * 20)) } else { json!(n) };
        println!("seed {seed}: {replicas} replicas, {field} {amount}");
        let mut w = World::with_nodes(3);
        w.create(DEPLOYMENTS, deployment(replicas));
        w.create(BUDGETS, json!({"metadata": {"name": "b", "namespace": "a"},
            "spec": {"selector": {"matchLabels": {"app": "x"}}, field: amount}}));
        w.settle();
        for _ in 0..30 {
            evicted += drain(&mut w, &mut d);
            match d.roll(6) {
                0 => {
                    w.patch(DEPLOYMENTS, "a", "d", json!({"spec": {"replicas": 1 + d.roll(9)}}));
                    w.settle();
                }
                1 => {
                    w.sick = if d.chance(2) { vec![] } else { vec!["d-".into()] };
                    w.settle();
                }
                2 => {
                    w.heal("d-");
                    w.settle();
                }
                3 => w.pass(d.roll(200) as i64),
                // The controller and the boards get so far, and no further.
                _ => w.steps(d.roll(4) as usize),
            }
        }
    }
    assert!(evicted > 100, "only {evicted} evictions: that proves little");
}

#[test]
fn what_the_controller_counted_before_an_eviction_does_not_undo_it() {
    let mut w = World::with_nodes(3);
    w.create(DEPLOYMENTS, deployment(4));
    w.create(BUDGETS, json!({"metadata": {"name": "b", "namespace": "a"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "minAvailable": 2}}));
    w.settle();
    let all = names(&w);
    let ready = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
    w.patch("/pods", "a", &all[0], ready("False"));
    w.settle();
    assert_eq!(w.get(BUDGETS, "a", "b")["status"]["disruptionsAllowed"], 1);
    w.patch("/pods", "a", &all[0], ready("True"));
    let plan = crate::control::budgets().reconcile(&w.view, &Key::new(BUDGETS, "a", "b"), w.now, 1);
    assert!(evict(&mut w, &all[1]));
    assert!(plan.changes.iter().all(|c| w.apply(c).is_err()), "{:?}", plan.changes);
    assert_eq!(w.get(BUDGETS, "a", "b")["status"]["disruptionsAllowed"], 0);
    w.settle();
    assert_eq!(w.get(BUDGETS, "a", "b")["status"]["disruptionsAllowed"], 2);
}

/// Counted anew, from the objects as they are.
fn within_the_quota(w: &Api) {
    let ended = |p: &Value| ["Failed", "Succeeded"].iter().any(|e| p["status"]["phase"] == *e);
    let milli = |p: &Value| -> i64 {
        let cpu = p["spec"]["containers"][0]["resources"]["requests"]["cpu"].as_str().unwrap();
        cpu.trim_end_matches('m').parse().unwrap()
    };
    let live: Vec<&Value> = w.list("/pods").into_iter().filter(|p| !ended(p)).collect();
    let cpu: i64 = live.iter().map(|p| milli(p)).sum();
    let hard = &w.get("/resourcequotas", "a", "q")["spec"]["hard"];
    let (most, pods) = (hard["requests.cpu"].as_str().unwrap(), hard["pods"].as_str().unwrap());
    assert!(cpu <= most.trim_end_matches('m').parse().unwrap(), "{cpu}m of {most}");
    assert!(live.len() <= pods.parse().unwrap(), "{} pods of {pods}", live.len());
}

#[test]
fn controllers_live_within_a_quota_and_say_what_they_have() {
    for seed in seeds(25) {
        println!("seed {seed}");
        let mut d = Dice(seed);
        let (pods, cpu) = (2 + d.roll(8), 200 + d.roll(500));
        let mut w = World::with_nodes(3);
        let hard = json!({"pods": pods.to_string(), "requests.cpu": format!("{cpu}m")});
        w.create("/resourcequotas", json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": hard}}));
        w.always = Some(within_the_quota);
        w.create(DEPLOYMENTS, deployment(1 + d.roll(9)));
        w.create("apps/replicasets", json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {"replicas": d.roll(9),
            "selector": {"matchLabels": {"app": "r"}}, "template": {"metadata": {"labels": {"app": "r"}}, "spec": {
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "50m"}}}]}}}}));
        for _ in 0..20 {
            match d.roll(5) {
                0 => w.patch(DEPLOYMENTS, "a", "d", json!({"spec": {"replicas": d.roll(12)}})),
                1 => w.patch("apps/replicasets", "a", "r", json!({"spec": {"replicas": d.roll(12)}})),
                2 => {
                    let all = names(&w);
                    if let Some(name) = d.pick(&all) {
                        w.delete("/pods", "a", name);
                    }
                }
                3 => {
                    let all = names(&w);
                    if let Some(name) = d.pick(&all) {
                        w.end(&Key::new("/pods", "a", name), "Failed");
                    }
                }
                _ => {}
            }
            w.steps(d.roll(10) as usize);
        }
        // Both want more than there is: one has what the other leaves, and says so.
        w.patch(DEPLOYMENTS, "a", "d", json!({"spec": {"replicas": 40}}));
        w.steps(60);
        let set = w.list("apps/replicasets").into_iter().find(|s| s["metadata"]["name"] != "r").unwrap().clone();
        let own = |p: &&Value| p["metadata"]["labels"]["app"] == "x" && p["metadata"]["deletionTimestamp"].is_null();
        let ended = |p: &Value| ["Failed", "Succeeded"].iter().any(|e| p["status"]["phase"] == *e);
        let have = w.list("/pods").into_iter().filter(own).filter(|p| !ended(p)).count();
        assert_eq!(set["status"]["replicas"], have, "{set:#}");
        assert_eq!(set["status"]["conditions"][0]["reason"], "FailedCreate", "{set:#}");
        // Enough for everybody.
        let hard = json!({"pods": "100", "requests.cpu": "10000m"});
        w.patch("/resourcequotas", "a", "q", json!({"spec": {"hard": hard}}));
        w.pass(1000);
        assert_eq!(w.get(DEPLOYMENTS, "a", "d")["status"]["readyReplicas"], 40);
        let used = &w.get("/resourcequotas", "a", "q")["status"]["used"];
        let live = w.list("/pods").into_iter().filter(|p| !ended(p)).count();
        assert_eq!(used["pods"], live.to_string());
    }
}
