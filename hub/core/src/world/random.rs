//! Random histories: whatever people and boards do, the world comes to rest, and at a state that is right.
//!
//! In: a seed. Out: a panic with the seed and the history when something is wrong.
//! Never: a history that cannot be run again.

use super::{World, dice::{Dice, seeds}};
use crate::{Key, Propagation};
use serde_json::{Value, json};

const WORKLOADS: [&str; 5] =
    ["apps/deployments", "apps/replicasets", "apps/statefulsets", "apps/daemonsets", "batch/jobs"];

fn template(app: &str, image: u64, never: bool) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {
        "restartPolicy": if never { "Never" } else { "Always" },
        "containers": [{"name": "c", "image": format!("v{image}"), "resources": {"requests": {"cpu": "50m"}}}]}})
}

fn create(w: &mut World, d: &mut Dice) {
    let resource = WORKLOADS[d.roll(5) as usize];
    let ns = ["a", "b"][d.roll(2) as usize];
    let name = format!("w{}", d.roll(6));
    let app = format!("{}-{name}", &resource[resource.len() - 4..]);
    if w.exists(resource, ns, &name) || !w.exists("/namespaces", "", ns) {
        return;
    }
    if w.get("/namespaces", "", ns)["metadata"]["deletionTimestamp"].is_string() {
        return;
    }
    let selector = json!({"matchLabels": {"app": app}});
    let spec = match resource {
        "batch/jobs" => json!({"completions": d.roll(4) + 1, "parallelism": d.roll(3) + 1, "backoffLimit": 2,
            "completionMode": (["Indexed", "NonIndexed"][d.roll(2) as usize]),
            "template": template(&app, 1, true)}),
        "apps/daemonsets" => json!({"selector": selector, "template": template(&app, 1, false)}),
        _ => json!({"replicas": d.roll(6), "selector": selector, "template": template(&app, 1, false)}),
    };
    w.create(resource, json!({"metadata": {"name": name, "namespace": ns}, "spec": spec}));
}

fn some(w: &World, d: &mut Dice, resource: &str) -> Option<Key> {
    let keys: Vec<&Key> = w.objects.keys().filter(|k| &*k.resource == resource).collect();
    d.pick(&keys).map(|k| (*k).clone())
}

fn change(w: &mut World, d: &mut Dice) {
    let resource = WORKLOADS[d.roll(4) as usize];
    let Some(key) = some(w, d, resource) else { return };
    let app = w.objects[&key]["spec"]["selector"]["matchLabels"]["app"].as_str().unwrap().to_owned();
    let spec = match d.roll(5) {
        0 | 1 if resource != "apps/daemonsets" => json!({"replicas": d.roll(7)}),
        2 if resource == "apps/deployments" => json!({"paused": d.roll(2) == 0}),
        3 if resource == "apps/deployments" => {
            json!({"strategy": {"type": (["Recreate", "RollingUpdate"][d.roll(2) as usize])}})
        }
        _ => json!({"template": template(&app, d.roll(4), false)}),
    };
    w.patch(resource, &key.namespace, &key.name, json!({"spec": spec}));
}

fn disturb(w: &mut World, d: &mut Dice) {
    match d.roll(7) {
        0 => {
            if let Some(pod) = some(w, d, "/pods") {
                w.delete("/pods", &pod.namespace, &pod.name);
            }
        }
        1 => {
            if let Some(pod) = some(w, d, "/pods") {
                w.patch("/pods", &pod.namespace, &pod.name, json!({"status": {"phase": "Failed"}}));
            }
        }
        2 => {
            let name = format!("n{}", d.roll(4));
            match w.exists("/nodes", "", &name) {
                true => w.delete("/nodes", "", &name),
                false => w.node(&name, json!({}), json!([])),
            }
        }
        3 => {
            if let Some(node) = some(w, d, "/nodes") {
                let effect = ["NoSchedule", "NoExecute"][d.roll(2) as usize];
                let taints = if d.roll(2) == 0 { json!([]) } else { json!([{"key": "k", "effect": effect}]) };
                let spec = json!({"unschedulable": d.roll(3) == 0, "taints": taints});
                w.patch("/nodes", "", &node.name, json!({"spec": spec}));
            }
        }
        4 => w.kubelet = !w.kubelet,
        5 => w.sick = if d.roll(2) == 0 { vec![] } else { vec![format!("w{}-", d.roll(6))] },
        _ => w.exit_codes = vec![(format!("w{}-", d.roll(6)), (d.roll(3) == 0).into())],
    }
}

fn remove(w: &mut World, d: &mut Dice) {
    let resource = WORKLOADS[d.roll(5) as usize];
    let way = [Propagation::Background, Propagation::Foreground, Propagation::Orphan][d.roll(3) as usize];
    if d.roll(8) == 0 {
        w.delete("/namespaces", "", "b");
    } else if let Some(key) = some(w, d, resource)
        && w.objects[&key]["metadata"]["deletionTimestamp"].is_null()
    {
        w.delete_with(&key, None, Some(way));
    }
}

fn history(seed: u64) -> World {
    let mut d = Dice(seed);
    let mut w = World::with_nodes(2);
    for ns in ["a", "b"] {
        w.create("/namespaces", json!({"metadata": {"name": ns}}));
    }
    for i in 0..3 {
        w.create(
            "/services",
            json!({"metadata": {"name": format!("s{i}"), "namespace": "a"},
            "spec": {"selector": {"app": format!("ents-w{i}")}, "ports": [{"port": 80}]}}),
        );
    }
    for _ in 0..40 {
        match d.roll(10) {
            0..3 => create(&mut w, &mut d),
            3..6 => change(&mut w, &mut d),
            6..9 => disturb(&mut w, &mut d),
            _ => remove(&mut w, &mut d),
        }
        match d.roll(4) {
            0 => w.settle(),
            1 => w.pass(d.roll(120) as i64),
            _ => {}
        }
    }
    w
}

/// Ends the disturbances and lets the world come to rest.
fn mend(w: &mut World) {
    w.kubelet = true;
    w.sick.clear();
    w.exit_codes.clear();
    for name in w
        .list("/nodes")
        .iter()
        .map(|n| n["metadata"]["name"].as_str().unwrap().to_owned())
        .collect::<Vec<_>>()
    {
        w.patch("/nodes", "", &name, json!({"spec": {"unschedulable": false, "taints": []}}));
    }
    if !w.exists("/nodes", "", "n0") {
        w.node("n0", json!({}), json!([]));
    }
    w.heal("");
    w.pass(1000);
    w.heal("");
    w.pass(1000);
}

fn check(w: &World) {
    let nodes = w.list("/nodes").len() as i64;
    let number = |v: &Value| v.as_i64().unwrap_or(0);
    for resource in ["apps/deployments", "apps/replicasets", "apps/statefulsets"] {
        for o in w.list(resource) {
            let (want, have) = (number(&o["spec"]["replicas"]), number(&o["status"]["readyReplicas"]));
            let paused = o["spec"]["paused"] == true;
            assert!(want == have || paused, "{resource} wants {want} and has {have}: {o:#}");
        }
    }
    for o in w.list("apps/daemonsets") {
        assert_eq!(number(&o["status"]["numberReady"]), nodes, "{o:#}");
        assert_eq!(number(&o["status"]["updatedNumberScheduled"]), nodes, "{o:#}");
    }
    for pod in w.list("/pods") {
        let owner = &pod["metadata"]["ownerReferences"][0];
        assert!(
            owner.is_null() || w.view.by_uid(owner["uid"].as_str().unwrap()).is_some(),
            "an orphan: {pod:#}"
        );
        let node = pod["spec"]["nodeName"].as_str();
        let ended = ["Failed", "Succeeded"].contains(&pod["status"]["phase"].as_str().unwrap());
        assert!(ended || node.is_some_and(|n| w.exists("/nodes", "", n)), "a pod without a node: {pod:#}");
        assert!(pod["metadata"]["deletionTimestamp"].is_null(), "a pod that never goes: {pod:#}");
    }
    assert!(!w.list("/namespaces").iter().any(|n| n["metadata"]["deletionTimestamp"].is_string()));
}

#[test]
fn every_history_comes_to_rest_and_to_what_was_wanted() {
    for seed in seeds(25) {
        let run = || {
            let mut w = history(seed);
            mend(&mut w);
            check(&w);
        };
        if let Err(panic) = std::panic::catch_unwind(run) {
            println!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
