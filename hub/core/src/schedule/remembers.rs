//! Numbers that are kept from event to event are what a fresh count gives, and what a plain walk over all pods gives.
//!
//! In: a seed. Out: a panic that names it. Never: a history that cannot be run again.

use super::*;
use crate::view::{Labels, PodTerm, Selector};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[derive(Default)]
struct History {
    view: ObjectStore,
    scheduler: Scheduler,
}

impl History {
    fn put(&mut self, resource: &str, namespace: &str, name: &str, object: Option<Value>) {
        let raw = object.map(|o| o.to_string().into_bytes().into());
        let changed = self.view.apply(self.view.revision() + 1, resource, namespace, name, raw);
        self.scheduler.observe(&self.view, &changed, Timestamp::UNIX_EPOCH);
        // A change that is told twice must do no harm.
        self.scheduler.counts.observe(&self.view, &changed);
    }

    fn happens(&mut self, d: &mut Dice, seed: u64) {
        match d.roll(9) {
            0 => {
                let name = format!("n{}", d.roll(12));
                let mut labels = json!({"kubernetes.io/hostname": name, "zone": format!("z{}", d.roll(3))});
                if d.roll(4) > 0 {
                    labels["rack"] = json!(format!("r{}", d.roll(4)));
                }
                let node = json!({"metadata": {"name": name, "uid": name, "labels": labels}, "spec": {},
                    "status": {"allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"}}});
                self.put("/nodes", "", &name, Some(node));
            }
            1 if d.roll(4) == 0 => self.put("/nodes", "", &format!("n{}", d.roll(12)), None),
            2 => {
                let name = format!("s{}", d.roll(2));
                let team = json!({"metadata": {"name": name, "labels": {"team": format!("t{}", d.roll(2))}}});
                self.put("/namespaces", "", &name, Some(team));
            }
            3 => self.put("/pods", &format!("s{}", d.roll(2)), &format!("p{}", d.roll(40)), None),
            _ => {
                let mut pod = pod(d);
                match d.roll(8) {
                    0 => pod["status"]["phase"] = json!("Succeeded"),
                    1 => pod["metadata"]["deletionTimestamp"] = json!("2026-11-23T10:00:00Z"),
                    _ => {}
                }
                let parsed = parse(&pod);
                // Half are placed by the scheduler itself.
                let node = match self.scheduler.decide(&self.view, &parsed, seed) {
                    Ok(placement) if d.roll(2) == 0 => placement.node,
                    _ => format!("n{}", d.roll(12)),
                };
                pod["spec"]["nodeName"] = json!(node);
                let text = |p: &str| pod.pointer(p).and_then(Value::as_str).unwrap().to_owned();
                let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
                self.put("/pods", &namespace, &name, Some(pod));
            }
        }
    }

    fn check(&self, d: &mut Dice, seed: u64) {
        let pod = parse(&pod(d));
        let mut remembers = self.scheduler.clone();
        assert_eq!(
            remembers.decide(&self.view, &pod, seed),
            Scheduler::default().decide(&self.view, &pod, seed),
            "seed {seed}: remembered and fresh"
        );
        let Ok(answers) = explain(&self.view, &Config::default(), &pod) else { return };
        for answer in answers {
            let node = self.view.node(&answer.node).unwrap();
            let expected = plainly(&self.view, &pod, node);
            let said = answer.reasons.first().map(String::as_str);
            assert_eq!(said, expected, "seed {seed}: {} on {}", pod.meta.name, node.meta.name);
        }
    }
}

fn pod(d: &mut Dice) -> Value {
    let (namespace, name) = (format!("s{}", d.roll(2)), format!("p{}", d.roll(40)));
    let key = |d: &mut Dice| ["kubernetes.io/hostname", "zone", "rack"][d.roll(3) as usize];
    let about = |d: &mut Dice| json!({"matchLabels": {"app": format!("a{}", d.roll(3))}});
    let term = |d: &mut Dice| {
        let mut term = json!({"labelSelector": about(d), "topologyKey": key(d)});
        match d.roll(4) {
            0 => term["namespaces"] = json!(["s0", "s1"]),
            1 => term["namespaceSelector"] = json!({"matchLabels": {"team": "t0"}}),
            2 => term["matchLabelKeys"] = json!(["version"]),
            _ => {}
        }
        term
    };
    let mut affinity = json!({});
    for kind in ["podAffinity", "podAntiAffinity"] {
        match d.roll(6) {
            0 => affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"] = json!([term(d)]),
            1 | 2 => {
                affinity[kind]["preferredDuringSchedulingIgnoredDuringExecution"] =
                    json!([{"weight": 1 + d.roll(9), "podAffinityTerm": term(d)}]);
            }
            _ => {}
        }
    }
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}], "affinity": affinity});
    if d.roll(3) == 0 {
        let when = ["DoNotSchedule", "ScheduleAnyway"][d.roll(2) as usize];
        spec["topologySpreadConstraints"] = json!([{"maxSkew": 1 + d.roll(2), "topologyKey": key(d),
            "whenUnsatisfiable": when, "labelSelector": about(d)}]);
    }
    if d.roll(5) == 0 {
        spec["nodeSelector"] = json!({"zone": format!("z{}", d.roll(3))});
    }
    let owner = json!([{"kind": "ReplicaSet", "uid": format!("rs{}", d.roll(2)), "controller": true}]);
    let labels = json!({"app": format!("a{}", d.roll(3)), "version": format!("{}", d.roll(2))});
    json!({"metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"), "labels": labels,
        "ownerReferences": owner}, "spec": spec, "status": {"phase": "Pending"}})
}

fn parse(pod: &Value) -> Pod {
    match crate::view::Object::parse("/pods", pod.to_string().into_bytes().into()) {
        Some(crate::view::Object::Pod(pod)) => Arc::into_inner(pod).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The first of the rules about other pods that a node breaks, by walking everything.
fn plainly(view: &ObjectStore, pod: &Pod, node: &Node) -> Option<&'static str> {
    if !filter::affinity_matches(node, pod) {
        return Some("node(s) didn't match Pod's node affinity/selector");
    }
    let running: Vec<(&Arc<Node>, &Arc<Pod>)> = view
        .nodes_and_pods()
        .flat_map(|(n, pods)| pods.pods.values().filter(|p| !p.is_finished()).map(move |p| (n, p)))
        .collect();
    for c in pod.spec.spread.iter().filter(|c| &*c.when_unsatisfiable == "DoNotSchedule") {
        let Some(here) = node.meta.labels.get(&c.topology_key) else {
            return Some("node(s) didn't match pod topology spread constraints (missing required label)");
        };
        let selects = |labels: &Labels| c.label_selector.as_ref().is_some_and(|s: &Selector| s.matches(labels));
        let value = |n: &Node| n.meta.labels.get(&c.topology_key).map(str::to_owned);
        let count = |v: &str| {
            let there = running.iter().filter(|(n, p)| {
                value(n).as_deref() == Some(v) && filter::affinity_matches(n, pod) && p.meta.deleting.is_none()
                    && p.meta.namespace == pod.meta.namespace && selects(&p.meta.labels)
            });
            there.count() as i64
        };
        let takes_part = |n: &&Arc<Node>| filter::affinity_matches(n, pod);
        let values = view.nodes_and_pods().map(|(n, _)| n).filter(takes_part).filter_map(|n| value(n));
        let least = values.map(|v| count(&v)).min().unwrap_or(0);
        if count(here) + i64::from(selects(&pod.meta.labels)) - least > c.max_skew {
            return Some("node(s) didn't match pod topology spread constraints");
        }
    }
    let terms = |p: &Pod, near: bool| -> Vec<PodTerm> {
        let affinity = p.spec.affinity.as_ref();
        let side = affinity.and_then(|a| if near { a.pod_affinity.as_ref() } else { a.pod_anti_affinity.as_ref() });
        side.map(|a| a.required.to_vec()).unwrap_or_default()
    };
    let means = |owner: &Pod, t: &PodTerm, other: &Pod| {
        terms::Term::of(owner, t).matches(view, &other.meta.namespace, &other.meta.labels)
    };
    let same = |key: &str, n: &Node| node.meta.labels.get(key).is_some_and(|v| n.meta.labels.get(key) == Some(v));
    for t in &terms(pod, true) {
        let matching = || running.iter().filter(|(_, p)| means(pod, t, p));
        let nowhere = matching().all(|(n, _)| !n.meta.labels.contains_key(&t.topology_key));
        let first = nowhere && means(pod, t, pod) && node.meta.labels.contains_key(&t.topology_key);
        if !first && !matching().any(|(n, _)| same(&t.topology_key, n)) {
            return Some("node(s) didn't match pod affinity rules");
        }
    }
    if terms(pod, false).iter().any(|t| running.iter().any(|(n, p)| means(pod, t, p) && same(&t.topology_key, n))) {
        return Some("node(s) didn't match pod anti-affinity rules");
    }
    let theirs = |(n, p): &(&Arc<Node>, &Arc<Pod>)| {
        terms(p, false).iter().any(|t| means(p, t, pod) && same(&t.topology_key, n))
    };
    running.iter().any(theirs).then_some("node(s) didn't satisfy existing pods anti-affinity rules")
}

#[test]
fn kept_numbers_are_those_of_a_walk() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(25);
    for seed in 0..seeds {
        let (mut d, mut history) = (Dice(seed), History::default());
        for _ in 0..80 {
            history.happens(&mut d, seed);
            history.check(&mut d, seed);
        }
    }
}
