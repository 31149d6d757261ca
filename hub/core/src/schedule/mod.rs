//! Which node a pod goes to, or why none will do.
//!
//! In: changes of the view, time, one pod at a time. Out: plans in kube-scheduler's words: bindings, reasons, and
//! pods that must make room. Semantics: https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/
//! Never: reads the clock; after a `Bind` the shell calls `ObjectStore::assume_bound` and lets `observe` see that.

mod config;
mod counts;
mod devices;
mod explain;
mod filter;
mod hints;
mod images;
mod place;
mod pods;
mod preempt;
mod queue;
mod reason;
mod room;
mod score;
mod spread;
mod tally;
mod terms;
mod topology;
mod volumes;
mod why_not;
mod wishes;

use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    view::{Kind, Node, Pod, conditions::rfc3339},
};
pub use config::{Config, Profile, SCHEDULER_NAME, Strategy, StrategyKind};
use counts::Counts;
use devices::Commitment;
pub use explain::{NodeAnswer, explain};
use filter::Rules;
use images::Images;
pub use place::Placement;
use place::{Circumstances, key_of};
use preempt::Preemption;
pub use queue::Waiting;
use queue::{Nominations, Queue};
pub use reason::{Plugin, Plugins, Reason};
use serde_json::{Value, json};
use std::sync::Arc;
pub use volumes::claims_of;
pub use why_not::WhyNot;

pub(crate) use filter::{affinity_matches, untolerated};

const GATED: &str = "Scheduling is blocked due to non-empty scheduling gates";

/// The scheduler with what it remembers between pods; all of it can be rebuilt from the view.
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: Config,
    queue: Queue,
    counts: Counts,
    images: Images,
    nominations: Nominations,
    /// Node with which the next search begins.
    start: Box<str>,
    figures: Figures,
}

/// How attempts ended, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub scheduled: u64,
    pub unschedulable: u64,
    pub errors: u64,
    pub preemptions: u64,
    pub victims: u64,
}

/// What became of one attempt.
enum Verdict {
    Placed(Placement, Commitment),
    /// The node is chosen; its volumes must be bound first.
    Preparing(String, Vec<Change>),
    Hopeless(WhyNot),
    Preempts(WhyNot, Preemption),
}

impl Default for Scheduler {
    fn default() -> Scheduler {
        Scheduler::new(Config::default())
    }
}

impl Scheduler {
    pub fn new(config: Config) -> Scheduler {
        Scheduler {
            queue: Queue::new(config.backoff_first_s, config.backoff_max_s),
            config,
            counts: Counts::default(),
            images: Images::default(),
            nominations: Nominations::default(),
            start: Box::default(),
            figures: Figures::default(),
        }
    }

    /// Takes in one change; the view already holds it.
    pub fn observe(&mut self, view: &ObjectStore, changed: &Changed, now: Timestamp) {
        self.counts.observe(view, changed);
        self.images.observe(changed);
        let freed = changed.is::<Pod>() && self.observe_pod(changed, now);
        if !self.queue.any_stuck() {
            return;
        }
        let cures = if freed { hints::room() } else { hints::cures(changed) };
        if cures.is_empty() {
            return;
        }
        let node = changed.new_as::<Node>();
        let config = &self.config;
        self.queue.cure(now, |key, by| {
            by.meets(cures) && node.is_none_or(|node| could_take(view, config, node, key))
        });
    }

    /// Whether room that was kept for this pod is free now.
    fn observe_pod(&mut self, changed: &Changed, now: Timestamp) -> bool {
        let (old, new) = (changed.old_as::<Pod>(), changed.new_as::<Pod>());
        let key = &changed.key;
        match new.filter(|p| p.node.is_none() && self.is_ours(p)) {
            None => {
                self.queue.remove(key);
                self.nominations.set(key, None)
            }
            Some(pod) => {
                if old.is_some_and(|o| o.meta.uid != pod.meta.uid) {
                    self.queue.remove(key);
                }
                let again = old.is_none_or(|o| {
                    o.meta.uid != pod.meta.uid || o.spec != pod.spec || o.meta.labels != pod.meta.labels
                        || o.node != pod.node || o.status.device_claims != pod.status.device_claims
                });
                self.queue.add(key, pod.spec.priority, pod.meta.created_at(), again, now);
                let before = old.and_then(|o| o.status.nominated_node.clone());
                before != pod.status.nominated_node
                    && self.nominations.set(key, pod.status.nominated_node.as_deref())
            }
        }
    }

    /// Forgets everything: the view was loaded anew, and `observe` follows for all that exists.
    pub fn reset(&mut self) {
        let (config, figures) = (self.config.clone(), self.figures);
        *self = Scheduler { figures, ..Scheduler::new(config) };
    }

    /// The next pod to decide on.
    pub fn next(&mut self, now: Timestamp) -> Option<Key> {
        self.queue.next(now)
    }

    /// When `next` may give something without any event; `None`: never.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.queue.wake_at()
    }

    /// The plan of this pod could not be carried out: it comes again after a pause.
    pub fn failed(&mut self, key: &Key, now: Timestamp) {
        self.figures.errors += 1;
        self.counts.devices.failed(key);
        self.queue.failed(key, now);
    }

    pub fn waiting(&self) -> Waiting {
        self.queue.waiting()
    }

    pub fn figures(&self) -> Figures {
        self.figures
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        pod.is_active() && self.config.profile(&pod.spec.scheduler_name).is_some()
    }

    /// The best node for a pod, or why there is none. Equal scores are broken by `seed`.
    pub fn decide(&mut self, view: &ObjectStore, pod: &Pod, seed: u64) -> Result<Placement, WhyNot> {
        match self.judge(view, pod, seed) {
            Verdict::Placed(placement, _) => Ok(placement),
            Verdict::Preparing(node, _) => Ok(Placement { node, feasible: 1, score: 0 }),
            Verdict::Hopeless(why) | Verdict::Preempts(why, _) => Err(why),
        }
    }

    fn judge(&mut self, view: &ObjectStore, pod: &Pod, seed: u64) -> Verdict {
        let Scheduler { config, counts, images, nominations, start, .. } = self;
        let Some(profile) = config.profile(&pod.spec.scheduler_name) else {
            return Verdict::Hopeless(WhyNot::default());
        };
        counts.fill(view);
        let nodes = counts.topology.staying();
        if nodes == 0 {
            return Verdict::Hopeless(WhyNot::no_nodes());
        }
        let rules = match Rules::gather(view, profile, pod, counts) {
            Ok(rules) => rules,
            Err(reason) => return Verdict::Hopeless(WhyNot::whole(nodes, &reason)),
        };
        let around = Circumstances { images, nominations, percentage: config.percentage, nodes, start, seed };
        let objections = match place::place(&rules, around) {
            Ok(placement) => return prepared(view, &rules, placement, seed),
            Err(objections) => objections,
        };
        if !profile.preempts {
            return Verdict::Hopeless(WhyNot::of(&objections, None));
        }
        match preempt::preempt(&rules, nominations, &objections) {
            Ok(preemption) => Verdict::Preempts(WhyNot::of(&objections, None), preemption),
            Err(no) => Verdict::Hopeless(WhyNot::of(&objections, Some(&no))),
        }
    }

    /// `Bind` and its Event, or the condition and Event that say why not. Empty when the pod needs no scheduling or
    /// when nothing new is to be said.
    pub fn plan(&mut self, view: &ObjectStore, key: &Key, now: Timestamp, seed: u64) -> Plan {
        let mut plan = Plan::default();
        let pod = view.pod(&key.namespace, &key.name).filter(|p| p.node.is_none() && self.is_ours(p));
        let Some(pod) = pod.cloned() else {
            self.queue.remove(key);
            return plan;
        };
        if !pod.spec.scheduling_gates.is_empty() {
            self.queue.rejected(key, [Plugin::SchedulingGates].into_iter().collect(), now);
            say_unscheduled(&pod, "SchedulingGated", GATED, Promise::Stays, now, &mut plan);
            return plan;
        }
        match self.judge(view, &pod, seed) {
            Verdict::Placed(placement, first) => {
                self.figures.scheduled += 1;
                first.assume(key, &mut self.counts.devices);
                first.changes.into_iter().for_each(|c| plan.push(c));
                bind(&pod, &placement.node, &mut plan);
            }
            Verdict::Preparing(node, changes) => {
                self.nominations.set(key, Some(&node));
                self.queue.rejected(key, [Plugin::VolumeBinding].into_iter().collect(), now);
                plan.because("Volumes", format!("waits for its volumes on node {node}"));
                changes.into_iter().for_each(|c| plan.push(c));
            }
            Verdict::Hopeless(why) => {
                self.figures.unschedulable += 1;
                // A promise that cannot be kept any more would only keep others out.
                let promise = if why.waits_for_victims { Promise::Stays } else { Promise::None };
                if promise == Promise::None && self.nominations.set(key, None) {
                    self.queue.cure(now, |_, by| by.meets(hints::room()));
                }
                self.queue.rejected(key, why.by, now);
                say_why_not(&pod, &why, promise, now, &mut plan);
            }
            Verdict::Preempts(why, preemption) => {
                self.figures.unschedulable += 1;
                self.figures.preemptions += 1;
                self.figures.victims += preemption.victims.len() as u64;
                self.make_room(view, &pod, &preemption, now, &mut plan);
                self.queue.rejected(key, why.by, now);
                say_why_not(&pod, &why, Promise::Node(&preemption.node.meta.name), now, &mut plan);
            }
        }
        plan
    }

    fn make_room(&mut self, view: &ObjectStore, pod: &Pod, p: &Preemption, now: Timestamp, plan: &mut Plan) {
        let node = &p.node.meta.name;
        for victim in p.victims.iter().filter(|v| v.meta.deleting.is_none()) {
            let by = format!("{}: preempting to accommodate a higher priority pod", scheduler_of(pod));
            plan.patch_exact(Pod::RESOURCE, &victim.meta, Some("status"), disrupted(victim, &by, now));
            plan.delete_with(Pod::RESOURCE, &victim.meta, None, None);
            let message = format!("Preempted by pod {} on node {node}", pod.meta.uid);
            plan.event(Regarding::of(&**victim), EventType::Normal, "Preempted", message, SCHEDULER_NAME);
        }
        // Whoever was promised this room and matters less must look again.
        let less: Vec<Key> = self.nominations.on(node).cloned().collect();
        for key in less {
            let other = view.pod(&key.namespace, &key.name).filter(|o| o.spec.priority < pod.spec.priority);
            if let Some(other) = other {
                self.nominations.set(&key, None);
                if other.status.nominated_node.is_some() {
                    let none = json!({"status": {"nominatedNodeName": null}});
                    plan.patch(Pod::RESOURCE, &other.meta, Some("status"), none);
                }
            }
        }
        self.nominations.set(&key_of(pod), Some(node));
        plan.because("Preempts", format!("{} pods leave node {node}", p.victims.len()));
    }
}

/// Whether a node as such would do for a waiting pod.
fn could_take(view: &ObjectStore, config: &Config, node: &Node, key: &Key) -> bool {
    let Some(pod) = view.pod(&key.namespace, &key.name) else { return true };
    let Some(profile) = config.profile(&pod.spec.scheduler_name) else { return false };
    filter::against_itself(node, pod, profile).is_none()
}

/// What must be written before the binding.
fn prepared(view: &ObjectStore, rules: &Rules<'_>, placement: Placement, seed: u64) -> Verdict {
    let Some(node) = view.node(&placement.node) else { return Verdict::Placed(placement, Commitment::default()) };
    if rules.volumes.waits() {
        return Verdict::Preparing(placement.node, rules.volumes.to_bind(node));
    }
    let devices = rules.devices.commitment(rules.pod, node, seed);
    Verdict::Placed(placement, devices)
}

fn scheduler_of(pod: &Pod) -> &str {
    if pod.spec.scheduler_name.is_empty() { SCHEDULER_NAME } else { &pod.spec.scheduler_name }
}

fn bind(pod: &Arc<Pod>, node: &str, plan: &mut Plan) {
    let meta = &pod.meta;
    plan.push(Change::Bind {
        namespace: meta.namespace.to_string(),
        name: meta.name.to_string(),
        uid: meta.uid.to_string(),
        node: node.into(),
    });
    let message = format!("Successfully assigned {}/{} to {node}", meta.namespace, meta.name);
    plan.event(Regarding::of(&**pod), EventType::Normal, "Scheduled", message, SCHEDULER_NAME);
}

/// What becomes of `status.nominatedNodeName`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise<'a> {
    Stays,
    None,
    Node(&'a str),
}

impl Promise<'_> {
    /// The new value, where there is one to write.
    fn news(self, pod: &Pod) -> Option<Value> {
        let now = pod.status.nominated_node.as_deref();
        match self {
            Promise::Stays => None,
            Promise::None => now.map(|_| Value::Null),
            Promise::Node(node) => (now != Some(node)).then(|| json!(node)),
        }
    }
}

fn say_why_not(pod: &Arc<Pod>, why: &WhyNot, promise: Promise<'_>, now: Timestamp, plan: &mut Plan) {
    if say_unscheduled(pod, "Unschedulable", &why.message, promise, now, plan) {
        let (about, message) = (Regarding::of(&**pod), why.message.clone());
        plan.event(about, EventType::Warning, "FailedScheduling", message, SCHEDULER_NAME);
    }
    plan.because("Unschedulable", why.message.clone());
}

/// Sets condition PodScheduled to False; whether that says anything new.
fn say_unscheduled(
    pod: &Pod,
    reason: &str,
    message: &str,
    promise: Promise<'_>,
    now: Timestamp,
    plan: &mut Plan,
) -> bool {
    let promise = promise.news(pod);
    if pod.status.unscheduled.as_deref() == Some(message) && promise.is_none() {
        return false;
    }
    let mut list = pod.field("/status/conditions").as_array().cloned().unwrap_or_default();
    let at = list.iter().position(|c| c["type"] == "PodScheduled");
    let since = at
        .and_then(|i| list.get(i))
        .filter(|c| c["status"] == "False")
        .map(|c| c["lastTransitionTime"].clone());
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "lastTransitionTime": since.filter(|s| !s.is_null()).unwrap_or_else(|| json!(rfc3339(now)))});
    match at {
        Some(i) => list[i] = condition,
        None => list.push(condition),
    }
    let mut status: Value = json!({"conditions": list});
    if let Some(node) = promise {
        status["nominatedNodeName"] = node;
    }
    plan.patch_exact(Pod::RESOURCE, &pod.meta, Some("status"), json!({"status": status}));
    true
}

fn disrupted(victim: &Pod, message: &str, now: Timestamp) -> Value {
    let mut list = victim.field("/status/conditions").as_array().cloned().unwrap_or_default();
    list.retain(|c| c["type"] != "DisruptionTarget");
    list.push(json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": message, "lastTransitionTime": rfc3339(now)}));
    json!({"status": {"conditions": list}})
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod remembers;
#[cfg(test)]
mod tests;
