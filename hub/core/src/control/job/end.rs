//! When a Job is over, and what happens then.
//!
//! In: a `Step`. Out: the conditions SuccessCriteriaMet, Complete, FailureTarget, Failed; deletion after its time.
//! Never: calls a Job over while a pod of it runs or is not counted.

use super::{Step, TRACKING, indexes};
use crate::{
    EventType, Plan, Propagation, Timestamp,
    control::common::{after, finalizers_without},
    view::{Condition, Job, Kind, Phase, Pod, conditions},
};
use std::sync::Arc;

const BACKOFF_LIMIT_DEFAULT: i32 = 6;

/// The condition that says that a Job is over.
pub fn finished(job: &Job) -> Option<&Condition> {
    job.status.conditions.iter().find(|c| ["Complete", "Failed"].contains(&&*c.type_) && &*c.status == "True")
}

/// Lets the pods of a finished Job go and deletes the Job itself when its time has come.
pub fn after_finish(job: &Job, pods: &[&Arc<Pod>], now: Timestamp, plan: &mut Plan) {
    for pod in pods.iter().filter(|p| p.meta.has_finalizer(TRACKING)) {
        plan.patch_exact(Pod::RESOURCE, &pod.meta, None, finalizers_without(&pod.meta, TRACKING));
    }
    delete_in_time(job, now, plan);
}

/// Deletes a finished Job when its time has come, whoever manages it.
pub fn delete_in_time(job: &Job, now: Timestamp, plan: &mut Plan) {
    let (Some(ttl), Some(end)) = (job.spec.ttl_seconds_after_finished, finished(job)) else { return };
    if job.meta.deleting.is_some() {
        return;
    }
    let due = after(end.since.unwrap_or(now), ttl.max(0));
    if due > now {
        return plan.wake_at(due);
    }
    plan.because("TtlOver", format!("finished {ttl} seconds ago"));
    plan.delete_with(Job::RESOURCE, &job.meta, None, Some(Propagation::Foreground));
}

impl Step<'_> {
    /// Sets FailureTarget or SuccessCriteriaMet when their time has come.
    pub(super) fn look_for_the_end(&mut self) {
        if self.has("FailureTarget") || self.has("SuccessCriteriaMet") {
            return;
        }
        if let Some((reason, message)) = self.failure() {
            self.set(Condition::new("FailureTarget", true, reason, message, self.now));
        } else if let Some(at) = self.success_rule() {
            let message = format!("Matched rules at index {at}");
            self.set(Condition::new("SuccessCriteriaMet", true, "SuccessPolicy", message, self.now));
        } else if self.has_succeeded() {
            let message = "Reached expected number of succeeded pods";
            self.set(Condition::new("SuccessCriteriaMet", true, "CompletionsReached", message, self.now));
        }
    }

    fn set(&mut self, condition: Condition) {
        conditions::set(&mut self.conditions, condition);
    }

    fn failure(&mut self) -> Option<(&'static str, String)> {
        if let Some(message) = self.tally.policy_failure.take() {
            return Some(("PodFailurePolicy", message));
        }
        let spec = &self.job.spec;
        let limit = spec.backoff_limit.unwrap_or(if spec.backoff_limit_per_index.is_some() {
            i32::MAX
        } else {
            BACKOFF_LIMIT_DEFAULT
        });
        if self.tally.failed_total > limit || self.restarts_exceed(limit) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
        }
        if self.deadline().is_some_and(|t| t <= self.now) {
            return Some(("DeadlineExceeded", "Job was active longer than specified deadline".into()));
        }
        self.index_failure()
    }

    fn index_failure(&self) -> Option<(&'static str, String)> {
        let failed = self.tally.failed_indexes.len() as i32;
        self.job.spec.backoff_limit_per_index?;
        if self.job.spec.max_failed_indexes.is_some_and(|max| failed > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", message.into()));
        }
        let all = self.job.spec.completions.unwrap_or(0);
        let over = failed > 0 && failed + self.tally.completed_indexes.len() as i32 >= all;
        over.then(|| ("FailedIndexes", "Job has failed indexes".into()))
    }

    /// With restartPolicy OnFailure the kubelet's restarts count.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let running = self.tally.active.iter().filter(|p| &*p.spec.restart_policy == "OnFailure");
        let counted = running.filter(|p| matches!(p.status.phase, Phase::Running | Phase::Pending));
        let restarts = counted.map(|p| p.status.restarts).fold(0_i32, i32::saturating_add);
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    /// When `activeDeadlineSeconds` are over.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.job.spec.active_deadline_seconds.filter(|_| !self.job.spec.suspend)?;
        Some(after(self.job.status.start_time?, seconds))
    }

    /// The first rule of the success policy that is met.
    fn success_rule(&self) -> Option<usize> {
        let policy = self.job.spec.success_policy.as_ref().filter(|_| self.is_indexed())?;
        let completions = self.job.spec.completions.unwrap_or(0);
        let done = &self.tally.completed_indexes;
        policy.rules.iter().position(|rule| {
            let wanted = rule.succeeded_indexes.as_ref().map(|text| indexes::parse(text, completions));
            let reached = match &wanted {
                Some(wanted) => wanted.intersection(done).count(),
                None => done.len(),
            };
            match (rule.succeeded_count, &wanted) {
                (Some(count), _) => reached as i32 >= count,
                (None, Some(wanted)) => !wanted.is_empty() && reached == wanted.len(),
                (None, None) => false,
            }
        })
    }

    fn has_succeeded(&self) -> bool {
        let done = self.tally.succeeded_total();
        match self.job.spec.completions {
            None => done > 0 && self.tally.active.is_empty(),
            Some(n) => done >= n,
        }
    }

    /// Sets Failed or Complete when every pod has ended and is counted.
    pub(super) fn finish_when_quiet(&mut self) {
        let quiet =
            self.tally.active.is_empty() && self.tally.terminating.is_empty() && self.tally.is_flushed();
        let failing =
            conditions::find(&self.conditions, "FailureTarget").filter(|c| &*c.status == "True").cloned();
        let ending = conditions::find(&self.conditions, "SuccessCriteriaMet")
            .filter(|c| &*c.status == "True")
            .cloned();
        if !quiet {
            return;
        }
        if let Some(c) = failing {
            self.set(Condition::new("Failed", true, &c.reason, c.message.clone(), self.now));
            self.say(EventType::Warning, &c.reason, c.message.to_string());
        } else if let Some(c) = ending {
            if self.job.spec.completions.is_some_and(|n| self.tally.succeeded > n) {
                self.say(EventType::Warning, "TooManySucceededPods", "Too many succeeded pods");
            }
            self.set(Condition::new("Complete", true, &c.reason, c.message.clone(), self.now));
            self.say(EventType::Normal, "Completed", "Job completed");
        }
    }
}
