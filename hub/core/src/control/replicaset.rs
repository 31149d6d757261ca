//! Decides which pods of a ReplicaSet or a ReplicationController to create or delete.
//!
//! In: one ReplicaSet (or ReplicationController, its older form) and its pods, from the view. Out: pods to create and
//! delete, the status, Events.
//! Semantics: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
//! Never: counts a pod that is finished or going.

use super::{
    Controller,
    absence::is_lost,
    common::{
        claim, count, free_pod_name, is_terminating, owner_reference, owners_of, pod_of_template, set_status,
    },
};
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp, limits,
    view::{
        Available, Condition, Kind, Obj, Phase, Pod, ReplicaSet, ReplicaSetData, ReplicaSetSpec, ReplicaSetStatus,
        ReplicationController, ReplicationControllerData, conditions,
    },
};
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::BTreeMap, marker::PhantomData, sync::Arc};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What keeps a number of pods: both kinds have the same fields.
pub trait Keeper {
    const CONTROLLER: &'static str;
    const RESOURCES: &'static [&'static str];
    fn spec(&self) -> &ReplicaSetSpec;
    fn status(&self) -> &ReplicaSetStatus;
    /// Whether its status says how many pods are on their way out.
    const COUNTS_TERMINATING: bool;
}

impl Keeper for ReplicaSetData {
    const CONTROLLER: &'static str = "replicaset-controller";
    const RESOURCES: &'static [&'static str] = &[ReplicaSet::RESOURCE, Pod::RESOURCE];
    const COUNTS_TERMINATING: bool = true;
    fn spec(&self) -> &ReplicaSetSpec {
        &self.spec
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

impl Keeper for ReplicationControllerData {
    const CONTROLLER: &'static str = "replication-controller";
    const RESOURCES: &'static [&'static str] = &[ReplicationController::RESOURCE, Pod::RESOURCE];
    const COUNTS_TERMINATING: bool = false;
    fn spec(&self) -> &ReplicaSetSpec {
        &self.spec.0
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

/// The controller of one of the two kinds.
#[derive(Debug, Default)]
pub struct PodKeeper<T>(PhantomData<fn() -> T>);

pub type ReplicaSetController = PodKeeper<ReplicaSetData>;
pub type ReplicationControllerController = PodKeeper<ReplicationControllerData>;

impl<T> PodKeeper<T> {
    pub fn new() -> PodKeeper<T> {
        PodKeeper(PhantomData)
    }
}

impl<T: Keeper + 'static> Controller for PodKeeper<T>
where
    Obj<T>: Kind,
{
    fn name(&self) -> &'static str {
        T::CONTROLLER
    }

    fn resources(&self) -> &'static [&'static str] {
        T::RESOURCES
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<Obj<T>>() {
            return vec![changed.key.clone()];
        }
        owners_of::<Obj<T>>(view, changed, |rs| (&rs.meta, rs.spec().selector.as_ref()))
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(rs) = view.get::<Obj<T>>(&key.namespace, &key.name) else { return plan };
        let Some(selector) = rs.spec().selector.as_ref().filter(|s| !s.is_empty()) else { return plan };
        let pods = claim::<Pod, _>(view, rs, selector, &mut plan, |p| &p.meta);
        let active: Vec<&Arc<Pod>> = pods.iter().copied().filter(|p| p.is_active() && !is_lost(p)).collect();
        let mut failing = true;
        if rs.meta.deleting.is_none() {
            let wanted = rs.spec().replicas.unwrap_or(1).max(0) as usize;
            if active.len() < wanted && is_terminating(view, &key.namespace) {
                failing = false;
            } else if active.len() < wanted {
                create(view, rs, wanted - active.len(), seed, &mut plan);
            } else {
                failing = false;
                delete(view, rs, &active, active.len() - wanted, now, &mut plan);
            }
        }
        status(rs, &pods, &active, failing, now, &mut plan);
        plan.events_last()
    }

    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(rs) = view.get::<Obj<T>>(&key.namespace, &key.name) else { return plan };
        let reason = match change {
            Change::Create { .. } => "FailedCreate",
            Change::Delete { .. } => "FailedDelete",
            _ => return plan,
        };
        let verb = if reason == "FailedCreate" { "creating" } else { "deleting" };
        let message = format!("Error {verb}: {error}");
        plan.event(Regarding::of(&**rs), EventType::Warning, reason, message, T::CONTROLLER);
        let mut list = rs.status().conditions.to_vec();
        conditions::set(&mut list, Condition::new("ReplicaFailure", true, reason, error, now));
        let mut new = rs.field("/status");
        new["conditions"] = conditions::to_value(&list);
        set_status(&mut plan, rs, new);
        plan
    }
}

fn create<T: Keeper>(view: &ObjectStore, rs: &Obj<T>, missing: usize, seed: u64, plan: &mut Plan)
where
    Obj<T>: Kind,
{
    let template = rs.field("/spec/template");
    let base = format!("{}-", rs.meta.name);
    let mut n = 0;
    for _ in 0..missing.min(limits::PODS_PER_STEP_MAX) {
        let name = free_pod_name(view, &rs.meta.namespace, &base, seed, &mut n);
        let mut pod = pod_of_template(&template, &rs.meta.namespace, &name, owner_reference(rs));
        pod["metadata"]["generateName"] = json!(base);
        plan.create(Pod::RESOURCE, &rs.meta.namespace, pod);
        let message = format!("Created pod: {name}");
        plan.event(Regarding::of(rs), EventType::Normal, "SuccessfulCreate", message, T::CONTROLLER);
    }
    plan.because("TooFew", format!("{missing} pods are missing"));
}

fn delete<T: Keeper>(
    view: &ObjectStore,
    rs: &Obj<T>,
    active: &[&Arc<Pod>],
    surplus: usize,
    now: Timestamp,
    plan: &mut Plan,
) where
    Obj<T>: Kind,
{
    if surplus == 0 {
        return;
    }
    let related = pods_per_node(view, rs);
    let mut ranked: Vec<&Arc<Pod>> = active.to_vec();
    ranked.sort_by_cached_key(|p| rank(p, &related, now));
    for pod in ranked.into_iter().take(surplus.min(limits::PODS_PER_STEP_MAX)) {
        plan.delete(Pod::RESOURCE, &pod.meta);
        let message = format!("Deleted pod: {}", pod.meta.name);
        plan.event(Regarding::of(rs), EventType::Normal, "SuccessfulDelete", message, T::CONTROLLER);
    }
    plan.because("TooMany", format!("{surplus} pods are not wanted"));
}

/// Active pods per node of all ReplicaSets with the same owner: a new rollout deletes where both versions are.
fn pods_per_node<'a, T>(view: &'a ObjectStore, rs: &'a Obj<T>) -> BTreeMap<&'a str, usize> {
    let mut out = BTreeMap::new();
    let owner = rs.meta.controller().map(|o| &*o.uid);
    let siblings = owner.into_iter().flat_map(|uid| view.controlled_by::<ReplicaSet>(uid));
    let uids: Vec<&str> = match owner {
        Some(_) => siblings.map(|s| &*s.meta.uid).collect(),
        None => vec![&*rs.meta.uid],
    };
    for uid in uids {
        for pod in view.controlled_by::<Pod>(uid).filter(|p| p.is_active()) {
            if let Some(node) = &pod.node {
                *out.entry(&**node).or_insert(0) += 1;
            }
        }
    }
    out
}

type Rank = (bool, u8, bool, i32, Reverse<usize>, i32, Reverse<i32>, Reverse<Timestamp>, Box<str>);

/// Smallest is deleted first; the order of upstream's `ActivePodsWithRanks`.
fn rank(pod: &Pod, per_node: &BTreeMap<&str, usize>, now: Timestamp) -> Rank {
    let phase = match pod.status.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        _ => 2,
    };
    let cost = pod.meta.annotations.get(DELETION_COST).and_then(|c| c.parse().ok()).unwrap_or(0);
    let crowd = pod.node.as_ref().and_then(|n| per_node.get(&**n)).copied().unwrap_or(0);
    let ready_for = pod.status.ready_since.map_or(0, |t| now.as_second().saturating_sub(t.as_second()));
    (
        pod.node.is_some(),
        phase,
        pod.status.ready,
        cost,
        Reverse(crowd),
        if pod.status.ready { logarithm(ready_for) } else { 0 },
        Reverse(pod.status.restarts),
        Reverse(pod.meta.created_at()),
        pod.meta.name.clone(),
    )
}

/// Ages are compared by magnitude, so that small differences do not decide.
fn logarithm(seconds: i64) -> i32 {
    64 - seconds.max(0).leading_zeros() as i32
}

fn status<T: Keeper>(
    rs: &Obj<T>,
    pods: &[&Arc<Pod>],
    active: &[&Arc<Pod>],
    failing: bool,
    now: Timestamp,
    plan: &mut Plan,
) where
    Obj<T>: Kind,
{
    let mut available = 0;
    for pod in active {
        match pod.available(rs.spec().min_ready_seconds, now) {
            Available::Yes => available += 1,
            Available::At(t) => plan.wake_at(t),
            Available::No => {}
        }
    }
    let labeled =
        |p: &&&Arc<Pod>| rs.spec().template.labels.iter().all(|(k, v)| p.meta.labels.get(k) == Some(v));
    let going = pods.iter().filter(|p| p.meta.deleting.is_some() && !p.is_finished()).count();
    let mut list = rs.status().conditions.to_vec();
    if !failing {
        conditions::remove(&mut list, "ReplicaFailure");
    }
    let new = json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": count(active.iter().filter(labeled).count() as i32),
        "readyReplicas": count(active.iter().filter(|p| p.status.ready).count() as i32),
        "availableReplicas": count(available),
        "terminatingReplicas": if T::COUNTS_TERMINATING { json!(going) } else { Value::Null },
        "observedGeneration": rs.meta.generation,
        "conditions": conditions::to_value(&list),
    });
    set_status(plan, rs, new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    fn set(replicas: i32) -> Value {
        json!({"metadata": {"name": "r", "namespace": "a"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
                "template": {"metadata": {"labels": {"app": "x", "more": "1"}}, "spec": {"containers": []}}}})
    }

    fn pod(name: &str, node: Value, status: Value, cost: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": "x"},
            "annotations": {DELETION_COST: cost}}, "spec": {"nodeName": node}, "status": status})
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let mut w = World::new();
        w.kubelet = false;
        let ready = |s: &str| {
            json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": s, "lastTransitionTime": "2026-11-23T09:00:00Z"}]})
        };
        w.create("/pods", pod("a-ready", json!("n"), ready("True"), "0"));
        w.create("/pods", pod("b-costly", json!("n"), ready("True"), "5"));
        w.create("/pods", pod("c-unready", json!("n"), ready("False"), "0"));
        w.create("/pods", pod("d-pending", json!("n"), json!({"phase": "Pending"}), "0"));
        w.create("/pods", pod("e-unbound", Value::Null, json!({"phase": "Pending"}), "0"));
        let view = &w.view;
        let mut pods: Vec<_> = view.list::<Pod>("a").collect();
        pods.sort_by_cached_key(|p| rank(p, &BTreeMap::new(), w.now));
        let order: Vec<&str> = pods.iter().map(|p| &*p.meta.name).collect();
        assert_eq!(order, ["e-unbound", "d-pending", "c-unready", "a-ready", "b-costly"]);
    }

    #[test]
    fn a_replication_controller_keeps_its_pods_too() {
        let mut w = World::with_nodes(1);
        let rc = |replicas: i32| json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {"replicas": replicas,
            "selector": {"app": "x"}, "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}}});
        w.create("/replicationcontrollers", rc(3));
        w.settle();
        let status = &w.get("/replicationcontrollers", "a", "r")["status"];
        let want = json!({"replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
            "observedGeneration": 1});
        assert_eq!(*status, want);
        assert_eq!(w.list("/pods")[0]["metadata"]["ownerReferences"][0]["kind"], "ReplicationController");
        w.patch("/replicationcontrollers", "a", "r", json!({"spec": {"replicas": 1}}));
        w.settle();
        assert_eq!(w.list("/pods").len(), 1);
        w.delete("/replicationcontrollers", "a", "r");
        w.settle();
        assert!(w.list("/pods").is_empty());
    }

    #[test]
    fn two_with_one_selector_do_not_fight() {
        let mut w = World::with_nodes(1);
        let mut second = set(2);
        second["metadata"]["name"] = json!("s");
        w.create("apps/replicasets", set(2));
        w.create("apps/replicasets", second);
        w.settle();
        assert_eq!(w.list("/pods").len(), 4);
        w.delete_with(&Key::new("apps/replicasets", "a", "r"), None, Some(crate::Propagation::Orphan));
        w.settle();
        assert_eq!(w.list("/pods").len(), 2, "the other adopts them and has too many");
    }

    #[test]
    fn counts_what_is_there() {
        let mut w = World::with_nodes(2);
        w.create("apps/replicasets", set(3));
        w.settle();
        w.sick = vec!["-".into()];
        w.patch("apps/replicasets", "a", "r", json!({"spec": {"replicas": 5}}));
        w.settle();
        let status = &w.get("apps/replicasets", "a", "r")["status"];
        let want = json!({"replicas": 5, "fullyLabeledReplicas": 5, "readyReplicas": 3, "availableReplicas": 3,
            "terminatingReplicas": 0, "observedGeneration": 2});
        assert_eq!(*status, want);
        w.patch("apps/replicasets", "a", "r", json!({"spec": {"replicas": 3}}));
        w.settle();
        assert_eq!(
            w.get("apps/replicasets", "a", "r")["status"]["readyReplicas"],
            3,
            "unready pods went first"
        );
    }

    #[test]
    fn finished_and_failed_pods_are_replaced() {
        let mut w = World::with_nodes(1);
        w.create("apps/replicasets", set(1));
        w.settle();
        let name = w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
        w.patch("/pods", "a", &name, json!({"status": {"phase": "Failed", "reason": "Evicted"}}));
        w.settle();
        assert_eq!(w.list("/pods").len(), 2);
        assert_eq!(w.get("apps/replicasets", "a", "r")["status"]["replicas"], 1);
    }
}
