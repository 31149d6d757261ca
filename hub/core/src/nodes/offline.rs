//! Whether a node is there, and what the cluster says about it when it is not.
//!
//! In: when each node was last heard of (`Liveness`, kept by the shell in memory), and the view. Out: conditions,
//! taints, annotation and Events of the Node, and the Lease, written rarely.
//! Never: deletes a pod of a silent node. So there is no NoExecute taint here: the pods run on where they are.

use super::{leaf, queued::queued};
use crate::{
    EventType, ObjectStore, Plan, Regarding, Timestamp, limits,
    view::{Kind, Lease, Node, conditions::rfc3339},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Annotation on a Node that is not there: since when (RFC 3339).
pub const OFFLINE_SINCE: &str = "limpet.dev/offline-since";

/// Annotation on a Node that is not there: how often the wall clock had been set when that time was written. Absent: never.
pub const OFFLINE_CLOCK: &str = "limpet.dev/offline-clock";

/// Annotation on a Node that is not there: what it will be told when it is back.
pub const QUEUED: &str = "limpet.dev/queued-changes";
/// Changes that the annotation names; of more it says how many.
const QUEUED_NAMED_MAX: usize = 10;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNKNOWN_REASON: &str = "NodeStatusUnknown";
pub(crate) const LEASES: &str = "kube-node-lease";
const COMPONENT: &str = "node-controller";
const CONDITIONS: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

/// Conditions that keep further pods away, and by which taint.
const PRESSURES: [(&str, &str); 3] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];

/// When nodes were heard of, by a clock that nobody sets. The shell calls these on every connection, message and
/// disconnection. A node with a connection is there: the broker ends the connection when a board's pings stay away.
#[derive(Clone, Debug)]
pub struct Liveness {
    hub_started: Timestamp,
    nodes: BTreeMap<Box<str>, Seen>,
    /// How often the wall clock was set, as far as this hub and the Nodes know: times on Nodes of another count are by another
    /// clock.
    clock: u64,
    /// The count on the first board that was away already.
    found: Option<u64>,
    /// Boards that were away already have different counts: the hub before this one ended while it wrote their times anew. None
    /// of them says anything then.
    mixed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Timestamp,
    connected: bool,
    /// The time is from the Node's object.
    found: bool,
}

impl Liveness {
    /// A node that was never heard of counts as heard of at `hub_started`.
    pub fn new(hub_started: Timestamp) -> Liveness {
        Liveness { hub_started, nodes: BTreeMap::new(), clock: 0, found: None, mixed: false }
    }

    /// A message came, or a connection was made.
    pub fn heard(&mut self, node: &str, now: Timestamp) {
        self.nodes.insert(node.into(), Seen { at: now, connected: true, found: false });
    }

    /// `heard`: when the connection brought something last.
    pub fn disconnected(&mut self, node: &str, heard: Timestamp) {
        self.nodes.insert(node.into(), Seen { at: heard, connected: false, found: false });
    }

    /// A Node object is there, or has changed. What is away already was so before this hub began to listen: the time is taken
    /// from the object, unless it is still to come. `clocks`: the wall clock and the even one.
    pub fn observe(&mut self, node: &Node, (now, even): (Timestamp, Timestamp)) {
        let Some(since) = away_since(node) else { return };
        let clock = clock_of(node);
        self.clock = self.clock.max(clock);
        if self.nodes.contains_key(&node.meta.name) {
            return;
        }
        if !self.mixed && *self.found.get_or_insert(clock) != clock {
            self.mixed = true;
            // Those that have the higher count are to be written anew, too.
            self.clock += 1;
        }
        let at = Some(since).filter(|since| *since <= now);
        let at = at.and_then(|since| even.checked_sub(now.duration_since(since)).ok());
        if let Some(at) = at.filter(|at| *at <= self.hub_started) {
            self.nodes.insert(node.meta.name.clone(), Seen { at, connected: false, found: true });
        }
    }

    /// Somebody set the wall clock: every node that is away wants to be looked at.
    pub fn clock_was_set(&mut self) {
        self.clock += 1;
    }

    /// Whether the time on a node that is away is not the one by the wall clock as it is now.
    fn is_wrong(&self, node: &Node, heard: Timestamp, now: Timestamp) -> bool {
        let Some(since) = away_since(node) else { return false };
        let differs = since.duration_since(heard).as_secs().abs() > limits::AWAY_SINCE_WRONG_S;
        clock_of(node) < self.clock || (differs && since > now)
    }

    pub fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    fn last_heard(&self, node: &str) -> Timestamp {
        let seen = self.nodes.get(node).filter(|seen| !(seen.found && self.mixed));
        seen.map_or(self.hub_started, |seen| seen.at)
    }

    pub fn is_connected(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|s| s.connected)
    }

    /// The same moment by the wall clock, which is at `now` while the other one is at `even`.
    fn heard_by(&self, node: &str, (now, even): (Timestamp, Timestamp)) -> Timestamp {
        let silent = even.duration_since(self.last_heard(node)).max(jiff::SignedDuration::ZERO);
        now.checked_sub(silent).unwrap_or(now)
    }

    /// When the node counts as offline if it does not connect until then, by the wall clock; `None` while it is connected.
    fn deadline(&self, node: &str, clocks: (Timestamp, Timestamp)) -> Option<Timestamp> {
        let patience = jiff::SignedDuration::from_secs(limits::OFFLINE_AFTER_CLOSE_S);
        (!self.is_connected(node))
            .then(|| self.heard_by(node, clocks).checked_add(patience).unwrap_or(Timestamp::MAX))
    }
}

/// Since when a node is away, as its object says.
pub fn away_since(node: &Node) -> Option<Timestamp> {
    node.meta.annotations.get(OFFLINE_SINCE)?.parse().ok()
}

/// How often the wall clock had been set when that was written.
fn clock_of(node: &Node) -> u64 {
    node.meta.annotations.get(OFFLINE_CLOCK).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// What is to be said about one node now. Call it for every node at start, when a session opens or closes, when the
/// Node object changes, when the wall clock was set, and at `again_at`. `even`: the time by the clock that `Liveness` is
/// kept with.
pub fn reconcile(view: &ObjectStore, liveness: &Liveness, node: &str, now: Timestamp, even: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(object) = view.node(node) else { return plan };
    let (deadline, heard) = (liveness.deadline(node, (now, even)), liveness.heard_by(node, (now, even)));
    let alive = deadline.is_none_or(|at| now < at);
    let ready = object.status.condition("Ready");
    let silenced = ready.is_some_and(|c| &*c.status == "Unknown");
    if alive {
        deadline.into_iter().for_each(|at| plan.wake_at(at));
        if silenced && liveness.is_connected(node) {
            say(&mut plan, object, now, true);
        }
        if liveness.is_connected(node) {
            lease(&mut plan, view, object, now);
        }
    } else if !silenced {
        say(&mut plan, object, now, false);
        plan.because("Offline", format!("nothing heard since {}", rfc3339(heard)));
    }
    let ready_now = match (alive, silenced) {
        (false, _) => None,
        (true, true) => liveness.is_connected(node).then_some(true),
        (true, false) => Some(ready.is_some_and(|c| &*c.status == "True")),
    };
    let wrong = liveness.is_wrong(object, heard, now);
    mark(&mut plan, view, object, (heard, wrong, liveness.clock), ready_now);
    plan
}

const AWAY: &str = "Kubelet stopped posting node status. The board is away; its pods go on there.";

/// Conditions and the Event.
fn say(plan: &mut Plan, object: &Node, now: Timestamp, there: bool) {
    let old = object.field("/status/conditions");
    let old = old.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut conditions: Vec<Value> = old
        .iter()
        .filter(|c| !CONDITIONS.contains(&c["type"].as_str().unwrap_or_default()))
        .cloned()
        .collect();
    for type_ in CONDITIONS {
        let mut condition =
            old.iter().find(|c| c["type"] == type_).cloned().unwrap_or(json!({"type": type_}));
        let (status, reason, message) = match (there, type_) {
            (false, _) => ("Unknown", UNKNOWN_REASON, AWAY),
            (true, "Ready") => ("True", "KubeletReady", "limpet-agent is posting ready status"),
            (true, _) if condition["reason"] != UNKNOWN_REASON => {
                conditions.push(condition);
                continue;
            }
            (true, _) => ("False", "KubeletHasSufficient", "limpet-agent is back"),
        };
        condition["status"] = json!(status);
        condition["reason"] = json!(reason);
        condition["message"] = json!(message);
        condition["lastTransitionTime"] = json!(rfc3339(now));
        conditions.push(condition);
    }
    plan.patch_exact(
        Node::RESOURCE,
        &object.meta,
        Some("status"),
        json!({"status": {"conditions": conditions}}),
    );
    let reason = if there { "NodeReady" } else { "NodeNotReady" };
    let name = &object.meta.name;
    let message = format!("Node {name} status is now: {reason}");
    plan.event(Regarding::of(object), EventType::Normal, reason, message, COMPONENT);
}

/// The taints that fit what is known of the node. `ready`: `None` = not there.
fn wanted_taints(object: &Node, ready: Option<bool>) -> Vec<&'static str> {
    let readiness = match ready {
        None => Some(UNREACHABLE),
        Some(false) => Some(NOT_READY),
        Some(true) => None,
    };
    let holds = |type_: &str| object.status.condition(type_).is_some_and(|c| &*c.status == "True");
    readiness
        .into_iter()
        .chain(PRESSURES.iter().filter(|(type_, _)| holds(type_)).map(|(_, key)| *key))
        .collect()
}

/// Taints and the annotations. `wrong`: the time in it is not that of `heard`; `clock`: how often the clock was set. `ready`:
/// `None` = not there.
fn mark(
    plan: &mut Plan,
    view: &ObjectStore,
    object: &Node,
    (heard, wrong, clock): (Timestamp, bool, u64),
    ready: Option<bool>,
) {
    let wanted = wanted_taints(object, ready);
    let old = object.field("/spec/taints");
    let old = old.as_array().cloned().unwrap_or_default();
    let ours = |t: &Value| {
        let is = |key: &str| t["key"] == key;
        is(UNREACHABLE) || is(NOT_READY) || PRESSURES.iter().any(|(_, key)| is(key))
    };
    let right = |t: &Value, key: &str| t["key"] == key && t["effect"] == "NoSchedule";
    let mut taints: Vec<Value> =
        old.iter().filter(|t| !ours(t) || wanted.iter().any(|key| right(t, key))).cloned().collect();
    for key in wanted {
        if !taints.iter().any(|t| right(t, key)) {
            taints.push(json!({"key": key, "effect": "NoSchedule"}));
        }
    }
    taints.extend(leaf::missing_taint(object));
    let mut merge = json!({});
    if taints != old {
        merge["spec"] = json!({"taints": if taints.is_empty() { Value::Null } else { json!(taints) }});
    }
    let annotated = object.meta.annotations.contains_key(OFFLINE_SINCE);
    // Times of boards are compared with each other: all are by the clock as it is now.
    if ready.is_none() != annotated || (ready.is_none() && wrong) {
        let since = ready.is_none().then(|| rfc3339(heard));
        merge["metadata"] = json!({"annotations": {OFFLINE_SINCE: since}});
        let clock = Some(clock).filter(|clock| since.is_some() && *clock > 0).map(|clock| clock.to_string());
        if clock.as_deref() != object.meta.annotations.get(OFFLINE_CLOCK) {
            merge["metadata"]["annotations"][OFFLINE_CLOCK] = json!(clock);
        }
    }
    let waits = ready.is_none().then(|| queue_text(view, &object.meta.name, heard)).flatten();
    if waits.as_deref() != object.meta.annotations.get(QUEUED) {
        merge["metadata"]["annotations"][QUEUED] = json!(waits);
    }
    if merge != json!({}) {
        plan.patch(Node::RESOURCE, &object.meta, None, merge);
    }
}

/// `None`: nothing waits.
fn queue_text(view: &ObjectStore, node: &str, since: Timestamp) -> Option<String> {
    let all = queued(view, node, since);
    let mut words: Vec<String> = all.iter().take(QUEUED_NAMED_MAX).map(ToString::to_string).collect();
    if all.len() > words.len() {
        words.push(format!("and {} more", all.len() - words.len()));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

/// Leases are for tools that look at them; the hub itself knows from the connection.
fn lease(plan: &mut Plan, view: &ObjectStore, object: &Node, now: Timestamp) {
    let name = &*object.meta.name;
    let renewed = json!(now.round(jiff::Unit::Microsecond).unwrap_or(now).to_string());
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": limits::LEASE_EVERY_S * 2, "renewTime": renewed});
    match view.get::<Lease>(LEASES, name) {
        None => {
            let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": object.meta.uid}]);
            let metadata = json!({"name": name, "namespace": LEASES, "ownerReferences": owner});
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec});
            plan.create(Lease::RESOURCE, LEASES, lease);
        }
        Some(lease) => {
            // A time that is still to come is from before the clock was set back.
            let due = lease.spec.renew_time.filter(|t| *t <= now).map(|t| {
                t.checked_add(jiff::SignedDuration::from_secs(limits::LEASE_EVERY_S))
                    .unwrap_or(Timestamp::MAX)
            });
            match due {
                Some(due) if due > now => plan.wake_at(due),
                _ => plan.patch(Lease::RESOURCE, &lease.meta, None, json!({"spec": spec})),
            }
        }
    }
}

#[cfg(test)]
mod tests;
