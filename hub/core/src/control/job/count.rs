//! Counts the pods of a Job without losing or doubling one.
//!
//! In: the Job's status and its pods. Out: the counters as they are to be written, and pods that may lose their finalizer
//! once that is durable. Never: counts a pod twice: what is counted is remembered by uid until its finalizer is gone.

use super::{INDEX, INDEX_FAILURES, TRACKING, indexes, is_indexed};
use crate::view::{FailureRule, Job, Phase, Pod};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The state of a Job's pods.
#[derive(Debug, Default)]
pub struct Tally<'a> {
    /// Not finished and not going.
    pub active: Vec<&'a Arc<Pod>>,
    pub terminating: Vec<&'a Arc<Pod>>,
    /// Counted for good.
    pub succeeded: i32,
    pub failed: i32,
    /// Ended pods that are noted but still have their finalizer, by uid.
    pub uncounted_succeeded: BTreeSet<Box<str>>,
    pub uncounted_failed: BTreeSet<Box<str>>,
    /// Pods whose finalizer may go after the status is written.
    pub release: Vec<&'a Arc<Pod>>,
    pub completed_indexes: BTreeSet<i32>,
    pub failed_indexes: BTreeSet<i32>,
    /// Failures so far, by index.
    pub index_failures: BTreeMap<i32, i32>,
    /// Why the pod failure policy ends the Job.
    pub policy_failure: Option<String>,
}

impl<'a> Tally<'a> {
    pub fn of(job: &Job, pods: &[&'a Arc<Pod>]) -> Tally<'a> {
        let completions = job.spec.completions.unwrap_or(0);
        let mut t = Tally {
            failed: job.status.failed,
            completed_indexes: indexes::parse(&job.status.completed_indexes, completions),
            failed_indexes: indexes::parse(&job.status.failed_indexes, completions),
            ..Tally::default()
        };
        if !is_indexed(job) {
            t.succeeded = job.status.succeeded;
        }
        t.flush(job, pods);
        for pod in pods.iter().copied() {
            t.look(job, pod);
        }
        if is_indexed(job) {
            t.succeeded = t.completed_indexes.len() as i32;
        }
        t
    }

    /// Noted pods without finalizer are counted; the others stay noted.
    fn flush(&mut self, job: &Job, pods: &[&Arc<Pod>]) {
        let held: BTreeSet<&str> =
            pods.iter().filter(|p| p.meta.has_finalizer(TRACKING)).map(|p| &*p.meta.uid).collect();
        let noted = &job.status.uncounted_terminated_pods;
        for uid in &noted.succeeded {
            match held.contains(&**uid) {
                true => drop(self.uncounted_succeeded.insert(uid.clone())),
                false => self.succeeded += 1,
            }
        }
        for uid in &noted.failed {
            match held.contains(&**uid) {
                true => drop(self.uncounted_failed.insert(uid.clone())),
                false => self.failed += 1,
            }
        }
    }

    fn look(&mut self, job: &Job, pod: &'a Arc<Pod>) {
        let index = index_of(job, pod);
        if is_failed(job, pod) {
            self.look_at_failed(job, pod, index);
        } else if pod.status.phase == Phase::Succeeded {
            if !is_indexed(job) {
                if pod.meta.has_finalizer(TRACKING) {
                    self.uncounted_succeeded.insert(pod.meta.uid.clone());
                }
            } else if let Some(i) = index {
                self.completed_indexes.insert(i);
            }
        } else if pod.meta.deleting.is_some() {
            self.terminating.push(pod);
            return;
        } else {
            self.active.push(pod);
            return;
        }
        if pod.meta.deleting.is_some() && !pod.is_finished() {
            self.terminating.push(pod);
        }
        if pod.meta.has_finalizer(TRACKING) {
            self.release.push(pod);
        }
    }

    fn look_at_failed(&mut self, job: &Job, pod: &'a Arc<Pod>, index: Option<i32>) {
        let rule = policy(job, pod);
        let action = rule.as_ref().map_or("Count", |(_, rule)| &*rule.action);
        if pod.meta.has_finalizer(TRACKING) {
            if action == "FailJob" && self.policy_failure.is_none() {
                self.policy_failure = rule.as_ref().map(|(at, rule)| policy_message(pod, *at, rule));
            }
            if action != "Ignore" {
                self.uncounted_failed.insert(pod.meta.uid.clone());
            }
        }
        let (Some(i), Some(limit)) = (index, job.spec.backoff_limit_per_index) else { return };
        let before: i32 = pod.meta.annotations.get(INDEX_FAILURES).and_then(|n| n.parse().ok()).unwrap_or(0);
        let failures = if action == "Ignore" { before } else { before.saturating_add(1) };
        let slot = self.index_failures.entry(i).or_insert(0);
        *slot = (*slot).max(failures);
        if failures > limit || action == "FailIndex" {
            self.failed_indexes.insert(i);
        }
    }

    pub fn succeeded_total(&self) -> i32 {
        self.succeeded + self.uncounted_succeeded.len() as i32
    }

    pub fn failed_total(&self) -> i32 {
        self.failed + self.uncounted_failed.len() as i32
    }

    pub fn is_flushed(&self) -> bool {
        self.uncounted_succeeded.is_empty() && self.uncounted_failed.is_empty() && self.release.is_empty()
    }
}

/// The pod's completion index, when the Job has one of that number.
pub fn index_of(job: &Job, pod: &Pod) -> Option<i32> {
    let text = pod.meta.annotations.get(INDEX)?;
    text.parse().ok().filter(|i| (0..job.spec.completions.unwrap_or(0)).contains(i))
}

/// A pod that is going never gets the chance to fail by itself, and so counts as failed; not so when only failed pods
/// are to be replaced, or when the suspended Job itself sent it away.
fn is_failed(job: &Job, pod: &Pod) -> bool {
    match pod.status.phase {
        Phase::Failed => true,
        Phase::Succeeded => false,
        _ => {
            pod.meta.deleting.is_some() && &*job.spec.pod_replacement_policy != "Failed" && !job.spec.suspend
        }
    }
}

/// The first rule of the pod failure policy that a failed pod matches, with its place.
fn policy<'j>(job: &'j Job, pod: &Pod) -> Option<(usize, &'j FailureRule)> {
    let rules = job.spec.pod_failure_policy.rules.iter().enumerate();
    if pod.status.phase != Phase::Failed {
        return None;
    }
    rules
        .into_iter()
        .find(|(_, rule)| matching_exit(pod, rule).is_some() || matching_condition(pod, rule).is_some())
}

fn matching_exit<'p>(pod: &'p Pod, rule: &FailureRule) -> Option<(&'p str, i32)> {
    let wanted = rule.on_exit_codes.as_ref()?;
    let fits = |(name, code): &&(Box<str>, i32)| {
        let named = wanted.container_name.as_ref().is_none_or(|n| n == name);
        named && *code != 0 && (wanted.values.contains(code) == (&*wanted.operator == "In"))
    };
    pod.status.exits.iter().find(fits).map(|(name, code)| (&**name, *code))
}

fn matching_condition<'r>(pod: &Pod, rule: &'r FailureRule) -> Option<&'r str> {
    let fits = |c: &&crate::view::OnPodCondition| {
        let wanted = if c.status.is_empty() { "True" } else { &*c.status };
        pod.status.condition(&c.type_) == Some(wanted)
    };
    rule.on_pod_conditions.iter().find(fits).map(|c| &*c.type_)
}

fn policy_message(pod: &Pod, at: usize, rule: &FailureRule) -> String {
    let name = format!("{}/{}", pod.meta.namespace, pod.meta.name);
    if let Some((container, code)) = matching_exit(pod, rule) {
        return format!(
            "Container {container} for pod {name} failed with exit code {code} matching {} rule at index {at}",
            rule.action
        );
    }
    let condition = matching_condition(pod, rule).unwrap_or_default();
    format!("Pod {name} has condition {condition} matching {} rule at index {at}", rule.action)
}
