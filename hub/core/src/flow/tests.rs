//! Who runs, who waits, who is next: by turns, without time.
//!
//! In: arrivals in order. Out: the order of beginnings. Never: a clock.

use super::*;
use crate::rbac::Attributes;
use serde_json::{Value, json};
use std::sync::Arc;

fn config() -> Config {
    let of = |plural: &str| -> Vec<Value> {
        defaults().into_iter().filter(|(kind, _)| kind.ends_with(plural)).map(|(_, object)| object).collect()
    };
    Config::of(&of("/flowschemas"), &of("/prioritylevelconfigurations"))
}

fn dispatcher(seats: u32) -> Dispatcher {
    let mut dispatcher = Dispatcher::default();
    dispatcher.configure(seats, &config().levels);
    dispatcher
}

fn level(name: &str) -> Arc<str> {
    name.into()
}

fn load(dispatcher: &Dispatcher, name: &str) -> Load {
    dispatcher.loads().find(|(own, _)| &***own == name).map(|(_, load)| load).unwrap()
}

#[test]
fn requests_find_their_schema() {
    let config = config();
    let all = "system:authenticated".to_owned();
    let groups = |group: &str| vec![group.to_owned(), all.clone()];
    let account = "system:serviceaccount:shop:till";
    let system = "system:serviceaccount:kube-system:dns";
    let pods = Attributes { verb: "list", resource: "pods", namespace: "shop", ..Attributes::default() };
    let lease = Attributes {
        verb: "update", api_group: "coordination.k8s.io", resource: "leases", namespace: "kube-node-lease", name: "pi",
        ..Attributes::default()
    };
    let status = Attributes { verb: "patch", resource: "nodes", subresource: "status", ..Attributes::default() };
    let path = |path: &'static str| Attributes { verb: "get", path: Some(path), ..Attributes::default() };
    for (user, group, asked, expect) in [
        ("admin", "system:masters", pods, "exempt"),
        ("system:anonymous", "system:unauthenticated", path("/readyz"), "probes"),
        ("ann", "", path("/apis"), "global-default"),
        ("ann", "", pods, "global-default"),
        (account, "system:serviceaccounts", pods, "service-accounts"),
        (system, "system:serviceaccounts", pods, "kube-system-service-accounts"),
        (system, "system:serviceaccounts", lease, "system-leader-election"),
        ("system:node:pi", "system:nodes", lease, "system-node-high"),
        ("system:node:pi", "system:nodes", status, "system-node-high"),
        ("system:node:pi", "system:nodes", pods, "system-nodes"),
        ("system:kube-scheduler", "", pods, "kube-scheduler"),
    ] {
        let groups = groups(group);
        let flow = config.classify(&Attributes { user, groups: &groups, ..asked }).unwrap();
        assert_eq!(&*flow.schema.name, expect, "{user} {asked:?}");
    }
    let of = |user: &str| config.classify(&Attributes { user, groups: &groups(""), ..pods }).unwrap().hash;
    assert_ne!(of("ann"), of("bob"));
    assert_eq!(of("ann"), of("ann"));
    // Somebody who is in no group at all ends with the last one.
    assert_eq!(&*config.classify(&pods).unwrap().schema.name, "catch-all");
}

#[test]
fn nobody_waits_when_nothing_is_going_on() {
    let mut dispatcher = dispatcher(600);
    let Answer::Run(place) = dispatcher.arrive(&level("workload-low"), 1, 1) else { panic!("it waits") };
    assert_eq!(load(&dispatcher, "workload-low").seats, 1);
    dispatcher.end(&place);
    assert_eq!(load(&dispatcher, "workload-low"), Load { nominal: 245, ..Load::default() });
    assert_eq!(dispatcher.next_turn(), None);
}

/// A client with 500 wide requests at once, and another one with one request: it is the next but a few.
#[test]
fn one_loud_flow_does_not_starve_another() {
    let mut dispatcher = dispatcher(20);
    let name = level("global-default");
    let (loud, quiet) = (0xdead_beef_0bad_cafe, 0x0123_4567_89ab_cdef);
    let mut running = Vec::new();
    let mut waiting = std::collections::BTreeMap::new();
    let mut refused = 0;
    for _ in 0..500 {
        match dispatcher.arrive(&name, loud, 10) {
            Answer::Run(place) => running.push(place),
            Answer::Wait(ticket, place) => _ = waiting.insert(ticket, place),
            Answer::Reject(why) => {
                assert_eq!(why, Rejected::QueueFull);
                refused += 1;
            }
        }
    }
    // Its hand of six queues is full, and nobody else's.
    assert_eq!((waiting.len(), refused), (300, 500 - 300 - running.len()));
    for turn in 0..20 {
        let Answer::Wait(mine, place) = dispatcher.arrive(&name, quiet, 1) else { panic!("it should wait") };
        waiting.insert(mine, place);
        let mut before = 0;
        loop {
            let place = running.remove(0);
            dispatcher.end(&place);
            let mut found = false;
            while let Some(ticket) = dispatcher.next_turn() {
                running.push(waiting.remove(&ticket).unwrap());
                found |= ticket == mine;
                before += usize::from(!found);
            }
            if found {
                break;
            }
        }
        assert!(before <= 6, "{before} others came first in turn {turn}");
    }
}

#[test]
fn levels_lend_what_they_do_not_need_and_get_it_back() {
    let mut dispatcher = dispatcher(245);
    let (low, high) = (level("workload-low"), level("workload-high"));
    assert_eq!((load(&dispatcher, "workload-low").nominal, load(&dispatcher, "workload-high").nominal), (100, 40));
    let mut running = Vec::new();
    while let Answer::Run(place) = dispatcher.arrive(&low, 1, 1) {
        running.push(place);
    }
    // Its own 100, and all that others lend: 10 + 10 + 20 + 10.
    assert_eq!(running.len(), 150);
    for _ in 0..20 {
        let answer = dispatcher.arrive(&high, 2, 1);
        assert!(matches!(answer, Answer::Run(_)), "{answer:?}");
    }
    let Answer::Wait(mine, _) = dispatcher.arrive(&high, 2, 1) else { panic!("nothing is left to lend") };
    // What comes free goes to the one that is below its own share.
    dispatcher.end(&running.pop().unwrap());
    assert_eq!(dispatcher.next_turn(), Some(mine));
    assert_eq!(dispatcher.next_turn(), None);
}

#[test]
fn who_gives_up_is_out_of_the_queue() {
    let mut dispatcher = dispatcher(1);
    let name = level("workload-low");
    let Answer::Run(first) = dispatcher.arrive(&name, 1, 1) else { panic!() };
    let waits = |answer| match answer {
        Answer::Wait(ticket, place) => (ticket, place),
        other => panic!("{other:?}"),
    };
    let mut running = vec![first];
    let (gone, place) = loop {
        match dispatcher.arrive(&name, 1, 1) {
            Answer::Run(place) => running.push(place),
            answer => break waits(answer),
        }
    };
    let (next, _) = waits(dispatcher.arrive(&name, 1, 1));
    assert!(dispatcher.give_up(gone, &place));
    assert!(!dispatcher.give_up(gone, &place));
    dispatcher.end(&running.pop().unwrap());
    assert_eq!(dispatcher.next_turn(), Some(next));
    assert_eq!(load(&dispatcher, "workload-low").waiting, 0);
}

#[test]
fn levels_come_and_go_while_requests_run() {
    let mut dispatcher = dispatcher(10);
    let mut levels = config().levels;
    let own = level("own");
    levels.insert(Arc::clone(&own), Level { exempt: true, ..levels[&level("exempt")].clone() });
    dispatcher.configure(10, &levels);
    let Answer::Run(place) = dispatcher.arrive(&own, 1, 10) else { panic!() };
    levels.remove(&own);
    dispatcher.configure(10, &levels);
    assert_eq!(load(&dispatcher, "own").seats, 10);
    dispatcher.end(&place);
    assert!(dispatcher.loads().all(|(name, _)| *name != own));
    assert_eq!(dispatcher.arrive(&own, 1, 1), Answer::Reject(Rejected::ConcurrencyLimit));
}

#[test]
fn objects_are_taken_as_they_are() {
    let level = |limited: Value| {
        let value = json!({"metadata": {"name": "x"}, "spec": {"type": "Limited", "limited": limited}});
        Config::of(&[], &[value]).levels["x"].clone()
    };
    assert_eq!(level(json!({})).shares, 30);
    let absurd = json!({"nominalConcurrencyShares": -1, "lendablePercent": 500, "limitResponse": {"type": "Queue",
        "queuing": {"queues": 1_000_000_000, "handSize": 99, "queueLengthLimit": -5}}});
    let absurd = level(absurd);
    assert_eq!((absurd.shares, absurd.lendable_percent), (0, 100));
    assert_eq!(absurd.queuing, Some(Queuing { queues: 1024, hand: 10, length_max: 1 }));
    // A schema without a level decides nothing.
    let schema = json!({"metadata": {"name": "y"}, "spec": {"priorityLevelConfiguration": {"name": "no"}}});
    assert_eq!(Config::of(&[schema], &[]).schemas.len(), 2);
    assert_eq!([0, 1, 100, 101, 5000].map(width_of), [1, 1, 1, 2, 10]);
}
