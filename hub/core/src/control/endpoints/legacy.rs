//! The Endpoints object of a Service: what EndpointSlices replaced and some tools still read.
//!
//! In: the Service and its pods. Out: one object with subsets by ports. Never: more than 1000 addresses; those that are ready
//! stay first, each subset keeps its share, and an annotation says that some are missing.

use super::{HEADLESS, Ports, TargetRef, changed, hostname, is_headless, slices::families, target_ref, text};
use crate::{
    Key, ObjectStore, Plan,
    view::{Endpoints, Kind, Pod, Service, pick::find},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const ADDRESSES_MAX: usize = 1000;
/// No ports, as text.
const NONE: &str = "[]";
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
    let all: Vec<String> = subsets.into_iter().map(|(ports, (ready, waiting))| subset(&ports, ready, waiting)).collect();
    let subsets = format!("[{}]", all.join(","));
    let labels = labels(service);
    let Some(old) = view.get::<Endpoints>(&service.meta.namespace, &service.meta.name) else {
        let mut new = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": service.meta.name, "namespace": service.meta.namespace, "labels": labels},
        });
        if !all.is_empty() {
            new["subsets"] = serde_json::from_str(&subsets).unwrap_or_default();
        }
        if let Some(text) = truncated {
            new["metadata"]["annotations"] = json!({OVER_CAPACITY: text});
        }
        return plan.create(Endpoints::RESOURCE, &service.meta.namespace, new);
    };
    let mut patch = json!({});
    let before = find(&old.raw, "/subsets").filter(|bytes| *bytes != b"null");
    if let Some(subsets) = changed(before.unwrap_or(b"[]"), &subsets) {
        patch["subsets"] = if all.is_empty() { Value::Null } else { subsets };
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

/// As it is written: its fields are in the order of canonical JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Address<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    ip: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_ref: Option<TargetRef<'a>>,
}

/// By ports as text: ready addresses, and those that are not.
type Subsets<'a> = BTreeMap<String, (Vec<Address<'a>>, Vec<Address<'a>>)>;

fn subsets<'a>(service: &Service, pods: &[&'a Pod]) -> Subsets<'a> {
    let mut groups = Subsets::new();
    let publish = service.spec.publish_not_ready_addresses;
    // One family: the Service's first.
    let six = families(service).first() == Some(&"IPv6");
    let mut ports = Ports::new(service, false);
    for pod in pods.iter().filter(|p| p.meta.deleting.is_none() || publish) {
        let Some(ip) = pod.status.ips.iter().find(|ip| ip.contains(':') == six) else { continue };
        let ports = ports.of(pod);
        if ports == NONE && !is_headless(service) {
            continue;
        }
        let (hostname, target_ref) = (hostname(service, pod), Some(target_ref(pod)));
        let address = Address { hostname, ip, node_name: pod.node.as_deref(), target_ref };
        let group = groups.entry(ports).or_default();
        if publish || pod.status.ready { group.0.push(address) } else { group.1.push(address) }
    }
    groups
}

/// At most `ADDRESSES_MAX`: first those go that are not ready. Whether any went.
fn truncate(subsets: &mut Subsets<'_>) -> bool {
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
        list.sort_by_key(|a| a.ip);
        list.truncate(share);
        left -= list.len();
    }
    true
}

/// As text.
fn subset(ports: &str, ready: Vec<Address<'_>>, waiting: Vec<Address<'_>>) -> String {
    let mut fields = Vec::new();
    for (name, mut list) in [("addresses", ready), ("notReadyAddresses", waiting)] {
        list.sort_by_key(|a| a.ip);
        if !list.is_empty() {
            fields.push(format!("{name:?}:{}", text(&list)));
        }
    }
    if ports != NONE {
        fields.push(format!("\"ports\":{ports}"));
    }
    format!("{{{}}}", fields.join(","))
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
            let ips: Vec<String> = (0..1200).map(|i| format!("10.0.{}.{}", i / 256, i % 256)).collect();
            let address = |ip| Address { hostname: None, ip, node_name: None, target_ref: None };
            let list = |n: usize| ips.iter().take(n).map(|ip| address(ip)).collect::<Vec<_>>();
            let keyed = before.iter().enumerate().map(|(at, (r, w))| (at.to_string(), (list(*r), list(*w))));
            let mut subsets: Subsets<'_> = keyed.collect();
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
