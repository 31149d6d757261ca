//! What people say about workloads from outside of them: quotas, disruption budgets, drains of boards, rollouts through
//! the fleet.
//!
//! In: chance. Out: objects, as after the API's defaults, and evictions as the API lets them through. `mend` takes back
//! what keeps things from coming to rest.
//! Never: a budget over pods of two workloads.

use crate::{Rng, Sabotage, hub::Hub};
use limpet_hub_core::{
    Key, Timestamp,
    view::{Kind, Pod, PodDisruptionBudget, ResourceQuota},
};
use serde_json::{Value, json};

pub const BUDGETS: &str = PodDisruptionBudget::RESOURCE;
const QUOTAS: &str = ResourceQuota::RESOURCE;
pub const ROLLOUTS: &str = "limpet.dev/fleetrollouts";
const LOCK: &str = "limpet.dev/update-lock";
const NAMESPACE: &str = "default";
/// Rollouts of boards themselves are only here.
pub const OF_BOARDS: &str = "kube-system";
const APPS: [(&str, &str); 4] = [
    ("apps/deployments", "w0"),
    ("apps/deployments", "w1"),
    ("apps/statefulsets", "w0"),
    ("apps/statefulsets", "w1"),
];

pub fn act(hub: &mut Hub, rng: &mut Rng, boards: u64) {
    match rng.between(0, 12) {
        0 => quota(hub, rng),
        1 | 2 => budget(hub, rng),
        3..6 => drain(hub, rng, boards),
        6..9 => roll_out(hub, rng),
        9 => hold(hub, rng, boards),
        10 => change_rollout(hub, rng),
        _ => {
            let rollouts = rollouts(hub);
            if let Some(key) = some(&rollouts, rng) {
                hub.api.delete_with(key, None, None);
            }
        }
    }
}

/// Everything that is in the way of rest is taken back.
pub fn mend(hub: &mut Hub) {
    hub.api.delete(QUOTAS, NAMESPACE, "q");
    for key in rollouts(hub) {
        hub.api.edit(&key, &json!({"spec": {"paused": null}}));
    }
    let nodes: Vec<Key> = hub.list("/nodes").map(|(k, _)| k.clone()).collect();
    for key in nodes {
        hub.api.edit(&key, &json!({"metadata": {"annotations": {LOCK: null}}}));
    }
}

fn rollouts(hub: &Hub) -> Vec<Key> {
    hub.list(ROLLOUTS).map(|(k, _)| k.clone()).collect()
}

fn some<'a, T>(all: &'a [T], rng: &mut Rng) -> Option<&'a T> {
    if all.is_empty() { None } else { all.get(rng.between(0, all.len() as u64) as usize) }
}

/// Room for a few pods more than there are, or none.
fn quota(hub: &mut Hub, rng: &mut Rng) {
    if hub.api.exists(QUOTAS, NAMESPACE, "q") && rng.one_in(2) {
        return hub.api.delete(QUOTAS, NAMESPACE, "q");
    }
    let most = hub.api.view.list::<Pod>(NAMESPACE).filter(|p| !p.is_finished()).count() as u64 + rng.between(0, 6);
    let spec = json!({"hard": {"pods": most.to_string(), "count/configmaps": "100"}});
    match hub.api.exists(QUOTAS, NAMESPACE, "q") {
        true => hub.api.patch(QUOTAS, NAMESPACE, "q", json!({"spec": spec})),
        false => _ = hub.api.try_create(QUOTAS, json!({"metadata": {"name": "q", "namespace": NAMESPACE}, "spec": spec})),
    }
}

fn budget(hub: &mut Hub, rng: &mut Rng) {
    let (resource, workload) = APPS[rng.between(0, APPS.len() as u64) as usize];
    let app = crate::workloads::app_of(resource, workload);
    if hub.api.exists(BUDGETS, NAMESPACE, &app) && rng.one_in(3) {
        return hub.api.delete(BUDGETS, NAMESPACE, &app);
    }
    let (n, field) = (rng.between(0, 4), ["minAvailable", "maxUnavailable"][rng.between(0, 2) as usize]);
    let amount = if rng.one_in(2) { json!(n) } else { json!(format!("{}%", n * 25)) };
    let mut spec = json!({"selector": {"matchLabels": {"app": app}}, "minAvailable": null, "maxUnavailable": null});
    spec[field] = amount;
    if rng.one_in(3) {
        spec["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
    }
    match hub.api.exists(BUDGETS, NAMESPACE, &app) {
        true => hub.api.patch(BUDGETS, NAMESPACE, &app, json!({"spec": spec})),
        false => _ = hub.api.try_create(BUDGETS, json!({"metadata": {"name": app, "namespace": NAMESPACE}, "spec": spec})),
    }
}

/// As `kubectl drain` with one attempt: nothing new comes to the board, and everything that a controller would make anew is
/// asked to go.
fn drain(hub: &mut Hub, rng: &mut Rng, boards: u64) {
    let board = format!("board-{}", rng.between(0, boards));
    hub.api.edit(&Key::new("/nodes", "", &board), &json!({"spec": {"unschedulable": true}}));
    let moves = |p: &&std::sync::Arc<Pod>| {
        p.meta.deleting.is_none() && p.meta.controller().is_some_and(|o| &*o.kind != "DaemonSet") && !p.is_finished()
    };
    let pods: Vec<String> = hub.api.view.pods_on(&board).filter(moves).map(|p| p.meta.name.to_string()).collect();
    for pod in pods {
        evict(hub, &pod);
    }
}

/// What the API does: one is spent from what the budget's status says, then the pod is deleted.
fn evict(hub: &mut Hub, name: &str) {
    let Some(pod) = hub.api.view.pod(NAMESPACE, name).cloned() else { return };
    let selects = |b: &&std::sync::Arc<PodDisruptionBudget>| {
        b.spec.selector.as_ref().is_some_and(|s| s.matches(&pod.meta.labels))
    };
    let budget = hub.api.view.list::<PodDisruptionBudget>(NAMESPACE).find(selects).cloned();
    if let Some(budget) = &budget {
        let status = hub.api.get(BUDGETS, NAMESPACE, &budget.meta.name)["status"].clone();
        let number = |field: &str| status[field].as_i64().unwrap_or(0);
        let healthy = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
        let always = budget.field("/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
        if (pod.status.ready || !(always || healthy)) && hub.mistake != Sabotage::EvictsFreely {
            let (seen, allowed) = (number("observedGeneration") >= budget.meta.generation, number("disruptionsAllowed"));
            if !seen || allowed <= 0 {
                return;
            }
            let second = Timestamp::from_second(hub.api.now.as_second());
            let since = second.unwrap_or(hub.api.now).to_string();
            let spent = json!({"status": {"disruptionsAllowed": allowed - 1, "disruptedPods": {name: since}}});
            hub.promises.limits.spends();
            hub.api.patch(BUDGETS, NAMESPACE, &budget.meta.name, spent);
            hub.settle();
        }
    }
    hub.promises.limits.evicts(&pod.meta.uid);
    hub.api.delete_with(&Key::new("/pods", NAMESPACE, name), None, None);
    hub.settle();
    if let Some(budget) = budget.filter(|_| pod.status.ready)
        && let Err(e) = hub.promises.limits.evicted(&hub.api, &budget.meta.name)
    {
        hub.broken.get_or_insert(e);
    }
}

fn roll_out(hub: &mut Hub, rng: &mut Rng) {
    let (name, release) = (format!("r{}", rng.between(0, 3)), rng.between(0, 5).to_string());
    let annotated = json!({"metadata": {"annotations": {"release": release}}});
    let which = format!("w{}", rng.between(0, 2));
    let (namespace, target, change) = match rng.between(0, 5) {
        0 | 1 => {
            let all = json!({"matchExpressions": [{"key": "half", "operator": "Exists"}]});
            (OF_BOARDS, json!({"kind": "Node", "selector": all}), json!({"metadata": {"labels": {"release": release}}}))
        }
        2 => (NAMESPACE, json!({"kind": "Deployment", "name": which}), json!({"spec": {"template": annotated}})),
        3 => {
            let name = format!("m{}", rng.between(0, 4));
            (NAMESPACE, json!({"kind": "ConfigMap", "name": name}), json!({"data": {"k": release}}))
        }
        _ => {
            let key = Key::new("apps/daemonsets", NAMESPACE, &which);
            if hub.api.objects.contains_key(&key) {
                let by_hand = json!({"type": "OnDelete", "rollingUpdate": null});
                hub.api.edit(&key, &json!({"spec": {"updateStrategy": by_hand, "template": annotated}}));
            }
            (NAMESPACE, json!({"kind": "DaemonSet", "name": which}), Value::Null)
        }
    };
    let soak = format!("{}s", rng.between(0, 30));
    let waves = [json!([]), json!([{"name": "first", "percent": rng.between(1, 60), "soak": soak}])];
    let spec = json!({"target": target, "change": change, "waves": waves[rng.between(0, 2) as usize],
        "budget": {"maxUnavailable": rng.between(1, 3), "maxConcurrent": rng.between(0, 3)},
        "success": {"deadline": "2m"}, "paused": rng.one_in(6), "onFailure": (["Halt", "Rollback"][rng.between(0, 2) as usize])});
    // One of this name may be there.
    let _ = hub.api.try_create(ROLLOUTS, json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}));
}

/// Somebody at a board, or its application, wants no update now; or lets it go.
fn hold(hub: &mut Hub, rng: &mut Rng, boards: u64) {
    let key = Key::new("/nodes", "", &format!("board-{}", rng.between(0, boards)));
    let lock = if rng.one_in(2) { json!("a payment") } else { Value::Null };
    hub.api.edit(&key, &json!({"metadata": {"annotations": {LOCK: lock}}}));
}

fn change_rollout(hub: &mut Hub, rng: &mut Rng) {
    let rollouts = rollouts(hub);
    let Some(key) = some(&rollouts, rng) else { return };
    let spec = match rng.between(0, 3) {
        0 => json!({"paused": rng.one_in(2)}),
        1 => json!({"budget": {"maxUnavailable": rng.between(1, 4)}}),
        _ => json!({"waves": null}),
    };
    hub.api.edit(key, &json!({"spec": spec}));
}
