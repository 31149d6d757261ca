//! Runs pods with names and volumes of their own, in order.
//!
//! In: one StatefulSet, its pods and claims. Out: pods and claims to create, pods to delete, history, status, Events.
//! Semantics: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/
//! Never: two pods of one name, and with OrderedReady never a pod before its predecessor is ready.

mod claims;
mod pods;
mod status;

use super::{
    Controller,
    common::{claim_some, is_terminating, owners_of},
    history::{self, HASH_LABEL},
};
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    view::{Available, ControllerRevision, Kind, PersistentVolumeClaim, Pod, StatefulSet},
};
use serde_json::Value;
use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(super) const NAME: &str = "statefulset-controller";

#[derive(Debug)]
pub struct StatefulSetController;

impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[StatefulSet::RESOURCE, Pod::RESOURCE, ControllerRevision::RESOURCE, PersistentVolumeClaim::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<StatefulSet>() {
            return vec![changed.key.clone()];
        }
        let mut keys = owners_of::<StatefulSet>(view, changed, |s| (&s.meta, s.spec.selector.as_ref()));
        // A stranger that went may have held a name that a set waits for.
        let waiting =
            changed.key.name.rsplit_once('-').filter(|_| changed.is::<Pod>() && changed.new.is_none());
        if let Some(set) = waiting.and_then(|(name, _)| view.get::<StatefulSet>(&changed.key.namespace, name))
        {
            keys.push(Key::new(StatefulSet::RESOURCE, &set.meta.namespace, &set.meta.name));
        }
        keys
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = view.get::<StatefulSet>(&key.namespace, &key.name) else { return plan };
        let Some(selector) = set.spec.selector.as_ref().filter(|s| !s.is_empty()) else { return plan };
        let is_member = |p: &Pod| selector.matches(&p.meta.labels) && ordinal(set, &p.meta.name).is_some();
        let all = claim_some::<Pod, _>(view, set, &mut plan, |p| &p.meta, is_member, |_| true);
        let owner = history::Owner::stateful_set(view, set, selector, &mut plan);
        let going = set.meta.deleting.is_some() || is_terminating(view, &key.namespace);
        let update = match going {
            // Nothing is made any more; what is left is still counted.
            true => Some(history::Current {
                name: set.status.update_revision.to_string(),
                hash: String::new(),
                collisions: set.status.collision_count,
            }),
            false => history::current(view, &owner, &all, &mut plan),
        };
        let Some(history::Current { name: update, collisions, .. }) = update else { return plan };
        let current = match &*set.status.current_revision {
            name if owner.has(name) => name.to_owned(),
            _ => update.clone(),
        };
        let template = OnceCell::new();
        let pods = all.iter().filter_map(|p| Some((ordinal(set, &p.meta.name)?, *p))).collect();
        let deleted = BTreeSet::new();
        let mut step = Step { view, set, template, current, update, collisions, pods, now, plan, deleted };
        let mut work = Plan::default();
        if step.plan.is_empty() && !going {
            let (current, update) = (step.current.clone(), step.update.clone());
            step.manage();
            history::clean_up(&owner, &all, &[&current, &update], &mut step.plan);
            work = std::mem::take(&mut step.plan);
        }
        // First, so that it is true also when what follows is refused.
        step.status();
        step.plan.extend(work);
        step.plan.events_last()
    }

    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let set = view.get::<StatefulSet>(&key.namespace, &key.name);
        if let (Some(set), Change::Create { object, .. }) = (set, change) {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let message = match object["kind"].as_str() {
                Some(PersistentVolumeClaim::KIND) => {
                    let pod = pods::pod_of_claim(set, name);
                    format!("create Claim {name} for Pod {pod} in StatefulSet {} failed error: {error}", set.meta.name)
                }
                _ => format!("create Pod {name} in StatefulSet {} failed error: {error}", set.meta.name),
            };
            plan.event(Regarding::of(&**set), EventType::Warning, "FailedCreate", message, NAME);
        }
        plan
    }
}

/// The number at the end of a pod's name, when the pod is one of the set's.
fn ordinal(set: &StatefulSet, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(&*set.meta.name)?.strip_prefix('-')?;
    let canonical = digits == "0" || !digits.starts_with('0');
    digits.parse().ok().filter(|n| *n >= 0 && canonical)
}

struct Step<'a> {
    view: &'a ObjectStore,
    set: &'a StatefulSet,
    /// Read when a pod is made of it.
    template: OnceCell<Value>,
    /// Names of the revision that was rolled out last, and of the template's.
    current: String,
    update: String,
    collisions: Option<i32>,
    pods: BTreeMap<i32, &'a Arc<Pod>>,
    now: Timestamp,
    plan: Plan,
    /// Uids of pods that the plan deletes.
    deleted: BTreeSet<Box<str>>,
}

impl<'a> Step<'a> {
    fn ordinals(&self) -> std::ops::Range<i32> {
        let start = self.set.spec.ordinals.start.max(0);
        start..start.saturating_add(self.set.spec.replicas.unwrap_or(1).max(0))
    }

    fn template(&self) -> &Value {
        self.template.get_or_init(|| self.set.field("/spec/template"))
    }

    fn is_ordered(&self) -> bool {
        &*self.set.spec.pod_management_policy != "Parallel"
    }

    fn revision_of(&self, pod: &'a Pod) -> &'a str {
        pod.meta.labels.get(HASH_LABEL).unwrap_or_default()
    }

    /// Runs, is ready for long enough, and is not going.
    fn is_healthy(&mut self, pod: &Pod) -> bool {
        match pod.available(self.set.spec.min_ready_seconds, self.now) {
            Available::Yes => pod.is_active(),
            Available::At(t) => {
                self.plan.wake_at(t);
                false
            }
            Available::No => false,
        }
    }
}

#[cfg(test)]
mod tests;
