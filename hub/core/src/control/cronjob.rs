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
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    nodes::schedules,
    view::{CronJob, Job, Kind, Node, conditions, conditions::rfc3339},
};
use jiff::{SignedDuration, tz::TimeZone};
use serde_json::{Value, json};
use std::{cmp::Reverse, sync::Arc};

const NAME: &str = "cronjob-controller";
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

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
        let jobs: Vec<&Arc<Job>> = view.controlled_by::<Job>(&cron.meta.uid).collect();
        let mut step = Step { view, cron, jobs, now, plan, last: cron.status.last_schedule_time };
        step.sweep();
        if !cron.spec.suspend {
            step.schedule();
        }
        step.status();
        step.plan
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

    fn schedule(&mut self) {
        let (Some(schedule), Some(zone)) = (Schedule::parse(&self.cron.spec.schedule), self.zone()) else {
            return self.plan.because("Unparseable", "schedule or time zone cannot be understood");
        };
        if let Some(next) = schedule.next(self.now, &zone) {
            self.plan.wake_at(next);
        }
        let Some(due) = self.due(&schedule, &zone) else { return };
        let name = format!("{}-{}", self.cron.meta.name, due.as_second() / 60);
        if self.view.get::<Job>(&self.cron.meta.namespace, &name).is_some() {
            self.last = self.last.max(Some(due));
            return;
        }
        let bound = schedules::node_of(self.view, self.cron);
        // Nobody knows what runs on a node that is away: it keeps to the policy itself.
        let away = bound.is_some_and(|n| !n.status.ready());
        let unfinished = self.jobs.iter().copied().filter(|j| end_of(j).is_none() && !away);
        let active: Vec<&Arc<Job>> = unfinished.collect();
        match &*self.cron.spec.concurrency_policy {
            "Forbid" if !active.is_empty() => {
                let why =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.plan.because("JobAlreadyActive", why);
            }
            "Replace" => active.iter().filter(|j| j.meta.deleting.is_none()).for_each(|j| {
                self.plan.delete(Job::RESOURCE, &j.meta);
            }),
            _ => {}
        }
        self.last = Some(due);
        self.plan.create(Job::RESOURCE, &self.cron.meta.namespace, self.job(&name, due, &zone));
        let message = format!("Created job {name}");
        self.plan.event(Regarding::of(self.cron), EventType::Normal, "SuccessfulCreate", message, NAME);
    }

    /// The newest time that is due and neither done nor too long ago.
    fn due(&self, schedule: &Schedule, zone: &TimeZone) -> Option<Timestamp> {
        let mut earliest = self.last.unwrap_or(self.cron.meta.created_at());
        if let Some(deadline) = self.cron.spec.starting_deadline_seconds {
            let from = self.now.checked_sub(SignedDuration::from_secs(deadline.max(0))).ok()?;
            earliest = earliest.max(from);
        }
        // Looks back in growing windows, so that a long absence costs little.
        let mut window = SignedDuration::from_mins(1);
        let found = loop {
            let from = self.now.checked_sub(window).ok().filter(|t| *t > earliest).unwrap_or(earliest);
            match schedule.next(from, zone).filter(|t| *t <= self.now) {
                Some(t) => break t,
                None if from == earliest => return None,
                None => window = window.saturating_mul(2),
            }
        };
        let mut newest = found;
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
        let active = self.jobs.iter().filter(|j| end_of(j).is_none());
        let refer = |j: &&Arc<Job>| {
            json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": j.meta.namespace, "name": j.meta.name,
                "uid": j.meta.uid})
        };
        let active: Vec<Value> = active.map(refer).collect();
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
mod tests {
    use super::*;
    use crate::world::World;

    fn started(spec: Value) -> World {
        let mut w = World::with_nodes(1);
        let mut spec = spec;
        spec["schedule"] = json!("*/10 * * * *");
        spec["jobTemplate"] = json!({"metadata": {"labels": {"l": "1"}}, "spec": {"completions": 1, "template":
            {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}});
        w.create("batch/cronjobs", json!({"metadata": {"name": "c", "namespace": "a"}, "spec": spec}));
        w.settle();
        w
    }

    fn jobs(w: &World) -> Vec<String> {
        w.list("batch/jobs").iter().map(|j| j["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn one_job_a_time_and_a_short_history() {
        let mut w = started(json!({}));
        w.exit_codes = vec![("c-".into(), 0)];
        assert_eq!(jobs(&w).len(), 0);
        w.pass(600);
        // 2026-11-23T10:10:00Z in minutes.
        assert_eq!(jobs(&w), ["c-29923810"]);
        let job = &w.list("batch/jobs")[0]["metadata"];
        assert_eq!(job["annotations"][SCHEDULED_AT], "2026-11-23T10:10:00Z");
        assert_eq!(w.get("batch/cronjobs", "a", "c")["status"]["lastScheduleTime"], "2026-11-23T10:10:00Z");
        w.pass(3600);
        assert_eq!(jobs(&w).len(), 3);
        let status = &w.get("batch/cronjobs", "a", "c")["status"];
        assert_eq!(
            (&status["active"], &status["lastSuccessfulTime"]),
            (&Value::Null, &json!("2026-11-23T11:10:00Z"))
        );
    }

    #[test]
    fn policies_decide_about_running_jobs() {
        for (policy, expect) in [("Allow", 3), ("Forbid", 1), ("Replace", 1)] {
            let mut w = started(json!({"concurrencyPolicy": policy}));
            w.pass(1900);
            assert_eq!(jobs(&w).len(), expect, "{policy}");
            let newest = w.get("batch/cronjobs", "a", "c")["status"]["active"].as_array().unwrap().len();
            assert_eq!(newest, expect, "{policy}");
        }
    }

    #[test]
    fn only_the_last_missed_time_counts_and_not_after_the_deadline() {
        let mut w = started(json!({"suspend": true, "startingDeadlineSeconds": 200}));
        w.pass(6150);
        assert_eq!(jobs(&w).len(), 0);
        w.patch("batch/cronjobs", "a", "c", json!({"spec": {"suspend": false}}));
        w.settle();
        assert_eq!(jobs(&w).len(), 1, "the time 150 seconds ago");
        let mut w = started(json!({"suspend": true, "startingDeadlineSeconds": 100}));
        w.pass(6150);
        w.patch("batch/cronjobs", "a", "c", json!({"spec": {"suspend": false}}));
        w.settle();
        assert_eq!(jobs(&w).len(), 0);
    }

    #[test]
    fn a_run_on_one_node_has_the_identity_that_the_node_knows() {
        let mut w = World::with_nodes(2);
        w.kubelet = false;
        let spec = json!({"schedule": "*/10 * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": {"completions": 1,
            "template": {"spec": {"restartPolicy": "Never", "nodeSelector": {"kubernetes.io/hostname": "n1"},
                "containers": [{"name": "c"}]}}}}});
        w.create("batch/cronjobs", json!({"metadata": {"name": "c", "namespace": "a"}, "spec": spec}));
        w.pass(600);
        let uid = w.get("batch/cronjobs", "a", "c")["metadata"]["uid"].as_str().unwrap().to_owned();
        let due: Timestamp = "2026-11-23T10:10:00Z".parse().unwrap();
        let run = limpet_protocol::schedule::Run::of(&uid, "c", due.as_second());
        assert_eq!(jobs(&w), [run.job]);
        let pod = w.get("/pods", "a", &run.pod);
        assert_eq!((&pod["metadata"]["uid"], &pod["spec"]["nodeName"]), (&json!(run.pod_uid), &json!("n1")));
        w.pass(1200);
        assert_eq!(jobs(&w).len(), 1, "the first still runs");
        // While the node is away it is not known what runs there: every time has its Job.
        let away = json!([{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]);
        w.patch("/nodes", "", "n1", json!({"status": {"conditions": away}}));
        w.pass(1200);
        assert_eq!(jobs(&w).len(), 4, "the last one missed at once, then each");
    }
}
