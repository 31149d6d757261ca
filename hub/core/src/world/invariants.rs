//! What holds at every single moment of a rollout, not only at its end.
//!
//! In: seeds. Out: a panic at the change that broke a promise. Never: a change between two looks.

use super::{
    Api, World,
    dice::{Dice, seeds},
};
use crate::view::{Available, Deployment, Pod, ReplicaSet, StatefulSet};
use serde_json::{Value, json};

fn template(version: u64) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": format!("v{version}")}]}})
}

/// Active pods stay at most `maxSurge` above, available ones at most `maxUnavailable` below what is wanted.
fn within_the_fence(w: &Api) {
    let Some(d) = w.view.get::<Deployment>("a", "d") else { return };
    let wanted = d.spec.replicas.unwrap_or(1);
    let update = &d.spec.strategy.rolling_update;
    let surge = update.max_surge.of_total(wanted, true).unwrap_or(0);
    let away = update.max_unavailable.of_total(wanted, false).unwrap_or(0);
    let away = if surge == 0 && away == 0 { 1 } else { away };
    let sets: Vec<_> = w.view.controlled_by::<ReplicaSet>(&d.meta.uid).collect();
    let pods = || sets.iter().flat_map(|rs| w.view.controlled_by::<Pod>(&rs.meta.uid)).filter(|p| p.is_active());
    let is_available = |p: &&std::sync::Arc<Pod>| p.available(d.spec.min_ready_seconds, w.now) == Available::Yes;
    let (active, available) = (pods().count() as i32, pods().filter(is_available).count() as i32);
    assert!(active <= wanted + surge, "{active} pods, {wanted} wanted and {surge} more allowed");
    assert!(available >= wanted - away, "{available} pods are available, {wanted} wanted and {away} may be away");
}

#[test]
fn a_rollout_stays_within_its_fence_at_every_moment() {
    for seed in seeds(40) {
        let mut d = Dice(seed);
        let (replicas, surge, away) = (1 + d.roll(9), d.roll(4), d.roll(4));
        let min_ready = [0, 0, 7, 20][d.roll(4) as usize];
        let amount = |n: u64, percent: bool| if percent { json!(format!("{}%", n * 20)) } else { json!(n) };
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {
            "maxSurge": amount(surge, d.roll(2) == 0), "maxUnavailable": amount(away, d.roll(2) == 0)}});
        let mut w = World::with_nodes(3);
        w.create("apps/deployments", json!({"metadata": {"name": "d", "namespace": "a"}, "spec": {"replicas": replicas,
            "minReadySeconds": min_ready, "selector": {"matchLabels": {"app": "x"}}, "strategy": strategy,
            "template": template(0)}}));
        w.pass(min_ready);
        println!("seed {seed}: {replicas} replicas, {strategy}, available after {min_ready} s");
        w.always = Some(within_the_fence);
        for version in 1..6 {
            w.patch("apps/deployments", "a", "d", json!({"spec": {"template": template(d.roll(3) * 10 + version % 2)}}));
            // Sometimes the next version comes in the middle of the last.
            match d.roll(3) {
                0 => w.settle(),
                1 => w.pass(d.roll(30) as i64),
                _ => w.steps(d.roll(12) as usize),
            }
        }
        w.pass(1000);
        let status = &w.get("apps/deployments", "a", "d")["status"];
        assert_eq!(status["updatedReplicas"], replicas, "seed {seed}");
    }
}

/// No pod of an ordered StatefulSet without its predecessor ready, while it comes up.
fn in_order(w: &Api) {
    let Some(set) = w.view.get::<StatefulSet>("a", "s") else { return };
    let pods: Vec<_> = w.view.controlled_by::<Pod>(&set.meta.uid).collect();
    let there = |n: usize| pods.iter().find(|p| *p.meta.name == *format!("s-{n}"));
    for n in 1..8 {
        // A successor that is there was made after its predecessor was ready; both are only ever taken from the top.
        if let (Some(pod), None) = (there(n), there(n - 1)) {
            assert!(set.status.update_revision != set.status.current_revision || pod.status.ready, "s-{n} without s-{}", n - 1);
        }
    }
    let mut uids: Vec<_> = pods.iter().map(|p| &p.meta.name).collect();
    uids.dedup();
    assert_eq!(uids.len(), pods.len());
}

#[test]
fn a_stateful_set_is_in_order_at_every_moment() {
    for seed in seeds(20) {
        let mut d = Dice(seed);
        let mut w = World::with_nodes(2);
        w.always = Some(in_order);
        w.create("apps/statefulsets", json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"replicas": d.roll(5),
            "selector": {"matchLabels": {"app": "x"}}, "serviceName": "s", "template": template(0)}}));
        for _ in 0..6 {
            match d.roll(3) {
                0 => w.patch("apps/statefulsets", "a", "s", json!({"spec": {"replicas": d.roll(6)}})),
                1 => w.patch("apps/statefulsets", "a", "s", json!({"spec": {"template": template(d.roll(3))}})),
                _ => w.settle(),
            }
            w.steps(d.roll(8) as usize);
        }
        w.settle();
        let o = w.get("apps/statefulsets", "a", "s");
        let number = |v: &Value| v.as_i64().unwrap_or(0);
        assert_eq!(number(&o["status"]["readyReplicas"]), number(&o["spec"]["replicas"]), "seed {seed}");
    }
}
