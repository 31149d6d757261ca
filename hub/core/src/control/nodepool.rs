//! Keeps what a NodePool says about its boards: labels and taints, and the numbers that people look at.
//!
//! In: one NodePool, all nodes. Out: patches of its nodes, its status. What a pool gave to a node is written down in
//! the node's annotation `limpet.dev/pool`, so that it can be taken back.
//! Never: two pools for one node: the first by name has it.

use super::{Controller, common::{count, set_status}};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    nodes::offline::OFFLINE_SINCE,
    view::{Condition, Kind, Labels, Node, NodePool, conditions},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const NAME: &str = "nodepool-controller";
/// Annotation on a node: `{"name", "labels", "taints"}` of the pool that it belongs to.
pub const POOL: &str = "limpet.dev/pool";
/// Label on a node that says which pool it belongs to.
pub const POOL_LABEL: &str = "limpet.dev/pool";

/// The pool that a node belongs to: the first by name that selects it.
pub fn pool_of<'a>(view: &'a ObjectStore, node: &Node) -> Option<&'a Arc<NodePool>> {
    let labels = without_given(node);
    view.all::<NodePool>().filter(|p| p.meta.deleting.is_none()).find(|p| {
        p.spec.selector.as_ref().is_some_and(|s| !s.is_empty() && s.matches(&labels))
    })
}

/// A node's labels without those that a pool gave it: a pool cannot hold a node by its own label.
fn without_given(node: &Node) -> Labels {
    let given = given(node);
    let from_pool = |k: &str| k == POOL_LABEL || given["labels"].get(k).is_some();
    node.meta.labels.iter().filter(|(k, _)| !from_pool(k)).collect()
}

fn given(node: &Node) -> Value {
    let text = node.meta.annotations.get(POOL);
    text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
}

#[derive(Debug)]
pub struct NodePoolController;

impl Controller for NodePoolController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[NodePool::RESOURCE, Node::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<NodePool>() {
            let old = changed.old_as::<NodePool>();
            let new = changed.new_as::<NodePool>();
            if old.zip(new).is_some_and(|(o, n)| o.spec == n.spec && o.meta.generation == n.meta.generation) {
                return vec![];
            }
            // A pool that grows or goes takes nodes from others or leaves them to others.
            let all = view.all::<NodePool>().map(|p| Key::new(NodePool::RESOURCE, "", &p.meta.name));
            return all.chain([changed.key.clone()]).collect();
        }
        let (old, new) = (changed.old_as::<Node>(), changed.new_as::<Node>());
        let same = old.zip(new).is_some_and(|(o, n)| {
            o.meta.labels == n.meta.labels
                && o.meta.annotations == n.meta.annotations
                && o.spec == n.spec
                && o.status.ready() == n.status.ready()
        });
        if same {
            return vec![];
        }
        let had = old.map(|n| given(n)).into_iter();
        let named = had.filter_map(|g| Some(Key::new(NodePool::RESOURCE, "", g["name"].as_str()?)));
        let own = new.map(|n| given(n)).into_iter();
        let own = own.filter_map(|g| Some(Key::new(NodePool::RESOURCE, "", g["name"].as_str()?)));
        let pool = [old, new].into_iter().flatten().filter_map(|n| pool_of(view, n));
        let mut keys: Vec<Key> =
            pool.map(|p| Key::new(NodePool::RESOURCE, "", &p.meta.name)).chain(named).chain(own).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let pool = view.get::<NodePool>("", &key.name).filter(|p| p.meta.deleting.is_none());
        let (mut nodes, mut ready, mut offline) = (0, 0, 0);
        for node in view.all::<Node>() {
            let owner = pool_of(view, node);
            let ours = pool.is_some() && owner.is_some_and(|p| p.meta.name == key.name);
            if ours {
                nodes += 1;
                ready += i32::from(node.status.ready());
                offline += i32::from(node.meta.annotations.contains_key(OFFLINE_SINCE));
            }
            // A node that changes pools is for its new pool to dress; one without a pool, for the old one to undress.
            let was_ours = given(node)["name"] == *key.name;
            if ours || (was_ours && owner.is_none()) {
                dress(node, pool.filter(|_| ours), &mut plan);
            }
        }
        if let Some(pool) = pool {
            let mut list = pool.field("/status/conditions");
            let mut known: Vec<Condition> = serde_json::from_value(list.take()).unwrap_or_default();
            let words = format!("{ready} of {nodes} boards are ready");
            let all = nodes > 0 && ready == nodes;
            let reason = if all { "AllReady" } else { "NotAllReady" };
            conditions::set(&mut known, Condition::new("Ready", all, reason, words, now));
            let status = json!({"observedGeneration": pool.meta.generation, "nodes": count(nodes), "ready": count(ready),
                "offline": count(offline), "conditions": conditions::to_value(&known)});
            set_status(&mut plan, pool, status);
        }
        plan
    }
}

/// Gives a node what its pool says, and takes away what the last pool gave.
fn dress(node: &Node, pool: Option<&Arc<NodePool>>, plan: &mut Plan) {
    let before = given(node);
    let now = match pool {
        None => Value::Null,
        Some(p) => json!({"name": p.meta.name, "labels": p.spec.labels.to_value(), "taints": p.spec.taints}),
    };
    if before == now {
        return;
    }
    let mut labels = Map::new();
    for key in before["labels"].as_object().into_iter().flatten().map(|(k, _)| k) {
        labels.insert(key.clone(), Value::Null);
    }
    labels.insert(POOL_LABEL.into(), pool.map_or(Value::Null, |p| json!(p.meta.name)));
    for (key, value) in now["labels"].as_object().into_iter().flatten() {
        labels.insert(key.clone(), value.clone());
    }
    let old = node.field("/spec/taints").as_array().cloned().unwrap_or_default();
    let same = |a: &Value, b: &Value| a["key"] == b["key"] && a["effect"] == b["effect"];
    let list = |v: &Value| v["taints"].as_array().cloned().unwrap_or_default();
    let mut taints: Vec<Value> =
        old.iter().filter(|t| !list(&before).iter().any(|b| same(t, b))).cloned().collect();
    for taint in list(&now) {
        taints.retain(|t| !same(t, &taint));
        taints.push(taint);
    }
    let annotation = if now.is_null() { Value::Null } else { json!(now.to_string()) };
    let mut merge = json!({"metadata": {"labels": labels, "annotations": {POOL: annotation}}});
    if taints != old {
        merge["spec"] = json!({"taints": if taints.is_empty() { Value::Null } else { json!(taints) }});
    }
    plan.patch_exact(Node::RESOURCE, &node.meta, None, merge);
    plan.because("Pool", format!("node {} and its pool", node.meta.name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    #[test]
    fn a_pool_dresses_its_nodes_and_takes_back_what_it_gave() {
        let mut w = World::new();
        w.node("n0", json!({"tier": "till"}), json!([{"key": "mine", "effect": "NoSchedule"}]));
        w.node("n1", json!({}), json!([]));
        w.create("limpet.dev/nodepools", json!({"metadata": {"name": "tills"}, "spec": {
            "selector": {"matchLabels": {"tier": "till"}}, "labels": {"net": "metered"},
            "taints": [{"key": "till", "effect": "NoSchedule"}]}}));
        w.settle();
        let keys = |w: &World| -> Vec<String> {
            let taints = w.get("/nodes", "", "n0")["spec"]["taints"].as_array().cloned().unwrap_or_default();
            taints.iter().map(|t| t["key"].as_str().unwrap().to_owned()).collect()
        };
        let labels = |w: &World| w.get("/nodes", "", "n0")["metadata"]["labels"].clone();
        assert_eq!((labels(&w)["net"].clone(), labels(&w)[POOL_LABEL].clone()), (json!("metered"), json!("tills")));
        assert_eq!(keys(&w), ["mine", "till"]);
        assert!(w.get("/nodes", "", "n1")["metadata"]["labels"][POOL_LABEL].is_null());
        let status = w.get("limpet.dev/nodepools", "", "tills")["status"].clone();
        assert_eq!((&status["nodes"], &status["ready"], &status["offline"]), (&json!(1), &json!(1), &Value::Null));
        w.patch("limpet.dev/nodepools", "", "tills", json!({"spec": {"labels": {"net": null, "x": "y"}, "taints": []}}));
        w.settle();
        assert_eq!((labels(&w)["net"].clone(), labels(&w)["x"].clone()), (Value::Null, json!("y")));
        assert_eq!(keys(&w), ["mine"]);
        w.create("limpet.dev/nodepools", json!({"metadata": {"name": "all"}, "spec": {
            "selector": {"matchLabels": {"tier": "till"}}}}));
        w.settle();
        assert_eq!(labels(&w)[POOL_LABEL], "all", "the first by name");
        w.delete("limpet.dev/nodepools", "", "all");
        w.delete("limpet.dev/nodepools", "", "tills");
        w.settle();
        assert_eq!((labels(&w)[POOL_LABEL].clone(), labels(&w)["x"].clone()), (Value::Null, Value::Null));
        assert!(w.get("/nodes", "", "n0")["metadata"]["annotations"][POOL].is_null());
    }
}
