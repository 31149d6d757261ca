//! EndpointSlices of one Service.
//!
//! In: the Service, its pods, its slices. Out: slices to create, patch and delete.
//! Never: moves an endpoint from one slice to another.

use super::{HEADLESS, MANAGED_BY, MANAGER, Ports, SERVICE_NAME, TargetRef, changed, hostname, is_headless, target_ref, text};
use crate::{
    ObjectStore, Plan,
    control::common::owner_reference,
    limits, names,
    view::{
        EndpointSlice, Kind, Pod, Service,
        pick::{elements, find},
    },
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Endpoints with the same family and ports share slices.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Group {
    family: &'static str,
    /// JSON text, for its order only.
    ports: String,
}

/// A slice as it is, and as it is to be.
struct Slice<'a> {
    object: Option<&'a Arc<EndpointSlice>>,
    /// Endpoints as they are written.
    old: Vec<&'a [u8]>,
    new: Vec<String>,
}

/// As it is written: its fields are in the order of canonical JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    addresses: [&'a str; 1],
    conditions: Conditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    hints: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<&'a str>,
    target_ref: TargetRef<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
}

#[derive(Serialize)]
struct Conditions {
    ready: bool,
    serving: bool,
    terminating: bool,
}

pub fn reconcile(view: &ObjectStore, service: &Service, pods: &[&Pod], seed: u64, plan: &mut Plan) {
    let mut wanted = wanted(view, service, pods);
    let mut slices = existing(view, service);
    for family in families(service) {
        // One empty slice of each family says that the Service has no endpoints there.
        if !wanted.keys().any(|g| g.family == family) {
            wanted.insert(Group { family, ports: "null".into() }, BTreeMap::new());
        }
    }
    let labels = labels(service);
    let mut serial = 0;
    for (group, endpoints) in &mut wanted {
        let mut held = slices.remove(group).unwrap_or_default();
        keep(&mut held, endpoints);
        fill(&mut held, endpoints);
        let mut empty_ones = held.iter().filter(|s| s.new.is_empty()).count();
        let mut left = held.len();
        for slice in held {
            if slice.new.is_empty() && (empty_ones < left || empty_ones > 1) {
                if let Some(object) = slice.object {
                    plan.delete(EndpointSlice::RESOURCE, &object.meta);
                }
                empty_ones -= 1;
                left -= 1;
                continue;
            }
            write(view, service, group, slice, &labels, seed, &mut serial, plan);
        }
    }
    for slice in slices.into_values().flatten() {
        if let Some(object) = slice.object {
            plan.delete(EndpointSlice::RESOURCE, &object.meta);
        }
    }
}

pub(super) fn families(service: &Service) -> Vec<&'static str> {
    let known = |f: &str| match f {
        "IPv6" => Some("IPv6"),
        "IPv4" => Some("IPv4"),
        _ => None,
    };
    let list: Vec<_> = service.spec.ip_families.iter().filter_map(|f| known(f)).collect();
    if list.is_empty() { vec!["IPv4"] } else { list }
}

fn wanted(view: &ObjectStore, service: &Service, pods: &[&Pod]) -> BTreeMap<Group, BTreeMap<String, String>> {
    let mut out: BTreeMap<Group, BTreeMap<String, String>> = BTreeMap::new();
    let mut ports = Ports::new(service, true);
    for family in families(service) {
        for pod in pods {
            let ips = pod.status.ips.iter().filter(|ip| ip.contains(':') == (family == "IPv6"));
            let Some(ip) = ips.into_iter().next() else { continue };
            let identity = identity(&text(&pod.meta.name), &text(&pod.meta.uid));
            let endpoint = text(&endpoint(view, service, pod, ip));
            out.entry(Group { family, ports: ports.of(pod) }).or_default().insert(identity, endpoint);
        }
    }
    out
}

fn endpoint<'a>(view: &'a ObjectStore, service: &Service, pod: &'a Pod, ip: &'a str) -> Endpoint<'a> {
    let terminating = pod.meta.deleting.is_some();
    let serving = pod.status.ready;
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let node_name = pod.node.as_deref();
    let node = node_name.and_then(|name| view.node(name));
    let zone = node.and_then(|n| n.meta.labels.get("topology.kubernetes.io/zone"));
    Endpoint {
        addresses: [ip],
        conditions: Conditions { ready, serving, terminating },
        hints: if ready { hints(service, zone, node_name) } else { None },
        hostname: hostname(service, pod),
        node_name,
        target_ref: target_ref(pod),
        zone,
    }
}

/// Whom an endpoint is for, when the Service prefers what is near (KEP-4444, KEP-3015).
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<Value> {
    let zones = zone.map(|z| json!([{"name": z}]));
    match service.spec.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => zones.map(|z| json!({"forZones": z})),
        "PreferSameNode" => {
            let mut out = json!({"forNodes": [{"name": node?}]});
            if let Some(zones) = zones {
                out["forZones"] = zones;
            }
            Some(out)
        }
        _ => None,
    }
}

/// What makes an endpoint the same one: name and uid of its pod, as they are written.
fn identity(name: &str, uid: &str) -> String {
    format!("{name} {uid}")
}

fn identity_of(endpoint: &[u8]) -> String {
    let field = |pointer: &str| String::from_utf8_lossy(find(endpoint, pointer).unwrap_or(b"null"));
    identity(&field("/targetRef/name"), &field("/targetRef/uid"))
}

fn existing<'a>(view: &'a ObjectStore, service: &Service) -> BTreeMap<Group, Vec<Slice<'a>>> {
    let mut out: BTreeMap<Group, Vec<Slice<'_>>> = BTreeMap::new();
    for object in view.list::<EndpointSlice>(&service.meta.namespace) {
        let labels = &object.meta.labels;
        let ours =
            labels.get(SERVICE_NAME) == Some(&service.meta.name) && labels.get(MANAGED_BY) == Some(MANAGER);
        if !ours || object.meta.deleting.is_some() {
            continue;
        }
        let field = |pointer: &str| find(&object.raw, pointer).unwrap_or(b"null");
        let old = elements(field("/endpoints")).collect();
        let family = if field("/addressType") == b"\"IPv6\"" { "IPv6" } else { "IPv4" };
        let group = Group { family, ports: String::from_utf8_lossy(field("/ports")).into_owned() };
        out.entry(group).or_default().push(Slice { object: Some(object), old, new: vec![] });
    }
    out
}

/// Endpoints that are wanted stay in their slices, with what is new about them.
fn keep(slices: &mut [Slice<'_>], wanted: &mut BTreeMap<String, String>) {
    for slice in slices {
        slice.new = slice.old.iter().filter_map(|e| wanted.remove(&identity_of(e))).collect();
    }
}

/// The rest goes where there is room, then into new slices.
fn fill(slices: &mut Vec<Slice<'_>>, wanted: &mut BTreeMap<String, String>) {
    if wanted.is_empty() && slices.is_empty() {
        slices.push(Slice { object: None, old: vec![], new: vec![] });
    }
    let mut rest = std::mem::take(wanted).into_values().peekable();
    for slice in slices.iter_mut() {
        while slice.new.len() < limits::ENDPOINTS_PER_SLICE_MAX {
            let Some(endpoint) = rest.next() else { break };
            slice.new.push(endpoint);
        }
    }
    while rest.peek().is_some() {
        let new = rest.by_ref().take(limits::ENDPOINTS_PER_SLICE_MAX).collect();
        slices.push(Slice { object: None, old: vec![], new });
    }
}

fn labels(service: &Service) -> Map<String, Value> {
    // These three say what the slice is, whatever the Service says.
    let own = |key: &str| [SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&key);
    let copied = service.meta.labels.iter().filter(|(k, _)| !own(k));
    let mut labels: Map<String, Value> = copied.map(|(k, v)| (k.to_owned(), json!(v))).collect();
    labels.insert(SERVICE_NAME.into(), json!(service.meta.name));
    labels.insert(MANAGED_BY.into(), json!(MANAGER));
    if is_headless(service) {
        labels.insert(HEADLESS.into(), json!(""));
    }
    labels
}

#[allow(clippy::too_many_arguments)]
fn write(
    view: &ObjectStore,
    service: &Service,
    group: &Group,
    slice: Slice<'_>,
    labels: &Map<String, Value>,
    seed: u64,
    serial: &mut u64,
    plan: &mut Plan,
) {
    let Some(object) = slice.object else {
        let name = free_name(view, service, seed, serial);
        let ports: Value = serde_json::from_str(&group.ports).unwrap_or_default();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "generateName": format!("{}-", service.meta.name),
                "namespace": service.meta.namespace, "labels": labels, "ownerReferences": [owner_reference(service)]},
            "addressType": group.family,
            "endpoints": Value::Array(slice.new.iter().map(|e| serde_json::from_str(e).unwrap_or_default()).collect()),
            "ports": ports,
        });
        return plan.create(EndpointSlice::RESOURCE, &service.meta.namespace, slice);
    };
    let mut patch = json!({});
    if !slice.old.iter().copied().eq(slice.new.iter().map(String::as_bytes)) {
        let old = find(&object.raw, "/endpoints").unwrap_or(b"[]");
        if let Some(endpoints) = changed(old, &format!("[{}]", slice.new.join(","))) {
            patch["endpoints"] = endpoints;
        }
    }
    let have: BTreeSet<(&str, &str)> = object.meta.labels.iter().collect();
    let want: BTreeSet<(&str, &str)> =
        labels.iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default())).collect();
    if have != want {
        let mut change = Map::new();
        have.difference(&want).for_each(|(k, _)| drop(change.insert((*k).into(), Value::Null)));
        want.difference(&have).for_each(|(k, v)| drop(change.insert((*k).into(), json!(v))));
        patch["metadata"] = json!({"labels": change});
    }
    if patch != json!({}) {
        plan.patch_exact(EndpointSlice::RESOURCE, &object.meta, None, patch);
    }
}

fn free_name(view: &ObjectStore, service: &Service, seed: u64, serial: &mut u64) -> String {
    loop {
        let name = names::generated(&format!("{}-", service.meta.name), seed, *serial);
        *serial += 1;
        if view.get::<EndpointSlice>(&service.meta.namespace, &name).is_none() {
            return name;
        }
    }
}
