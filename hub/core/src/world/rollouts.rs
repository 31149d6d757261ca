//! What holds of DaemonSets and StatefulSets at every single moment of their rollouts.
//!
//! In: seeds. Out: a panic at the change that broke a promise. Never: a change between two looks.

use super::{
    Api, World,
    dice::{Dice, seeds},
};
use crate::view::{Available, DaemonSet, Node, Pod, StatefulSet};
use serde_json::{Value, json};
use std::sync::Arc;

fn template(version: u64) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": format!("v{version}")}]}})
}

/// Changes the template again and again, also in the middle of a rollout, and lets time pass.
fn roll_out(w: &mut World, d: &mut Dice, resource: &str, name: &str) {
    for version in 1..7 {
        let spec = json!({"spec": {"template": template(d.roll(3) * 10 + version % 2)}});
        w.patch(resource, "a", name, spec);
        match d.roll(3) {
            0 => w.settle(),
            1 => w.pass(d.roll(40) as i64),
            _ => w.steps(d.roll(12) as usize),
        }
    }
    w.pass(1000);
}

fn is_available(w: &Api, pod: &Pod, min_ready: i64) -> bool {
    pod.is_active() && pod.available(min_ready, w.now) == Available::Yes
}

/// On each node one pod, and at most `maxSurge` second ones; at most `maxUnavailable` nodes without one that is available.
fn daemons_are_there(w: &Api) {
    let Some(ds) = w.view.get::<DaemonSet>("a", "d") else { return };
    let pods: Vec<&Arc<Pod>> = w.view.controlled_by::<Pod>(&ds.meta.uid).collect();
    let nodes = w.view.all::<Node>().count() as i32;
    let update = &ds.spec.update_strategy.rolling_update;
    let surge = update.max_surge.of_total(nodes, true).unwrap_or(0);
    let away = if surge > 0 { 0 } else { update.max_unavailable.of_total(nodes, true).unwrap_or(1).max(1) };
    let (mut second, mut bare) = (0, 0);
    for node in w.view.all::<Node>() {
        let here = |p: &&&Arc<Pod>| crate::control::node_of_daemon(p) == Some(&*node.meta.name);
        let live = pods.iter().filter(here).filter(|p| !p.is_finished() && (surge == 0 || p.meta.deleting.is_none())).count();
        assert!(live <= 1 + usize::from(surge > 0), "{live} pods on {}", node.meta.name);
        second += i32::from(live > 1);
        let has = pods.iter().filter(here).any(|p| is_available(w, p, ds.spec.min_ready_seconds));
        bare += i32::from(!has);
    }
    assert!(second <= surge, "{second} second pods, {surge} allowed");
    assert!(bare <= away, "{bare} nodes without an available pod, {away} allowed");
}

#[test]
fn a_daemon_is_missing_on_few_nodes_only() {
    for seed in seeds(25) {
        let mut d = Dice(seed);
        let nodes = 1 + d.roll(8);
        let amount = |n: u64, percent: bool| if percent { json!(format!("{}%", n * 20)) } else { json!(n) };
        let (n, percent) = (1 + d.roll(4), d.roll(2) == 0);
        let limits = match d.roll(2) {
            0 => json!({"maxUnavailable": amount(n, percent), "maxSurge": 0}),
            _ => json!({"maxUnavailable": 0, "maxSurge": amount(n, percent)}),
        };
        let min_ready = [0, 0, 7, 20][d.roll(4) as usize];
        println!("seed {seed}: {nodes} nodes, {limits}, available after {min_ready} s");
        let mut w = World::with_nodes(nodes as usize);
        w.create("apps/daemonsets", json!({"metadata": {"name": "d", "namespace": "a"}, "spec": {
            "minReadySeconds": min_ready, "selector": {"matchLabels": {"app": "x"}}, "template": template(0),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": limits}}}));
        w.pass(min_ready);
        w.always = Some(daemons_are_there);
        roll_out(&mut w, &mut d, "apps/daemonsets", "d");
        let status = &w.get("apps/daemonsets", "a", "d")["status"];
        let (updated, available) = (&status["updatedNumberScheduled"], &status["numberAvailable"]);
        assert_eq!((updated, available), (&json!(nodes), &json!(nodes)), "seed {seed}");
    }
}

/// Of the identities that should be there at most `maxUnavailable` are not available.
fn few_are_away(w: &Api) {
    let Some(set) = w.view.get::<StatefulSet>("a", "s") else { return };
    let wanted = set.spec.replicas.unwrap_or(1);
    let away = set.spec.update_strategy.rolling_update.max_unavailable.of_total(wanted, false).unwrap_or(1).max(1);
    let there = w.view.controlled_by::<Pod>(&set.meta.uid).filter(|p| is_available(w, p, set.spec.min_ready_seconds));
    let missing = wanted - there.count() as i32;
    assert!(missing <= away, "{missing} are not available, {away} may be");
}

#[test]
fn a_stateful_set_does_without_few_only() {
    for seed in seeds(25) {
        let mut d = Dice(seed);
        let replicas = 1 + d.roll(7);
        let max = [Value::Null, json!(1), json!(2), json!("40%"), json!(9)][d.roll(5) as usize].clone();
        let policy = ["OrderedReady", "Parallel"][d.roll(2) as usize];
        let min_ready = [0, 0, 7, 20][d.roll(4) as usize];
        println!("seed {seed}: {replicas} replicas, {policy}, {max} may be away, available after {min_ready} s");
        let mut w = World::with_nodes(3);
        w.create("apps/statefulsets", json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {
            "replicas": replicas, "minReadySeconds": min_ready, "selector": {"matchLabels": {"app": "x"}},
            "serviceName": "s", "podManagementPolicy": policy, "template": template(0),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": max}}}}));
        w.pass(1000);
        w.always = Some(few_are_away);
        roll_out(&mut w, &mut d, "apps/statefulsets", "s");
        let status = &w.get("apps/statefulsets", "a", "s")["status"];
        let (updated, available) = (&status["updatedReplicas"], &status["availableReplicas"]);
        assert_eq!((updated, available), (&json!(replicas), &json!(replicas)), "seed {seed}");
    }
}
