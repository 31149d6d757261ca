//! Gives every namespace its ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`.
//!
//! In: one Namespace. Out: what is missing of both. Never: works in a namespace that is being deleted.

use super::Controller;
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    view::{ConfigMap, Kind, Namespace, ServiceAccount},
};
use serde_json::json;

const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

#[derive(Debug)]
pub struct ServiceAccountController {
    pub ca_pem: String,
}

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Namespace::RESOURCE, ServiceAccount::RESOURCE, ConfigMap::RESOURCE]
    }

    fn keys_for(&self, _view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let name = &changed.key.name;
        let ours = (changed.is::<ServiceAccount>() && &**name == "default")
            || (changed.is::<ConfigMap>() && &**name == ROOT_CA);
        match (changed.is::<Namespace>(), ours) {
            (true, _) => vec![changed.key.clone()],
            (_, true) => vec![Key::new(Namespace::RESOURCE, "", &changed.key.namespace)],
            _ => vec![],
        }
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let active = view.get::<Namespace>("", &key.name).is_some_and(|n| n.meta.deleting.is_none());
        if !active {
            return plan;
        }
        if view.get::<ServiceAccount>(&key.name, "default").is_none() {
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": key.name}});
            plan.create(ServiceAccount::RESOURCE, &key.name, account);
        }
        let data = json!({"ca.crt": self.ca_pem});
        match view.get::<ConfigMap>(&key.name, ROOT_CA) {
            None => {
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ROOT_CA,
                    "namespace": key.name, "annotations": {"kubernetes.io/description": DESCRIPTION}}, "data": data});
                plan.create(ConfigMap::RESOURCE, &key.name, map);
            }
            Some(map) if map.field("/data") != data => {
                let patch = crate::json_diff(&map.field("/data"), &data).unwrap_or_default();
                plan.patch(ConfigMap::RESOURCE, &map.meta, None, json!({"data": patch}));
            }
            Some(_) => {}
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    #[test]
    fn comes_and_comes_back() {
        let mut w = World::new();
        w.create("/namespaces", json!({"metadata": {"name": "a"}}));
        w.settle();
        assert!(w.exists("/serviceaccounts", "a", "default"));
        w.delete("/serviceaccounts", "a", "default");
        w.patch("/configmaps", "a", ROOT_CA, json!({"data": {"ca.crt": "wrong", "x": "y"}}));
        w.settle();
        assert!(w.exists("/serviceaccounts", "a", "default"));
        assert_eq!(w.get("/configmaps", "a", ROOT_CA)["data"], json!({"ca.crt": "CA"}));
        w.delete("/namespaces", "", "a");
        w.settle();
        assert!(w.objects.is_empty());
    }
}
