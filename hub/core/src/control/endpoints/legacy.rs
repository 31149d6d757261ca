//! The Endpoints object of a Service: what EndpointSlices replaced and some tools still read.
//!
//! In: the Service and its pods. Out: one object with subsets by ports. Never: more than 1000 addresses.

use super::{hostname, is_headless, ports, target_ref};
use crate::{
    Key, ObjectStore, Plan,
    view::{Endpoints, Kind, Pod, Service},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const ADDRESSES_MAX: usize = 1000;

/// A deleted Service takes the Endpoints that were kept for it along.
pub fn without_service(view: &ObjectStore, key: &Key, plan: &mut Plan) {
    let kept = view.get::<Endpoints>(&key.namespace, &key.name);
    if let Some(e) =
        kept.filter(|e| e.meta.labels.get(MANAGED_BY) == Some(MANAGER) && e.meta.deleting.is_none())
    {
        plan.delete(Endpoints::RESOURCE, &e.meta);
    }
}

pub fn reconcile(view: &ObjectStore, service: &Service, pods: &[&Pod], plan: &mut Plan) {
    let subsets = subsets(service, pods);
    let labels = labels(service);
    let Some(old) = view.get::<Endpoints>(&service.meta.namespace, &service.meta.name) else {
        let mut new = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": service.meta.name, "namespace": service.meta.namespace, "labels": labels},
        });
        if !subsets.is_empty() {
            new["subsets"] = json!(subsets);
        }
        return plan.create(Endpoints::RESOURCE, &service.meta.namespace, new);
    };
    let mut patch = json!({});
    let before = old.field("/subsets").as_array().cloned().unwrap_or_default();
    if before != subsets {
        patch["subsets"] = if subsets.is_empty() { Value::Null } else { json!(subsets) };
    }
    if let Some(diff) = crate::json_diff(&old.meta.labels.to_value(), &Value::Object(labels)) {
        patch["metadata"] = json!({"labels": diff});
    }
    if patch != json!({}) {
        plan.patch(Endpoints::RESOURCE, &old.meta, None, patch);
    }
}

fn labels(service: &Service) -> Map<String, Value> {
    let mut labels: Map<String, Value> =
        service.meta.labels.iter().map(|(k, v)| (k.to_owned(), json!(v))).collect();
    labels.insert(MANAGED_BY.into(), json!(MANAGER));
    if is_headless(service) {
        labels.insert("service.kubernetes.io/headless".into(), json!(""));
    }
    labels
}

fn subsets(service: &Service, pods: &[&Pod]) -> Vec<Value> {
    // By ports as text: ready addresses, and those that are not.
    let mut groups: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    let publish = service.spec.publish_not_ready_addresses;
    let here = pods.iter().filter(|p| p.meta.deleting.is_none() || publish);
    for pod in here.take(ADDRESSES_MAX) {
        let Some(ip) = pod.status.ips.first() else { continue };
        let mut address = json!({"ip": ip, "targetRef": target_ref(pod)});
        if let Some(node) = &pod.node {
            address["nodeName"] = json!(node);
        }
        if let Some(name) = hostname(service, pod) {
            address["hostname"] = name;
        }
        let ports = ports(service, pod, false);
        if ports.is_empty() && !is_headless(service) {
            continue;
        }
        let group = groups.entry(json!(ports).to_string()).or_default();
        if publish || pod.status.ready { group.0.push(address) } else { group.1.push(address) }
    }
    groups.into_iter().map(|(ports, (ready, waiting))| subset(&ports, ready, waiting)).collect()
}

fn subset(ports: &str, ready: Vec<Value>, waiting: Vec<Value>) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, mut list: Vec<Value>| {
        list.sort_by_key(|a| a["ip"].as_str().unwrap_or_default().to_owned());
        if !list.is_empty() {
            out.insert(name.into(), json!(list));
        }
    };
    put("addresses", ready);
    put("notReadyAddresses", waiting);
    let ports: Value = serde_json::from_str(ports).unwrap_or_default();
    if ports.as_array().is_some_and(|p| !p.is_empty()) {
        out.insert("ports".into(), ports);
    }
    Value::Object(out)
}
