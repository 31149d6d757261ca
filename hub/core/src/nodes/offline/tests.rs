//! When a board counts as away, and what is written about it then.

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

fn away(name: &str, since: i64, clock: Option<&str>) -> Value {
    let mut annotations = json!({OFFLINE_SINCE: rfc3339(at(since))});
    if let Some(clock) = clock {
        annotations[OFFLINE_CLOCK] = json!(clock);
    }
    json!({"metadata": {"name": name, "uid": name, "annotations": annotations},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})
}

/// The clock was set, and the hub ended before it had written the times of all boards anew: nobody knows any more who went
/// when, so all are away since the next hub began. Also if that one ends in the middle, and not again after it.
#[test]
fn times_by_two_clocks_say_nothing() {
    let mut view = ObjectStore::new();
    let mut objects = vec![away("a", -500, Some("3")), away("b", -43_000, None), away("c", -600, Some("3"))];
    let mut revision = 0;
    let mut feed = |view: &mut ObjectStore, objects: &[Value]| {
        for object in objects {
            revision += 1;
            let name = object["metadata"]["name"].as_str().unwrap().to_string();
            view.apply(revision, "/nodes", "", &name, Some(object.to_string().into_bytes().into()));
        }
    };
    feed(&mut view, &objects);
    let hub = |view: &ObjectStore, start: i64| {
        let mut liveness = Liveness::new(at(start));
        view.all::<Node>().for_each(|node| liveness.observe(node, (at(start), at(start))));
        liveness
    };
    for (start, writes) in [(0, 1), (1000, 3), (2000, 0)] {
        let liveness = hub(&view, start);
        let mut written = 0;
        for object in &mut objects {
            let name = object["metadata"]["name"].as_str().unwrap().to_string();
            for change in reconcile(&view, &liveness, &name, at(start + 50), at(start + 50)).changes {
                let Change::Patch { merge, .. } = change else { continue };
                if merge["metadata"]["annotations"][OFFLINE_SINCE].is_string() && written < writes {
                    json_merge(object, &merge);
                    written += 1;
                }
            }
        }
        assert_eq!(written, writes, "by the hub that began at {start}");
        feed(&mut view, &objects);
    }
    for object in &objects {
        assert_eq!(object["metadata"]["annotations"][OFFLINE_SINCE], rfc3339(at(1000)), "{object}");
    }
    // Who comes back has neither.
    let mut liveness = hub(&view, 2000);
    liveness.heard("a", at(2010));
    let plan = reconcile(&view, &liveness, "a", at(2011), at(2011));
    for change in &plan.changes {
        if let Change::Patch { merge, resource, .. } = change && resource == "/nodes" {
            json_merge(&mut objects[0], merge);
        }
    }
    assert!(objects[0]["metadata"]["annotations"].as_object().is_none_or(|all| all.is_empty()), "{}", objects[0]);
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
