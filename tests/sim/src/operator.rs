//! Somebody with kubectl: pods and configuration come, change and go, at any time.
//!
//! In: chance and the hub's store. Out: writes to the store. Never: looks at boards.

use crate::{Rng, hub::Hub};
use limpet_hub_core::Key;
use serde_json::{Value, json};

pub struct Operator {
    made: u64,
    boards: u64,
}

impl Operator {
    pub fn new(boards: usize) -> Operator {
        Operator { made: 0, boards: boards as u64 }
    }

    pub fn act(&mut self, hub: &mut Hub, rng: &mut Rng) {
        match rng.between(0, 10) {
            0..4 => self.create(hub, rng),
            4..7 => self.configure(hub, rng),
            7..9 => delete(hub, rng, false),
            _ => delete(hub, rng, true),
        }
    }

    fn create(&mut self, hub: &mut Hub, rng: &mut Rng) {
        if hub.pods().count() as u64 >= self.boards * 5 {
            return;
        }
        self.made += 1;
        let (name, board) = (format!("p{}", self.made), rng.between(0, self.boards));
        let map = format!("m{}", rng.between(0, 4));
        let grace = rng.between(1, 30);
        hub.put(
            "/pods",
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{}", self.made)},
                "spec": {
                    "nodeName": format!("board-{board}"), "restartPolicy": "Always", "serviceAccountName": "default",
                    "terminationGracePeriodSeconds": grace,
                    "containers": [{"name": "c", "image": "hub.limpet/app:1", "imagePullPolicy": "IfNotPresent",
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
                    "volumes": [{"name": "v", "configMap": {"name": map, "optional": true}},
                        {"name": "s", "secret": {"secretName": secret_of(board as usize), "optional": true}},
                        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
                },
                "status": {"phase": "Pending"},
            }),
        );
    }

    fn configure(&mut self, hub: &mut Hub, rng: &mut Rng) {
        if rng.one_in(4) {
            let name = secret_of(rng.between(0, self.boards) as usize);
            let data = json!({"key": rng.next().to_string()});
            let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-{name}")});
            return hub.put("/secrets", json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}));
        }
        let name = format!("m{}", rng.between(0, 4));
        if rng.one_in(6) {
            hub.delete(&Key::new("/configmaps", "default", &name));
            return;
        }
        // Large enough for differences to be worth it.
        let data = json!({"k": rng.next().to_string(), "same": "and so on ".repeat(20)});
        let metadata = json!({"name": name, "namespace": "default", "uid": format!("cm-{name}")});
        hub.put("/configmaps", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}));
    }
}

/// The Secret that only pods of this board name.
pub fn secret_of(board: usize) -> String {
    format!("secret-of-{board}")
}

/// As `kubectl delete pod`, or with `--force --grace-period=0`.
fn delete(hub: &mut Hub, rng: &mut Rng, force: bool) {
    let pods: Vec<(Key, Value)> = hub
        .objects
        .iter()
        .filter(|(k, v)| &*k.resource == "/pods" && v["metadata"]["deletionTimestamp"].is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if pods.is_empty() {
        return;
    }
    let (key, mut pod) = pods[rng.between(0, pods.len() as u64) as usize].clone();
    if force {
        hub.delete(&key);
        return;
    }
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-18T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = pod["spec"]["terminationGracePeriodSeconds"].clone();
    hub.put("/pods", pod);
}
