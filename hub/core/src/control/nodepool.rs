//! Keeps what a NodePool says about its boards: labels and taints, and the numbers that people look at.
//!
//! In: one NodePool, all nodes. Out: patches of its nodes, its status. What a pool gave to a node is written down in
//! the node's annotation `limpet.dev/pool`, so that it can be taken back.
//! Never: two pools for one node: the first by name has it.

use super::{Controller, common::{count, set_status}};
use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    nodes::offline::OFFLINE_SINCE,
    view::{Condition, Kind, Labels, Node, NodePool, conditions},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

const NAME: &str = "nodepool-controller";
/// Annotation on a node: `{"name", "labels", "taints", "had"}`: what its pool gave it, and the labels that it had instead.
pub const POOL: &str = "limpet.dev/pool";
/// Label on a node that says which pool it belongs to.
pub const POOL_LABEL: &str = "limpet.dev/pool";

/// The pool that a node belongs to: the first by name that selects it.
pub fn pool_of<'a>(view: &'a ObjectStore, node: &Node) -> Option<&'a Arc<NodePool>> {
    pools_that_want(view, node).next()
}

/// All that select a node, by name.
pub fn pools_that_want<'a>(view: &'a ObjectStore, node: &Node) -> impl Iterator<Item = &'a Arc<NodePool>> {
    let labels = without_given(node);
    let wants = move |p: &&Arc<NodePool>| p.spec.selector.as_ref().is_some_and(|s| !s.is_empty() && s.matches(&labels));
    view.all::<NodePool>().filter(|p| p.meta.deleting.is_none()).filter(wants)
}

/// A node's labels as they were before a pool gave it some: a pool cannot hold a node by its own label.
fn without_given(node: &Node) -> Labels {
    let given = given(node);
    let from_pool = |k: &str| k == POOL_LABEL || given["labels"].get(k).is_some();
    let own = node.meta.labels.iter().filter(|(k, _)| !from_pool(k)).map(|(k, v)| (k.to_owned(), v.to_owned()));
    let had = given["had"].as_object().into_iter().flatten();
    let had = had.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
    own.chain(had).collect()
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
        let pool = [old, new].into_iter().flatten().flat_map(|n| pools_that_want(view, n));
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
        let mut elsewhere: BTreeMap<&str, i32> = BTreeMap::new();
        for node in view.all::<Node>() {
            let owner = pool_of(view, node);
            let ours = pool.is_some() && owner.is_some_and(|p| p.meta.name == key.name);
            if ours {
                nodes += 1;
                ready += i32::from(node.status.ready());
                offline += i32::from(node.meta.annotations.contains_key(OFFLINE_SINCE));
            } else if let (Some(pool), Some(other)) = (pool, owner) {
                let wanted = pools_that_want(view, node).any(|p| p.meta.uid == pool.meta.uid);
                *elsewhere.entry(&other.meta.name).or_default() += i32::from(wanted);
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
            let all = nodes > 0 && ready == nodes;
            let mut words = match (nodes, elsewhere.values().sum::<i32>()) {
                (0, 0) => "no board has the labels of spec.selector".to_owned(),
                _ => format!("{ready} of {nodes} boards are ready"),
            };
            for (other, n) in elsewhere.iter().filter(|e| *e.1 > 0) {
                words.push_str(&format!("; {n} more that it selects belong to pool {other}, which comes first by name"));
            }
            let reason = if all { "AllReady" } else if nodes == 0 { "NoBoards" } else { "NotAllReady" };
            conditions::set_words(&mut known, Condition::new("Ready", all, reason, words, now));
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
    let mut now = match pool {
        None => Value::Null,
        Some(p) => json!({"name": p.meta.name, "labels": p.spec.labels.to_value(), "taints": p.spec.taints}),
    };
    let has = |k: &str| json!(node.meta.labels.get(k));
    let mut wanted = Map::new();
    for key in before["labels"].as_object().into_iter().flatten().map(|(k, _)| k) {
        wanted.insert(key.clone(), before["had"][key].clone());
    }
    let mut had = Map::new();
    for (key, value) in now["labels"].as_object().into_iter().flatten() {
        // What a pool gave before is not what the board had.
        let own = wanted.get(key).cloned().unwrap_or_else(|| has(key));
        if !own.is_null() {
            had.insert(key.clone(), own);
        }
        wanted.insert(key.clone(), value.clone());
    }
    if !had.is_empty() {
        now["had"] = Value::Object(had);
    }
    wanted.insert(POOL_LABEL.into(), pool.map_or(Value::Null, |p| json!(p.meta.name)));
    let labels: Map<String, Value> = wanted.into_iter().filter(|(k, v)| has(k) != *v).collect();
    let old = node.field("/spec/taints").as_array().cloned().unwrap_or_default();
    let same = |a: &Value, b: &Value| a["key"] == b["key"] && a["effect"] == b["effect"];
    let list = |v: &Value| v["taints"].as_array().cloned().unwrap_or_default();
    let mut taints: Vec<Value> =
        old.iter().filter(|t| !list(&before).iter().any(|b| same(t, b))).cloned().collect();
    for taint in list(&now) {
        taints.retain(|t| !same(t, &taint));
        taints.push(taint);
    }
    // A taint that is there but for the time of its beginning is there.
    let value = |t: &Value| t["value"].as_str().unwrap_or_default().to_owned();
    let there = |t: &Value| old.iter().any(|o| same(o, t) && value(o) == value(t));
    let tainted = taints.len() == old.len() && taints.iter().all(there);
    if before == now && labels.is_empty() && tainted {
        return;
    }
    let annotation = if now.is_null() { Value::Null } else { json!(now.to_string()) };
    let mut merge = json!({"metadata": {"labels": labels, "annotations": {POOL: annotation}}});
    if !tainted {
        merge["spec"] = json!({"taints": if taints.is_empty() { Value::Null } else { json!(taints) }});
    }
    plan.patch_exact(Node::RESOURCE, &node.meta, None, merge);
    if before["name"] != now["name"] {
        let (reason, words) = match pool {
            Some(p) => ("JoinedPool", format!("Node belongs to pool {}", p.meta.name)),
            None => ("LeftPool", format!("Node left pool {}", before["name"].as_str().unwrap_or_default())),
        };
        plan.event(Regarding::of(node), EventType::Normal, reason, words, NAME);
    }
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

    fn labels(w: &World, node: &str) -> Value {
        w.get("/nodes", "", node)["metadata"]["labels"].clone()
    }

    fn ready_words(w: &World, pool: &str) -> String {
        let conditions = &w.get("limpet.dev/nodepools", "", pool)["status"]["conditions"];
        conditions[0]["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_board_gets_back_the_label_that_it_had() {
        let mut w = World::new();
        w.node("n0", json!({"tier": "till", "net": "dsl"}), json!([]));
        let pool = |name: &str, labels: Value| json!({"metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": {"tier": "till"}}, "labels": labels}});
        w.create("limpet.dev/nodepools", pool("b", json!({"net": "metered"})));
        w.settle();
        assert_eq!(labels(&w, "n0")["net"], "metered");
        w.create("limpet.dev/nodepools", pool("a", json!({"net": "lte"})));
        w.settle();
        assert_eq!(labels(&w, "n0")["net"], "lte");
        w.delete("limpet.dev/nodepools", "", "a");
        w.settle();
        assert_eq!(labels(&w, "n0")["net"], "metered");
        w.delete("limpet.dev/nodepools", "", "b");
        w.settle();
        assert_eq!((&labels(&w, "n0")["net"], &labels(&w, "n0")[POOL_LABEL]), (&json!("dsl"), &Value::Null));
    }

    #[test]
    fn what_somebody_took_away_by_hand_is_given_again() {
        let mut w = World::new();
        w.node("n0", json!({"tier": "till"}), json!([]));
        w.create("limpet.dev/nodepools", json!({"metadata": {"name": "tills"}, "spec": {
            "selector": {"matchLabels": {"tier": "till"}}, "labels": {"net": "metered"},
            "taints": [{"key": "till", "effect": "NoExecute"}]}}));
        w.settle();
        w.patch("/nodes", "", "n0", json!({"metadata": {"labels": {"net": null, POOL_LABEL: "x"}}, "spec": {"taints": null}}));
        w.settle();
        assert_eq!((&labels(&w, "n0")["net"], &labels(&w, "n0")[POOL_LABEL]), (&json!("metered"), &json!("tills")));
        assert_eq!(w.get("/nodes", "", "n0")["spec"]["taints"][0]["key"], "till");
    }

    #[test]
    fn a_pool_that_has_no_boards_says_why() {
        let mut w = World::new();
        w.node("n0", json!({"tier": "till"}), json!([]));
        w.node("n1", json!({"tier": "till"}), json!([]));
        for (name, tier) in [("a", "till"), ("b", "till"), ("c", "tlil")] {
            w.create("limpet.dev/nodepools", json!({"metadata": {"name": name}, "spec": {
                "selector": {"matchLabels": {"tier": tier}}}}));
        }
        w.settle();
        assert_eq!(ready_words(&w, "a"), "2 of 2 boards are ready");
        assert_eq!(
            ready_words(&w, "b"),
            "0 of 0 boards are ready; 2 more that it selects belong to pool a, which comes first by name"
        );
        assert_eq!(ready_words(&w, "c"), "no board has the labels of spec.selector");
        for (node, words) in [("n0", "1 of 2 boards are ready"), ("n1", "0 of 2 boards are ready")] {
            w.patch("/nodes", "", node, json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}));
            w.settle();
            assert_eq!(ready_words(&w, "a"), words, "the words follow");
        }
    }
}
