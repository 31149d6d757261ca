//! Which pods of a Job to create and delete.
//!
//! In: a `Step`. Out: pods, with index and finalizer; a time to come back to after failures.
//! Never: more active pods than `parallelism`.

use super::{
    INDEX, INDEX_FAILURES, INDEX_IGNORED, Step, TRACKING,
    count::{ended_before, failures_of, has_failed, index_of, replaces_failed_only},
};
use crate::{
    EventType, Timestamp,
    control::common::{after, finalizers_without, free_pod_name, owner_reference, pod_of_template},
    limits, names,
    nodes::schedules::RUN,
    view::{Kind, Phase, Pod},
};
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

/// First wait after a failed pod; doubles with each, as upstream.
const BACKOFF_S: i64 = 10;
const BACKOFF_S_MAX: i64 = 600;

impl<'a> Step<'a> {
    pub(super) fn manage(&mut self) {
        if self.has("FailureTarget") || self.has("SuccessCriteriaMet") {
            for pod in self.tally.active.clone() {
                self.delete(pod);
            }
            return;
        }
        if self.job.spec.suspend {
            let all = self.tally.active.clone();
            return self.send_away(all);
        }
        let wanted = self.wanted();
        let going = if replaces_failed_only(self.job) { self.tally.terminating.len() } else { 0 };
        let there = self.tally.active.len() + going;
        let surplus = self.surplus(self.tally.active.len().saturating_sub(wanted));
        if !surplus.is_empty() {
            self.send_away(surplus);
        } else if there < wanted {
            match self.backoff().filter(|t| *t > self.now) {
                Some(later) => self.plan.wake_at(later),
                None => self.create(wanted - there),
            }
        }
    }

    /// How many pods should be active.
    fn wanted(&self) -> usize {
        let parallel = self.job.spec.parallelism.unwrap_or(1).max(0) as usize;
        let done = self.tally.succeeded_total();
        let Some(completions) = self.job.spec.completions else {
            return if done > 0 { self.tally.active.len() } else { parallel };
        };
        let failed = self.tally.failed_indexes.len() as i32;
        parallel.min((completions - done - failed).max(0) as usize)
    }

    /// Pods to delete: those whose index does not exist or is done by another, and then the least advanced ones.
    fn surplus(&self, at_least: usize) -> Vec<&'a Arc<Pod>> {
        let mut ranked = self.tally.active.clone();
        ranked.sort_by_key(|p| rank(p));
        let mut out = Vec::new();
        if self.is_indexed() {
            // The most advanced pod of each index stays.
            let mut seen = BTreeSet::new();
            let stays = |p: &&Arc<Pod>| index_of(self.job, p).is_some_and(|i| seen.insert(i));
            let (mut left, misplaced): (Vec<_>, Vec<_>) = ranked.into_iter().rev().partition(stays);
            left.reverse();
            (ranked, out) = (left, misplaced);
        }
        let more = at_least.saturating_sub(out.len());
        out.extend(ranked.into_iter().take(more));
        out.truncate(limits::PODS_PER_STEP_MAX);
        out
    }

    /// When the next pod may be made: 10 s after the first failure since the last success, doubling with each. Where
    /// every index has its own limit it has its own wait, too.
    fn backoff(&self) -> Option<Timestamp> {
        if self.job.spec.backoff_limit_per_index.is_some() {
            return None;
        }
        let succeeded = self.pods.iter().filter(|p| p.status.phase == Phase::Succeeded);
        let success = succeeded.map(|p| ended_before(p, self.now)).max();
        let failed = self.pods.iter().filter(|p| has_failed(self.job, p)).map(|p| ended_before(p, self.now));
        let failures: Vec<Timestamp> = failed.filter(|t| success.is_none_or(|s| *t > s)).collect();
        let last = failures.iter().max()?;
        Some(after(*last, wait(failures.len() as i32)))
    }

    /// When the next pod of an index may be made.
    fn backoff_of(&self, index: i32) -> Option<Timestamp> {
        let pod = self.tally.held.get(&index)?;
        let (counted, ignored) = failures_of(self.job, pod);
        Some(after(ended_before(pod, self.now), wait(counted.saturating_add(ignored))))
    }

    /// Indexes that may have a pod now, at most `n`.
    fn due_indexes(&mut self, n: usize) -> Vec<i32> {
        let free = self.free_indexes(n);
        let (due, later): (Vec<i32>, Vec<i32>) =
            free.into_iter().partition(|i| self.backoff_of(*i).is_none_or(|t| t <= self.now));
        if let Some(t) = later.into_iter().filter_map(|i| self.backoff_of(i)).min() {
            self.plan.wake_at(t);
        }
        due
    }

    fn create(&mut self, missing: usize) {
        let missing = missing.min(limits::PODS_PER_STEP_MAX);
        let template = self.job.field("/spec/template");
        let mut serial = 0;
        let slots: Vec<Option<i32>> = if self.is_indexed() {
            self.due_indexes(missing).into_iter().map(Some).collect()
        } else {
            vec![None; missing]
        };
        for index in slots {
            let base = base_name(&self.job.meta.name, index);
            let run = self.first_run().filter(|_| serial == 0);
            let name = match &run {
                Some((name, _)) => (*name).to_owned(),
                None => free_pod_name(self.view, &self.job.meta.namespace, &base, self.seed, &mut serial),
            };
            let owner = owner_reference(self.job);
            let mut pod = pod_of_template(&template, &self.job.meta.namespace, &name, owner);
            pod["metadata"]["generateName"] = json!(base);
            pod["metadata"]["finalizers"] = with_tracking(&pod["metadata"]["finalizers"]);
            if let Some(i) = index {
                self.set_index(&mut pod, i);
            }
            if let Some((_, uid)) = run {
                pod["metadata"]["uid"] = json!(uid);
                serial += 1;
            }
            self.plan.create(Pod::RESOURCE, &self.job.meta.namespace, pod);
            self.say(EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
        }
    }

    /// Name and uid of the first pod, where its node knows them already: it may have started it while it was away.
    fn first_run(&self) -> Option<(&str, &str)> {
        let run = self.job.meta.annotations.get(RUN)?.split_once('/')?;
        let none_yet = self.tally.failed_total == 0 && self.tally.succeeded_total() == 0 && self.pods.is_empty();
        (none_yet && self.view.pod(&self.job.meta.namespace, run.0).is_none()).then_some(run)
    }

    fn free_indexes(&self, n: usize) -> Vec<i32> {
        let going: &[_] = if replaces_failed_only(self.job) { &self.tally.terminating } else { &[] };
        let busy = self.tally.active.iter().chain(going).filter_map(|p| index_of(self.job, p));
        let busy: BTreeSet<i32> = busy.collect();
        let free = |i: &i32| {
            !busy.contains(i)
                && !self.tally.completed_indexes.contains(i)
                && !self.tally.failed_indexes.contains(i)
        };
        (0..self.job.spec.completions.unwrap_or(0)).filter(free).take(n).collect()
    }

    fn set_index(&self, pod: &mut Value, index: i32) {
        let text = index.to_string();
        pod["metadata"]["annotations"][INDEX] = json!(text);
        pod["metadata"]["labels"][INDEX] = json!(text);
        if self.job.spec.backoff_limit_per_index.is_some() {
            let before = self.tally.held.get(&index).map(|p| failures_of(self.job, p));
            let (counted, ignored) = before.unwrap_or_default();
            pod["metadata"]["annotations"][INDEX_FAILURES] = json!(counted.to_string());
            if ignored > 0 {
                pod["metadata"]["annotations"][INDEX_IGNORED] = json!(ignored.to_string());
            }
        }
        if pod["spec"]["hostname"].as_str().unwrap_or("").is_empty() {
            pod["spec"]["hostname"] = json!(format!("{}-{index}", self.job.meta.name));
        }
        let field =
            json!({"fieldRef": {"apiVersion": "v1", "fieldPath": format!("metadata.labels['{INDEX}']")}});
        for list in ["initContainers", "containers"] {
            for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                let mut env = container["env"].as_array().cloned().unwrap_or_default();
                if !env.iter().any(|e| e["name"] == "JOB_COMPLETION_INDEX") {
                    env.push(json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": field}));
                    container["env"] = json!(env);
                }
            }
        }
    }

    fn delete(&mut self, pod: &Arc<Pod>) {
        self.plan.delete(Pod::RESOURCE, &pod.meta);
        self.say(EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.meta.name));
    }

    /// Deletes pods that are not to be counted.
    fn send_away(&mut self, pods: Vec<&'a Arc<Pod>>) {
        for pod in pods {
            if pod.meta.has_finalizer(TRACKING) {
                self.plan.patch_exact(
                    Pod::RESOURCE,
                    &pod.meta,
                    None,
                    finalizers_without(&pod.meta, TRACKING),
                );
            }
            self.delete(pod);
        }
    }
}

/// What a pod's name begins with; the index is never cut.
fn base_name(job: &str, index: Option<i32>) -> String {
    let tail = index.map_or("-".to_owned(), |i| format!("-{i}-"));
    let room = names::PREFIX_BYTES_MAX.saturating_sub(tail.len());
    format!("{}{tail}", &job[..job.len().min(room)])
}

/// Which pods are easiest to do without comes first, as upstream ranks them.
fn rank(pod: &Pod) -> impl Ord + use<> {
    let phase = match pod.status.phase {
        Phase::Pending => 0,
        Phase::Running => 2,
        _ => 1,
    };
    let ready = pod.status.ready.then(|| Reverse(pod.status.ready_since));
    (
        pod.node.is_some(),
        phase,
        ready,
        Reverse(pod.status.restarts_max),
        Reverse(pod.meta.created_at()),
        pod.meta.name.clone(),
    )
}

/// Seconds after so many failures.
fn wait(failures: i32) -> i64 {
    let doublings = failures.saturating_sub(1).clamp(0, 10);
    (BACKOFF_S << doublings).min(BACKOFF_S_MAX)
}

fn with_tracking(finalizers: &Value) -> Value {
    let mut list = finalizers.as_array().cloned().unwrap_or_default();
    if !list.iter().any(|f| f == TRACKING) {
        list.push(json!(TRACKING));
    }
    json!(list)
}
