//! Status of a Job.
//!
//! In: a `Step` at its end. Out: one status patch; Suspended condition; when to look again.
//! Never: a start time for a Job that is suspended.

use super::{Step, end, indexes};
use crate::{
    EventType,
    control::common::{count, optional_time, set_status},
    view::{Condition, conditions},
};
use serde_json::{Value, json};

/// A Job's conditions also say when they were looked at: when they were made.
fn probed(list: &[Condition]) -> Value {
    let mut list = conditions::to_value(list);
    for condition in list.as_array_mut().into_iter().flatten() {
        condition["lastProbeTime"] = condition["lastTransitionTime"].clone();
    }
    list
}

impl Step<'_> {
    pub(super) fn status(&mut self) {
        let start = self.start_time();
        let t = &self.tally;
        let list = |uids: &std::collections::BTreeSet<Box<str>>| match uids.is_empty() {
            true => Value::Null,
            false => json!(uids),
        };
        let text = |set| match indexes::print(set) {
            s if s.is_empty() => Value::Null,
            s => json!(s),
        };
        let complete = conditions::is_true(&self.conditions, "Complete");
        let ended = complete || conditions::is_true(&self.conditions, "Failed");
        let failed_indexes = if self.job.spec.backoff_limit_per_index.is_some() {
            json!(indexes::print(&t.failed_indexes))
        } else {
            Value::Null
        };
        let new = json!({
            "conditions": probed(&self.conditions),
            "startTime": optional_time(start),
            "completionTime": optional_time(complete.then_some(self.now)),
            "active": count(t.active.len() as i32),
            "ready": t.active.iter().filter(|p| p.status.ready).count(),
            "terminating": t.terminating.len(),
            "succeeded": count(t.succeeded),
            "failed": count(t.failed),
            "completedIndexes": text(&t.completed_indexes),
            "failedIndexes": failed_indexes,
            "uncountedTerminatedPods": {"succeeded": list(&t.uncounted_succeeded), "failed": list(&t.uncounted_failed)},
        });
        set_status(&mut self.plan, self.job, new);
        let (ending, deadline) = (ended || self.has("FailureTarget"), self.deadline());
        if let Some(t) = deadline.filter(|t| !ending && *t > self.now) {
            self.plan.wake_at(t);
        }
        debug_assert!(end::finished(self.job).is_none());
    }

    /// The start time as it is to be; says when the Job was suspended or resumed.
    fn start_time(&mut self) -> Option<crate::Timestamp> {
        let was = self.has("Suspended");
        if self.has("FailureTarget") || self.has("SuccessCriteriaMet") {
            return self.job.status.start_time.or((!self.job.spec.suspend).then_some(self.now));
        }
        if self.job.spec.suspend {
            if !was {
                let c = Condition::new("Suspended", true, "JobSuspended", "Job suspended", self.now);
                conditions::set(&mut self.conditions, c);
                self.say(EventType::Normal, "Suspended", "Job suspended");
            }
            return None;
        }
        if was {
            let c = Condition::new("Suspended", false, "JobResumed", "Job resumed", self.now);
            conditions::set(&mut self.conditions, c);
            self.say(EventType::Normal, "Resumed", "Job resumed");
            return Some(self.now);
        }
        Some(self.job.status.start_time.unwrap_or(self.now))
    }
}
