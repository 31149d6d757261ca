//! Starts the runs of CronJobs that are bound to this node when the hub cannot be asked.
//!
//! In: the schedules of the desired set, the time, whether the hub is there. Out: pods that are due, as items of the set, with
//! the names and uids that the hub gives the same runs (see `limpet_protocol::schedule`).
//! Never: starts what the hub may still start itself: it waits a moment, and leaves a time alone when the hub is there.
//! Never: makes up for a time at which the board was off; the hub does, once they meet.

use crate::{clock::Now, pods::PodManager, sync::Items};
use limpet_protocol::{
    Item, ItemKey, ItemKind,
    schedule::{Run, Schedule},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How long the hub's own pod is waited for.
const GRACE_S: i64 = 15;
/// The wall clock is looked at again at least so often: it may be set.
const LOOK_AGAIN_MS: u64 = 600_000;

/// What the hub tells of one CronJob.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ScheduleItem {
    pub uid: String,
    pub schedule: Schedule,
    /// A run that could not begin for so long is not made up for.
    pub deadline_seconds: Option<i64>,
    /// Allow, Forbid or Replace.
    pub policy: String,
    /// The pod template, with labels and annotations.
    pub template: Value,
}

/// What has been looked at, by schedule.
#[derive(Debug, Default)]
pub struct Schedules {
    /// Seconds since 1970 up to which every due time has been dealt with.
    done_until: BTreeMap<ItemKey, i64>,
    wake_at: Option<u64>,
}

/// A pod that is to be started, or a run of before that is to make room for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    Start(Item),
    Remove(ItemKey),
}

impl Schedules {
    /// When `look` is to be called again.
    pub fn wake_at(&self) -> Option<(u64, &'static str)> {
        self.wake_at.map(|at| (at, "a CronJob of this node may be due"))
    }

    /// Looks which runs are due. Call when the set changed, the hub came or went, and at `wake_at`.
    pub fn look(&mut self, now: Now, items: &Items, pods: &PodManager, hub_is_there: bool) -> Vec<Due> {
        let now_s = i64::try_from(now.wall_ms / 1000).unwrap_or(i64::MAX);
        let mut out = Vec::new();
        self.done_until.retain(|key, _| items.by_key(key).is_some());
        self.wake_at = None;
        for (key, held) in items.of(ItemKind::Schedule) {
            let Ok(item) = crate::api::parse::<ScheduleItem>(&held.body()) else { continue };
            let done = self.done_until.entry(key.clone()).or_insert(now_s);
            // A clock that was set back does not repeat anything; one set forward skips.
            let ready = now_s - GRACE_S;
            if let Some(due) = item.schedule.last(*done, ready) {
                *done = due;
                let late = item.deadline_seconds.is_some_and(|limit| now_s - due > limit.max(GRACE_S + 10));
                if !hub_is_there && !late {
                    start(key, &item, due, items, pods, &mut out);
                }
            }
            let next = item.schedule.next((*done).max(ready)).map(|due| due + GRACE_S);
            let wait_ms = next.map_or(LOOK_AGAIN_MS, |at| u64::try_from(at - now_s).unwrap_or(0) * 1000 + 500);
            let at = now.mono_ms + wait_ms.min(LOOK_AGAIN_MS);
            self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
        }
        out
    }
}

/// Images that runs to come need: between them no pod wants them, and offline they do not come back.
pub fn images(items: &Items) -> Vec<String> {
    let mut all = Vec::new();
    for (_, held) in items.of(ItemKind::Schedule) {
        let Ok(item) = crate::api::parse::<ScheduleItem>(&held.body()) else { continue };
        let spec = &item.template["spec"];
        let lists = [("initContainers", "/image"), ("containers", "/image"), ("volumes", "/image/reference")];
        for (list, place) in lists {
            let found = spec[list].as_array().into_iter().flatten().filter_map(|one| one.pointer(place)?.as_str());
            all.extend(found.map(String::from));
        }
    }
    all
}

fn start(key: &ItemKey, item: &ScheduleItem, due: i64, items: &Items, pods: &PodManager, out: &mut Vec<Due>) {
    let run = Run::of(&item.uid, &key.name, due);
    let pod = ItemKey::new(ItemKind::Pod, &key.namespace, &run.pod);
    if items.by_key(&pod).is_some() {
        return;
    }
    let before: Vec<String> = unfinished(key, item, pods);
    match item.policy.as_str() {
        "Forbid" if !before.is_empty() => return,
        "Replace" => {
            out.extend(before.into_iter().map(|name| Due::Remove(ItemKey::new(ItemKind::Pod, &key.namespace, &name))));
        }
        _ => {}
    }
    let body = serde_json::to_vec(&object(key, item, &run, due)).unwrap_or_default();
    out.push(Due::Start(Item { key: pod, generation: 0, body }));
}

/// Names of this schedule's pods that have not ended.
fn unfinished(key: &ItemKey, item: &ScheduleItem, pods: &PodManager) -> Vec<String> {
    let prefix = format!("{}-", key.name);
    let ours = |name: &str| {
        let minutes = name.strip_prefix(&prefix).and_then(|rest| rest.split('-').next());
        let due = minutes.and_then(|m| m.parse::<i64>().ok()).map(|m| m * 60);
        due.is_some_and(|due| Run::of(&item.uid, &key.name, due).pod == name)
    };
    let all = pods.pods().filter(|p| p.object.metadata.namespace == key.namespace && !pods.is_over(p.uid));
    all.map(|p| p.object.metadata.name.clone()).filter(|name| ours(name)).collect()
}

fn object(key: &ItemKey, item: &ScheduleItem, run: &Run, due: i64) -> Value {
    let meta = &item.template["metadata"];
    let mut labels = meta["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels["batch.kubernetes.io/job-name"] = json!(run.job);
    labels["job-name"] = json!(run.job);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": run.pod,
            "namespace": key.namespace,
            "uid": run.pod_uid,
            "labels": labels,
            "annotations": meta["annotations"],
            "creationTimestamp": crate::clock::rfc3339(u64::try_from(due).unwrap_or(0) * 1000),
        },
        "spec": item.template["spec"],
    })
}

#[cfg(test)]
mod tests;
