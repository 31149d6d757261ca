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
    /// The wall clock was set since: times on Nodes may be by another one.
    clock_was_set: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Timestamp,
    connected: bool,
}

impl Liveness {
    /// A node that was never heard of counts as heard of at `hub_started`.
    pub fn new(hub_started: Timestamp) -> Liveness {
        Liveness { hub_started, nodes: BTreeMap::new(), clock_was_set: false }
    }

    /// A message came, or a connection was made.
    pub fn heard(&mut self, node: &str, now: Timestamp) {
        self.nodes.insert(node.into(), Seen { at: now, connected: true });
    }

    /// `heard`: when the connection brought something last.
    pub fn disconnected(&mut self, node: &str, heard: Timestamp) {
        self.nodes.insert(node.into(), Seen { at: heard, connected: false });
    }

    /// A Node object is there, or has changed. What is away already was so before this hub began to listen: the time is taken
    /// from the object, unless it is still to come. `clocks`: the wall clock and the even one.
    pub fn observe(&mut self, node: &Node, (now, even): (Timestamp, Timestamp)) {
        if self.nodes.contains_key(&node.meta.name) {
            return;
        }
        let since = away_since(node).filter(|since| *since <= now);
        let at = since.and_then(|since| even.checked_sub(now.duration_since(since)).ok());
        if let Some(at) = at.filter(|at| *at <= self.hub_started) {
            self.nodes.insert(node.meta.name.clone(), Seen { at, connected: false });
        }
    }

    /// Somebody set the wall clock: every node that is away wants to be looked at.
    pub fn clock_was_set(&mut self) {
        self.clock_was_set = true;
    }

    /// Whether the time on a node that is away is not the one by the wall clock as it is now.
    fn is_wrong(&self, since: Timestamp, heard: Timestamp, now: Timestamp) -> bool {
        let differs = since.duration_since(heard).as_secs().abs() > limits::AWAY_SINCE_WRONG_S;
        differs && (self.clock_was_set || since > now)
    }

    pub fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    fn last_heard(&self, node: &str) -> Timestamp {
        self.nodes.get(node).map_or(self.hub_started, |s| s.at)
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
    let wrong = away_since(object).is_some_and(|since| liveness.is_wrong(since, heard, now));
    mark(&mut plan, view, object, (heard, wrong), ready_now);
    plan
}

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
            (false, _) => ("Unknown", UNKNOWN_REASON, "Kubelet stopped posting node status. The board is away; its pods go on there."),
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

/// Taints and the annotation. `wrong`: the time in it is not that of `heard`. `ready`: `None` = not there.
fn mark(
    plan: &mut Plan,
    view: &ObjectStore,
    object: &Node,
    (heard, wrong): (Timestamp, bool),
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
        let since = match ready {
            None => json!(rfc3339(heard)),
            Some(_) => Value::Null,
        };
        merge["metadata"] = json!({"annotations": {OFFLINE_SINCE: since}});
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
mod tests {
    use super::*;
    use crate::{Change, json_merge};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    struct World {
        view: ObjectStore,
        node: Value,
        lease: Option<Value>,
        revision: u64,
    }

    impl World {
        fn new(ready: &str) -> World {
            let node = json!({"metadata": {"name": "n1", "uid": "u"}, "spec": {"taints": [
                {"key": "mine", "effect": "NoExecute"}]}, "status": {"conditions": [
                {"type": "Ready", "status": ready, "reason": "KubeletReady"},
                {"type": "example.com/x", "status": "True"}]}});
            let mut world = World { view: ObjectStore::new(), node, lease: None, revision: 0 };
            world.feed();
            world
        }

        fn feed(&mut self) {
            self.revision += 1;
            let raw = self.node.to_string().into_bytes();
            self.view.apply(self.revision, "/nodes", "", "n1", Some(raw.into()));
            if let Some(lease) = &self.lease {
                let raw = lease.to_string().into_bytes();
                self.view.apply(self.revision, Lease::RESOURCE, LEASES, "n1", Some(raw.into()));
            }
        }

        /// Reconciles until nothing is left; returns the reasons of Events.
        fn settle(&mut self, liveness: &Liveness, now: Timestamp) -> Vec<String> {
            let mut events = Vec::new();
            for _ in 0..5 {
                let plan = reconcile(&self.view, liveness, "n1", now, now);
                if plan.is_empty() {
                    return events;
                }
                for change in plan.changes {
                    match change {
                        Change::Patch { resource, merge, .. } if resource == "/nodes" => {
                            json_merge(&mut self.node, &merge);
                        }
                        Change::Patch { merge, .. } => json_merge(self.lease.as_mut().unwrap(), &merge),
                        Change::Create { object, .. } => self.lease = Some(object),
                        Change::Event { reason, .. } => events.push(reason),
                        other => panic!("{other:?}"),
                    }
                }
                self.feed();
            }
            panic!("does not settle");
        }

        fn ready(&self) -> &str {
            let conditions = self.node["status"]["conditions"].as_array().unwrap();
            conditions.iter().find(|c| c["type"] == "Ready").unwrap()["status"].as_str().unwrap()
        }

        fn taints(&self) -> Vec<&str> {
            self.node["spec"]["taints"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|t| t["key"].as_str().unwrap())
                .collect()
        }
    }

    #[test]
    fn a_node_goes_offline_and_comes_back() {
        let mut world = World::new("True");
        let mut liveness = Liveness::new(at(0));
        liveness.heard("n1", at(0));
        assert!(world.settle(&liveness, at(1)).is_empty());
        assert_eq!((world.ready(), world.taints()), ("True", vec!["mine"]));
        liveness.disconnected("n1", at(10));
        assert!(world.settle(&liveness, at(10 + limits::OFFLINE_AFTER_CLOSE_S - 1)).is_empty());
        assert_eq!(world.settle(&liveness, at(10 + limits::OFFLINE_AFTER_CLOSE_S)), ["NodeNotReady"]);
        assert_eq!((world.ready(), world.taints()), ("Unknown", vec!["mine", UNREACHABLE]));
        assert_eq!(world.node["metadata"]["annotations"][OFFLINE_SINCE], rfc3339(at(10)));
        assert!(
            world.node["spec"]["taints"].to_string().matches("NoExecute").count() == 1,
            "nobody is evicted"
        );
        assert_eq!(
            world.node["status"]["conditions"].as_array().unwrap().len(),
            5,
            "others' conditions stay"
        );
        liveness.heard("n1", at(1000));
        assert_eq!(world.settle(&liveness, at(1000)), ["NodeReady"]);
        assert_eq!((world.ready(), world.taints()), ("True", vec!["mine"]));
        assert!(world.node["metadata"]["annotations"][OFFLINE_SINCE].is_null());
    }

    #[test]
    fn a_restarted_hub_gives_nodes_time_and_a_connection_is_enough() {
        let mut world = World::new("True");
        let mut liveness = Liveness::new(at(0));
        assert!(world.settle(&liveness, at(limits::OFFLINE_AFTER_CLOSE_S - 1)).is_empty());
        assert_eq!(world.settle(&liveness, at(limits::OFFLINE_AFTER_CLOSE_S)), ["NodeNotReady"]);
        liveness.heard("n1", at(100));
        assert_eq!(world.settle(&liveness, at(100)), ["NodeReady"]);
        assert!(world.settle(&liveness, at(90_000)).is_empty(), "an idle link says nothing for a long time");
        // Pings stayed away: offline at once, since when it was heard last.
        liveness.disconnected("n1", at(89_000));
        assert_eq!(world.settle(&liveness, at(90_001)), ["NodeNotReady"]);
        assert_eq!(world.node["metadata"]["annotations"][OFFLINE_SINCE], rfc3339(at(89_000)));
    }

    /// The wall clock is set while a board is away: how long it has been silent does not depend on that.
    #[test]
    fn a_clock_that_is_set_makes_nobody_go_away_sooner_or_later() {
        let day = 86_400;
        for jump in [-day, 0, day, 56 * 365 * day] {
            let world = World::new("True");
            let mut liveness = Liveness::new(at(0));
            liveness.disconnected("n1", at(10));
            let look = |even: i64| reconcile(&world.view, &liveness, "n1", at(even + jump), at(even));
            let due = 10 + limits::OFFLINE_AFTER_CLOSE_S;
            let waits = look(due - 1);
            assert_eq!((waits.changes.len(), waits.again_at), (0, Some(at(due + jump))), "{jump}");
            let Some(Change::Patch { merge, .. }) = look(due).changes.pop() else { panic!("{jump}: not away") };
            assert_eq!(merge["metadata"]["annotations"][OFFLINE_SINCE], rfc3339(at(10 + jump)), "{jump}");
        }
    }

    /// The wall clock is set while a board counts as away: since when it is says its object by the new clock, once.
    #[test]
    fn a_clock_that_is_set_moves_the_time_on_a_board_that_is_away() {
        let day = 86_400;
        for jump in [-day, -61, 61, day, 56 * 365 * day] {
            let mut world = World::new("True");
            let mut liveness = Liveness::new(at(0));
            liveness.disconnected("n1", at(10));
            world.settle(&liveness, at(100));
            liveness.clock_was_set();
            let look = |world: &World, even: i64| reconcile(&world.view, &liveness, "n1", at(even + jump), at(even));
            let plan = look(&world, 200);
            let [Change::Patch { merge, .. }] = &plan.changes[..] else { panic!("{jump}: {plan:?}") };
            assert_eq!(merge["metadata"]["annotations"][OFFLINE_SINCE], rfc3339(at(10 + jump)), "{jump}");
            json_merge(&mut world.node, merge);
            world.feed();
            assert!(look(&world, 300).is_empty(), "{jump}");
        }
    }

    /// A board that was away before this hub began: its time stays, and moves with the clock; one that cannot be is replaced.
    #[test]
    fn a_hub_that_starts_takes_over_who_is_away() {
        let day = 86_400;
        for (since, jump, becomes) in [
            (-day, 0, None),
            (-day, 2 * day, Some(day)),
            (-day, -day, Some(-2 * day)),
            (day, 0, Some(0)),
            (day, -day, Some(-day)),
        ] {
            let mut world = World::new("Unknown");
            world.node["metadata"]["annotations"] = json!({OFFLINE_SINCE: rfc3339(at(since))});
            world.feed();
            let mut liveness = Liveness::new(at(0));
            liveness.observe(world.view.node("n1").unwrap(), (at(0), at(0)));
            let first = reconcile(&world.view, &liveness, "n1", at(50), at(50));
            let merged = |plan: &Plan| {
                let mut node = world.node.clone();
                plan.changes.iter().for_each(|c| if let Change::Patch { merge, .. } = c { json_merge(&mut node, merge) });
                node["metadata"]["annotations"][OFFLINE_SINCE].clone()
            };
            assert_eq!(merged(&first), rfc3339(at(if since > 0 { 0 } else { since })), "{since} {jump}");
            liveness.clock_was_set();
            let then = reconcile(&world.view, &liveness, "n1", at(70 + jump), at(70));
            assert_eq!(merged(&then), rfc3339(at(becomes.unwrap_or(since))), "{since} {jump}");
        }
    }

    #[test]
    fn a_lease_from_before_the_clock_was_set_back_is_renewed() {
        let mut world = World::new("True");
        let mut liveness = Liveness::new(at(0));
        liveness.heard("n1", at(0));
        world.settle(&liveness, at(1));
        let first = world.lease.clone().unwrap();
        let plan = reconcile(&world.view, &liveness, "n1", at(2 - 86_400), at(2));
        let [Change::Patch { merge, .. }] = &plan.changes[..] else { panic!("{plan:?}") };
        assert_ne!(merge["spec"]["renewTime"], first["spec"]["renewTime"]);
    }

    /// Writes in an hour of a board whose link is lost for some seconds, and comes back, all the time. Events are counted, too.
    fn writes_of_an_hour(away_s: i64, there_s: i64) -> usize {
        let mut world = World::new("True");
        let mut liveness = Liveness::new(at(0));
        let (mut writes, mut now) = (0, 0);
        while now < 3600 {
            liveness.disconnected("n1", at(now));
            world.settle(&liveness, at(now));
            now += away_s;
            // The timer of the moment at which it counts as away.
            let before = world.revision;
            let told = world.settle(&liveness, at(now - 1)).len();
            liveness.heard("n1", at(now));
            let told = told + world.settle(&liveness, at(now)).len();
            writes += (world.revision - before) as usize + told;
            now += there_s;
        }
        writes
    }

    #[test]
    fn a_link_that_comes_and_goes_is_no_storm_of_writes() {
        let leases = 3600 / limits::LEASE_EVERY_S as usize + 1;
        assert!(writes_of_an_hour(3, 2) <= leases, "shorter than the patience: leases only");
        // Away for longer than the patience: some writes and two Events each way.
        let cycles = 3600 / 62 + 1;
        let writes = writes_of_an_hour(limits::OFFLINE_AFTER_CLOSE_S + 20, 2);
        assert!(writes >= cycles && writes <= leases + cycles * 8, "{writes} writes in {cycles} absences");
    }

    #[test]
    fn leases_are_renewed_rarely() {
        let mut world = World::new("True");
        let mut liveness = Liveness::new(at(0));
        liveness.heard("n1", at(0));
        world.settle(&liveness, at(1));
        let first = world.lease.clone().unwrap();
        liveness.heard("n1", at(200));
        world.settle(&liveness, at(200));
        assert_eq!(world.lease.clone().unwrap(), first);
        liveness.heard("n1", at(400));
        world.settle(&liveness, at(400));
        assert_ne!(world.lease.clone().unwrap(), first);
    }

    #[test]
    fn a_node_that_says_it_is_not_ready_takes_no_new_pods() {
        let mut world = World::new("False");
        let mut liveness = Liveness::new(at(0));
        liveness.heard("n1", at(0));
        world.settle(&liveness, at(1));
        assert_eq!((world.ready(), world.taints()), ("False", vec!["mine", NOT_READY]));
    }

    #[test]
    fn a_full_disk_takes_no_new_pods_until_there_is_room() {
        let mut world = World::new("True");
        let mut liveness = Liveness::new(at(0));
        liveness.heard("n1", at(0));
        for (status, taints) in
            [("True", vec!["mine", "node.kubernetes.io/disk-pressure"]), ("False", vec!["mine"])]
        {
            let ready = json!({"type": "Ready", "status": "True"});
            world.node["status"]["conditions"] = json!([{"type": "DiskPressure", "status": status}, ready]);
            world.feed();
            world.settle(&liveness, at(1));
            assert_eq!((world.ready(), world.taints()), ("True", taints));
        }
    }
}
