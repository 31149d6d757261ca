//! Mirrors Endpoints that people keep by hand into EndpointSlices, which is what nodes read.
//!
//! In: one Endpoints object of a Service without selector. Out: slices with the same addresses, owned by it.
//! Semantics: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#endpointslice-mirroring
//! Never: mirrors what a controller keeps, or what says that it is not to be mirrored.

use super::{MANAGED_BY, SERVICE_NAME};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    control::{Controller, common::owner_reference},
    names,
    view::{EndpointSlice, Endpoints, Kind, Service},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const ADDRESSES_MAX: usize = 1000;

#[derive(Debug)]
pub struct EndpointsMirroring;

impl Controller for EndpointsMirroring {
    fn name(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Endpoints::RESOURCE, Service::RESOURCE, EndpointSlice::RESOURCE]
    }

    fn keys_for(&self, _view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let key = |name: &str| Key::new(Endpoints::RESOURCE, &changed.key.namespace, name);
        if changed.is::<EndpointSlice>() {
            let ours = changed.metas().filter(|m| m.labels.get(MANAGED_BY) == Some(MANAGER));
            return ours.filter_map(|m| m.labels.get(SERVICE_NAME)).map(key).collect();
        }
        vec![key(&changed.key.name)]
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, seed: u64) -> Plan {
        let mut plan = Plan::default();
        let mut wanted = BTreeMap::new();
        let source = view.get::<Endpoints>(&key.namespace, &key.name).filter(|e| mirrored(view, e));
        if let Some(endpoints) = source {
            for subset in endpoints.field("/subsets").as_array().into_iter().flatten() {
                add(subset, &mut wanted);
            }
        }
        for slice in view.list::<EndpointSlice>(&key.namespace) {
            let labels = &slice.meta.labels;
            if labels.get(MANAGED_BY) != Some(MANAGER) || labels.get(SERVICE_NAME) != Some(&key.name) {
                continue;
            }
            let value = slice.value();
            let group = (value["addressType"].as_str().unwrap_or_default().to_owned(), value["ports"].to_string());
            match wanted.remove(&group) {
                Some(list) => {
                    let mut patch = json!({});
                    if value["endpoints"].as_array() != Some(&list) {
                        patch["endpoints"] = json!(list);
                    }
                    let copied = source.map(|e| copied(e)).unwrap_or_default();
                    for (field, old) in [("labels", labels.to_value()), ("annotations", slice.meta.annotations.to_value())] {
                        if let Some(diff) = crate::json_diff(&old, &copied[field]) {
                            patch["metadata"][field] = diff;
                        }
                    }
                    if patch != json!({}) {
                        plan.patch_exact(EndpointSlice::RESOURCE, &slice.meta, None, patch);
                    }
                }
                None if slice.meta.deleting.is_none() => plan.delete(EndpointSlice::RESOURCE, &slice.meta),
                None => {}
            }
        }
        if let Some(endpoints) = source {
            for (n, (group, list)) in wanted.into_iter().enumerate() {
                plan.create(EndpointSlice::RESOURCE, &key.namespace, slice(endpoints, &group, list, seed, n as u64));
            }
        }
        plan
    }
}

fn mirrored(view: &ObjectStore, endpoints: &Arc<Endpoints>) -> bool {
    let meta = &endpoints.meta;
    let service = view.get::<Service>(&meta.namespace, &meta.name);
    let by_hand = service.is_some_and(|s| s.spec.selector.is_empty() && s.meta.deleting.is_none());
    by_hand && meta.deleting.is_none() && meta.labels.get(SKIP) != Some("true") && !meta.annotations.contains_key(LEADER)
}

type Group = (String, String);

/// Endpoints of one subset, by address family and ports.
fn add(subset: &Value, wanted: &mut BTreeMap<Group, Vec<Value>>) {
    let ports: Vec<Value> = subset["ports"].as_array().into_iter().flatten().map(port).collect();
    let ports = json!(ports).to_string();
    for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
        for address in subset[field].as_array().into_iter().flatten() {
            let ip = address["ip"].as_str().unwrap_or_default();
            let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
            let list = wanted.entry((family.to_owned(), ports.clone())).or_default();
            if list.len() < ADDRESSES_MAX {
                list.push(endpoint(address, ip, ready));
            }
        }
    }
}

fn port(port: &Value) -> Value {
    let mut out = json!({"name": port["name"].as_str().unwrap_or_default(), "port": port["port"],
        "protocol": port["protocol"].as_str().unwrap_or("TCP")});
    if !port["appProtocol"].is_null() {
        out["appProtocol"] = port["appProtocol"].clone();
    }
    out
}

fn endpoint(address: &Value, ip: &str, ready: bool) -> Value {
    let mut out = Map::new();
    out.insert("addresses".into(), json!([ip]));
    out.insert("conditions".into(), json!({"ready": ready}));
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            out.insert(field.into(), address[field].clone());
        }
    }
    Value::Object(out)
}

/// What a slice takes over from the Endpoints: labels and annotations, but those that speak of the object itself.
fn copied(endpoints: &Endpoints) -> Value {
    let mut labels = endpoints.meta.labels.to_value();
    labels[SERVICE_NAME] = json!(endpoints.meta.name);
    labels[MANAGED_BY] = json!(MANAGER);
    let own = |key: &str| key == "kubectl.kubernetes.io/last-applied-configuration" || key == LAST_CHANGE;
    let annotations = endpoints.meta.annotations.iter().filter(|(k, _)| !own(k));
    let annotations: Map<String, Value> = annotations.map(|(k, v)| (k.to_owned(), json!(v))).collect();
    json!({"labels": labels, "annotations": annotations})
}

fn slice(endpoints: &Endpoints, group: &Group, list: Vec<Value>, seed: u64, n: u64) -> Value {
    let copied = copied(endpoints);
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": names::generated(&format!("{}-", endpoints.meta.name), seed, n),
            "generateName": format!("{}-", endpoints.meta.name), "namespace": endpoints.meta.namespace,
            "labels": copied["labels"], "annotations": copied["annotations"],
            "ownerReferences": [owner_reference(endpoints)]},
        "addressType": group.0,
        "endpoints": list,
        "ports": serde_json::from_str::<Value>(&group.1).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    const SLICES: &str = "discovery.k8s.io/endpointslices";

    fn world() -> World {
        let mut w = World::new();
        w.create("/services", json!({"metadata": {"name": "db", "namespace": "a"}, "spec": {"ports": [{"port": 5432}]}}));
        w.create("/endpoints", json!({"metadata": {"name": "db", "namespace": "a", "labels": {"l": "1"}}, "subsets": [
            {"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}],
                "ports": [{"port": 5432, "protocol": "TCP"}]}]}));
        w.settle();
        w
    }

    #[test]
    fn addresses_kept_by_hand_become_slices_of_each_family() {
        let mut w = world();
        let found = |w: &World| -> Vec<(String, usize)> {
            let one = |s: &&Value| (s["addressType"].as_str().unwrap().to_owned(), s["endpoints"].as_array().unwrap().len());
            let mut all: Vec<_> = w.list(SLICES).iter().map(one).collect();
            all.sort();
            all
        };
        assert_eq!(found(&w), [("IPv4".into(), 2), ("IPv6".into(), 1)]);
        let slice = w.list(SLICES)[0];
        assert_eq!(slice["metadata"]["labels"][MANAGED_BY], MANAGER);
        assert_eq!(slice["metadata"]["labels"]["l"], "1");
        let annotations = json!({"x": "y", LAST_CHANGE: "z"});
        w.patch("/endpoints", "a", "db", json!({"metadata": {"labels": {"l": "2"}, "annotations": annotations}}));
        w.settle();
        let meta = w.list(SLICES)[0]["metadata"].clone();
        assert_eq!((&meta["labels"]["l"], &meta["annotations"]), (&json!("2"), &json!({"x": "y"})));
        let subsets = json!([{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 5432, "protocol": "TCP"}]}]);
        w.patch("/endpoints", "a", "db", json!({"subsets": subsets}));
        w.settle();
        assert_eq!(found(&w), [("IPv4".into(), 1)]);
        w.patch("/endpoints", "a", "db", json!({"metadata": {"labels": {SKIP: "true"}}}));
        w.settle();
        assert!(found(&w).is_empty());
    }

    #[test]
    fn what_a_controller_keeps_is_not_mirrored_and_all_goes_with_the_service() {
        let mut w = world();
        w.delete("/services", "a", "db");
        w.settle();
        assert!(w.list(SLICES).is_empty());
        let spec = json!({"selector": {"app": "x"}, "ports": [{"port": 80}]});
        w.create("/services", json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec}));
        w.settle();
        assert!(w.list(SLICES).iter().all(|s| s["metadata"]["labels"][MANAGED_BY] != MANAGER));
    }
}
