//! How many pods a second the scheduler's core decides.
//!
//! In: nodes and pods made here. Out: one line a case: `name<TAB>pods a second`. Run it with `--release`.
//! Never: the store, the API or a disk; `cargo xtask bench --control` measures with them too.
#![allow(clippy::disallowed_methods)]

use limpet_hub_core::{Change, ObjectStore, Timestamp, schedule::Scheduler};
use serde_json::{Value, json};
use std::time::Instant;

const NODES: usize = 1_000;
const PODS: usize = 5_000;

fn put(view: &mut ObjectStore, scheduler: &mut Scheduler, resource: &str, object: &Value, now: Timestamp) {
    let text = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let raw = object.to_string().into_bytes().into();
    let changed = view.apply(view.revision() + 1, resource, &namespace, &name, Some(raw));
    scheduler.observe(view, &changed, now);
}

/// Pods a second, and how many found a node.
fn rate(spec: impl Fn(usize) -> Value) -> (f64, usize) {
    let now = Timestamp::from_second(1_795_000_000).unwrap_or_default();
    let (mut view, mut scheduler) = (ObjectStore::new(), Scheduler::default());
    for n in 0..NODES {
        let labels = json!({"kubernetes.io/hostname": format!("n{n}"),
            "topology.kubernetes.io/zone": format!("z{}", n % 10)});
        let node = json!({"metadata": {"name": format!("n{n}"), "uid": format!("node-{n}"), "labels": labels},
            "spec": {}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
        put(&mut view, &mut scheduler, "/nodes", &node, now);
    }
    for p in 0..PODS {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]);
        let metadata = json!({"name": format!("web-{p}"), "namespace": "default", "uid": format!("pod-{p}"),
            "labels": {"app": "web"}, "ownerReferences": owner, "creationTimestamp": "2026-11-23T10:00:00Z"});
        let pod = json!({"metadata": metadata, "spec": spec(p), "status": {"phase": "Pending"}});
        put(&mut view, &mut scheduler, "/pods", &pod, now);
    }
    let (begin, mut bound) = (Instant::now(), 0);
    while let Some(key) = scheduler.next(now) {
        let plan = scheduler.plan(&view, &key, now, bound as u64);
        for change in &plan.changes {
            if let Change::Bind { namespace, name, uid, node } = change {
                bound += 1;
                if let Some(changed) = view.assume_bound(namespace, name, uid, node) {
                    scheduler.observe(&view, &changed, now);
                }
            }
        }
    }
    (PODS as f64 / begin.elapsed().as_secs_f64(), bound)
}

fn main() {
    let containers = json!([{"name": "c", "image": "web:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]);
    let plain = json!({"containers": containers});
    let mut spread = plain.clone();
    spread["topologySpreadConstraints"] = json!([{"maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let mut apart = plain.clone();
    apart["affinity"] = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100,
        "podAffinityTerm": {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}}]}});
    for (name, spec) in [("plain", plain), ("spread over zones", spread), ("kept apart, preferred", apart)] {
        let (rate, bound) = rate(|_| spec.clone());
        assert_eq!(bound, PODS, "every pod has room");
        println!("{name}\t{rate:.0}");
    }
}
