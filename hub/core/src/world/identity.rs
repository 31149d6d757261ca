//! An identity of a StatefulSet runs at most once, on whatever board, whatever happens.
//!
//! In: seeds; boards that go away and come back, pods that are deleted (not by force: who does that says that nothing runs),
//! ends, drains, scales, new templates. Out: a panic at the change that let one identity run twice. Never: a change between
//! two looks.

use super::{
    Api, World,
    dice::{Dice, seeds},
};
use crate::{Key, view::conditions::rfc3339};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SETS: &str = "apps/statefulsets";

fn runs_once(w: &Api) {
    let mut seen = BTreeSet::new();
    for ((node, uid), pod) in &w.at_work {
        assert!(seen.insert(pod), "{pod} ({uid}) runs on {node} and somewhere else: {:#?}", w.at_work);
    }
}

fn template(version: u64) -> Value {
    let words = json!({"limpet.dev/lost-after": "1m", "limpet.dev/replace": "true"});
    json!({"metadata": {"labels": {"app": "x"}, "annotations": words},
        "spec": {"containers": [{"name": "c", "image": format!("v{version}")}]}})
}

/// The board falls silent, or is heard again.
fn turn(w: &mut World, node: &str) {
    let (since, taints, ready) = match w.away.remove(node) {
        true => (Value::Null, Value::Null, "True"),
        false => {
            w.away.insert(node.to_owned());
            let taint = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
                {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
            (json!(rfc3339(w.now)), taint, "Unknown")
        }
    };
    w.patch("/nodes", "", node, json!({"metadata": {"annotations": {"limpet.dev/offline-since": since}},
        "spec": {"taints": taints}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}));
}

fn some_pod(w: &World, d: &mut Dice) -> Option<Key> {
    let keys: Vec<&Key> = w.objects.keys().filter(|k| &*k.resource == "/pods").collect();
    d.pick(&keys).map(|k| (*k).clone())
}

fn disturb(w: &mut World, d: &mut Dice) {
    let node = format!("n{}", d.roll(3));
    match d.roll(9) {
        0 | 1 => turn(w, &node),
        2 => {
            if let Some(pod) = some_pod(w, d) {
                w.delete("/pods", &pod.namespace, &pod.name);
            }
        }
        3 => {
            // Only a board that can be heard says that a pod has ended.
            let heard = |w: &World, k: &Key| w.objects[k]["spec"]["nodeName"].as_str().is_some_and(|n| !w.away.contains(n));
            if let Some(pod) = some_pod(w, d).filter(|k| heard(w, k)) {
                w.end(&pod, ["Failed", "Succeeded"][d.roll(2) as usize]);
            }
        }
        4 => w.patch(SETS, "a", "s", json!({"spec": {"replicas": d.roll(5)}})),
        5 => w.patch(SETS, "a", "s", json!({"spec": {"template": template(d.roll(3))}})),
        6 if !w.away.contains(&node) => {
            let taints = if d.chance(2) { json!([]) } else { json!([{"key": "k", "effect": "NoExecute"}]) };
            w.patch("/nodes", "", &node, json!({"spec": {"unschedulable": d.chance(3), "taints": taints}}));
        }
        7 => {
            let pod = some_pod(w, d).filter(|_| d.chance(2));
            if let Some(pod) = pod {
                let app = if d.chance(2) { "x" } else { "y" };
                w.patch("/pods", &pod.namespace, &pod.name, json!({"metadata": {"labels": {"app": app}}}));
            }
        }
        _ => w.pass(d.roll(400) as i64),
    }
}

#[test]
fn an_identity_runs_at_most_once() {
    let mut silent = 0;
    for seed in seeds(25) {
        println!("seed {seed}");
        let mut d = Dice(seed);
        let policy = ["OrderedReady", "Parallel"][d.roll(2) as usize];
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1 + d.roll(3)}});
        let mut w = World::with_nodes(3);
        w.always = Some(runs_once);
        w.create(SETS, json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"replicas": 1 + d.roll(4),
            "selector": {"matchLabels": {"app": "x"}}, "serviceName": "s", "podManagementPolicy": policy,
            "updateStrategy": strategy, "template": template(0)}}));
        for _ in 0..40 {
            disturb(&mut w, &mut d);
            silent += usize::from(w.at_work.keys().any(|(node, _)| w.away.contains(node)));
            match d.roll(3) {
                0 => w.settle(),
                _ => w.steps(d.roll(8) as usize),
            }
        }
        for node in w.away.clone() {
            turn(&mut w, &node);
        }
        for n in 0..3 {
            w.patch("/nodes", "", &format!("n{n}"), json!({"spec": {"unschedulable": false, "taints": []}}));
        }
        // Who was let go has no owner, and may hold a name.
        let lost: Vec<Key> = w.objects.keys().filter(|k| &*k.resource == "/pods").cloned().collect();
        for key in lost {
            if w.objects[&key]["metadata"]["labels"]["app"] != "x" {
                w.delete("/pods", "a", &key.name);
            }
        }
        w.pass(1000);
        let o = w.get(SETS, "a", "s");
        let number = |v: &Value| v.as_i64().unwrap_or(0);
        assert_eq!(number(&o["status"]["readyReplicas"]), number(&o["spec"]["replicas"]), "seed {seed}: {o:#}");
        assert_eq!(w.at_work.len() as i64, number(&o["spec"]["replicas"]), "seed {seed}: {:#?}", w.at_work);
    }
    assert!(silent > 0, "no pod ever ran on a board that was away: that proves nothing");
}
