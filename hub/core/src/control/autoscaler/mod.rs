//! Scales workloads by what their pods use (HorizontalPodAutoscaler v2).
//!
//! In: one autoscaler, the workload that it names, its pods, what is measured. Out: the workload's new number of replicas,
//! conditions in upstream's words, Events.
//! Semantics: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
//! What was recommended and done lately is kept in memory, as upstream does: it bounds the speed. A hub that starts anew takes
//! what a workload has for recommended.
//! Never: scales a workload that was scaled to zero, or beyond the bounds.

mod behavior;
mod count;
mod measure;
mod memory;

pub use measure::{Container, Figure, Metrics, NoMetrics, Usage};

use super::{Controller, common::{after, set_status}};
use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    view::{
        Condition, Deployment, HorizontalPodAutoscaler, Kind, Meta, Pod, ReplicaSet, ReplicationController, Selector,
        StatefulSet, conditions,
    },
};
use memory::Memories;
use serde_json::{Value, json};
use std::sync::Arc;

const NAME: &str = "horizontal-pod-autoscaler";
/// Seconds between two looks at the figures, as upstream.
const PERIOD_S: i64 = 15;

pub struct AutoscalerController {
    metrics: Arc<dyn Metrics>,
    memories: Memories,
}

impl std::fmt::Debug for AutoscalerController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AutoscalerController")
    }
}

impl AutoscalerController {
    pub fn new(metrics: Arc<dyn Metrics>) -> AutoscalerController {
        AutoscalerController { metrics, memories: Memories::default() }
    }
}

impl Controller for AutoscalerController {
    fn name(&self) -> &'static str {
        "horizontalpodautoscaler-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[HorizontalPodAutoscaler::RESOURCE]
    }

    fn keys_for(&self, _view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let old = changed.old.as_ref().map(|o| (o.meta().generation, o.meta().uid.clone()));
        let new = changed.new.as_ref().map(|o| (o.meta().generation, o.meta().uid.clone()));
        if let (None, Some(old)) = (&changed.new, &changed.old) {
            self.memories.forget(&old.meta().uid);
        }
        // Its own status does not wake it: the period does.
        if old == new && new.as_ref().is_some_and(|n| n.0 > 0) { vec![] } else { vec![changed.key.clone()] }
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(hpa) = view.get::<HorizontalPodAutoscaler>(&key.namespace, &key.name) else { return plan };
        if hpa.meta.deleting.is_some() {
            return plan;
        }
        plan.wake_at(after(now, PERIOD_S));
        let status = hpa.field("/status");
        let conditions = serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
        let spec = hpa.field("/spec");
        Step { view, hpa, spec, status, metrics: &*self.metrics, memories: &self.memories, conditions, now, plan }.run()
    }
}

/// What an autoscaler scales.
struct Target<'a> {
    resource: &'static str,
    meta: &'a Meta,
    wanted: i32,
    current: i32,
    selector: Option<&'a Selector>,
}

fn target<'a>(view: &'a ObjectStore, hpa: &HorizontalPodAutoscaler) -> Option<Target<'a>> {
    let (namespace, r) = (&*hpa.meta.namespace, &hpa.spec.scale_target_ref);
    let group = r.api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, &*r.kind) {
        ("apps", Deployment::KIND) => view.get::<Deployment>(namespace, &r.name).map(|d| Target {
            resource: Deployment::RESOURCE,
            meta: &d.meta,
            wanted: d.spec.replicas.unwrap_or(1),
            current: d.status.replicas,
            selector: d.spec.selector.as_ref(),
        }),
        ("apps", ReplicaSet::KIND) => view.get::<ReplicaSet>(namespace, &r.name).map(|s| Target {
            resource: ReplicaSet::RESOURCE,
            meta: &s.meta,
            wanted: s.spec.replicas.unwrap_or(1),
            current: s.status.replicas,
            selector: s.spec.selector.as_ref(),
        }),
        ("apps", StatefulSet::KIND) => view.get::<StatefulSet>(namespace, &r.name).map(|s| Target {
            resource: StatefulSet::RESOURCE,
            meta: &s.meta,
            wanted: s.spec.replicas.unwrap_or(1),
            current: s.field("/status/replicas").as_i64().unwrap_or(0) as i32,
            selector: s.spec.selector.as_ref(),
        }),
        ("", ReplicationController::KIND) => view.get::<ReplicationController>(namespace, &r.name).map(|c| Target {
            resource: ReplicationController::RESOURCE,
            meta: &c.meta,
            wanted: c.spec.0.replicas.unwrap_or(1),
            current: c.status.replicas,
            selector: c.spec.0.selector.as_ref(),
        }),
        _ => None,
    }
}

struct Step<'a> {
    view: &'a ObjectStore,
    hpa: &'a HorizontalPodAutoscaler,
    spec: Value,
    status: Value,
    metrics: &'a dyn Metrics,
    memories: &'a Memories,
    conditions: Vec<Condition>,
    now: Timestamp,
    plan: Plan,
}

/// The number that the figures ask for.
struct Proposal {
    replicas: i32,
    /// Name of the metric that asked for it.
    metric: String,
    statuses: Vec<Value>,
}

impl Step<'_> {
    fn run(mut self) -> Plan {
        let Some(target) = target(self.view, self.hpa) else {
            let r = &self.hpa.spec.scale_target_ref;
            let why = format!("{} \"{}\" not found", r.kind, r.name);
            let message = format!("the HPA controller was unable to get the target's current scale: {why}");
            self.event(EventType::Warning, "FailedGetScale", why);
            self.set("AbleToScale", false, "FailedGetScale", message);
            self.write(None, None, None);
            return self.plan;
        };
        let got = "the HPA controller was able to get the target's current scale";
        self.set("AbleToScale", true, "SucceededGetScale", got.into());
        self.memories.begin(&self.hpa.meta.uid, target.wanted, self.now);
        let desired = self.desired(&target);
        let (desired, why, statuses) = match desired {
            Ok(found) => found,
            Err(()) => {
                self.write(Some(target.current), None, None);
                return self.plan;
            }
        };
        let rescale = desired != target.wanted;
        if rescale {
            self.plan.patch(target.resource, target.meta, None, json!({"spec": {"replicas": desired}}));
            let message = format!("New size: {desired}; reason: {why}");
            self.event(EventType::Normal, "SuccessfulRescale", message);
            let message = format!("the HPA controller was able to update the target scale to {desired}");
            self.set("AbleToScale", true, "SucceededRescale", message);
            self.memories.scaled(&self.hpa.meta.uid, desired - target.wanted, self.now);
        }
        self.write(Some(target.current), Some((desired, rescale)), statuses);
        self.plan.events_last()
    }

    /// (replicas, reason, current metrics); an error has been said already.
    #[allow(clippy::type_complexity)]
    fn desired(&mut self, target: &Target<'_>) -> Result<(i32, String, Option<Vec<Value>>), ()> {
        let least = self.spec["minReplicas"].as_i64().map_or(1, |n| n as i32);
        let most = self.spec["maxReplicas"].as_i64().map_or(1, |n| n as i32).max(least);
        let wanted = target.wanted;
        if wanted == 0 && least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.set("ScalingActive", false, "ScalingDisabled", message.into());
            return Ok((0, String::new(), Some(vec![])));
        }
        if wanted > most {
            return Ok((most, "Current number of replicas above Spec.MaxReplicas".into(), None));
        }
        if wanted < least {
            return Ok((least, "Current number of replicas below Spec.MinReplicas".into(), None));
        }
        let proposal = self.proposal(target)?;
        let reason = match proposal.replicas {
            n if n > wanted => format!("{} above target", proposal.metric),
            n if n < wanted => "All metrics below target".into(),
            _ => String::new(),
        };
        let limits = behavior::Limits { least, most, wanted };
        let settled = behavior::normalize(&self.spec["behavior"], limits, proposal.replicas, self.memory(wanted));
        let (status, reason_able, message) = settled.able;
        self.set("AbleToScale", status, reason_able, message.into());
        let (status, reason_limited, message) = settled.limited;
        self.set("ScalingLimited", status, reason_limited, message.into());
        Ok((settled.replicas, reason, Some(proposal.statuses)))
    }

    fn memory(&self, wanted: i32) -> behavior::Past<'_> {
        behavior::Past { memories: self.memories, uid: &self.hpa.meta.uid, now: self.now, wanted }
    }

    /// The largest number that any metric asks for. Metrics that cannot be read do not count, and forbid scaling down.
    fn proposal(&mut self, target: &Target<'_>) -> Result<Proposal, ()> {
        let Some(selector) = target.selector.filter(|s| !s.is_empty()) else {
            let message = "the HPA target's scale is missing a selector";
            self.event(EventType::Warning, "SelectorRequired", "selector is required".into());
            self.set("ScalingActive", false, "InvalidSelector", message.into());
            return Err(());
        };
        let pods: Vec<&Pod> = self.view.list::<Pod>(&self.hpa.meta.namespace).map(|p| &**p)
            .filter(|p| selector.matches(&p.meta.labels)).collect();
        let scene = measure::Scene {
            metrics: self.metrics, namespace: &self.hpa.meta.namespace, pods: &pods, now: self.now,
            wanted: target.wanted, current: target.current, tolerance: behavior::tolerances(&self.spec["behavior"]),
        };
        let specs = self.spec["metrics"].as_array().cloned().unwrap_or_default();
        let mut best: Option<(i32, String)> = None;
        let mut statuses = Vec::new();
        let mut problem: Option<(&'static str, String)> = None;
        for spec in &specs {
            match scene.one(spec) {
                Ok(found) => {
                    statuses.push(found.status);
                    if best.as_ref().is_none_or(|b| found.replicas > b.0) {
                        best = Some((found.replicas, found.name));
                    }
                }
                Err((reason, why)) => {
                    self.event(EventType::Warning, reason, why.clone());
                    problem.get_or_insert((reason, why));
                }
            }
        }
        match (best, problem) {
            (Some((replicas, metric)), problem) if problem.is_none() || replicas >= target.wanted => {
                let message = format!("the HPA was able to successfully calculate a replica count from {metric}");
                self.set("ScalingActive", true, "ValidMetricFound", message);
                Ok(Proposal { replicas, metric, statuses })
            }
            (_, Some((reason, why))) => {
                let message = format!("the HPA was unable to compute the replica count: {why}");
                self.set("ScalingActive", false, reason, message);
                let all = format!("invalid metrics (1 invalid out of {}), first error is: {why}", specs.len());
                self.event(EventType::Warning, "FailedComputeMetricsReplicas", all);
                Err(())
            }
            (_, None) => Err(()),
        }
    }

    fn set(&mut self, type_: &str, status: bool, reason: &str, message: String) {
        let mut new = Condition::new(type_, status, reason, message, self.now);
        let old = conditions::find(&self.conditions, type_);
        if let Some(old) = old.filter(|o| o.status == new.status) {
            new.since = old.since;
        }
        match self.conditions.iter_mut().find(|c| &*c.type_ == type_) {
            Some(slot) => *slot = new,
            None => self.conditions.push(new),
        }
    }

    /// Says it once for as long as it stays the same.
    fn event(&mut self, type_: EventType, reason: &str, message: String) {
        let told = self.conditions.iter().any(|c| &*c.reason == reason && c.message.contains(&message));
        if !told || type_ == EventType::Normal {
            self.plan.event(Regarding::of(self.hpa), type_, reason, message, NAME);
        }
    }

    fn write(&mut self, current: Option<i32>, desired: Option<(i32, bool)>, metrics: Option<Vec<Value>>) {
        let mut status = self.status.take();
        if !status.is_object() {
            status = json!({});
        }
        status["observedGeneration"] = json!(self.hpa.meta.generation);
        if let Some(current) = current {
            status["currentReplicas"] = json!(current);
        }
        match desired {
            Some((n, rescaled)) => {
                status["desiredReplicas"] = json!(n);
                if rescaled {
                    status["lastScaleTime"] = super::common::time(self.now);
                }
            }
            None if status["desiredReplicas"].is_null() => status["desiredReplicas"] = json!(0),
            None => {}
        }
        if let Some(metrics) = metrics {
            status["currentMetrics"] = if metrics.is_empty() { Value::Null } else { Value::Array(metrics) };
        }
        status["conditions"] = conditions::to_value(&self.conditions);
        set_status(&mut self.plan, self.hpa, status);
    }
}

#[cfg(test)]
mod tests;
