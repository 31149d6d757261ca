//! Decides which pods of a ReplicaSet or a ReplicationController to create or delete.
//!
//! In: one ReplicaSet (or ReplicationController, its older form) and its pods, from the view. Out: pods to create and
//! delete, the status, Events.
//! Semantics: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
//! Never: counts, adopts or lets go of a pod that is finished.

mod rank;

use super::{
    Controller,
    absence::is_lost,
    common::{
        claim_some, count, free_pod_name, is_terminating, owner_reference, owners_of, pod_of_template, set_status,
    },
};
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp, limits,
    view::{
        Available, Condition, Kind, Obj, Pod, ReplicaSet, ReplicaSetData, ReplicaSetSpec, ReplicaSetStatus,
        ReplicationController, ReplicationControllerData, conditions,
    },
};
use serde_json::{Value, json};
use std::{marker::PhantomData, sync::Arc};

const FAILURE: &str = "ReplicaFailure";

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
        let matches = |p: &Pod| selector.matches(&p.meta.labels);
        let pods = claim_some::<Pod, _>(view, rs, &mut plan, |p| &p.meta, matches, |p| p.is_active());
        let mine = Mine::of(&pods);
        let mut failure = Failure::Lasts;
        let mut work = Plan::default();
        if rs.meta.deleting.is_none() {
            let wanted = wanted(rs);
            if mine.active.len() >= wanted {
                failure = Failure::Over;
                delete(view, rs, &mine.active, mine.active.len() - wanted, now, &mut work);
            } else if is_terminating(view, &key.namespace) {
                failure = Failure::Over;
            } else {
                create(view, rs, wanted - mine.active.len(), seed, &mut work);
            }
        }
        // First, so that it is true also when what follows is refused.
        status(rs, &mine, failure, now, &mut plan);
        plan.extend(work);
        plan.events_last()
    }

    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(rs) = view.get::<Obj<T>>(&key.namespace, &key.name) else { return plan };
        let Some(selector) = rs.spec().selector.as_ref() else { return plan };
        let reason = match change {
            Change::Create { .. } if is_terminating(view, &key.namespace) => return plan,
            Change::Create { .. } => "FailedCreate",
            Change::Delete { .. } => "FailedDelete",
            _ => return plan,
        };
        let verb = if reason == "FailedCreate" { "creating" } else { "deleting" };
        let message = format!("Error {verb}: {error}");
        plan.event(Regarding::of(&**rs), EventType::Warning, reason, message, T::CONTROLLER);
        let own = view.controlled_by::<Pod>(&rs.meta.uid).filter(|p| selector.matches(&p.meta.labels));
        let pods: Vec<&Arc<Pod>> = own.collect();
        status(rs, &Mine::of(&pods), Failure::New(reason, error), now, &mut plan);
        plan
    }
}

fn wanted<T: Keeper>(rs: &Obj<T>) -> usize {
    rs.spec().replicas.unwrap_or(1).max(0) as usize
}

/// The pods that a ReplicaSet has.
struct Mine<'a> {
    /// Those that count.
    active: Vec<&'a Arc<Pod>>,
    /// Those on their way out.
    going: usize,
}

impl<'a> Mine<'a> {
    fn of(pods: &[&'a Arc<Pod>]) -> Mine<'a> {
        let active = pods.iter().copied().filter(|p| p.is_active() && !is_lost(p)).collect();
        Mine { active, going: pods.iter().filter(|p| p.meta.deleting.is_some() && !p.is_finished()).count() }
    }
}

/// What becomes of condition ReplicaFailure.
enum Failure<'e> {
    /// It is not known yet whether the trouble is over.
    Lasts,
    Over,
    /// Reason and error; the first one is told until it is over.
    New(&'static str, &'e str),
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
    let mut ranked: Vec<&Arc<Pod>> = active.to_vec();
    if surplus < active.len() {
        let related = rank::pods_per_node(view, rs);
        ranked.sort_by_cached_key(|p| rank::rank(p, &related, rs.spec().min_ready_seconds, now));
    }
    for pod in ranked.into_iter().take(surplus.min(limits::PODS_PER_STEP_MAX)) {
        plan.delete(Pod::RESOURCE, &pod.meta);
        let message = format!("Deleted pod: {}", pod.meta.name);
        plan.event(Regarding::of(rs), EventType::Normal, "SuccessfulDelete", message, T::CONTROLLER);
    }
    plan.because("TooMany", format!("{surplus} pods are not wanted"));
}

fn status<T: Keeper>(rs: &Obj<T>, mine: &Mine<'_>, failure: Failure<'_>, now: Timestamp, plan: &mut Plan)
where
    Obj<T>: Kind,
{
    let mut available = 0;
    for pod in &mine.active {
        match pod.available(rs.spec().min_ready_seconds, now) {
            Available::Yes => available += 1,
            Available::At(t) => plan.wake_at(t),
            Available::No => {}
        }
    }
    let labeled =
        |p: &&&Arc<Pod>| rs.spec().template.labels.iter().all(|(k, v)| p.meta.labels.get(k) == Some(v));
    let mut list = rs.status().conditions.to_vec();
    match failure {
        Failure::Over => conditions::remove(&mut list, FAILURE),
        Failure::New(reason, error) if conditions::find(&list, FAILURE).is_none() => {
            conditions::set(&mut list, Condition::new(FAILURE, true, reason, error, now));
        }
        Failure::Lasts | Failure::New(..) => {}
    }
    let new = json!({
        "replicas": mine.active.len(),
        "fullyLabeledReplicas": count(mine.active.iter().filter(labeled).count() as i32),
        "readyReplicas": count(mine.active.iter().filter(|p| p.status.ready).count() as i32),
        "availableReplicas": count(available),
        "terminatingReplicas": if T::COUNTS_TERMINATING { json!(mine.going) } else { Value::Null },
        "observedGeneration": rs.meta.generation,
        "conditions": conditions::to_value(&list),
    });
    set_status(plan, rs, new);
}

#[cfg(test)]
mod tests;
