//! Seeded walks: pods come and go, everything fails, agents are replaced, boards reboot; then the faults end.
//!
//! The world itself checks at every step that no container runs twice and nothing that runs is removed. At the end
//! every pod must run, and after its deletion nothing may be left.

use super::super::*;
use super::world::*;
use limpet_protocol::ItemKind;
use serde_json::{Value, json};
use std::collections::BTreeMap;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn spec(dice: &mut Dice) -> Value {
    let policy = ["Always", "OnFailure", "Never"][dice.roll(3) as usize];
    let mut spec = one(policy, json!({}));
    if dice.roll(3) == 0 {
        spec["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 1}, "periodSeconds": 3});
    }
    if dice.roll(3) == 0 {
        spec["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["x"]}}});
    }
    if dice.roll(3) == 0 {
        spec["initContainers"] = json!([{"name": "i", "image": "i:1"}, {"name": "s", "image": "i:1", "restartPolicy": "Always"}]);
    }
    if dice.roll(3) == 0 {
        spec["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "cfg"}}]);
    }
    if dice.roll(3) == 0 {
        spec["containers"][0]["lifecycle"]["postStart"] = json!({"exec": {"command": ["x"]}});
    }
    if dice.roll(3) == 0 {
        let all = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}}]);
        let own = ["Always", "OnFailure", "Never"][dice.roll(3) as usize];
        (spec["containers"][0]["restartPolicy"], spec["containers"][0]["restartPolicyRules"]) = (own.into(), all);
    }
    if dice.roll(3) == 0 {
        let probe = json!({"tcpSocket": {"port": 1}, "periodSeconds": 2, "failureThreshold": 2});
        let other = json!({"name": "d", "image": "i:1", "startupProbe": probe, "readinessProbe": probe});
        spec["containers"].as_array_mut().unwrap().push(other);
    }
    if dice.roll(4) == 0 {
        spec["containers"].as_array_mut().unwrap().reverse();
    }
    if dice.roll(4) == 0 {
        spec["volumes"] = json!([{"name": "v", "image": {"reference": "v:1"}}]);
        spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    }
    if dice.roll(8) == 0 {
        spec["activeDeadlineSeconds"] = json!(1 + dice.roll(60));
    }
    if dice.roll(8) == 0 {
        spec["terminationGracePeriodSeconds"] = json!(dice.roll(40));
    }
    spec
}

fn behaviour(dice: &mut Dice) -> Behaviour {
    let stage = if dice.roll(2) == 0 { StartStage::Run } else { StartStage::Create };
    Behaviour {
        exits: (dice.roll(2) == 0).then(|| (dice.roll(30_000), dice.roll(2) as i32)),
        ignores_term: dice.roll(4) == 0,
        start_fails: (dice.roll(6) == 0).then_some(stage),
        image_fails: (dice.roll(6) == 0).then_some(ImageError::Pull),
        hook_fails: dice.roll(8) == 0,
        probe_fails: [Some(ProbeKind::Liveness), Some(ProbeKind::Startup), Some(ProbeKind::Readiness), None, None]
            [dice.roll(5) as usize],
        probes_are_not_made: false,
        hook_takes_ms: dice.roll(20_000),
        resize_fails: false,
    }
}

fn walk(seed: u64) {
    let mut dice = Dice(seed);
    let mut w = World::new();
    // Name, uid number and spec of the pods that the set holds.
    let mut wanted: BTreeMap<String, (u64, Value, bool)> = BTreeMap::new();
    let mut uids = 0;
    for _ in 0..60 {
        let name = format!("p{}", dice.roll(4));
        match dice.roll(14) {
            0..=3 => {
                uids += 1;
                let spec = spec(&mut dice);
                put(&mut w, &name, uids, &spec, None);
                wanted.insert(name, (uids, spec, false));
            }
            4 => {
                if let Some((uid, spec, deleting)) = wanted.get_mut(&name) {
                    *deleting = true;
                    put(&mut w, &name, *uid, spec, Some(dice.roll(31) as i64));
                }
            }
            5 => {
                if wanted.remove(&name).is_some() {
                    w.remove(ItemKind::Pod, &name);
                }
            }
            6 => w = w.successor(false),
            7 => w = w.successor(true),
            8 => w.put(ItemKind::ConfigMap, "cfg", json!({"data": {"A": dice.roll(5).to_string()}})),
            9 => w.remove(ItemKind::ConfigMap, "cfg"),
            10 => w.imageless = (dice.roll(2) == 0).then(|| "v".into()),
            _ => {
                let container = ["c", "i", "s", "d"][dice.roll(4) as usize];
                w.behave.insert(container.into(), behaviour(&mut dice));
            }
        }
        w.run(dice.roll(40_000));
    }
    settle(&mut w, &mut wanted, seed);
}

fn put(w: &mut World, name: &str, uid: u64, spec: &Value, deletion: Option<i64>) {
    let mut body = object(name, spec.clone(), deletion);
    body["metadata"]["uid"] = format!("uid-{name}-{uid}").into();
    w.put(ItemKind::Pod, name, body);
}

fn settle(w: &mut World, wanted: &mut BTreeMap<String, (u64, Value, bool)>, seed: u64) {
    (w.imageless, w.behave) = (None, BTreeMap::new());
    w.behave.insert("i".into(), Behaviour { exits: Some((10, 0)), ..Behaviour::default() });
    // Init containers that were started to run for ever end now.
    let inits: Vec<ContainerRef> = w.running.iter().filter(|r| &*r.container == "i").cloned().collect();
    for at in inits {
        w.end(at, 0);
    }
    w.put(ItemKind::ConfigMap, "cfg", json!({"data": {"A": "1"}}));
    w.run(700_000);
    for (name, (uid, spec, deleting)) in wanted.iter() {
        if *deleting {
            assert!(w.gone.contains(name), "seed {seed}: {name} was deleted");
            continue;
        }
        let phase = w.phase(name);
        let of_one = |c: &Value| c["restartPolicy"].is_string();
        let may_end = spec["restartPolicy"] != "Always"
            || spec["activeDeadlineSeconds"].is_u64()
            || spec["containers"].as_array().is_some_and(|all| all.iter().any(of_one));
        let over = may_end && matches!(phase, "Succeeded" | "Failed");
        let rests = |c: &Value| c["ready"] == true || may_end && c["state"]["terminated"].is_object();
        let running = phase == "Running" && w.status[name]["containerStatuses"].as_array().unwrap().iter().all(rests);
        assert!(over || running, "seed {seed}: {name} {uid}: {}", w.status[name]);
    }
    for (name, (uid, spec, _)) in wanted.iter() {
        put(w, name, *uid, spec, Some(5));
    }
    w.run(120_000);
    for (name, _) in std::mem::take(wanted) {
        assert!(w.gone.contains(&name), "seed {seed}: {name} is gone");
        w.remove(ItemKind::Pod, &name);
    }
    w.run(1000);
    assert!(w.running.is_empty() && w.memories.is_empty() && w.records.is_empty(), "seed {seed}: left overs");
    assert_eq!(w.manager.pods().count(), 0, "seed {seed}");
}

#[test]
fn whatever_happens_it_comes_to_rest_where_it_should() {
    // More where `SEEDS` says so, fewer where a processor is emulated.
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        walk(seed);
    }
}
