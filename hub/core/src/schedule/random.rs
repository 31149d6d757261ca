//! Random pods on random nodes: nothing is overbooked, nobody waits beside room, nobody important waits behind others.
//!
//! In: a seed. Out: a panic that names it. Never: a history that cannot be run again.

use super::*;
use crate::world::World;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn pod(name: &str, d: &mut Dice) -> Value {
    let app = format!("a{}", d.roll(3));
    let mut container = json!({"name": "c", "image": "i",
        "resources": {"requests": {"cpu": format!("{}m", 200 + d.roll(10) * 200)}}});
    if d.roll(5) == 0 {
        container["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    }
    let mut spec = json!({"priority": d.roll(4), "containers": [container]});
    let term = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"});
    match d.roll(6) {
        0 => spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}),
        1 => {
            spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": app}}}]);
        }
        2 => spec["nodeSelector"] = json!({"zone": format!("z{}", d.roll(2))}),
        _ => {}
    }
    json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": app}}, "spec": spec})
}

fn check(w: &World, seed: u64) {
    for (node, pods) in w.view.nodes_and_pods() {
        let (used, can) = (&pods.used.requests, &node.status.allocatable);
        assert!(used.cpu_milli <= can.cpu_milli, "seed {seed}: {} is overbooked", node.meta.name);
        let ports = pods.pods.values().filter(|p| p.spec.ports.iter().any(|p| p.host_port == 80));
        assert!(ports.count() <= 1, "seed {seed}: a port of {} is held twice", node.meta.name);
    }
    for pending in w.view.pods_unbound() {
        let answers = explain(&w.view, &Config::default(), pending).unwrap();
        let free = answers.iter().find(|a| a.reasons.is_empty());
        assert!(free.is_none(), "seed {seed}: {} waits although {free:?} has room", pending.meta.name);
        // Where only the room is missing, nobody less important may hold enough of it.
        for answer in answers.iter().filter(|a| a.reasons == ["Insufficient cpu"]) {
            let node = w.view.node(&answer.node).unwrap();
            let less = |p: &&Arc<Pod>| p.spec.priority < pending.spec.priority;
            let lower: i64 = w.view.pods_on(&answer.node).filter(less).map(|p| p.spec.requests.cpu_milli).sum();
            let free = node.status.allocatable.cpu_milli - w.view.used_on(&answer.node).requests.cpu_milli;
            let plain = pending.spec.affinity.is_none() && pending.spec.spread.is_empty();
            let alone = pending.spec.ports.is_empty() && w.view.pods_with_anti_affinity().next().is_none();
            let enough = free + lower >= pending.spec.requests.cpu_milli;
            assert!(!(enough && plain && alone), "seed {seed}: {} waits behind lesser pods", pending.meta.name);
        }
    }
}

fn history(seed: u64) {
    let mut d = Dice(seed);
    let mut w = World::new();
    for n in 0..=d.roll(4) {
        w.node(&format!("n{n}"), json!({"zone": format!("z{}", n % 2)}), json!([]));
    }
    for i in 0..40 {
        match d.roll(5) {
            0 if i > 5 => {
                let name = w.list("/pods").first().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned());
                name.iter().for_each(|n| w.delete("/pods", "a", n));
            }
            _ => {
                let one = pod(&format!("p{i}"), &mut d);
                w.create("/pods", one);
            }
        }
        if d.roll(3) == 0 {
            w.settle();
            check(&w, seed);
        }
    }
    w.settle();
    check(&w, seed);
}

#[test]
fn nothing_is_overbooked_and_nobody_waits_beside_room() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(40);
    (0..seeds).for_each(history);
}
