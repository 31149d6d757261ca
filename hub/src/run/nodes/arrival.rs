//! The Node objects of nodes that came, and the end of one that was removed.
//!
//! In: the names of nodes that the gate let in, or that were deleted. Out: their Node objects; forgotten identities.
//! Never: changes a Node that exists.

use crate::{enroll::Enroll, run::Applier};
use limpet_hub_core::{
    Change,
    nodes::ipam::{Ranges, new_nodes},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

const COMPONENT: &str = "limpet-node";
/// Label of a node with the pool that its join token was for.
const POOL: &str = "limpet.dev/pool";
/// Nodes whose objects are made together.
const TOGETHER: usize = 64;

/// Where new nodes wait for their objects. One look at all ranges of pod addresses serves all who wait, because each new node
/// takes the next free one; and what is made together shares commits.
pub(super) struct Arrivals {
    waiting: Mutex<BTreeSet<String>>,
    turn: tokio::sync::Mutex<Ranges>,
}

impl Arrivals {
    pub fn new(ranges: Ranges) -> Arrivals {
        Arrivals { waiting: Mutex::default(), turn: tokio::sync::Mutex::new(ranges) }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the Node when it is missing. The device's own report fills in the rest.
    pub async fn ensure(&self, applier: &Applier, enroll: &Enroll, node: &str) {
        self.waiting().insert(node.to_owned());
        let ranges = self.turn.lock().await;
        // Whoever had the turn before may have made it.
        while self.waiting().contains(node) {
            let some = {
                let mut waiting = self.waiting();
                let rest = waiting.iter().nth(TOGETHER).cloned();
                let rest = rest.map(|first| waiting.split_off(&first)).unwrap_or_default();
                std::mem::replace(&mut *waiting, rest)
            };
            make(applier, enroll, &ranges, &some).await;
        }
    }
}

async fn make(applier: &Applier, enroll: &Enroll, ranges: &Ranges, nodes: &BTreeSet<String>) {
    let objects = {
        let view = applier.world().read();
        let new = nodes.iter().filter(|node| view.node(node).is_none());
        let new: Vec<(&str, Value)> = new.map(|node| (node.as_str(), labels(enroll, node))).collect();
        new_nodes(&view, ranges, &new)
    };
    for object in objects.iter().filter(|object| object["spec"]["podCIDR"].is_null()) {
        let node = object["metadata"]["name"].as_str();
        tracing::error!(node, "no range of pod addresses is free; give the hub a larger --cluster-cidr");
    }
    let create = |object: &Value| Change::Create { resource: "/nodes".into(), namespace: String::new(), object: object.clone() };
    if applier.apply(COMPONENT, objects.iter().map(create).collect()).await.is_ok() {
        return;
    }
    // One of them is refused; the others are not to suffer for it. What is there already stays as it is.
    for object in &objects {
        if let Err(status) = applier.apply(COMPONENT, vec![create(object)]).await {
            let node = object["metadata"]["name"].as_str();
            tracing::error!(node, "the Node object could not be made: {}", status.message);
        }
    }
}

fn labels(enroll: &Enroll, node: &str) -> Value {
    let mut labels = json!({"kubernetes.io/hostname": node, "kubernetes.io/os": "linux"});
    if let Some(pool) = enroll.identity(node).and_then(|i| i.pool) {
        labels[POOL] = json!(pool);
    }
    labels
}

/// Forgets the key of a removed node, so that only a join token lets it in again.
pub(super) async fn forget(enroll: &Enroll, node: &str) {
    match enroll.remove(node).await {
        Ok(true) => tracing::info!(node, "node removed; its certificate opens nothing any more"),
        Ok(false) => {}
        Err(error) => tracing::error!(node, "the removed node's key could not be forgotten: {error}"),
    }
}
