//! Keeps the status of ResourceQuotas: the limits that count, and what is used of them.
//!
//! In: one quota and everything in its namespace. Out: its status. Admission holds the limits by its own count.
//! Never: looks again because of a change that uses nothing else than before.

use super::{Controller, common::set_status};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    quota::{charge, used},
    view::{Kind, ResourceQuota},
};
use serde_json::{Value, json};

#[derive(Debug)]
pub struct ResourceQuotaController;

impl Controller for ResourceQuotaController {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &["*"]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let key = |q: &ResourceQuota| Key::new(ResourceQuota::RESOURCE, &q.meta.namespace, &q.meta.name);
        let mut keys: Vec<Key> = Vec::new();
        if let (Some(old), Some(new)) = (&changed.old, &changed.new)
            && old.meta().uid == new.meta().uid
            && charge(old) == charge(new)
        {
            return if changed.is::<ResourceQuota>() { vec![changed.key.clone()] } else { keys };
        }
        keys.extend(view.list::<ResourceQuota>(&changed.key.namespace).map(|q| key(q)));
        keys
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(quota) = view.get::<ResourceQuota>(&key.namespace, &key.name) else { return plan };
        let hard = quota.field("/spec/hard");
        let status = json!({
            "hard": if hard.is_object() { hard } else { json!({}) },
            "used": Value::Object(used(view, quota)),
        });
        set_status(&mut plan, quota, status);
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    fn quota(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec})
    }

    fn pod(name: &str, requests: Value, limits: Value, more: Value) -> Value {
        let mut pod = json!({"metadata": {"name": name, "namespace": "a"}, "spec": {
            "containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}});
        crate::canonical::merge(&mut pod["spec"], &more);
        pod
    }

    fn used(w: &World, name: &str) -> Value {
        w.get("/resourcequotas", "a", name)["status"]["used"].clone()
    }

    #[test]
    fn counts_what_there_is_and_follows_it() {
        let mut w = World::with_nodes(1);
        w.kubelet = false;
        let hard = json!({"pods": "10", "requests.cpu": "2", "limits.memory": "4Gi", "cpu": "3", "count/pods": "20",
            "configmaps": "5", "services": "3", "services.nodeports": "2", "count/jobs.batch": "9",
            "requests.storage": "10Gi", "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
            "requests.vendor.com/gpu": "4"});
        w.create("/resourcequotas", quota("q", json!({"hard": hard})));
        w.create("/pods", pod("p", json!({"cpu": "250m", "vendor.com/gpu": "1"}), json!({"memory": "1Gi"}), json!({})));
        w.create("/pods", pod("q", json!({"cpu": "1"}), json!({"memory": "512Mi"}), json!({})));
        w.create("/configmaps", json!({"metadata": {"name": "m", "namespace": "a"}}));
        w.create("/services", json!({"metadata": {"name": "s", "namespace": "a"},
            "spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 81}]}}));
        for (name, class) in [("c1", "gold"), ("c2", "tin")] {
            w.create("/persistentvolumeclaims", json!({"metadata": {"name": name, "namespace": "a"}, "spec": {
                "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}}));
        }
        w.settle();
        let want = json!({"pods": "2", "requests.cpu": "1250m", "limits.memory": "1536Mi", "cpu": "1250m",
            "count/pods": "2", "configmaps": "1", "services": "1", "services.nodeports": "2", "count/jobs.batch": "0",
            "requests.storage": "2Gi", "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
            "requests.vendor.com/gpu": "1"});
        assert_eq!(used(&w, "q"), want);
        w.patch("/pods", "a", "q", json!({"status": {"phase": "Succeeded"}}));
        w.settle();
        let now = used(&w, "q");
        assert_eq!((&now["pods"], &now["requests.cpu"], &now["count/pods"]), (&json!("1"), &json!("250m"), &json!("2")));
        w.delete("/configmaps", "a", "m");
        w.settle();
        assert_eq!(used(&w, "q")["configmaps"], "0");
    }

    #[test]
    fn scopes_choose_pods() {
        let mut w = World::with_nodes(1);
        w.kubelet = false;
        let scope = |s: &str| json!({"hard": {"pods": "9"}, "scopes": [s]});
        let class = |op: &str, v: Value| json!({"hard": {"pods": "9"}, "scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": op, "values": v}]}});
        for (name, spec) in [
            ("terminating", scope("Terminating")),
            ("not-terminating", scope("NotTerminating")),
            ("best-effort", scope("BestEffort")),
            ("not-best-effort", scope("NotBestEffort")),
            ("cross", scope("CrossNamespacePodAffinity")),
            ("high", class("In", json!(["high"]))),
            ("classed", class("Exists", Value::Null)),
            ("unclassed", class("DoesNotExist", Value::Null)),
        ] {
            w.create("/resourcequotas", quota(name, spec));
        }
        let none = json!({});
        w.create("/pods", pod("plain", none.clone(), none.clone(), none.clone()));
        w.create("/pods", pod("limited", none.clone(), json!({"cpu": "1"}), none.clone()));
        w.create("/pods", pod("short", none.clone(), none.clone(), json!({"activeDeadlineSeconds": 5})));
        w.create("/pods", pod("high", none.clone(), none.clone(), json!({"priorityClassName": "high"})));
        let term = json!({"namespaces": ["b"], "topologyKey": "z"});
        let affinity = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
        w.create("/pods", pod("near", none.clone(), none, affinity));
        w.settle();
        for (name, want) in [
            ("terminating", "1"),
            ("not-terminating", "4"),
            ("best-effort", "4"),
            ("not-best-effort", "1"),
            ("cross", "1"),
            ("high", "1"),
            ("classed", "1"),
            ("unclassed", "4"),
        ] {
            assert_eq!(used(&w, name)["pods"], want, "{name}");
        }
    }
}
