//! Which node a pod goes to, or why none will do.
//!
//! In: the view and one pod. Out: a `Placement` or a `WhyNot` in kube-scheduler's words, and the plan for either.
//! Semantics: https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/
//! Never: remembers anything; after a `Bind` the shell calls `ObjectStore::assume_bound`.

mod filter;
mod place;
mod pods;
mod room;
mod score;
mod spread;
mod why_not;

use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    view::{Kind, Node, PersistentVolumeClaim, Pod, conditions::rfc3339},
};
pub use place::Placement;
use serde_json::{Value, json};
use std::cmp::Reverse;
pub use why_not::WhyNot;

pub(crate) use filter::{affinity_matches, untolerated};

pub const SCHEDULER_NAME: &str = "default-scheduler";
const GATED: &str = "Scheduling is blocked due to non-empty scheduling gates";

/// What an event means for pods that wait for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    Nothing,
    /// This pod became pending.
    Pod(Key),
    /// There may be room now: try all pending pods.
    All,
}

#[derive(Clone, Debug, Default)]
pub struct Scheduler {}

impl Scheduler {
    /// Pods that wait for a node, in the order in which to try them: by priority, then by age.
    pub fn pending(&self, view: &ObjectStore) -> Vec<Key> {
        let mut pods: Vec<&Pod> = view.pods_unbound().map(|p| &**p).filter(|p| waits(p)).collect();
        pods.sort_by_key(|p| (Reverse(p.spec.priority), p.meta.created_at()));
        pods.into_iter().map(key_of).collect()
    }

    /// Whom an event wakes. The view already holds the new state.
    pub fn wakes(&self, view: &ObjectStore, changed: &Changed) -> Wake {
        if changed.is::<Node>() {
            return node_wakes(changed);
        }
        if changed.is::<PersistentVolumeClaim>() {
            return Wake::All;
        }
        if !changed.is::<Pod>() {
            return Wake::Nothing;
        }
        let (old, new) = (changed.old_as::<Pod>(), changed.new_as::<Pod>());
        let held_room = old.is_some_and(|p| p.node.is_some() && !p.is_finished());
        match new {
            Some(p) if p.node.is_none() && waits(p) => {
                let same =
                    old.is_some_and(|o| o.meta.uid == p.meta.uid && o.spec == p.spec && o.node == p.node);
                if same { Wake::Nothing } else { Wake::Pod(key_of(p)) }
            }
            Some(p) if p.node.is_some() && !held_room && !p.is_finished() => {
                let depends =
                    |p: &&Pod| waits(p) && p.spec.affinity.as_ref().is_some_and(|a| a.pod_affinity.is_some());
                if view.pods_unbound().map(|p| &**p).any(|p| depends(&p)) { Wake::All } else { Wake::Nothing }
            }
            Some(p) if held_room && p.is_finished() => Wake::All,
            None if held_room => Wake::All,
            _ => Wake::Nothing,
        }
    }

    /// The best node for a pod. Equal scores are broken by `seed`.
    pub fn decide(
        &self,
        view: &ObjectStore,
        pod: &Pod,
        _now: Timestamp,
        seed: u64,
    ) -> Result<Placement, WhyNot> {
        place::place(view, pod, seed)
    }

    /// `Bind` and its Event, or the condition and Event that say why not. Empty when the pod needs no scheduling or
    /// when nothing new is to be said.
    pub fn plan(&self, view: &ObjectStore, key: &Key, now: Timestamp, seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = view.pod(&key.namespace, &key.name).filter(|p| p.node.is_none() && waits(p)) else {
            return plan;
        };
        if !pod.spec.scheduling_gates.is_empty() {
            say_unscheduled(pod, "SchedulingGated", GATED, now, &mut plan);
            return plan;
        }
        match self.decide(view, pod, now, seed) {
            Ok(placement) => {
                plan.push(crate::Change::Bind {
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                    uid: pod.meta.uid.to_string(),
                    node: placement.node.clone(),
                });
                let message =
                    format!("Successfully assigned {}/{} to {}", key.namespace, key.name, placement.node);
                plan.event(Regarding::of(&**pod), EventType::Normal, "Scheduled", message, SCHEDULER_NAME);
            }
            Err(why_not) => {
                if say_unscheduled(pod, "Unschedulable", &why_not.message, now, &mut plan) {
                    let message = why_not.message.clone();
                    let about = Regarding::of(&**pod);
                    plan.event(about, EventType::Warning, "FailedScheduling", message, SCHEDULER_NAME);
                }
                plan.because("Unschedulable", why_not.message);
            }
        }
        plan
    }
}

fn key_of(pod: &Pod) -> Key {
    Key::new(Pod::RESOURCE, &pod.meta.namespace, &pod.meta.name)
}

fn waits(pod: &Pod) -> bool {
    let ours = pod.spec.scheduler_name.is_empty() || &*pod.spec.scheduler_name == SCHEDULER_NAME;
    ours && pod.is_active()
}

fn node_wakes(changed: &Changed) -> Wake {
    let Some(new) = changed.new_as::<Node>() else { return Wake::Nothing };
    let same = changed.old_as::<Node>().is_some_and(|old| {
        old.spec == new.spec
            && old.meta.labels == new.meta.labels
            && old.status.allocatable == new.status.allocatable
    });
    if same { Wake::Nothing } else { Wake::All }
}

/// Sets condition PodScheduled to False; whether that says anything new.
fn say_unscheduled(pod: &Pod, reason: &str, message: &str, now: Timestamp, plan: &mut Plan) -> bool {
    if pod.status.unscheduled.as_deref() == Some(message) {
        return false;
    }
    let mut list = pod.field("/status/conditions").as_array().cloned().unwrap_or_default();
    let at = list.iter().position(|c| c["type"] == "PodScheduled");
    let since = at
        .and_then(|i| list.get(i))
        .filter(|c| c["status"] == "False")
        .map(|c| c["lastTransitionTime"].clone());
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "lastTransitionTime": since.filter(|s| !s.is_null()).unwrap_or_else(|| json!(rfc3339(now)))});
    match at {
        Some(i) => list[i] = condition,
        None => list.push(condition),
    }
    let status: Value = json!({"conditions": list});
    plan.patch_exact(Pod::RESOURCE, &pod.meta, Some("status"), json!({"status": status}));
    true
}

#[cfg(test)]
mod tests;
