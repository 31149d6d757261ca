//! Somebody who changes things all the time: pods of single boards, ConfigMaps, Secrets, and workloads.
//!
//! In: chance. Out: objects of the hub, changed as by kubectl. At the end of the trouble everything that keeps work from
//! coming to rest is taken back.
//! Never: acts while the hub is down.

use crate::{Rng, hub::Hub, policies, workloads};
use limpet_hub_core::Key;
use serde_json::json;

pub struct Operator {
    made: u64,
    boards: u64,
    policies: bool,
    every: u64,
}

impl Operator {
    pub fn new(boards: usize, policies: bool, every: u64) -> Operator {
        Operator { made: 0, boards: boards as u64, policies, every }
    }

    pub fn act(&mut self, hub: &mut Hub, rng: &mut Rng) {
        if self.policies && rng.one_in(4) {
            return policies::act(hub, rng, self.boards);
        }
        if hub.control.is_on() && rng.one_in(2) {
            return workloads::act(hub, rng, self.boards, self.every);
        }
        match rng.between(0, 10) {
            0..4 => self.create(hub, rng),
            4..7 => self.configure(hub, rng),
            7..9 => delete(hub, rng, false),
            _ => delete(hub, rng, true),
        }
    }

    pub fn mend(&mut self, hub: &mut Hub) {
        if hub.control.is_on() {
            workloads::mend(hub);
        }
        if self.policies {
            policies::mend(hub);
        }
    }

    fn create(&mut self, hub: &mut Hub, rng: &mut Rng) {
        if hub.list("/pods").filter(|(k, _)| k.name.starts_with('p')).count() as u64 >= self.boards * 5 {
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
                        {"name": "s", "secret": {"secretName": secret_of(&format!("board-{board}")), "optional": true}},
                        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
                },
                "status": {"phase": "Pending"},
            }),
        );
    }

    fn configure(&mut self, hub: &mut Hub, rng: &mut Rng) {
        if rng.one_in(4) {
            let name = secret_of(&format!("board-{}", rng.between(0, self.boards)));
            let data = json!({"key": rng.next().to_string()});
            let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-{name}")});
            return hub.put("/secrets", json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}));
        }
        let name = format!("m{}", rng.between(0, 4));
        if rng.one_in(6) {
            return hub.api.delete("/configmaps", "default", &name);
        }
        // Large enough for differences to be worth it.
        let data = json!({"k": rng.next().to_string(), "same": "and so on ".repeat(20)});
        let metadata = json!({"name": name, "namespace": "default", "uid": format!("cm-{name}")});
        hub.put("/configmaps", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}));
    }
}

/// The Secret that only pods of this board name.
pub fn secret_of(board: &str) -> String {
    format!("secret-of-{board}")
}

/// As `kubectl delete pod`, or with `--force --grace-period=0`.
pub fn delete(hub: &mut Hub, rng: &mut Rng, force: bool) {
    let pods: Vec<Key> = hub
        .list("/pods")
        .filter(|(_, v)| v["metadata"]["deletionTimestamp"].is_null())
        .map(|(k, _)| k.clone())
        .collect();
    if pods.is_empty() {
        return;
    }
    let key = &pods[rng.between(0, pods.len() as u64) as usize];
    if force {
        let uid = hub.api.objects[key]["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        hub.promises.force(&uid);
    }
    hub.api.delete_with(key, force.then_some(0), None);
}
