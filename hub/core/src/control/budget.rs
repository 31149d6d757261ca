//! Says how many pods of a PodDisruptionBudget may be taken away now.
//!
//! In: one budget, the pods that it selects and what keeps them. Out: its status, which `pods/eviction` and preemption
//! spend from; an Event when there is nothing to protect.
//! Semantics: https://kubernetes.io/docs/tasks/run-application/configure-pdb/
//! Never: allows a disruption when it cannot tell how many pods there should be.

use super::{
    Controller,
    common::{after, set_shared_status, with_condition},
};
use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    view::{
        Condition, Deployment, Kind, Object, Pod, PodDisruptionBudget, ReplicaSet, ReplicationController, StatefulSet,
        conditions, conditions::rfc3339,
    },
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const NAME: &str = "disruption-controller";
/// What upstream calls the source of this controller's Events.
const SOURCE: &str = "controllermanager";
/// An evicted pod that is still there after so long counts again.
const EVICTION_TAKES_S: i64 = 120;

#[derive(Debug)]
pub struct BudgetController;

impl Controller for BudgetController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[
            PodDisruptionBudget::RESOURCE,
            Pod::RESOURCE,
            Deployment::RESOURCE,
            ReplicaSet::RESOURCE,
            ReplicationController::RESOURCE,
            StatefulSet::RESOURCE,
        ]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<PodDisruptionBudget>() {
            return vec![changed.key.clone()];
        }
        let budgets = view.list::<PodDisruptionBudget>(&changed.key.namespace);
        let key = |b: &Arc<PodDisruptionBudget>| Key::new(PodDisruptionBudget::RESOURCE, &b.meta.namespace, &b.meta.name);
        if changed.is::<Pod>() {
            let selects = |b: &&Arc<PodDisruptionBudget>| changed.metas().any(|m| selects(b, &m.labels));
            return budgets.filter(selects).map(key).collect();
        }
        let (old, new) = (changed.old.as_ref().map(size), changed.new.as_ref().map(size));
        if old == new { vec![] } else { budgets.map(key).collect() }
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(budget) = view.get::<PodDisruptionBudget>(&key.namespace, &key.name) else { return plan };
        if budget.meta.deleting.is_some() {
            return plan;
        }
        let pods: Vec<&Arc<Pod>> =
            view.list::<Pod>(&key.namespace).filter(|p| selects(budget, &p.meta.labels)).collect();
        match expected(view, budget, &pods) {
            Ok((expected, desired)) => write(budget, &pods, expected, desired, now, &mut plan),
            Err(why) => fail_safe(budget, &why, now, &mut plan),
        }
        plan
    }
}

fn selects(budget: &PodDisruptionBudget, labels: &crate::view::Labels) -> bool {
    budget.spec.selector.as_ref().is_some_and(|s| s.matches(labels))
}

/// Replicas wanted by a workload; what else changes about it does not concern budgets.
fn size(object: &Object) -> Option<i32> {
    match object {
        Object::Deployment(d) => d.spec.replicas,
        Object::ReplicaSet(r) => r.spec.replicas,
        Object::ReplicationController(r) => r.spec.0.replicas,
        Object::StatefulSet(s) => s.spec.replicas,
        _ => None,
    }
}

/// (pods that there should be, pods that must stay healthy)
fn expected(view: &ObjectStore, budget: &PodDisruptionBudget, pods: &[&Arc<Pod>]) -> Result<(i32, i32), String> {
    use crate::view::IntOrString::{Int, Nothing, Text};
    let spec = &budget.spec;
    match (&spec.max_unavailable, &spec.min_available) {
        (Nothing(()), Nothing(())) => Ok((pods.len() as i32, 0)),
        (Nothing(()), Int(least)) => Ok((pods.len() as i32, *least)),
        (Nothing(()), Text(_)) => {
            let all = scale(view, pods)?;
            Ok((all, spec.min_available.of_total(all, true).ok_or("minAvailable is neither a number nor a percentage")?))
        }
        (most, _) => {
            let all = scale(view, pods)?;
            let away = most.of_total(all, true).ok_or("maxUnavailable is neither a number nor a percentage")?;
            Ok((all, all.saturating_sub(away).max(0)))
        }
    }
}

/// The sum of what the pods' controllers want; pods without a controller count for nothing.
fn scale(view: &ObjectStore, pods: &[&Arc<Pod>]) -> Result<i32, String> {
    let mut wanted: BTreeMap<Box<str>, i32> = BTreeMap::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for pod in pods {
        let Some(owner) = pod.meta.controller() else { continue };
        if !seen.insert(&owner.uid) {
            continue;
        }
        let (namespace, name) = (&*pod.meta.namespace, &*owner.name);
        let found = match &*owner.kind {
            ReplicaSet::KIND => view.get::<ReplicaSet>(namespace, name).map(|r| of_replica_set(view, r)),
            ReplicationController::KIND => {
                let found = view.get::<ReplicationController>(namespace, name);
                found.map(|r| (r.meta.uid.clone(), r.spec.0.replicas.unwrap_or(1)))
            }
            StatefulSet::KIND => {
                view.get::<StatefulSet>(namespace, name).map(|s| (s.meta.uid.clone(), s.spec.replicas.unwrap_or(1)))
            }
            _ => None,
        };
        let Some((uid, replicas)) = found else {
            return Err(format!("found no controllers for pod \"{}\"", pod.meta.name));
        };
        wanted.insert(uid, replicas);
    }
    Ok(wanted.values().fold(0, |sum, n| sum.saturating_add(*n)))
}

/// A Deployment counts once, however many ReplicaSets it has.
fn of_replica_set(view: &ObjectStore, set: &ReplicaSet) -> (Box<str>, i32) {
    let owner = set.meta.controller().filter(|o| &*o.kind == Deployment::KIND);
    let deployment = owner.and_then(|o| view.get::<Deployment>(&set.meta.namespace, &o.name));
    match deployment {
        Some(d) => (d.meta.uid.clone(), d.spec.replicas.unwrap_or(1)),
        None => (set.meta.uid.clone(), set.spec.replicas.unwrap_or(1)),
    }
}

fn write(
    budget: &PodDisruptionBudget,
    pods: &[&Arc<Pod>],
    expected: i32,
    desired: i32,
    now: Timestamp,
    plan: &mut Plan,
) {
    let old = budget.field("/status");
    let disrupted = disrupted(&old, pods, now, plan);
    let healthy = pods
        .iter()
        .filter(|p| p.meta.deleting.is_none() && p.status.ready && !disrupted.contains_key(&*p.meta.name));
    let healthy = healthy.count() as i32;
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    if pods.is_empty() && old["expectedPods"] != 0 {
        let message = "No matching pods found";
        plan.event(Regarding::of(budget), EventType::Normal, "NoPods", message, SOURCE);
    }
    let status = json!({
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        "disruptedPods": if disrupted.is_empty() { Value::Null } else { Value::Object(disrupted) },
        "observedGeneration": budget.meta.generation,
        "conditions": conditions_with(budget, &old, allowed > 0, reason, "", now),
    });
    set_shared_status(plan, budget, status);
}

/// Evicted pods whose end is still awaited; asks to be called when one has taken too long.
fn disrupted(old: &Value, pods: &[&Arc<Pod>], now: Timestamp, plan: &mut Plan) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, since) in old["disruptedPods"].as_object().into_iter().flatten() {
        let there = pods.iter().any(|p| *p.meta.name == **name && p.meta.deleting.is_none());
        let Some(at) = since.as_str().and_then(|t| t.parse::<Timestamp>().ok()).filter(|_| there) else { continue };
        let due = after(at, EVICTION_TAKES_S);
        if due > now {
            plan.wake_at(due);
            out.insert(name.clone(), since.clone());
        }
    }
    out
}

/// With the budget's own condition.
fn conditions_with(
    budget: &PodDisruptionBudget,
    old: &Value,
    allowed: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Value {
    let before = old["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "DisruptionAllowed");
    let status = if allowed { "True" } else { "False" };
    let since = before.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
    with_condition(&old["conditions"], json!({"type": "DisruptionAllowed", "status": status, "reason": reason,
        "message": message, "observedGeneration": budget.meta.generation,
        "lastTransitionTime": since.unwrap_or_else(|| json!(rfc3339(now)))}))
}

/// Nothing may be taken away while it is not known how much there should be.
fn fail_safe(budget: &PodDisruptionBudget, why: &str, now: Timestamp, plan: &mut Plan) {
    let mut status = budget.field("/status");
    let known: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
    let said = conditions::find(&known, "DisruptionAllowed").is_some_and(|c| *c.message == *why);
    status["disruptionsAllowed"] = json!(0);
    for field in ["currentHealthy", "desiredHealthy", "expectedPods"] {
        if status[field].is_null() {
            status[field] = json!(0);
        }
    }
    status["observedGeneration"] = json!(budget.meta.generation);
    status["conditions"] = conditions_with(budget, &status, false, "SyncFailed", why, now);
    if !said {
        let message = format!("Failed to calculate the number of expected pods: {why}");
        let about = Regarding::of(budget);
        plan.event(about, EventType::Warning, "CalculateExpectedPodCountFailed", message, SOURCE);
    }
    set_shared_status(plan, budget, status);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    fn world(budget: Value, replicas: i32) -> World {
        let mut w = World::with_nodes(2);
        w.create("apps/deployments", json!({"metadata": {"name": "web", "namespace": "a"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
                "template": {"metadata": {"labels": {"app": "x"}}, "spec": {}}}}));
        let mut spec = budget;
        spec["selector"] = json!({"matchLabels": {"app": "x"}});
        w.create("policy/poddisruptionbudgets", json!({"metadata": {"name": "b", "namespace": "a"}, "spec": spec}));
        w.settle();
        w
    }

    /// (allowed, healthy, desired, expected)
    fn figures(w: &World) -> (i64, i64, i64, i64) {
        let s = &w.get("policy/poddisruptionbudgets", "a", "b")["status"];
        let n = |f: &str| s[f].as_i64().unwrap_or(-1);
        (n("disruptionsAllowed"), n("currentHealthy"), n("desiredHealthy"), n("expectedPods"))
    }

    #[test]
    fn numbers_and_percentages_of_what_there_should_be() {
        let cases = [
            (json!({"minAvailable": 2}), 3, (1, 3, 2, 3)),
            (json!({"minAvailable": 5}), 3, (0, 3, 5, 3)),
            (json!({"minAvailable": "50%"}), 3, (1, 3, 2, 3)),
            (json!({"minAvailable": "100%"}), 4, (0, 4, 4, 4)),
            (json!({"maxUnavailable": 1}), 3, (1, 3, 2, 3)),
            (json!({"maxUnavailable": 7}), 3, (3, 3, 0, 3)),
            // Rounded up, as upstream does for what may be away.
            (json!({"maxUnavailable": "30%"}), 4, (2, 4, 2, 4)),
            (json!({"maxUnavailable": "0%"}), 4, (0, 4, 4, 4)),
            (json!({"maxUnavailable": 1}), 0, (0, 0, 0, 0)),
        ];
        for (budget, replicas, want) in cases {
            assert_eq!(figures(&world(budget.clone(), replicas)), want, "{budget} of {replicas}");
        }
    }

    #[test]
    fn follows_pods_and_scale() {
        let mut w = world(json!({"maxUnavailable": 1}), 3);
        w.sick = vec!["-".into()];
        let pod = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
        w.delete("/pods", "a", &pod);
        w.settle();
        assert_eq!(figures(&w), (0, 2, 2, 3));
        w.heal("-");
        w.settle();
        assert_eq!(figures(&w), (1, 3, 2, 3));
        w.kubelet = false;
        w.patch("apps/deployments", "a", "web", json!({"spec": {"replicas": 5}}));
        w.settle();
        assert_eq!(figures(&w), (0, 3, 4, 5), "what is wanted counts, not what is there");
    }

    #[test]
    fn an_eviction_that_did_not_happen_is_forgotten() {
        let mut w = world(json!({"maxUnavailable": 1}), 3);
        let pod = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
        let since = rfc3339(w.now);
        let status = json!({"disruptionsAllowed": 0, "disruptedPods": {&pod: since}});
        w.patch("policy/poddisruptionbudgets", "a", "b", json!({"status": status}));
        w.settle();
        assert_eq!(figures(&w), (0, 2, 2, 3));
        w.pass(121);
        assert_eq!(figures(&w), (1, 3, 2, 3));
    }

    #[test]
    fn conditions_of_others_stay() {
        let mut w = world(json!({"maxUnavailable": 1}), 3);
        let foreign = json!({"type": "example.com/Seen", "status": "True", "reason": "E2E", "message": "by a user"});
        let mut all = w.get("policy/poddisruptionbudgets", "a", "b")["status"]["conditions"].clone();
        all.as_array_mut().unwrap().insert(0, foreign.clone());
        w.patch("policy/poddisruptionbudgets", "a", "b", json!({"status": {"conditions": all}}));
        w.patch("policy/poddisruptionbudgets", "a", "b", json!({"spec": {"maxUnavailable": 0}}));
        w.settle();
        let now = w.get("policy/poddisruptionbudgets", "a", "b")["status"]["conditions"].clone();
        let of = |i: usize| (now[i]["type"].clone(), now[i]["status"].clone());
        assert_eq!((&now[0], of(1)), (&foreign, (json!("DisruptionAllowed"), json!("False"))), "{now}");
        assert_eq!(now.as_array().unwrap().len(), 2, "{now}");
    }

    #[test]
    fn what_cannot_be_counted_allows_nothing() {
        let mut w = World::with_nodes(1);
        w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a", "labels": {"app": "x"},
            "ownerReferences": [{"apiVersion": "x.io/v1", "kind": "Thing", "name": "t", "uid": "u", "controller": true}]},
            "spec": {}}));
        let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}});
        w.create("x.io/things", json!({"metadata": {"name": "t", "namespace": "a"}}));
        let uid = w.get("x.io/things", "a", "t")["metadata"]["uid"].clone();
        let owner = json!({"apiVersion": "x.io/v1", "kind": "Thing", "name": "t", "uid": uid, "controller": true});
        w.patch("/pods", "a", "p", json!({"metadata": {"ownerReferences": [owner]}}));
        w.create("policy/poddisruptionbudgets", json!({"metadata": {"name": "b", "namespace": "a"}, "spec": spec}));
        w.settle();
        let status = &w.get("policy/poddisruptionbudgets", "a", "b")["status"];
        assert_eq!(status["conditions"][0]["reason"], "SyncFailed");
        assert_eq!(status["disruptionsAllowed"], 0);
        assert!(w.events.iter().any(|e| e.2 == "CalculateExpectedPodCountFailed"));
    }
}
