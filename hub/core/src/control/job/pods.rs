//! Which pods of a Job to create and delete.
//!
//! In: a `Step`. Out: pods, with index and finalizer; a time to come back to after failures.
//! Never: more active pods than `parallelism`.

use super::{INDEX, INDEX_FAILURES, Step, TRACKING, count::index_of};
use crate::{
    EventType, Timestamp,
    control::common::{after, finalizers_without, free_pod_name, owner_reference, pod_of_template},
    limits,
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
        let active = self.tally.active.len()
            + if self.replaces_failed_only() { self.tally.terminating.len() } else { 0 };
        if self.tally.active.len() > wanted {
            let mut ranked = self.tally.active.clone();
            ranked.sort_by_key(|p| {
                let begun = p.status.phase == Phase::Running;
                (p.node.is_some(), begun, p.status.ready, Reverse(p.meta.created_at()), p.meta.name.clone())
            });
            ranked.truncate(self.tally.active.len() - wanted);
            self.send_away(ranked);
        } else if active < wanted {
            match self.backoff().filter(|t| *t > self.now) {
                Some(later) => self.plan.wake_at(later),
                None => self.create(wanted - active),
            }
        }
    }

    fn replaces_failed_only(&self) -> bool {
        &*self.job.spec.pod_replacement_policy == "Failed"
    }

    /// How many pods should be active.
    fn wanted(&self) -> usize {
        let parallel = self.job.spec.parallelism.unwrap_or(1).max(0) as usize;
        let done = self.tally.succeeded_total();
        let Some(completions) = self.job.spec.completions else {
            return if done > 0 { parallel.min(self.tally.active.len()) } else { parallel };
        };
        let failed = self.tally.failed_indexes.len() as i32;
        parallel.min((completions - done - failed).max(0) as usize)
    }

    /// When the next pod may be made: 10 s after the first failure since the last success, doubling with each.
    fn backoff(&self) -> Option<Timestamp> {
        let end = |p: &Pod| {
            p.status.finished.or(p.meta.deleting).or(p.status.ready_since).unwrap_or(p.meta.created_at())
        };
        let ended = |phase: Phase| self.pods.iter().filter(move |p| p.status.phase == phase);
        let success = ended(Phase::Succeeded).map(|p| end(p)).max();
        let failures: Vec<Timestamp> =
            ended(Phase::Failed).map(|p| end(p)).filter(|t| success.is_none_or(|s| *t > s)).collect();
        let last = failures.iter().max()?;
        let doublings = (failures.len() as u32 - 1).min(10);
        Some(after(*last, (BACKOFF_S << doublings).min(BACKOFF_S_MAX)))
    }

    fn create(&mut self, missing: usize) {
        let missing = missing.min(limits::PODS_PER_STEP_MAX);
        let template = self.job.field("/spec/template");
        let mut serial = 0;
        let slots: Vec<Option<i32>> = if self.is_indexed() {
            self.free_indexes(missing).into_iter().map(Some).collect()
        } else {
            vec![None; missing]
        };
        for index in slots {
            let base = match index {
                Some(i) => format!("{}-{i}-", self.job.meta.name),
                None => format!("{}-", self.job.meta.name),
            };
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
        let none_yet = self.tally.failed_total() == 0 && self.tally.succeeded_total() == 0 && self.pods.is_empty();
        (none_yet && self.view.pod(&self.job.meta.namespace, run.0).is_none()).then_some(run)
    }

    fn free_indexes(&self, n: usize) -> Vec<i32> {
        let busy =
            self.tally.active.iter().chain(&self.tally.terminating).filter_map(|p| index_of(self.job, p));
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
            let failures = self.tally.index_failures.get(&index).copied().unwrap_or(0);
            pod["metadata"]["annotations"][INDEX_FAILURES] = json!(failures.to_string());
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

fn with_tracking(finalizers: &Value) -> Value {
    let mut list = finalizers.as_array().cloned().unwrap_or_default();
    list.push(json!(TRACKING));
    json!(list)
}
