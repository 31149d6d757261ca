//! Runs the pods of a Job until enough have succeeded or too many failed.
//!
//! In: one Job and its pods. Out: pods to create and delete, counters, conditions, Events, and in the end the Job's own
//! deletion (ttlSecondsAfterFinished).
//! Every pod carries the finalizer `batch.kubernetes.io/job-tracking` until its end is counted in the status: an end is
//! first noted as uncounted, then the finalizer goes, then it is counted; so none is lost and none counts twice.
//! Semantics: https://kubernetes.io/docs/concepts/workloads/controllers/job/
//! Never: touches a Job that is managed by somebody else.

mod count;
mod end;
mod indexes;
mod pods;
mod status;

use super::{
    Controller,
    common::{claim, finalizers_without, is_terminating, owners_of},
};
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    view::{Condition, Job, Kind, Pod, conditions},
};
use count::Tally;
use std::sync::Arc;

pub(super) const NAME: &str = "job-controller";
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Name of the key under which pods that no Job will ever adopt are looked after.
const NOBODY: &str = "";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

#[derive(Debug)]
pub struct JobController;

impl Controller for JobController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Job::RESOURCE, Pod::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let nobody = Key::new(Job::RESOURCE, &changed.key.namespace, NOBODY);
        if changed.is::<Job>() {
            let stays = changed.new_as::<Job>().is_some_and(|j| j.meta.deleting.is_none());
            return if stays { vec![changed.key.clone()] } else { vec![changed.key.clone(), nobody] };
        }
        let mut keys = owners_of::<Job>(view, changed, |j| (&j.meta, j.spec.selector.as_ref()));
        let loose = |p: &&Arc<Pod>| p.meta.controller().is_none() && p.meta.has_finalizer(TRACKING);
        if changed.new_as::<Pod>().filter(loose).is_some() {
            keys.push(nobody);
        }
        keys
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, seed: u64) -> Plan {
        let mut plan = Plan::default();
        release_orphans(view, key, &mut plan);
        let Some(job) = view.get::<Job>(&key.namespace, &key.name) else { return plan };
        let Some(selector) = &job.spec.selector else { return plan };
        if job.spec.managed_by.as_ref().is_some_and(|m| &**m != "kubernetes.io/job-controller") {
            end::delete_in_time(job, now, &mut plan);
            return plan;
        }
        let pods = claim::<Pod, _>(view, job, selector, &mut plan, |p| &p.meta);
        if end::finished(job).is_some() {
            end::after_finish(job, &pods, now, &mut plan);
            return plan;
        }
        let tally = Tally::of(job, &pods);
        let mut step =
            Step { view, job, pods, tally, now, seed, plan, conditions: job.status.conditions.to_vec() };
        step.run();
        step.plan.events_last()
    }

    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let job = view.get::<Job>(&key.namespace, &key.name);
        if let (Some(job), Change::Create { .. }) = (job, change) {
            let message = format!("Error creating: {error}");
            plan.event(Regarding::of(&**job), EventType::Warning, "FailedCreate", message, NAME);
        }
        plan
    }
}

/// One look at a Job that is not finished.
struct Step<'a> {
    view: &'a ObjectStore,
    job: &'a Job,
    pods: Vec<&'a Arc<Pod>>,
    tally: Tally<'a>,
    now: Timestamp,
    seed: u64,
    plan: Plan,
    /// `status.conditions` as they are to be.
    conditions: Vec<Condition>,
}

impl Step<'_> {
    fn run(&mut self) {
        self.look_for_the_end();
        if self.job.meta.deleting.is_none() && !is_terminating(self.view, &self.job.meta.namespace) {
            self.manage();
        }
        self.finish_when_quiet();
        self.status();
        for pod in std::mem::take(&mut self.tally.release) {
            self.plan.patch_exact(Pod::RESOURCE, &pod.meta, None, finalizers_without(&pod.meta, TRACKING));
        }
    }

    fn is_indexed(&self) -> bool {
        is_indexed(self.job)
    }

    fn has(&self, condition: &str) -> bool {
        conditions::is_true(&self.conditions, condition)
    }

    fn say(&mut self, type_: EventType, reason: &str, message: impl Into<String>) {
        self.plan.event(Regarding::of(self.job), type_, reason, message, NAME);
    }
}

fn is_indexed(job: &Job) -> bool {
    &*job.spec.completion_mode == "Indexed"
}

/// Lets go of pods whose Job is not there any more: nobody counts them.
fn release_orphans(view: &ObjectStore, key: &Key, plan: &mut Plan) {
    let uid = view.get::<Job>(&key.namespace, &key.name).map(|j| &*j.meta.uid);
    let adopted = |pod: &Pod| {
        let mut jobs = view.list::<Job>(&key.namespace);
        jobs.any(|j| {
            j.meta.deleting.is_none() && j.spec.selector.as_ref().is_some_and(|s| s.matches(&pod.meta.labels))
        })
    };
    for pod in view.list::<Pod>(&key.namespace).filter(|p| p.meta.has_finalizer(TRACKING)) {
        let orphan = match pod.meta.controller() {
            Some(owner) => &*owner.kind == Job::KIND && owner.name == key.name && Some(&*owner.uid) != uid,
            None => &*key.name == NOBODY && !adopted(pod),
        };
        if orphan {
            plan.patch_exact(Pod::RESOURCE, &pod.meta, None, finalizers_without(&pod.meta, TRACKING));
        }
    }
}

#[cfg(test)]
mod rows;
#[cfg(test)]
mod tests;
