//! Status of a Deployment: counts and the conditions Available, Progressing, ReplicaFailure.
//!
//! In: a `Step`. Out: one status patch, when something changed, and when to look again.
//! Never: restarts the progress deadline without progress.

use super::Step;
use crate::{
    Timestamp,
    control::common::{count, set_status},
    view::{Condition, conditions},
};
use jiff::SignedDuration;
use serde_json::json;

const NO_DEADLINE: i32 = i32::MAX;
const PROGRESSING: &str = "Progressing";

struct Counts {
    replicas: i32,
    updated: i32,
    ready: i32,
    available: i32,
    terminating: i32,
}

impl Step<'_> {
    pub(super) fn has_deadline(&self) -> bool {
        self.d.spec.progress_deadline_seconds.is_some_and(|s| s != NO_DEADLINE)
    }

    fn counts(&self) -> Counts {
        let sum = |f: fn(&crate::view::ReplicaSetStatus) -> i32| self.all().map(|rs| f(&rs.status)).sum();
        Counts {
            replicas: sum(|s| s.replicas),
            updated: self.new.map_or(0, |rs| rs.status.replicas),
            ready: sum(|s| s.ready_replicas),
            available: sum(|s| s.available_replicas),
            terminating: sum(|s| s.terminating_replicas.unwrap_or(0)),
        }
    }

    /// All pods are of the current template and available, and the spec was seen.
    pub(super) fn is_complete(&self) -> bool {
        let c = self.counts();
        let n = self.replicas();
        c.updated == n && c.replicas == n && c.available == n
    }

    /// Says that a rollout is paused or goes on. True: the step ends here.
    pub(super) fn pause_condition(&mut self) -> bool {
        if !self.has_deadline() {
            return false;
        }
        let reason = conditions::find(&self.d.status.conditions, PROGRESSING).map(|c| &*c.reason);
        if reason == Some("ProgressDeadlineExceeded") {
            return false;
        }
        let (reason, message) = match (self.d.spec.paused, reason == Some("DeploymentPaused")) {
            (true, false) => ("DeploymentPaused", "Deployment is paused"),
            (false, true) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return false,
        };
        let mut list = self.d.status.conditions.to_vec();
        let mut c = Condition::new(PROGRESSING, false, reason, message, self.now);
        c.status = "Unknown".into();
        c.updated = Some(self.now);
        conditions::set(&mut list, c);
        let mut status = self.d.field("/status");
        status["conditions"] = conditions::to_value(&list);
        set_status(&mut self.plan, self.d, status);
        true
    }

    pub(super) fn sync_status(&mut self) {
        let counts = self.counts();
        let mut list = self.d.status.conditions.to_vec();
        self.set_available(&counts, &mut list);
        if !self.d.spec.paused && self.d.meta.deleting.is_none() {
            self.set_progressing(&counts, &mut list);
        }
        self.set_failure(&mut list);
        let status = json!({
            "observedGeneration": self.d.meta.generation,
            "replicas": count(counts.replicas),
            "updatedReplicas": count(counts.updated),
            "readyReplicas": count(counts.ready),
            "availableReplicas": count(counts.available),
            "unavailableReplicas": count((counts.replicas - counts.available).max(0)),
            "terminatingReplicas": counts.terminating,
            "collisionCount": self.d.status.collision_count,
            "conditions": conditions::to_value(&list),
        });
        set_status(&mut self.plan, self.d, status);
        self.wake_for_deadline(&list);
    }

    fn set_available(&self, counts: &Counts, list: &mut Vec<Condition>) {
        let (_, unavailable) = self.fence();
        let enough = counts.available >= self.replicas() - unavailable;
        let (reason, message) = if enough {
            ("MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        let mut c = Condition::new("Available", enough, reason, message, self.now);
        c.updated = Some(self.now);
        conditions::set(list, c);
    }

    fn set_progressing(&self, counts: &Counts, list: &mut Vec<Condition>) {
        if !self.has_deadline() {
            return conditions::remove(list, PROGRESSING);
        }
        let current = conditions::find(list, PROGRESSING).cloned();
        let settled = counts.replicas == counts.updated
            && current.as_ref().is_some_and(|c| &*c.reason == "NewReplicaSetAvailable");
        if settled {
            return;
        }
        let who = match self.new {
            Some(rs) => format!("ReplicaSet \"{}\"", rs.meta.name),
            None => format!("Deployment \"{}\"", self.d.meta.name),
        };
        let (ok, reason, end) = if self.is_complete() {
            (true, "NewReplicaSetAvailable", "has successfully progressed.")
        } else if self.progressed(counts) {
            conditions::remove(list, PROGRESSING);
            (true, "ReplicaSetUpdated", "is progressing.")
        } else if current.as_ref().is_some_and(|c| self.timed_out(c)) {
            (false, "ProgressDeadlineExceeded", "has timed out progressing.")
        } else {
            return self.found(current.as_ref(), list);
        };
        let mut c = Condition::new(PROGRESSING, ok, reason, format!("{who} {end}"), self.now);
        c.updated = Some(self.now);
        if let Some(before) = current.filter(|b| b.status == c.status) {
            c.since = before.since;
        }
        conditions::set(list, c);
    }

    /// A rollout to an existing ReplicaSet that has no condition yet.
    fn found(&self, current: Option<&Condition>, list: &mut Vec<Condition>) {
        if let (None, Some(rs)) = (current, self.new) {
            let message = format!("Found new replica set \"{}\"", rs.meta.name);
            let mut c = Condition::new(PROGRESSING, true, "FoundNewReplicaSet", message, self.now);
            c.updated = Some(self.now);
            conditions::set(list, c);
        }
    }

    fn progressed(&self, new: &Counts) -> bool {
        let old = &self.d.status;
        new.updated > old.updated_replicas
            || new.replicas - new.updated < old.replicas - old.updated_replicas
            || new.ready > old.ready_replicas
            || new.available > old.available_replicas
    }

    fn deadline(&self, c: &Condition) -> Option<Timestamp> {
        let seconds = i64::from(self.d.spec.progress_deadline_seconds?);
        c.updated.or(c.since)?.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    fn timed_out(&self, c: &Condition) -> bool {
        match &*c.reason {
            "NewReplicaSetAvailable" => false,
            "ProgressDeadlineExceeded" => true,
            _ => self.deadline(c).is_some_and(|t| t <= self.now),
        }
    }

    fn set_failure(&self, list: &mut Vec<Condition>) {
        let failing = self.new.into_iter().chain(self.old.iter().copied());
        let failure =
            failing.filter_map(|rs| conditions::find(&rs.status.conditions, "ReplicaFailure")).next();
        match failure {
            Some(f) => {
                let ok = &*f.status == "True";
                let mut c = Condition::new("ReplicaFailure", ok, &f.reason, f.message.clone(), self.now);
                c.updated = Some(self.now);
                conditions::set(list, c);
            }
            None => conditions::remove(list, "ReplicaFailure"),
        }
    }

    fn wake_for_deadline(&mut self, list: &[Condition]) {
        let waiting = conditions::find(list, PROGRESSING)
            .filter(|c| !["NewReplicaSetAvailable", "ProgressDeadlineExceeded"].contains(&&*c.reason));
        if self.has_deadline()
            && !self.d.spec.paused
            && self.d.meta.deleting.is_none()
            && let Some(t) = waiting.and_then(|c| self.deadline(c))
        {
            self.plan.wake_at(t.max(self.now));
        }
    }
}
