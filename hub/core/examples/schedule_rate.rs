//! How many pods a second the scheduler's core decides.
//!
//! In: nodes and pods made here. Out: one line a case: `name<TAB>pods a second<TAB>microseconds of CPU a pod`, the first by
//! CPU time too, since machines are shared. Run it with `--release`.
//! Never: the store, the API or a disk; `cargo xtask bench --control` measures with them too.
#![allow(clippy::disallowed_methods)]

use limpet_hub_core::{Change, ObjectStore, Timestamp, schedule::Scheduler};
use serde_json::{Value, json};

const NODES: usize = 1_000;
const PODS: usize = 5_000;

fn put(view: &mut ObjectStore, scheduler: &mut Scheduler, resource: &str, object: &Value, now: Timestamp) {
    let text = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let raw = object.to_string().into_bytes().into();
    let changed = view.apply(view.revision() + 1, resource, &namespace, &name, Some(raw));
    scheduler.observe(view, &changed, now);
}

/// CPU time of this thread so far, in seconds.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Seconds of CPU, and how many found a node.
fn measure(spec: impl Fn(usize) -> Value) -> (f64, usize) {
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
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": format!("rs-{}", p % 10),
            "controller": true}]);
        let metadata = json!({"name": format!("web-{p}"), "namespace": "default", "uid": format!("pod-{p}"),
            "labels": {"app": format!("web-{}", p % 10)}, "ownerReferences": owner, "creationTimestamp": "2026-11-23T10:00:00Z"});
        let pod = json!({"metadata": metadata, "spec": spec(p), "status": {"phase": "Pending"}});
        put(&mut view, &mut scheduler, "/pods", &pod, now);
    }
    let (begin, mut bound) = (cpu(), 0);
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
    (cpu() - begin, bound)
}

fn main() {
    let containers = json!([{"name": "c", "image": "web:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]);
    let plain = json!({"containers": containers});
    let app = |p: usize| json!({"matchLabels": {"app": format!("web-{}", p % 10)}});
    let with = |field: &'static str, value: &dyn Fn(usize) -> Value, p: usize| {
        let mut spec = plain.clone();
        spec[field] = value(p);
        spec
    };
    let spread = |p| json!([{"maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": app(p)}]);
    let term = |p| json!({"labelSelector": app(p), "topologyKey": "kubernetes.io/hostname"});
    let preferred = |p| json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "podAffinityTerm": term(p)}]}});
    let required = |p| json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term(p)]}});
    let cases: [(&str, &dyn Fn(usize) -> Value); 4] = [
        ("plain", &|_| plain.clone()),
        ("spread over zones", &|p| with("topologySpreadConstraints", &spread, p)),
        ("kept apart, preferred", &|p| with("affinity", &preferred, p)),
        ("kept apart, required", &|p| with("affinity", &required, p)),
    ];
    for (name, spec) in cases {
        let (seconds, bound) = measure(spec);
        assert_eq!(bound, PODS, "every pod has room");
        println!("{name}\t{:.0}\t{:.0}", PODS as f64 / seconds, seconds * 1e6 / PODS as f64);
    }
}
