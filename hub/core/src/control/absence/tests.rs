//! Boards that go away and come back, in the test world.
//!
//! In: policies and absences. Out: which pods run where. Never: a clock.

mod random;

use super::*;
use crate::{clocks::Even, world::World};
use serde_json::Value;

/// Boards, a Deployment of one pod that sits on n0 at first, and a policy in the place that is tested.
fn world(boards: usize, kind: &str) -> World {
    let mut w = World::with_nodes(boards);
    let selector = json!({"matchLabels": {"app": "x"}});
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for n in 1..boards {
        w.patch("/nodes", "", &format!("n{n}"), json!({"spec": {"unschedulable": true}}));
    }
    let spec = match kind {
        "apps/daemonsets" => json!({"selector": selector, "template": template}),
        _ => json!({"replicas": 1, "selector": selector, "template": template, "serviceName": "x"}),
    };
    w.create(kind, json!({"metadata": {"name": "x", "namespace": "a"}, "spec": spec}));
    w.settle();
    for n in 1..boards {
        w.patch("/nodes", "", &format!("n{n}"), json!({"spec": {"unschedulable": false}}));
    }
    w.settle();
    w
}

fn annotate(w: &mut World, resource: &str, ns: &str, name: &str, annotations: Value) {
    w.patch(resource, ns, name, json!({"metadata": {"annotations": annotations}}));
}

fn away(w: &mut World, node: &str) {
    let since = rfc3339(w.now);
    let taint = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]);
    w.patch("/nodes", "", node, json!({"metadata": {"annotations": {OFFLINE_SINCE: since}}, "spec": {"taints": taint},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}));
}

fn back(w: &mut World, node: &str) {
    w.patch("/nodes", "", node, json!({"metadata": {"annotations": {OFFLINE_SINCE: null}}, "spec": {"taints": null},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
}

fn first(w: &World) -> String {
    w.list("/pods")[0]["metadata"]["name"].as_str().unwrap().to_owned()
}

fn on(w: &World, node: &str) -> usize {
    w.view.pods_on(node).filter(|p| p.is_active()).count()
}

const FIVE_MINUTES: fn() -> Value = || json!({LOST_AFTER: "5m", REPLACE: "true"});

#[test]
fn nobody_is_replaced_unless_somebody_asked() {
    let mut w = world(3, "apps/deployments");
    away(&mut w, "n0");
    w.pass(30 * 86400);
    assert_eq!((w.list("/pods").len(), on(&w, "n0")), (1, 1));
    annotate(&mut w, "/nodes", "", "n0", json!({LOST_AFTER: "5m"}));
    w.pass(60);
    assert_eq!(w.list("/pods").len(), 1, "lost, and still not replaced");
}

#[test]
fn the_nearest_word_wins() {
    let cases: [(&str, Value, Value, Value, bool); 6] = [
        ("the pod's", FIVE_MINUTES(), json!({}), json!({}), true),
        ("the node's", json!({}), FIVE_MINUTES(), json!({}), true),
        ("the pool's", json!({}), json!({}), json!({"lostAfter": "5m", "replace": true}), true),
        ("the pod's never", json!({LOST_AFTER: "never"}), FIVE_MINUTES(), json!({}), false),
        ("the node's false", json!({}), json!({REPLACE: "false"}), json!({"lostAfter": "5m", "replace": true}), false),
        ("one from each", json!({REPLACE: "true"}), json!({LOST_AFTER: "1m"}), json!({"lostAfter": "9d"}), true),
    ];
    for (what, pod, node, pool, replaced) in cases {
        let mut w = world(3, "apps/deployments");
        w.create("limpet.dev/nodepools", json!({"metadata": {"name": "all"}, "spec": {"offline": pool,
            "selector": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}}}));
        let name = first(&w);
        annotate(&mut w, "/pods", "a", &name, pod);
        annotate(&mut w, "/nodes", "", "n0", node);
        w.settle();
        away(&mut w, "n0");
        w.pass(290);
        w.pass(20);
        assert_eq!(w.list("/pods").len() == 2, replaced, "{what}");
        assert_eq!(on(&w, "n0"), 1, "{what}: the original is never deleted while its board is away");
    }
}

#[test]
fn on_return_one_of_each_pair_stays() {
    for (reconcile, original_stays) in
        [("keep-original", true), ("keep-replacement", false), ("longest-running", true), ("", true)]
    {
        let mut w = world(3, "apps/deployments");
        let original = first(&w);
        let mut words = FIVE_MINUTES();
        words[RECONCILE] = json!(reconcile);
        annotate(&mut w, "/nodes", "", "n0", words);
        w.settle();
        away(&mut w, "n0");
        w.pass(301);
        assert_eq!(w.list("/pods").len(), 2);
        assert_eq!(w.get("apps/deployments", "a", "x")["status"]["readyReplicas"], 1, "one counts");
        back(&mut w, "n0");
        w.settle();
        assert_eq!(w.list("/pods").len(), 1, "{reconcile}: nothing runs twice");
        assert_eq!(w.exists("/pods", "a", &original), original_stays, "{reconcile}");
        assert!(!is_lost(w.view.all::<Pod>().next().unwrap()));
    }
}

#[test]
fn a_replacement_that_does_not_run_gives_way() {
    let mut w = world(2, "apps/deployments");
    let original = first(&w);
    let mut words = FIVE_MINUTES();
    words[RECONCILE] = json!("keep-replacement");
    annotate(&mut w, "/nodes", "", "n0", words);
    w.patch("/nodes", "", "n1", json!({"spec": {"unschedulable": true}}));
    w.settle();
    away(&mut w, "n0");
    w.pass(301);
    assert_eq!(w.list("/pods").len(), 2, "the replacement waits for a node");
    back(&mut w, "n0");
    w.settle();
    assert!(w.exists("/pods", "a", &original) && w.list("/pods").len() == 1);
}

#[test]
fn pods_that_belong_to_their_node_stay() {
    for kind in ["apps/daemonsets", "apps/statefulsets"] {
        let mut w = world(3, kind);
        let before = w.list("/pods").len();
        annotate(&mut w, "/nodes", "", "n0", FIVE_MINUTES());
        w.create("/pods", json!({"metadata": {"name": "bare", "namespace": "a"}, "spec": {"nodeName": "n0"}}));
        w.settle();
        away(&mut w, "n0");
        w.pass(3600);
        assert_eq!(w.list("/pods").len(), before + 1, "{kind}");
        assert!(w.view.all::<Pod>().all(|p| !is_lost(p)));
    }
}

#[test]
fn when_most_vanish_at_once_nobody_is_replaced() {
    let mut w = world(5, "apps/deployments");
    annotate(&mut w, "/nodes", "", "n0", FIVE_MINUTES());
    w.settle();
    for n in 0..3 {
        away(&mut w, &format!("n{n}"));
        w.pass(60);
    }
    w.pass(86400);
    assert_eq!(w.list("/pods").len(), 1, "the hub's own link is suspect");
    back(&mut w, "n2");
    w.settle();
    assert_eq!(w.list("/pods").len(), 2, "two of five are truly away");
}

#[test]
fn when_most_vanish_it_is_said_why_nobody_is_replaced() {
    let mut w = world(3, "apps/deployments");
    annotate(&mut w, "/nodes", "", "n0", FIVE_MINUTES());
    w.settle();
    for n in 0..2 {
        away(&mut w, &format!("n{n}"));
    }
    w.pass(320);
    let said = |w: &World| w.events.iter().filter(|e| e.2 == "MostOfTheFleetIsAway").cloned().collect::<Vec<_>>();
    let first = said(&w);
    assert_eq!((&*first[0].0, &*first[0].1), ("Node", "n0"));
    assert!(first[0].3.contains("2 of 3 boards went away at the same time"), "{first:?}");
    let before = first.len();
    away(&mut w, "n2");
    w.pass(86400);
    assert_eq!(said(&w).len(), before, "it is not said again because of each other board");
}

/// Nothing that is written wrongly gets a pod replaced, and it is said.
#[test]
fn words_that_cannot_be_read_mean_the_cautious_thing_and_are_named() {
    for (words, named) in [
        (json!({LOST_AFTER: "banana", REPLACE: "true"}), "\"banana\" cannot be read and counts as never"),
        (json!({LOST_AFTER: "5m", REPLACE: "yes"}), "\"yes\" cannot be read and counts as false"),
        (json!({LOST_AFTER: "99999999999d", REPLACE: "true"}), ""),
    ] {
        for on_pod in [true, false] {
            let mut w = world(3, "apps/deployments");
            let pod = first(&w);
            match on_pod {
                true => annotate(&mut w, "/pods", "a", &pod, words.clone()),
                false => annotate(&mut w, "/nodes", "", "n0", words.clone()),
            }
            w.settle();
            away(&mut w, "n0");
            w.pass(90 * 86400);
            assert_eq!(w.list("/pods").len(), 1, "{words}");
            let kind = if on_pod { "Pod" } else { "Node" };
            let said = w.events.iter().any(|e| e.0 == kind && e.2 == "UnreadableAnnotation" && e.3.contains(named));
            assert_eq!(said, !named.is_empty(), "{words}: {:?}", w.events);
        }
    }
}

/// A board whose clock is in 1970 cannot make its replacement older than the pod that it stands in for.
#[test]
fn a_wrong_clock_does_not_decide_who_ran_longer() {
    for clock in ["1970-01-01T00:05:00Z", "2050-01-01T00:00:00Z"] {
        let mut w = world(3, "apps/deployments");
        let original = first(&w);
        let mut words = FIVE_MINUTES();
        words[RECONCILE] = json!("longest-running");
        annotate(&mut w, "/nodes", "", "n0", words);
        w.settle();
        away(&mut w, "n0");
        w.pass(86400);
        let replacement = w.view.all::<Pod>().find(|p| *p.meta.name != *original).unwrap().meta.name.to_string();
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": clock}]);
        w.patch("/pods", "a", &replacement, json!({"status": {"conditions": ready, "startTime": clock}}));
        w.settle();
        back(&mut w, "n0");
        w.settle();
        assert!(w.exists("/pods", "a", &original) && w.list("/pods").len() == 1, "{clock}");
    }
}

/// Its board restarted while it was away: the replacement has been running for longer.
#[test]
fn of_the_two_the_longest_running_stays() {
    let mut w = world(3, "apps/deployments");
    let original = first(&w);
    let mut words = FIVE_MINUTES();
    words[RECONCILE] = json!("longest-running");
    annotate(&mut w, "/nodes", "", "n0", words);
    w.settle();
    away(&mut w, "n0");
    w.pass(86400);
    let now = rfc3339(w.now);
    let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
    w.patch("/pods", "a", &original, json!({"status": {"conditions": ready}}));
    w.settle();
    back(&mut w, "n0");
    w.settle();
    assert!(!w.exists("/pods", "a", &original) && w.list("/pods").len() == 1);
}

/// Whoever is on the board that is away still finds its pods by name: nothing is taken out of its Services.
#[test]
fn endpoints_stay_while_their_board_is_away() {
    let mut w = world(3, "apps/deployments");
    w.create("/services", json!({"metadata": {"name": "x", "namespace": "a"}, "spec": {"selector": {"app": "x"},
        "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"], "ports": [{"port": 80}]}}));
    w.settle();
    let endpoints = |w: &World| -> Vec<(String, bool)> {
        let slices = w.list("discovery.k8s.io/endpointslices");
        let all = slices.iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
        all.map(|e| (e["nodeName"].as_str().unwrap().to_owned(), e["conditions"]["ready"] == true)).collect()
    };
    let before = endpoints(&w);
    assert_eq!(before, [("n0".to_owned(), true)]);
    away(&mut w, "n0");
    w.pass(7 * 86400);
    assert_eq!(endpoints(&w), before);
    annotate(&mut w, "/nodes", "", "n0", FIVE_MINUTES());
    w.pass(60);
    let mut both = endpoints(&w);
    both.sort();
    assert_eq!(both.len(), 2, "the replacement serves, too");
    assert_eq!(both[0], ("n0".to_owned(), true));
}

/// The first board that is marked as away sees all others as there.
#[test]
fn boards_that_went_in_one_moment_are_counted_before_anybody_is_replaced() {
    let mut w = world(3, "apps/deployments");
    annotate(&mut w, "/nodes", "", "n0", json!({LOST_AFTER: "5s", REPLACE: "true"}));
    w.settle();
    away(&mut w, "n0");
    w.pass(15);
    away(&mut w, "n1");
    w.pass(3600);
    assert_eq!(w.list("/pods").len(), 1, "two of three went together");
    back(&mut w, "n1");
    w.settle();
    assert_eq!(w.list("/pods").len(), 2, "one of three is away");
}

/// Until boards had time to come, nobody can say who is there.
#[test]
fn a_hub_that_has_just_started_replaces_nobody() {
    let mut w = world(3, "apps/deployments");
    annotate(&mut w, "/nodes", "", "n0", json!({LOST_AFTER: "5s", REPLACE: "true"}));
    w.settle();
    let (started, key) = (after(w.now, 1000), Key::new(Node::RESOURCE, "", "n0"));
    let since = json!({"metadata": {"annotations": {OFFLINE_SINCE: rfc3339(w.now)}}});
    w.patch("/nodes", "", "n0", since);
    let look = |at: i64| AbsenceController { clock: Arc::new(Gone(started)) }.reconcile(&w.view, &key, after(started, at), 1);
    assert!(look(0).is_empty());
    assert_eq!(look(59).again_at, Some(after(started, 60)));
    assert!(!look(60).is_empty());
}

/// A clock that has gone evenly since then.
struct Gone(Timestamp);

impl WallClock for Gone {
    fn even(&self, _now: Timestamp) -> Even {
        Even { since: self.0, was_set: true }
    }
}

/// A board that is away for a minute is not away for two days because somebody set the clock.
#[test]
fn nobody_is_replaced_while_the_times_of_boards_are_set_right() {
    for days in [-2, 2] {
        let mut w = world(3, "apps/deployments");
        annotate(&mut w, "/nodes", "", "n0", FIVE_MINUTES());
        w.settle();
        away(&mut w, "n0");
        w.pass(60);
        w.turn(days * 86_400);
        // Something wakes the controller.
        annotate(&mut w, "/nodes", "", "n0", json!({"so": "on"}));
        w.pass(59);
        assert_eq!(w.list("/pods").len(), 1, "{days}");
        // By now the watch over nodes has written the time by the new clock.
        let since = rfc3339(after(w.now, -119));
        annotate(&mut w, "/nodes", "", "n0", json!({OFFLINE_SINCE: since}));
        w.pass(180);
        assert_eq!(w.list("/pods").len(), 1, "{days}");
        w.pass(2);
        assert_eq!(w.list("/pods").len(), 2, "{days}");
    }
}

/// The hub went down with some of its boards, and came back with another time: they went together with those that it had
/// marked before, as their leases say.
#[test]
fn boards_that_went_with_the_hub_went_together_whatever_its_clock_says() {
    for leases in [true, false] {
        let mut w = world(3, "apps/deployments");
        annotate(&mut w, "/nodes", "", "n0", FIVE_MINUTES());
        let renewed = rfc3339(w.now);
        for n in ["n0", "n1"].iter().filter(|_| leases) {
            w.create(Lease::RESOURCE, json!({"metadata": {"name": n, "namespace": LEASES}, "spec": {"renewTime": renewed}}));
        }
        away(&mut w, "n0");
        w.settle();
        w.turn(86_400);
        away(&mut w, "n1");
        w.pass(3600);
        assert_eq!(w.list("/pods").len(), if leases { 1 } else { 2 });
    }
}
