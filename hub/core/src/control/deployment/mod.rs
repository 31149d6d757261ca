//! Decides how the ReplicaSets of a Deployment are sized.
//!
//! In: one Deployment and its ReplicaSets, from the view. Out: ReplicaSets to create, scale and clean up; the
//! Deployment's status and revision; Events. One step at a time: each step waits for the view to show the last.
//! Semantics: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
//! Never: touches pods.

mod replicasets;
mod rolling;
mod scale;
mod status;

use super::{
    Controller,
    common::{claim, owners_of},
};
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    view::{Deployment, IntOrString, Kind, Pod, ReplicaSet},
};
use std::sync::Arc;

pub(super) const NAME: &str = "deployment-controller";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

#[derive(Debug)]
pub struct DeploymentController;

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Deployment::RESOURCE, ReplicaSet::RESOURCE, Pod::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<Deployment>() {
            return vec![changed.key.clone()];
        }
        if changed.is::<Pod>() {
            return recreating_owner(view, changed).into_iter().collect();
        }
        owners_of::<Deployment>(view, changed, |d| (&d.meta, d.spec.selector.as_ref()))
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(d) = view.get::<Deployment>(&key.namespace, &key.name) else { return plan };
        let Some(selector) = d.spec.selector.as_ref().filter(|s| !s.is_empty()) else {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            plan.event(Regarding::of(&**d), EventType::Warning, "SelectingAll", message, NAME);
            return plan;
        };
        let all = claim::<ReplicaSet, _>(view, d, selector, &mut plan, |rs| &rs.meta);
        Step::new(view, d, all, now, plan).run().events_last()
    }

    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, now: Timestamp) -> Plan {
        let plan = Plan::default();
        let d = view.get::<Deployment>(&key.namespace, &key.name);
        match (d, change) {
            (Some(d), Change::Create { object, .. }) => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let message = format!("Failed to create new replica set {name:?}: {error}");
                Step::new(view, d, vec![], now, plan).cannot_create(message)
            }
            _ => plan,
        }
    }
}

/// A pod that ended concerns a Deployment only when it waits for all old pods to be gone.
fn recreating_owner(view: &ObjectStore, changed: &Changed) -> Option<Key> {
    let pod = changed.old_as::<Pod>()?;
    if changed.new_as::<Pod>().is_some_and(|p| !p.is_finished()) {
        return None;
    }
    let owner = pod.meta.controller().filter(|o| &*o.kind == ReplicaSet::KIND)?;
    let rs = view.get::<ReplicaSet>(&pod.meta.namespace, &owner.name)?;
    let owner = rs.meta.controller().filter(|o| &*o.kind == Deployment::KIND)?;
    let d = view.get::<Deployment>(&pod.meta.namespace, &owner.name)?;
    let recreate = &*d.spec.strategy.type_ == "Recreate";
    recreate.then(|| Key::new(Deployment::RESOURCE, &d.meta.namespace, &d.meta.name))
}

/// One look at a Deployment: what is there, and the plan so far.
struct Step<'a> {
    view: &'a ObjectStore,
    d: &'a Deployment,
    /// The ReplicaSet of the current template.
    new: Option<&'a Arc<ReplicaSet>>,
    /// All others, oldest first.
    old: Vec<&'a Arc<ReplicaSet>>,
    now: Timestamp,
    plan: Plan,
}

impl<'a> Step<'a> {
    fn new(
        view: &'a ObjectStore,
        d: &'a Deployment,
        mut all: Vec<&'a Arc<ReplicaSet>>,
        now: Timestamp,
        plan: Plan,
    ) -> Step<'a> {
        all.sort_by_key(|rs| (rs.meta.created_at(), rs.meta.name.clone()));
        let at = all.iter().position(|rs| rs.spec.template.digest == d.spec.template.digest);
        let new = at.map(|i| all.remove(i));
        Step { view, d, new, old: all, now, plan }
    }

    fn run(mut self) -> Plan {
        if self.d.meta.deleting.is_some() {
            self.sync_status();
            return self.plan;
        }
        if self.pause_condition() {
            return self.plan;
        }
        if self.d.spec.paused {
            self.refresh_new();
            self.scale_all();
            self.clean_up();
            self.sync_status();
        } else if self.is_scaling() && self.can_scale() {
            self.refresh_new();
            self.scale_all();
            self.sync_status();
        } else if &*self.d.spec.strategy.type_ == "Recreate" {
            self.recreate();
        } else {
            self.roll();
        }
        self.plan
    }

    fn replicas(&self) -> i32 {
        self.d.spec.replicas.unwrap_or(1).max(0)
    }

    fn is_rolling(&self) -> bool {
        &*self.d.spec.strategy.type_ != "Recreate"
    }

    /// (maxSurge, maxUnavailable) in pods.
    fn fence(&self) -> (i32, i32) {
        if !self.is_rolling() {
            return (0, 0);
        }
        let update = &self.d.spec.strategy.rolling_update;
        let quarter = IntOrString::Text("25%".into());
        let given = |v: &IntOrString, up| {
            v.of_total(self.replicas(), up).or(quarter.of_total(self.replicas(), up)).unwrap_or(1).max(0)
        };
        let surge = given(&update.max_surge, true);
        let unavailable = given(&update.max_unavailable, false);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        (surge, unavailable.min(self.replicas()))
    }

    fn all(&self) -> impl Iterator<Item = &'a Arc<ReplicaSet>> {
        self.old.iter().copied().chain(self.new)
    }
}

fn size(rs: &ReplicaSet) -> i32 {
    rs.spec.replicas.unwrap_or(1).max(0)
}

fn total(sets: impl Iterator<Item = impl AsRef<ReplicaSet>>) -> i32 {
    sets.fold(0, |n, rs| n.saturating_add(size(rs.as_ref())))
}

/// Pods that are available and stay: a ReplicaSet that was just made smaller still counts those that it will delete.
fn available(rs: &ReplicaSet) -> i32 {
    rs.status.available_replicas.min(size(rs))
}

/// Pods that there are or are to be: a ReplicaSet that was made smaller may not have deleted them yet, and its status may not
/// know of all.
fn held<'a>(view: &ObjectStore, sets: impl Iterator<Item = &'a Arc<ReplicaSet>>) -> i32 {
    let there = |rs: &ReplicaSet| view.controlled_by::<Pod>(&rs.meta.uid).filter(|pod| pod.is_active()).count();
    let there = |rs: &ReplicaSet| i32::try_from(there(rs)).unwrap_or(i32::MAX);
    sets.fold(0, |n, rs| n.saturating_add(size(rs).max(rs.status.replicas).max(there(rs))))
}

fn number(rs: &ReplicaSet, annotation: &str) -> Option<i64> {
    rs.meta.annotations.get(annotation)?.parse().ok()
}

#[cfg(test)]
mod tests;
