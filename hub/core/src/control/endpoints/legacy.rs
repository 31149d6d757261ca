//! The Endpoints object of a Service: what EndpointSlices replaced and some tools still read.
//!
//! In: the Service and its pods. Out: one object with subsets by ports. Never: more than 1000 addresses; those that are ready
//! stay first, each subset keeps its share, and an annotation says that some are missing.

use super::{HEADLESS, hostname, is_headless, ports, slices::families, target_ref};
use crate::{
    Key, ObjectStore, Plan,
    view::{Endpoints, Kind, Pod, Service},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

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
    let mut subsets = subsets(service, pods);
    let truncated = truncate(&mut subsets).then_some("truncated");
    let subsets: Vec<Value> = subsets.into_iter().map(|(ports, (ready, waiting))| subset(&ports, ready, waiting)).collect();
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
        if let Some(text) = truncated {
            new["metadata"]["annotations"] = json!({OVER_CAPACITY: text});
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
    if old.meta.annotations.get(OVER_CAPACITY) != truncated {
        patch["metadata"]["annotations"] = json!({OVER_CAPACITY: truncated});
    }
    if patch != json!({}) {
        plan.patch(Endpoints::RESOURCE, &old.meta, None, patch);
    }
}

fn labels(service: &Service) -> Map<String, Value> {
    let copied = service.meta.labels.iter().filter(|(k, _)| *k != HEADLESS);
    let mut labels: Map<String, Value> = copied.map(|(k, v)| (k.to_owned(), json!(v))).collect();
    labels.insert(MANAGED_BY.into(), json!(MANAGER));
    if is_headless(service) {
        labels.insert(HEADLESS.into(), json!(""));
    }
    labels
}

/// By ports as text: ready addresses, and those that are not.
type Subsets = BTreeMap<String, (Vec<Value>, Vec<Value>)>;

fn subsets(service: &Service, pods: &[&Pod]) -> Subsets {
    let mut groups = Subsets::new();
    let publish = service.spec.publish_not_ready_addresses;
    // One family: the Service's first.
    let six = families(service).first() == Some(&"IPv6");
    for pod in pods.iter().filter(|p| p.meta.deleting.is_none() || publish) {
        let Some(ip) = pod.status.ips.iter().find(|ip| ip.contains(':') == six) else { continue };
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
    groups
}

/// At most `ADDRESSES_MAX`: first those go that are not ready. Whether any went.
fn truncate(subsets: &mut Subsets) -> bool {
    let ready: usize = subsets.values().map(|s| s.0.len()).sum();
    let waiting: usize = subsets.values().map(|s| s.1.len()).sum();
    if ready + waiting <= ADDRESSES_MAX {
        return false;
    }
    let of_ready = ready > ADDRESSES_MAX;
    let (room, all) = if of_ready { (ADDRESSES_MAX, ready) } else { (ADDRESSES_MAX - ready, waiting) };
    let mut left = room;
    for (ready, waiting) in subsets.values_mut() {
        if of_ready {
            waiting.clear();
        }
        let list = if of_ready { ready } else { waiting };
        let share = (list.len() * room).div_ceil(all.max(1)).min(left);
        list.sort_by_key(|a| a["ip"].as_str().unwrap_or_default().to_owned());
        list.truncate(share);
        left -= list.len();
    }
    true
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    #[test]
    fn more_than_a_thousand_addresses_are_cut_and_said() {
        // Ready and waiting of each subset -> what is left of them.
        let cases: [(&[(usize, usize)], &[(usize, usize)], bool); 6] = [
            (&[(400, 600)], &[(400, 600)], false),
            (&[(800, 400)], &[(800, 200)], true),
            (&[(1200, 400)], &[(1000, 0)], true),
            (&[(600, 200), (600, 200)], &[(500, 0), (500, 0)], true),
            (&[(300, 600), (300, 300)], &[(300, 267), (300, 133)], true),
            (&[(1000, 1)], &[(1000, 0)], true),
        ];
        for (before, after, cut) in cases {
            let list = |n: usize| (0..n).map(|i| json!({"ip": format!("10.0.{}.{}", i / 256, i % 256)})).collect::<Vec<_>>();
            let keyed = before.iter().enumerate().map(|(at, (r, w))| (at.to_string(), (list(*r), list(*w))));
            let mut subsets: Subsets = keyed.collect();
            assert_eq!(truncate(&mut subsets), cut, "{before:?}");
            let left: Vec<(usize, usize)> = subsets.values().map(|(r, w)| (r.len(), w.len())).collect();
            assert_eq!(left, after, "{before:?}");
        }
    }

    #[test]
    fn the_annotation_comes_and_goes() {
        let mut w = World::new();
        w.create("/services", json!({"metadata": {"name": "s", "namespace": "a"},
            "spec": {"clusterIP": "10.43.0.9", "selector": {"app": "x"}, "ports": [{"port": 80}]}}));
        w.settle();
        w.patch("/endpoints", "a", "s", json!({"metadata": {"annotations": {OVER_CAPACITY: "truncated"}}}));
        w.settle();
        assert!(w.get("/endpoints", "a", "s")["metadata"]["annotations"][OVER_CAPACITY].is_null());
    }
}
