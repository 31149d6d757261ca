//! CronJobs whose pods can only run on one node: that node follows their schedule itself while the hub is away.
//!
//! In: CronJobs and nodes of the view. Out: which node a CronJob is bound to, and what that node is told: the schedule as bit
//! sets with the offsets of its time zone, the pod template.
//! Never: a CronJob with several pods a run; those need the hub (see docs/decisions on CronJobs offline).

use crate::{
    ObjectStore,
    control::cron,
    view::{CronJob, Node, Object, Pod},
};
use jiff::{Timestamp, tz::TimeZone};
use limpet_protocol::schedule::{Offset, Run, Schedule};
use serde_json::{Value, json};
use std::sync::Arc;

const HOSTNAME: &str = "kubernetes.io/hostname";
/// Clock changes that are told ahead: a dozen years.
const OFFSETS_MAX: usize = 24;
/// Annotation of a Job of such a CronJob: name and uid of its first pod, which the node knows beforehand.
pub const RUN: &str = "limpet.dev/run";

/// The one node on which the pods of a CronJob can run, by nodeName or by its host name.
pub fn node_of<'a>(view: &'a ObjectStore, cron: &CronJob) -> Option<&'a Arc<Node>> {
    let spec = &cron.spec.job_template.spec;
    let alone = spec.completions.unwrap_or(1) <= 1 && spec.parallelism.unwrap_or(1) <= 1 && spec.suspend != Some(true);
    if !alone || &*spec.completion_mode == "Indexed" {
        return None;
    }
    let pod = &spec.template.spec;
    if !pod.node_name.is_empty() {
        return view.node(&pod.node_name);
    }
    let host = pod.node_selector.get(HOSTNAME)?;
    let named = |n: &Node| n.meta.labels.get(HOSTNAME) == Some(host);
    view.node(host).filter(|n| named(n)).or_else(|| view.all::<Node>().find(|n| named(n)))
}

/// CronJobs that a node follows.
pub fn of_node<'a>(view: &'a ObjectStore, node: &'a str) -> impl Iterator<Item = &'a Arc<CronJob>> {
    view.all::<CronJob>().filter(move |c| {
        let follows = !c.spec.suspend && c.meta.deleting.is_none();
        follows && node_of(view, c).is_some_and(|n| *n.meta.name == *node)
    })
}

/// What the node is told; `None` when the schedule cannot be told in this form (`@every`).
pub fn body(cron: &CronJob) -> Option<Vec<u8>> {
    let zone = match &cron.spec.time_zone {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name).ok()?,
    };
    let cron::Schedule::Fields { minute, hour, day, month, weekday, any_day, any_weekday } =
        cron::Schedule::parse(&cron.spec.schedule)?
    else {
        return None;
    };
    let offsets = offsets(&zone, cron.meta.created_at());
    let schedule = Schedule { minute, hour, day, month, weekday, any_day, any_weekday, offsets };
    let mut template = cron.field("/spec/jobTemplate/spec/template");
    if template.is_object() {
        template["spec"]["nodeSelector"] = Value::Null;
        crate::canonical::strip_nulls(&mut template);
    }
    let body = json!({
        "uid": cron.meta.uid,
        "schedule": schedule,
        "deadlineSeconds": cron.spec.starting_deadline_seconds,
        "policy": cron.spec.concurrency_policy,
        "template": template,
    });
    serde_json::to_vec(&body).ok()
}

fn offsets(zone: &TimeZone, from: Timestamp) -> Vec<Offset> {
    let first = Offset { from_s: from.as_second(), ahead_s: zone.to_offset(from).seconds() };
    let later = zone.following(from).take(OFFSETS_MAX);
    let later = later.map(|t| Offset { from_s: t.timestamp().as_second(), ahead_s: t.offset().seconds() });
    std::iter::once(first).chain(later).collect()
}

/// The template as a pod, for what it references.
pub fn pod(cron: &CronJob) -> Option<Arc<Pod>> {
    let mut pod = cron.field("/spec/jobTemplate/spec/template");
    pod["metadata"]["namespace"] = json!(cron.meta.namespace);
    pod["metadata"]["name"] = json!(cron.meta.name);
    match Object::parse("/pods", serde_json::to_vec(&pod).ok()?.into())? {
        Object::Pod(pod) => Some(pod),
        _ => None,
    }
}

/// The value of `RUN` for the run that is due at a time.
pub fn run(cron: &CronJob, due: Timestamp) -> String {
    let run = Run::of(&cron.meta.uid, &cron.meta.name, due.as_second());
    format!("{}/{}", run.pod, run.pod_uid)
}
