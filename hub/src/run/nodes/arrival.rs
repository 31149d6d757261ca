//! The Node object of a node that came, and the end of one that was removed.
//!
//! In: the name of a node that the gate let in, or that was deleted. Out: its Node object; its forgotten identity.
//! Never: changes a Node that exists.

use crate::{enroll::Enroll, run::Applier};
use limpet_hub_core::{
    Change,
    nodes::ipam::{Ranges, new_node},
};
use serde_json::json;
use tokio::sync::Mutex;

const COMPONENT: &str = "limpet-node";
/// Label of a node with the pool that its join token was for.
const POOL: &str = "limpet.dev/pool";

/// Creates the Node when it is missing. The device's own report fills in the rest. One at a time, because each new node
/// takes the first free range of pod addresses.
pub(super) async fn ensure(applier: &Applier, enroll: &Enroll, turn: &Mutex<Ranges>, node: &str) {
    let ranges = turn.lock().await;
    let mut labels = json!({"kubernetes.io/hostname": node, "kubernetes.io/os": "linux"});
    if let Some(pool) = enroll.identity(node).and_then(|i| i.pool) {
        labels[POOL] = json!(pool);
    }
    let object = {
        let view = applier.world().read();
        if view.node(node).is_some() {
            return;
        }
        new_node(&view, &ranges, node, &labels)
    };
    if object["spec"]["podCIDR"].is_null() {
        tracing::error!(node, "no range of pod addresses is free; give the hub a larger --cluster-cidr");
    }
    let create = Change::Create { resource: "/nodes".into(), namespace: String::new(), object };
    if let Err(status) = applier.apply(COMPONENT, vec![create]).await {
        tracing::error!(node, "the Node object could not be made: {}", status.message);
    }
}

/// Forgets the key of a removed node, so that only a join token lets it in again.
pub(super) async fn forget(enroll: &Enroll, node: &str) {
    match enroll.remove(node).await {
        Ok(true) => tracing::info!(node, "node removed; its certificate opens nothing any more"),
        Ok(false) => {}
        Err(error) => tracing::error!(node, "the removed node's key could not be forgotten: {error}"),
    }
}
