//! Why a Job does not end, and why a CronJob does not run.
//!
//! In: the object, its pods or Jobs, the time. Out: what it waits for, and when it runs next.
//! Never: a run of its own.

use super::{Answer, ago, workload::describe};
use crate::{
    ObjectStore, Timestamp,
    control::cron::Schedule,
    nodes::{offline::OFFLINE_SINCE, schedules},
    schedule::Config,
    view::{CronJob, Job, Meta, Pod, conditions},
};
use jiff::tz::TimeZone;
use limpet_objects::time::rfc3339;
use std::sync::Arc;

pub fn job(view: &ObjectStore, config: &Config, job: &Job, now: Timestamp) -> Answer {
    let mut answer = Answer::about("job", &job.meta);
    let status = &job.status;
    let wanted = job.spec.completions.unwrap_or(1);
    let (succeeded, failed, active) = (status.succeeded, status.failed, status.active);
    answer.because(format!("{succeeded} of {wanted} runs succeeded, {failed} failed, {active} are at work"));
    let pods: Vec<&Arc<Pod>> = view.controlled_by::<Pod>(&job.meta.uid).collect();
    let failed = conditions::find(&status.conditions, "Failed").filter(|c| &*c.status == "True");
    let unfinished: Vec<&Arc<Pod>> = pods.iter().copied().filter(|p| !p.is_finished() || failed.is_some()).collect();
    describe(view, config, &unfinished, now, &mut answer);
    if let Some(condition) = failed {
        let Meta { namespace, name, .. } = &job.meta;
        answer.advise(format!("kubectl logs -n {namespace} job/{name}"));
        return answer.verdict(format!("it has failed: {} {}", condition.reason, condition.message));
    }
    if conditions::is_true(&status.conditions, "Complete") {
        return answer.verdict("nothing is wrong: it has done its work");
    }
    if let Some(other) = job.spec.managed_by.as_deref().filter(|m| *m != "kubernetes.io/job-controller") {
        return answer.verdict(format!("it is left to {other}, which spec.managedBy names"));
    }
    if job.spec.suspend {
        let Meta { namespace, name, .. } = &job.meta;
        answer.advise(format!("kubectl patch -n {namespace} job {name} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'"));
        return answer.verdict("it is suspended: spec.suspend is true");
    }
    let begun = status.start_time.map(|t| format!(" for {}", ago(t, now))).unwrap_or_default();
    answer.verdict(format!("it is at work{begun}"))
}

pub fn cron_job(view: &ObjectStore, cron: &CronJob, now: Timestamp) -> Answer {
    let mut answer = Answer::about("cronjob", &cron.meta);
    let zone_name = cron.spec.time_zone.as_deref().unwrap_or("UTC");
    let Ok(zone) = TimeZone::get(zone_name) else {
        return answer.verdict(format!("it never runs: {zone_name:?} is not a time zone that is known"));
    };
    let Some(schedule) = Schedule::parse(&cron.spec.schedule) else {
        return answer.verdict(format!("it never runs: {:?} is not a schedule", cron.spec.schedule));
    };
    match cron.status.last_schedule_time {
        Some(last) => answer.because(format!("it ran last {} ago, at {}", ago(last, now), rfc3339(last))),
        None => answer.because("it has not run yet"),
    }
    if let Some(ended) = cron.status.last_successful_time {
        answer.because(format!("a run succeeded last {} ago", ago(ended, now)));
    }
    let running: Vec<String> = cron.status.active.iter().map(|j| j.name.to_string()).collect();
    if !running.is_empty() {
        answer.because(format!("at work: {}", running.join(", ")));
    }
    for failed in view.controlled_by::<Job>(&cron.meta.uid) {
        let failure = conditions::find(&failed.status.conditions, "Failed").filter(|c| &*c.status == "True");
        if let Some(c) = failure {
            answer.because(format!("Job {} failed: {} {}", failed.meta.name, c.reason, c.message));
            answer.advise(format!("limpet why -n {} job/{}", failed.meta.namespace, failed.meta.name));
        }
    }
    if let Some(node) = schedules::node_of(view, cron) {
        let name = &node.meta.name;
        match node.meta.annotations.get(OFFLINE_SINCE) {
            Some(since) => {
                answer.because(format!("it is bound to board {name}, which is away since {since} and fires it by itself"));
            }
            None => answer.because(format!("it is bound to board {name}, which fires it by itself while the hub is away")),
        }
    }
    if cron.spec.suspend {
        let Meta { namespace, name, .. } = &cron.meta;
        let patch = r#"'{"spec":{"suspend":false}}'"#;
        answer.advise(format!("kubectl patch -n {namespace} cronjob {name} --type=merge -p {patch}"));
        return answer.verdict("it is suspended: spec.suspend is true");
    }
    if &*cron.spec.concurrency_policy == "Forbid" && !running.is_empty() {
        answer.because("concurrencyPolicy Forbid: no other run begins before that one ends");
    }
    let Some(next) = schedule.next(now, &zone) else {
        return answer.verdict(format!("it never runs again: {:?} names no time to come", cron.spec.schedule));
    };
    answer.verdict(format!("it runs next at {} ({:?}, {zone_name})", rfc3339(next), cron.spec.schedule))
}
