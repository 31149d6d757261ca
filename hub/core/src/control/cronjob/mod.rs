//! Makes the Jobs of a CronJob when they are due.
//!
//! In: one CronJob and its Jobs. Out: the Job of the last time that is due, Jobs of the past to delete, the status.
//! A Job's name is made of its time, so that one time has one Job.
//! Semantics: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/
//! Never: catches up on more than the last missed time.

use super::{
    Controller,
    common::{is_terminating, optional_time, owner_reference, owners_of, set_status, time},
    cron::Schedule,
};
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    nodes::schedules,
    view::{CronJob, Job, Kind, Node, conditions, conditions::rfc3339},
};
use jiff::{SignedDuration, tz::TimeZone};
use serde_json::{Value, json};
use std::{cmp::Reverse, sync::Arc};

const NAME: &str = "cronjob-controller";
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missed times of which only the last is made up for with a warning.
const MISSED_MANY: i64 = 100;

#[derive(Debug)]
pub struct CronJobController;

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[CronJob::RESOURCE, Job::RESOURCE, Node::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<CronJob>() {
            return vec![changed.key.clone()];
        }
        if changed.is::<Node>() {
            return of_node(view, changed);
        }
        owners_of::<CronJob>(view, changed, |c| (&c.meta, None))
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let plan = Plan::default();
        let Some(cron) = view.get::<CronJob>(&key.namespace, &key.name) else { return plan };
        if cron.meta.deleting.is_some() || is_terminating(view, &key.namespace) {
            return plan;
        }
        let jobs: Vec<&Arc<Job>> =
            view.controlled_by::<Job>(&cron.meta.uid).filter(|j| j.meta.namespace == key.namespace).collect();
        let mut step = Step { view, cron, jobs, now, plan, last: cron.status.last_schedule_time };
        step.sweep();
        if !cron.spec.suspend {
            step.schedule();
        }
        step.tell_of_strangers();
        step.status();
        step.plan
    }

    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let cron = view.get::<CronJob>(&key.namespace, &key.name);
        if let (Some(cron), Change::Create { .. }) = (cron, change) {
            let message = format!("Error creating job: {error}");
            plan.event(Regarding::of(&**cron), EventType::Warning, "FailedCreate", message, NAME);
        }
        plan
    }
}

/// CronJobs that are bound to a node which came or went: while it is away, unfinished Jobs do not hold them back.
fn of_node(view: &ObjectStore, changed: &Changed) -> Vec<Key> {
    let ready = |n: Option<&Arc<Node>>| n.map(|n| n.status.ready());
    if ready(changed.old_as::<Node>()) == ready(changed.new_as::<Node>()) {
        return vec![];
    }
    let bound = schedules::of_node(view, &changed.key.name);
    bound.map(|c| Key::new(CronJob::RESOURCE, &c.meta.namespace, &c.meta.name)).collect()
}

struct Step<'a> {
    view: &'a ObjectStore,
    cron: &'a CronJob,
    jobs: Vec<&'a Arc<Job>>,
    now: Timestamp,
    plan: Plan,
    /// `status.lastScheduleTime` as it is to be.
    last: Option<Timestamp>,
}

fn end_of(job: &Job) -> Option<&'static str> {
    let ends = |t: &'static str| conditions::is_true(&job.status.conditions, t).then_some(t);
    ends("Complete").or(ends("Failed"))
}

impl Step<'_> {
    /// Says which Jobs ended, and deletes those beyond the limits of history.
    fn sweep(&mut self) {
        let about = Regarding::of(self.cron);
        for missing in &self.cron.status.active {
            if !self.jobs.iter().any(|j| j.meta.uid == missing.uid) {
                let message = format!("Active job went missing: {}", missing.name);
                self.plan.event(about.clone(), EventType::Normal, "MissingJob", message, NAME);
            }
        }
        for job in &self.jobs {
            let listed = self.cron.status.active.iter().any(|a| a.uid == job.meta.uid);
            if let Some(end) = end_of(job).filter(|_| listed) {
                let message = format!("Saw completed job: {}, condition: {end}", job.meta.name);
                self.plan.event(about.clone(), EventType::Normal, "SawCompletedJob", message, NAME);
            }
        }
        let limits = [
            ("Complete", self.cron.spec.successful_jobs_history_limit.unwrap_or(3)),
            ("Failed", self.cron.spec.failed_jobs_history_limit.unwrap_or(1)),
        ];
        for (end, limit) in limits {
            let mut ended: Vec<_> = self.jobs.iter().filter(|j| end_of(j) == Some(end)).collect();
            ended.sort_by_key(|j| Reverse((j.status.start_time, j.meta.name.clone())));
            for job in ended.into_iter().skip(limit.max(0) as usize).filter(|j| j.meta.deleting.is_none()) {
                self.plan.delete(Job::RESOURCE, &job.meta);
                let message = format!("Deleted job {}", job.meta.name);
                self.plan.event(about.clone(), EventType::Normal, "SuccessfulDelete", message, NAME);
            }
        }
    }

    fn zone(&self) -> Option<TimeZone> {
        match &self.cron.spec.time_zone {
            None => Some(TimeZone::UTC),
            Some(name) => TimeZone::get(name).ok(),
        }
    }

    /// Whether this controller made a Job, or took it over; somebody may have made one by hand (`kubectl create job --from`).
    fn is_own(&self, job: &Job) -> bool {
        let listed = self.cron.status.active.iter().any(|a| a.uid == job.meta.uid);
        let digits = job.meta.name.strip_prefix(&*self.cron.meta.name).and_then(|n| n.strip_prefix('-'));
        let of_a_time = digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
        listed || (of_a_time && job.meta.annotations.contains_key(SCHEDULED_AT))
    }

    /// Jobs that run and count.
    fn active(&self) -> impl Iterator<Item = &'_ Arc<Job>> {
        self.jobs.iter().copied().filter(|j| end_of(j).is_none() && self.is_own(j))
    }

    fn tell_of_strangers(&mut self) {
        let strangers = self.jobs.iter().filter(|j| end_of(j).is_none() && !self.is_own(j));
        for job in strangers.copied().collect::<Vec<_>>() {
            let name = &job.meta.name;
            let message = format!("Saw a job that the controller did not create or forgot: {name}");
            self.warn("UnexpectedJob", message);
        }
    }

    fn warn(&mut self, reason: &str, message: String) {
        self.plan.event(Regarding::of(self.cron), EventType::Warning, reason, message, NAME);
    }

    fn say(&mut self, reason: &str, message: String) {
        self.plan.event(Regarding::of(self.cron), EventType::Normal, reason, message, NAME);
    }

    fn schedule(&mut self) {
        let Some(zone) = self.zone() else {
            let zone = self.cron.spec.time_zone.as_deref().unwrap_or_default();
            return self.warn("UnknownTimeZone", format!("invalid timeZone: {zone:?}: unknown time zone {zone}"));
        };
        let Some(schedule) = Schedule::parse(&self.cron.spec.schedule) else {
            let message = format!("unparseable schedule: {:?} : five fields or @every, @hourly and the like are \
                expected", self.cron.spec.schedule);
            return self.warn("UnparseableSchedule", message);
        };
        if let Some(next) = schedule.next(self.now, &zone) {
            self.plan.wake_at(next);
        }
        let Some((due, missed)) = self.due(&schedule, &zone) else { return };
        let name = format!("{}-{}", self.cron.meta.name, due.as_second() / 60);
        if let Some(job) = self.view.get::<Job>(&self.cron.meta.namespace, &name) {
            // Somebody else's Job of that name: whoever made it answers for it.
            if job.meta.controlled_by(&self.cron.meta.uid) {
                self.last = self.last.max(Some(due));
            }
            return;
        }
        if !self.makes_room() {
            return;
        }
        if missed > MISSED_MANY {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", message.into());
        }
        self.last = Some(due);
        self.plan.create(Job::RESOURCE, &self.cron.meta.namespace, self.job(&name, due, &zone));
        self.say("SuccessfulCreate", format!("Created job {name}"));
    }

    /// Does what the concurrency policy says about Jobs that still run. False: the new one has to wait.
    fn makes_room(&mut self) -> bool {
        let bound = schedules::node_of(self.view, self.cron);
        // Nobody knows what runs on a node that is away: it keeps to the policy itself.
        let away = bound.is_some_and(|n| !n.status.ready());
        let active: Vec<Arc<Job>> = self.active().filter(|_| !away).cloned().collect();
        match &*self.cron.spec.concurrency_policy {
            "Forbid" if !active.is_empty() => {
                let why =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.plan.because("JobAlreadyActive", why);
                self.say("JobAlreadyActive", why.into());
                false
            }
            "Replace" => {
                for job in active.iter().filter(|j| j.meta.deleting.is_none()) {
                    self.plan.delete(Job::RESOURCE, &job.meta);
                    self.say("SuccessfulDelete", format!("Deleted job {}", job.meta.name));
                }
                true
            }
            _ => true,
        }
    }

    /// The newest time that is due and neither done nor too long ago, and how many were missed, itself included.
    fn due(&mut self, schedule: &Schedule, zone: &TimeZone) -> Option<(Timestamp, i64)> {
        let done = self.last.unwrap_or(self.cron.meta.created_at());
        let mut earliest = done;
        if let Some(deadline) = self.cron.spec.starting_deadline_seconds {
            let from = self.now.checked_sub(SignedDuration::from_secs(deadline.max(0))).ok()?;
            earliest = earliest.max(from);
        }
        let Some(newest) = self.newest(schedule, zone, earliest) else {
            if let Some(missed) = self.newest(schedule, zone, done).filter(|_| earliest > done) {
                let at = missed.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string();
                self.warn("MissSchedule", format!("Missed scheduled time to start a job: {at}"));
            }
            return None;
        };
        let first = schedule.next(earliest, zone)?;
        let second = schedule.next(first, zone).unwrap_or(self.now);
        let between = (second.as_second() - first.as_second()).max(1);
        Some((newest, (self.now.as_second() - first.as_second()) / between + 1))
    }

    /// The newest time after `earliest` that is due. Looks back in growing windows, so that a long absence costs little.
    fn newest(&self, schedule: &Schedule, zone: &TimeZone, earliest: Timestamp) -> Option<Timestamp> {
        let mut window = SignedDuration::from_mins(1);
        let mut newest = loop {
            let from = self.now.checked_sub(window).ok().filter(|t| *t > earliest).unwrap_or(earliest);
            match schedule.next(from, zone).filter(|t| *t <= self.now) {
                Some(t) => break t,
                None if from == earliest => return None,
                None => window = window.saturating_mul(2),
            }
        };
        while let Some(t) = schedule.next(newest, zone).filter(|t| *t <= self.now) {
            newest = t;
        }
        Some(newest)
    }

    fn job(&self, name: &str, due: Timestamp, zone: &TimeZone) -> Value {
        let template = &self.cron.spec.job_template;
        let local = due.to_zoned(zone.clone());
        let stamp = match self.cron.spec.time_zone {
            Some(_) => local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            None => rfc3339(due),
        };
        let mut annotations = template.metadata.annotations.to_value();
        annotations[SCHEDULED_AT] = json!(stamp);
        if schedules::node_of(self.view, self.cron).is_some() {
            annotations[schedules::RUN] = json!(schedules::run(self.cron, due));
        }
        let mut job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": self.cron.meta.namespace, "annotations": annotations,
                "ownerReferences": [owner_reference(self.cron)]},
            "spec": self.cron.field("/spec/jobTemplate/spec"),
        });
        if !template.metadata.labels.is_empty() {
            job["metadata"]["labels"] = template.metadata.labels.to_value();
        }
        job
    }

    fn status(&mut self) {
        let refer = |j: &Arc<Job>| {
            json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": j.meta.namespace, "name": j.meta.name,
                "uid": j.meta.uid})
        };
        let active: Vec<Value> = self.active().map(refer).collect();
        let ends = self
            .jobs
            .iter()
            .filter(|j| end_of(j) == Some("Complete"))
            .filter_map(|j| j.status.completion_time);
        let success = ends.max().max(self.cron.status.last_successful_time);
        let status = json!({
            "active": if active.is_empty() { Value::Null } else { json!(active) },
            "lastScheduleTime": self.last.map_or(Value::Null, time),
            "lastSuccessfulTime": optional_time(success),
        });
        set_status(&mut self.plan, self.cron, status);
    }
}

#[cfg(test)]
mod tests;
