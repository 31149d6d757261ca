//! Runs one pod of a DaemonSet on every node that fits.
//!
//! In: one DaemonSet, its pods, all nodes. Out: pods to create and delete, rolling updates, history as
//! ControllerRevisions, status, Events.
//! Semantics: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
//! Never: places a pod itself: it is tied to its node by affinity and goes through the scheduler.

mod backoff;
mod fit;
mod rolling;
mod status;

use super::{
    Controller,
    common::{claim, free_pod_name, is_terminating, owner_reference, owners_of, pod_of_template},
    history::{self, HASH_LABEL},
};
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp, limits,
    view::{ControllerRevision, DaemonSet, Kind, Node, Object, Phase, Pod},
};
use backoff::BackOff;
#[cfg(test)]
pub(super) use fit::node_of;
use serde_json::Value;
use std::{cell::OnceCell, collections::BTreeMap, sync::Arc};

pub(super) const NAME: &str = "daemonset-controller";

/// The boards that a DaemonSet is meant for: those where its pod should run.
pub(super) fn boards<'a>(view: &'a ObjectStore, ds: &DaemonSet) -> Vec<&'a Arc<Node>> {
    let Some(probe) = probe(ds) else { return vec![] };
    view.all::<Node>().filter(|n| fit::fits(n, probe).0).collect()
}

/// A pod of the DaemonSet that is meant for no node, to see where it could run; its name and labels do not matter.
fn probe(ds: &DaemonSet) -> Option<&Arc<Pod>> {
    let make = || {
        let mut probe = pod_of_template(&ds.field("/spec/template"), &ds.meta.namespace, "probe", owner_reference(ds));
        fit::tie(&mut probe["spec"], "");
        match Object::parse(Pod::RESOURCE, probe.to_string().into_bytes().into()) {
            Some(Object::Pod(probe)) => Some(probe),
            _ => None,
        }
    };
    ds.spec.probe.get(make).as_ref()
}

#[derive(Default)]
pub struct DaemonSetController {
    back_off: BackOff,
}

impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[DaemonSet::RESOURCE, Pod::RESOURCE, Node::RESOURCE, ControllerRevision::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<DaemonSet>() {
            return vec![changed.key.clone()];
        }
        if changed.is::<Node>() {
            let (old, new) = (changed.old_as::<Node>(), changed.new_as::<Node>());
            let same = old.zip(new).is_some_and(|(o, n)| o.meta.labels == n.meta.labels && o.spec == n.spec);
            let key = |d: &Arc<DaemonSet>| Key::new(DaemonSet::RESOURCE, &d.meta.namespace, &d.meta.name);
            return view.all::<DaemonSet>().filter(|_| !same).map(key).collect();
        }
        owners_of::<DaemonSet>(view, changed, |d| (&d.meta, d.spec.selector.as_ref()))
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(ds) = view.get::<DaemonSet>(&key.namespace, &key.name) else { return plan };
        let Some(selector) = ds.spec.selector.as_ref().filter(|s| !s.is_empty()) else {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            plan.event(Regarding::of(&**ds), EventType::Warning, "SelectingAll", message, NAME);
            return plan;
        };
        let pods = claim::<Pod, _>(view, ds, selector, &mut plan, |p| &p.meta);
        if ds.meta.deleting.is_some() || is_terminating(view, &key.namespace) {
            return plan;
        }
        let owner = history::Owner::daemon_set(view, ds, selector, &mut plan);
        let Some(current) = history::current(view, &owner, &pods, &mut plan) else { return plan };
        let history::Current { name, hash, collisions } = current;
        let (template, nodes, back_off) = (OnceCell::new(), vec![], &self.back_off);
        let mut step =
            Step { view, ds, template, hash, collisions, now, seed, serial: 0, plan, nodes, surge: 0, back_off };
        step.look(&pods);
        let before = std::mem::take(&mut step.plan);
        step.manage();
        if before.is_empty() && step.plan.is_empty() {
            step.roll();
            history::clean_up(&owner, &pods, &[&name], &mut step.plan);
        }
        let work = std::mem::replace(&mut step.plan, before);
        // Before the work, so that it is true also when that is refused.
        step.status();
        step.plan.extend(work);
        step.plan.events_last()
    }

    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let ds = view.get::<DaemonSet>(&key.namespace, &key.name);
        if let (Some(ds), Change::Create { .. }) = (ds, change) {
            let message = format!("Error creating: {error}");
            plan.event(Regarding::of(&**ds), EventType::Warning, "FailedCreate", message, NAME);
        }
        plan
    }
}

/// One node and what the DaemonSet has on it.
struct Place<'a> {
    node: &'a Node,
    should_run: bool,
    should_stay: bool,
    /// Pods that are not going, oldest first.
    pods: Vec<&'a Arc<Pod>>,
    /// Pods that are going: nothing new until they are gone.
    going: bool,
}

struct Step<'a> {
    view: &'a ObjectStore,
    ds: &'a DaemonSet,
    /// Read when a pod is made of it.
    template: OnceCell<Value>,
    /// `controller-revision-hash` of the current template.
    hash: String,
    collisions: Option<i32>,
    now: Timestamp,
    seed: u64,
    serial: u64,
    plan: Plan,
    nodes: Vec<Place<'a>>,
    surge: i32,
    back_off: &'a BackOff,
}

impl<'a> Step<'a> {
    /// Sorts the pods by node and asks for every node whether the DaemonSet wants to be there.
    fn look(&mut self, pods: &[&'a Arc<Pod>]) {
        let mut by_node: BTreeMap<&str, (Vec<&'a Arc<Pod>>, bool)> = BTreeMap::new();
        for pod in pods.iter().copied() {
            let Some(node) = fit::node_of(pod) else { continue };
            if self.view.node(node).is_none() && pod.meta.deleting.is_none() {
                // One that was bound is the pod collector's.
                if pod.node.is_none() {
                    self.delete(pod);
                }
                continue;
            }
            let entry = by_node.entry(node).or_default();
            match pod.meta.deleting {
                Some(_) => entry.1 = true,
                None => entry.0.push(pod),
            }
        }
        let Some(probe) = probe(self.ds) else { return };
        for node in self.view.all::<Node>().filter(|n| n.meta.deleting.is_none()) {
            let (mut pods, going) = by_node.remove(&*node.meta.name).unwrap_or_default();
            let age = |p: &'a Arc<Pod>| (p.node.is_none(), p.meta.created_at(), &*p.meta.name);
            pods.sort_by(|a, b| age(a).cmp(&age(b)));
            let (should_run, should_stay) = fit::fits(node, probe);
            self.nodes.push(Place { node, should_run, should_stay, pods, going });
        }
        self.surge = self.surge_of(&self.nodes);
    }

    fn pod_for(&self, node: &str, name: &str) -> Value {
        let template = self.template.get_or_init(|| self.ds.field("/spec/template"));
        let mut pod = pod_of_template(template, &self.ds.meta.namespace, name, owner_reference(self.ds));
        pod["metadata"]["labels"][HASH_LABEL] = Value::from(self.hash.as_str());
        if let Some(generation) = self.ds.meta.annotations.get("deprecated.daemonset.template.generation") {
            pod["metadata"]["labels"]["pod-template-generation"] = Value::from(generation);
        }
        fit::tie(&mut pod["spec"], node);
        pod
    }

    fn create_on(&mut self, node: &str) {
        let base = format!("{}-", self.ds.meta.name);
        let name = free_pod_name(self.view, &self.ds.meta.namespace, &base, self.seed, &mut self.serial);
        let mut pod = self.pod_for(node, &name);
        pod["metadata"]["generateName"] = Value::from(base);
        self.plan.create(Pod::RESOURCE, &self.ds.meta.namespace, pod);
        self.say("SuccessfulCreate", format!("Created pod: {name}"));
    }

    fn delete(&mut self, pod: &Pod) {
        self.plan.delete(Pod::RESOURCE, &pod.meta);
        self.say("SuccessfulDelete", format!("Deleted pod: {}", pod.meta.name));
    }

    fn say(&mut self, reason: &str, message: String) {
        self.plan.event(Regarding::of(self.ds), EventType::Normal, reason, message, NAME);
    }

    /// One pod where there should be one, none where there should be none, ended ones made anew.
    fn manage(&mut self) {
        let nodes = std::mem::take(&mut self.nodes);
        let mut budget = limits::PODS_PER_STEP_MAX;
        for place in &nodes {
            if budget == 0 {
                break;
            }
            let before = self.plan.changes.len();
            self.manage_one(place);
            budget -= usize::from(self.plan.changes.len() > before);
        }
        self.nodes = nodes;
    }

    fn manage_one(&mut self, place: &Place<'_>) {
        if !place.should_stay {
            place.pods.iter().for_each(|p| self.delete(p));
            return;
        }
        let (ended, live): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
            place.pods.iter().partition(|p| p.is_finished());
        for pod in &ended {
            self.clear_ended(pod, &place.node.meta.name);
        }
        // With a surge a new pod may stand beside one that is going.
        let free = if self.surge > 0 { live.is_empty() && ended.is_empty() } else { place.pods.is_empty() && !place.going };
        if place.should_run && free {
            self.create_on(&place.node.meta.name);
        }
        let extra =
            if self.surge > 0 { self.beyond_surge(&live) } else { live.into_iter().skip(1).collect() };
        extra.into_iter().for_each(|p| self.delete(p));
    }

    /// A pod that failed goes after a pause that grows with every failure on this node.
    fn clear_ended(&mut self, pod: &Pod, node: &str) {
        let at = format!("daemon pod {}/{} on node {node}", pod.meta.namespace, pod.meta.name);
        let (type_, reason, message) = match pod.status.phase {
            Phase::Failed => {
                if let Err(due) = self.back_off.ask(self.ds, node, &pod.meta.uid, self.now) {
                    return self.plan.wake_at(due);
                }
                (EventType::Warning, "FailedDaemonPod", format!("Found failed {at}, will try to kill it"))
            }
            _ => (EventType::Normal, "SucceededDaemonPod", format!("Found succeeded {at}, will try to delete it")),
        };
        self.plan.event(Regarding::of(self.ds), type_, reason, message, NAME);
        self.delete(pod);
    }

    fn is_current(&self, pod: &Pod) -> bool {
        pod.meta.labels.get(HASH_LABEL) == Some(&self.hash)
    }
}

#[cfg(test)]
mod tests;
