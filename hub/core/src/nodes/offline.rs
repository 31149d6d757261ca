//! Whether a node is there, and what the cluster says about it when it is not.
//!
//! In: when each node was last heard of (`Liveness`, kept by the shell in memory), and the view. Out: conditions,
//! taints, annotation and Events of the Node, and the Lease, written rarely.
//! Never: deletes a pod of a silent node.

use crate::{ObjectStore, Plan, Timestamp};
use std::collections::BTreeMap;

/// Annotation on a Node that is not there: since when (RFC 3339).
pub const OFFLINE_SINCE: &str = "limpet.dev/offline-since";

/// When nodes were heard of. The shell calls these on every connection, message and disconnection.
#[derive(Clone, Debug)]
pub struct Liveness {
    hub_started: Timestamp,
    nodes: BTreeMap<Box<str>, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Timestamp,
    connected: bool,
}

impl Liveness {
    /// A node that was never heard of counts as heard of at `hub_started`.
    pub fn new(hub_started: Timestamp) -> Liveness {
        Liveness { hub_started, nodes: BTreeMap::new() }
    }

    /// A message came, or a connection was made.
    pub fn heard(&mut self, node: &str, now: Timestamp) {
        self.nodes.insert(node.into(), Seen { at: now, connected: true });
    }

    pub fn disconnected(&mut self, node: &str, now: Timestamp) {
        self.nodes.insert(node.into(), Seen { at: now, connected: false });
    }

    pub fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    pub fn last_heard(&self, node: &str) -> Timestamp {
        self.nodes.get(node).map_or(self.hub_started, |s| s.at)
    }

    pub fn is_connected(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|s| s.connected)
    }
}

/// What is to be said about one node now. Call it for every node at start, when a session opens or closes, when the
/// Node object changes, and at `again_at`.
pub fn reconcile(view: &ObjectStore, liveness: &Liveness, node: &str, now: Timestamp) -> Plan {
    let _ = (view, liveness, node, now);
    Plan::default()
}
