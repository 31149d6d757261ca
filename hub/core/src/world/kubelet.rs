//! A kubelet for tests: pods run at once, end when their restart policy lets them, and go when deleted.
//!
//! In: pods that are bound to boards that are not away. Out: their status, their end. Never: takes time.

use super::{Api, World};
use crate::{Key, view::conditions::rfc3339};
use serde_json::{Value, json};

impl World {
    pub(super) fn kubelet_step(&mut self) -> bool {
        if !self.kubelet {
            return false;
        }
        self.stop_strangers();
        let here = |pod: &Value| pod["spec"]["nodeName"].as_str().is_some_and(|n| !self.away.contains(n));
        let pods: Vec<(Key, Value)> = self
            .objects
            .iter()
            .filter(|(k, v)| &*k.resource == "/pods" && here(v))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let mut moved = false;
        for (key, pod) in pods {
            moved |= self.run_pod(&key, &pod);
        }
        moved
    }

    /// Ends what runs although its pod is gone or over, on boards that hear of it.
    fn stop_strangers(&mut self) {
        let Api { view, away, at_work, .. } = &mut **self;
        at_work.retain(|(node, uid), _| {
            let pod = view.by_uid(uid).and_then(|k| view.pod(&k.namespace, &k.name));
            away.contains(node) || pod.is_some_and(|p| !p.is_finished())
        });
    }

    /// A pod that ends by itself, as its board says.
    pub fn end(&mut self, key: &Key, phase: &str) {
        let uid = self.objects[key]["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        self.at_work.retain(|(_, u), _| *u != uid);
        self.patch(&key.resource, &key.namespace, &key.name, json!({"status": {"phase": phase}}));
    }

    fn run_pod(&mut self, key: &Key, pod: &Value) -> bool {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let place = (text(&pod["spec"]["nodeName"]), text(&pod["metadata"]["uid"]));
        let phase = pod["status"]["phase"].as_str().unwrap_or("Pending").to_owned();
        if pod["metadata"]["deletionTimestamp"].is_string() {
            if pod["metadata"]["deletionGracePeriodSeconds"] == 0 {
                return false; // Waits for its finalizers.
            }
            self.at_work.remove(&place);
            if !["Succeeded", "Failed"].contains(&&*phase) {
                let status = json!({"phase": "Failed", "conditions": self.ready(pod, false)});
                self.edit_status(key, status);
            }
            self.delete_with(key, Some(0), None);
            return true;
        }
        let exit = self.exit_codes.iter().find(|(part, _)| key.name.contains(&**part)).map(|e| e.1);
        let exit = exit.filter(|_| pod["spec"]["restartPolicy"] != "Always");
        match (&*phase, exit) {
            ("Pending", _) => {
                self.at_work.insert(place, format!("{}/{}", key.namespace, key.name));
                let sick = self.sick.iter().any(|s| key.name.contains(&**s));
                let ip = format!("10.0.0.{}", self.objects.len() % 250);
                let status = json!({"phase": "Running", "startTime": rfc3339(self.now), "podIP": ip,
                    "podIPs": [{"ip": ip}], "conditions": self.ready(pod, !sick)});
                self.edit_status(key, status);
                true
            }
            ("Running", Some(code)) => {
                self.at_work.remove(&place);
                let phase = if code == 0 { "Succeeded" } else { "Failed" };
                let end = json!({"exitCode": code, "finishedAt": rfc3339(self.now)});
                let status = json!({"phase": phase, "conditions": self.ready(pod, false),
                    "containerStatuses": [{"name": "c", "state": {"terminated": end}}]});
                self.edit_status(key, status);
                true
            }
            _ => false,
        }
    }

    fn ready(&self, pod: &Value, ready: bool) -> Value {
        let mut list = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        list.retain(|c| c["type"] != "Ready");
        let status = if ready { "True" } else { "False" };
        list.push(json!({"type": "Ready", "status": status, "lastTransitionTime": rfc3339(self.now)}));
        json!(list)
    }

    fn edit_status(&mut self, key: &Key, status: Value) {
        self.patch(&key.resource, &key.namespace, &key.name, json!({"status": status}));
    }

    /// Ends the sickness of pods whose name contains `part`.
    pub fn heal(&mut self, part: &str) {
        self.sick.retain(|s| s != part);
        let keys: Vec<Key> = self
            .objects
            .keys()
            .filter(|k| &*k.resource == "/pods" && k.name.contains(part))
            .cloned()
            .collect();
        for key in keys {
            let ready = self.ready(&self.objects[&key].clone(), true);
            self.edit_status(&key, json!({"conditions": ready}));
        }
    }
}
