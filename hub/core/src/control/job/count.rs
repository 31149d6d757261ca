//! Counts the pods of a Job without losing or doubling one.
//!
//! In: the Job's status and its pods. Out: the counters as they are to be written, and pods that may lose their finalizer
//! once that is durable. Never: counts a pod twice: what is counted is remembered by uid until its finalizer is gone.

use super::{INDEX, INDEX_FAILURES, INDEX_IGNORED, TRACKING, indexes, is_indexed};
use crate::{
    Timestamp,
    control::common::after,
    view::{FailureRule, Job, Phase, Pod, conditions},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Ended pods that are noted in one status at most, as upstream.
const UNCOUNTED_MAX: usize = 500;

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
    /// With `backoffLimitPerIndex`, the last failed pod of each index that waits for a new one: it stays, since it bears
    /// the number of failures that the new one takes over.
    pub held: BTreeMap<i32, &'a Arc<Pod>>,
    pub completed_indexes: BTreeSet<i32>,
    pub failed_indexes: BTreeSet<i32>,
    /// Pods that failed and are neither noted nor counted yet.
    fresh: Vec<&'a Arc<Pod>>,
    /// All failures that count, those of `held` pods included.
    pub failed_total: i32,
    /// Why the pod failure policy ends the Job.
    pub policy_failure: Option<String>,
}

/// What becomes of a pod in the count.
enum Fate {
    Active,
    /// On its way out, and nothing to count yet.
    Going,
    Succeeded,
    Failed,
    /// Sent away because the Job has succeeded: not to be counted.
    Dismissed,
}

fn fate(job: &Job, pod: &Pod) -> Fate {
    let going = pod.meta.deleting.is_some();
    let is = |condition: &str| conditions::is_true(&job.status.conditions, condition);
    match pod.status.phase {
        Phase::Succeeded => Fate::Succeeded,
        _ if going && is("SuccessCriteriaMet") => Fate::Dismissed,
        Phase::Failed => Fate::Failed,
        // A pod that is going may never get the chance to fail by itself.
        _ if going && (!replaces_failed_only(job) || is("FailureTarget")) => Fate::Failed,
        _ if going => Fate::Going,
        _ => Fate::Active,
    }
}

/// Whether a pod that is on its way out still counts as one of the Job's.
pub fn replaces_failed_only(job: &Job) -> bool {
    &*job.spec.pod_replacement_policy == "Failed"
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
        t.hold(job);
        t.note(job);
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
        let tracked = pod.meta.has_finalizer(TRACKING);
        let fate = fate(job, pod);
        if pod.meta.deleting.is_some() && !pod.is_finished() {
            self.terminating.push(pod);
        }
        match fate {
            Fate::Active => self.active.push(pod),
            Fate::Failed if tracked => return self.look_at_failed(job, pod),
            Fate::Succeeded if tracked && !self.uncounted_failed.contains(&pod.meta.uid) => {
                if !is_indexed(job) {
                    self.uncounted_succeeded.insert(pod.meta.uid.clone());
                } else if let Some(i) = index_of(job, pod) {
                    self.completed_indexes.insert(i);
                }
            }
            _ => {}
        }
        let over = matches!(fate, Fate::Succeeded | Fate::Dismissed) || job.meta.deleting.is_some();
        if tracked && over {
            self.release.push(pod);
        }
    }

    fn look_at_failed(&mut self, job: &Job, pod: &'a Arc<Pod>) {
        let rule = policy(job, pod);
        let action = rule.as_ref().map_or("Count", |(_, rule)| &*rule.action);
        if action == "FailJob" && self.policy_failure.is_none() {
            self.policy_failure = rule.as_ref().map(|(at, rule)| policy_message(pod, *at, rule));
        }
        if let (Some(i), Some(limit)) = (index_of(job, pod), job.spec.backoff_limit_per_index)
            && (action == "FailIndex" || (action != "Ignore" && failures_before(pod).0 >= limit))
        {
            self.failed_indexes.insert(i);
        }
        self.fresh.push(pod);
    }

    /// Picks the pods that have to stay until their index has a new one.
    fn hold(&mut self, job: &Job) {
        let ending = ["SuccessCriteriaMet", "FailureTarget"];
        if job.spec.backoff_limit_per_index.is_none()
            || job.meta.deleting.is_some()
            || ending.iter().any(|c| conditions::is_true(&job.status.conditions, c))
        {
            return;
        }
        let busy: BTreeSet<i32> = self.active.iter().filter_map(|p| index_of(job, p)).collect();
        for pod in self.fresh.iter().copied() {
            let Some(i) = index_of(job, pod) else { continue };
            let over = [&busy, &self.completed_indexes, &self.failed_indexes].iter().any(|set| set.contains(&i));
            let later = self.held.get(&i).is_none_or(|other| ended_at(other) < ended_at(pod));
            if !over && later {
                self.held.insert(i, pod);
            }
        }
    }

    /// Notes the failed pods that need not stay.
    fn note(&mut self, job: &Job) {
        let mut waiting = 0;
        for pod in std::mem::take(&mut self.fresh) {
            let counts = is_counted(job, pod) && !self.uncounted_failed.contains(&pod.meta.uid);
            let stays = self.held.values().any(|h| h.meta.uid == pod.meta.uid);
            let full = self.uncounted_failed.len() + self.uncounted_succeeded.len() >= UNCOUNTED_MAX;
            if stays || (full && counts) {
                waiting += i32::from(counts);
                continue;
            }
            if counts {
                self.uncounted_failed.insert(pod.meta.uid.clone());
            }
            self.release.push(pod);
        }
        self.failed_total = self.failed + self.uncounted_failed.len() as i32 + waiting;
        self.release.truncate(UNCOUNTED_MAX);
    }

    pub fn succeeded_total(&self) -> i32 {
        self.succeeded + self.uncounted_succeeded.len() as i32
    }

    pub fn is_flushed(&self) -> bool {
        self.uncounted_succeeded.is_empty()
            && self.uncounted_failed.is_empty()
            && self.release.is_empty()
            && self.held.is_empty()
    }
}

/// The pod's completion index, when the Job has one of that number.
pub fn index_of(job: &Job, pod: &Pod) -> Option<i32> {
    let text = pod.meta.annotations.get(INDEX)?;
    text.parse().ok().filter(|i| (0..job.spec.completions.unwrap_or(0)).contains(i))
}

/// (failures that count, failures that a policy ignores) of the pods that this one stands for, without its own.
fn failures_before(pod: &Pod) -> (i32, i32) {
    let number = |name| pod.meta.annotations.get(name).and_then(|n: &str| n.parse().ok()).unwrap_or(0);
    (number(INDEX_FAILURES), number(INDEX_IGNORED))
}

/// The same, its own included.
pub fn failures_of(job: &Job, pod: &Pod) -> (i32, i32) {
    let (counted, ignored) = failures_before(pod);
    match is_counted(job, pod) {
        true => (counted.saturating_add(1), ignored),
        false => (counted, ignored.saturating_add(1)),
    }
}

fn is_counted(job: &Job, pod: &Pod) -> bool {
    policy(job, pod).is_none_or(|(_, rule)| &*rule.action != "Ignore")
}

/// Whether a pod has failed, or is on its way out and counts as failed.
pub fn has_failed(job: &Job, pod: &Pod) -> bool {
    matches!(fate(job, pod), Fate::Failed)
}

/// When a pod ended, by its board's clock.
fn ended_at(pod: &Pod) -> Timestamp {
    let grace = pod.meta.deletion_grace_s.unwrap_or(0).max(0);
    let asked = pod.meta.deleting.map(|t| after(t, -grace));
    pod.status.finished.or(asked).or(pod.status.ready_since).unwrap_or(pod.meta.created_at())
}

/// The same, for the wait before the next pod. A board's clock may be years ahead: an end that is still to come is not
/// believed, and the hub's own time of the pod's creation counts instead. That is still to come, too, where the hub's
/// clock was set back: then nobody waits.
pub fn ended_before(pod: &Pod, now: Timestamp) -> Timestamp {
    let times = [ended_at(pod), pod.meta.created_at()];
    times.into_iter().find(|t| *t <= now).unwrap_or(Timestamp::UNIX_EPOCH)
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
