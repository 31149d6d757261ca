//! Removes pods from nodes with a NoExecute taint that they do not tolerate.
//!
//! In: one node with its taints. Out: times at which taints were added (so that tolerationSeconds have a beginning),
//! deletion of pods that have no toleration or whose time is over.
//! Never: removes a pod because its node is silent or not ready: a board that is away keeps its pods.

use super::{
    Controller,
    common::{after, time},
    podgc::disrupted,
};
use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    view::{Kind, Node, Pod, Taint},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

const NAME: &str = "taint-eviction-controller";
/// Taints that say that a node is away; they keep new pods off it and evict nothing.
const AWAY: [&str; 2] = ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"];

#[derive(Debug, Default)]
pub struct TaintEviction {
    /// Uids of the pods that are to go at a time, by node: when they are spared, that is told. Forgotten when the hub
    /// starts anew.
    doomed: Mutex<BTreeMap<Box<str>, BTreeSet<Box<str>>>>,
}

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Node::RESOURCE, Pod::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let node = match changed.new_as::<Pod>() {
            Some(pod) => pod.node.as_deref(),
            None if changed.is::<Node>() => Some(&*changed.key.name),
            None => None,
        };
        let tainted = |n: &Node| evicting(n).next().is_some();
        let was = changed.old_as::<Node>().is_some_and(|n| tainted(n));
        let node = node.filter(|n| was || view.node(n).is_some_and(|n| tainted(n)));
        node.map(|n| Key::new(Node::RESOURCE, "", n)).into_iter().collect()
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = view.node(&key.name) else {
            self.lock().remove(&key.name);
            return plan;
        };
        if evicting(node).any(|t| t.time_added.is_none()) {
            stamp(node, now, &mut plan);
            return plan;
        }
        let before = self.lock().remove(&key.name).unwrap_or_default();
        let mut doomed = BTreeSet::new();
        for pod in view.pods_on(&key.name).filter(|p| p.is_active()) {
            match tolerated_until(node, pod, now) {
                Until::Ever if before.contains(&pod.meta.uid) => {
                    let message = format!("Cancelling deletion of Pod {}/{}", pod.meta.namespace, pod.meta.name);
                    plan.event(Regarding::of(pod), EventType::Normal, "TaintManagerEviction", message, NAME);
                }
                Until::Ever => {}
                Until::Time(t) if t > now => {
                    doomed.insert(pod.meta.uid.clone());
                    plan.wake_at(t);
                }
                Until::Time(_) => evict(pod, now, &mut plan),
            }
        }
        if !doomed.is_empty() {
            self.lock().insert(key.name.clone(), doomed);
        }
        plan
    }
}

impl TaintEviction {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, BTreeSet<Box<str>>>> {
        self.doomed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.taints.iter().filter(|t| &*t.effect == "NoExecute" && !AWAY.contains(&&*t.key))
}

fn stamp(node: &Node, now: Timestamp, plan: &mut Plan) {
    let mut taints = node.field("/spec/taints");
    for taint in taints.as_array_mut().into_iter().flatten() {
        if taint["effect"] == "NoExecute" && taint["timeAdded"].is_null() {
            taint["timeAdded"] = time(now);
        }
    }
    plan.patch_exact(Node::RESOURCE, &node.meta, None, json!({"spec": {"taints": taints}}));
}

enum Until {
    Ever,
    Time(Timestamp),
}

fn tolerated_until(node: &Node, pod: &Pod, now: Timestamp) -> Until {
    let mut until = Until::Ever;
    for taint in evicting(node) {
        let mut fitting = pod.spec.tolerations.iter().filter(|t| t.tolerates(taint)).peekable();
        if fitting.peek().is_none() {
            return Until::Time(now);
        }
        if let Some(seconds) = fitting.filter_map(|t| t.toleration_seconds).min() {
            let begin = taint.time_added.unwrap_or(now).max(pod.meta.created_at());
            let end = after(begin, seconds.max(0));
            until = match until {
                Until::Time(t) if t < end => Until::Time(t),
                _ => Until::Time(end),
            };
        }
    }
    until
}

fn evict(pod: &Pod, now: Timestamp, plan: &mut Plan) {
    let why = "Taint manager: deleting due to NoExecute taint";
    let message = format!("Marking for deletion Pod {}/{}", pod.meta.namespace, pod.meta.name);
    plan.event(Regarding::of(pod), EventType::Normal, "TaintManagerEviction", message, NAME);
    let patch = disrupted(pod, "DeletionByTaintManager", why, None, now);
    plan.patch_exact(Pod::RESOURCE, &pod.meta, Some("status"), patch);
    plan.delete(Pod::RESOURCE, &pod.meta);
}

#[cfg(test)]
mod tests {
    use crate::world::World;
    use serde_json::{Value, json};

    #[test]
    fn tolerations_decide_who_stays_and_how_long() {
        let mut w = World::with_nodes(1);
        let tolerate = |s: Value| json!([{"key": "k", "operator": "Exists", "tolerationSeconds": s}]);
        for (name, tolerations) in
            [("none", json!([])), ("short", tolerate(json!(60))), ("ever", tolerate(Value::Null))]
        {
            w.create(
                "/pods",
                json!({"metadata": {"name": name, "namespace": "a"},
                "spec": {"nodeName": "n0", "tolerations": tolerations}}),
            );
        }
        w.settle();
        w.patch(
            "/nodes",
            "",
            "n0",
            json!({"spec": {"taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}}),
        );
        w.pass(10_000);
        assert_eq!(w.list("/pods").len(), 3, "a board that is away keeps its pods");
        w.patch("/nodes", "", "n0", json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
        w.settle();
        assert!(!w.exists("/pods", "a", "none") && w.exists("/pods", "a", "short"));
        assert!(w.events.iter().any(|e| e.3 == "Marking for deletion Pod a/none"));
        w.pass(61);
        assert_eq!(w.list("/pods").len(), 1);
        w.pass(100_000);
        assert!(w.exists("/pods", "a", "ever"));
    }

    #[test]
    fn who_is_spared_after_all_is_told() {
        let spared = |w: &World| w.events.iter().filter(|e| e.3 == "Cancelling deletion of Pod a/short").count();
        let mut w = World::with_nodes(1);
        let tolerate = |s: Value| json!([{"key": "k", "operator": "Exists", "tolerationSeconds": s}]);
        for name in ["short", "ever"] {
            let tolerations = tolerate(if name == "short" { json!(60) } else { Value::Null });
            w.create("/pods", json!({"metadata": {"name": name, "namespace": "a"},
                "spec": {"nodeName": "n0", "tolerations": tolerations}}));
        }
        let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}});
        w.patch("/nodes", "", "n0", taint.clone());
        w.pass(30);
        assert_eq!(spared(&w), 0);
        w.patch("/nodes", "", "n0", json!({"spec": {"taints": null}}));
        w.pass(100);
        assert_eq!((w.list("/pods").len(), spared(&w)), (2, 1), "the taint went");
        w.patch("/nodes", "", "n0", taint);
        w.pass(30);
        w.patch("/pods", "a", "short", json!({"spec": {"tolerations": tolerate(Value::Null)}}));
        w.pass(100);
        assert_eq!((w.list("/pods").len(), spared(&w)), (2, 2), "the pod bears it now");
    }
}
