//! What is written into claims.
//!
//! In: a claim, the devices that were found for it, the node, the pod. Out: changes. Source: the API reference of
//! AllocationResult. Never: overwrites what others wrote to an allocated claim in between.

use super::{
    offers::Offer,
    search::Alternative,
};
use crate::{
    Change,
    control::CLAIM_FINALIZER as FINALIZER,
    view::{DeviceClass, Kind, Node, Pod, ResourceClaim},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The pod's name on a claim that has its devices.
pub fn reservation(claim: &ResourceClaim, pod: &Pod) -> Change {
    let mut users = claim.field("/status/reservedFor").as_array().cloned().unwrap_or_default();
    users.push(consumer(pod));
    patch(claim, Some("status"), Some(claim.meta.resource_version), json!({"status": {"reservedFor": users}}))
}

/// First the finalizer, then the devices with the pod's name.
pub fn allocation(
    claim: &ResourceClaim,
    classes: &BTreeMap<Box<str>, Arc<DeviceClass>>,
    chosen: &[(&Alternative, &Offer<'_>)],
    node: &Node,
    pod: &Pod,
) -> Vec<Change> {
    let mut finalizers = claim.field("/metadata/finalizers").as_array().cloned().unwrap_or_default();
    let mut changes = Vec::new();
    let mut version = Some(claim.meta.resource_version);
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(json!(FINALIZER));
        changes.push(patch(claim, None, version.take(), json!({"metadata": {"finalizers": finalizers}})));
    }
    let results: Vec<Value> = chosen.iter().map(|(a, offer)| result(a, offer)).collect();
    let mut allocation = json!({"devices": {"results": results}});
    let config = config(claim, classes, chosen);
    if !config.is_empty() {
        allocation["devices"]["config"] = json!(config);
    }
    if let Some(selector) = node_selector(chosen, node) {
        allocation["nodeSelector"] = selector;
    }
    let status = json!({"status": {"allocation": allocation, "reservedFor": [consumer(pod)]}});
    changes.push(patch(claim, Some("status"), version, status));
    changes
}

fn consumer(pod: &Pod) -> Value {
    json!({"resource": "pods", "name": pod.meta.name, "uid": pod.meta.uid})
}

fn result(wanted: &Alternative, offer: &Offer<'_>) -> Value {
    let (driver, pool, device) = offer.id();
    let mut result = json!({"request": wanted.name, "driver": driver, "pool": pool, "device": device});
    if wanted.admin {
        result["adminAccess"] = json!(true);
    }
    result
}

/// The parameters of drivers: those of the classes, then those of the claim, each with the requests that it is for.
fn config(
    claim: &ResourceClaim,
    classes: &BTreeMap<Box<str>, Arc<DeviceClass>>,
    chosen: &[(&Alternative, &Offer<'_>)],
) -> Vec<Value> {
    let mut config = Vec::new();
    let mut names: Vec<(&str, &str)> = chosen.iter().map(|(a, _)| (&*a.name, &*a.class)).collect();
    names.dedup();
    for (name, class) in &names {
        let own = classes.get(*class).map(|c| c.field("/spec/config"));
        for mut entry in own.as_ref().and_then(Value::as_array).cloned().unwrap_or_default() {
            entry["source"] = json!("FromClass");
            entry["requests"] = json!([name]);
            config.push(entry);
        }
    }
    for mut entry in claim.field("/spec/devices/config").as_array().cloned().unwrap_or_default() {
        let of = |r: &str| names.iter().any(|(name, _)| *name == r || name.split('/').next() == Some(r));
        let requests = entry["requests"].as_array().cloned().unwrap_or_default();
        if requests.is_empty() || requests.iter().filter_map(Value::as_str).any(of) {
            entry["source"] = json!("FromClaim");
            config.push(entry);
        }
    }
    config
}

/// Where the devices can be used: on this node when one of them is bound to it; where all of them are; or anywhere.
fn node_selector(chosen: &[(&Alternative, &Offer<'_>)], node: &Node) -> Option<Value> {
    if chosen.iter().any(|(_, o)| o.place().node_name.is_some()) {
        let here = json!({"key": "metadata.name", "operator": "In", "values": [node.meta.name]});
        return Some(json!({"nodeSelectorTerms": [{"matchFields": [here]}]}));
    }
    let (mut expressions, mut fields) = (Vec::new(), Vec::new());
    for selector in chosen.iter().filter_map(|(_, o)| o.place().node_selector.as_ref()) {
        // A device's selector has one term.
        for term in selector.node_selector_terms.iter().take(1) {
            expressions.extend(term.match_expressions.iter().map(|r| r.to_value()));
            fields.extend(term.match_fields.iter().map(|r| r.to_value()));
        }
    }
    expressions.dedup();
    fields.dedup();
    let mut term = json!({});
    for (name, list) in [("matchExpressions", expressions), ("matchFields", fields)] {
        if !list.is_empty() {
            term[name] = json!(list);
        }
    }
    (term != json!({})).then(|| json!({"nodeSelectorTerms": [term]}))
}

fn patch(claim: &ResourceClaim, subresource: Option<&'static str>, version: Option<u64>, merge: Value) -> Change {
    Change::Patch {
        resource: ResourceClaim::RESOURCE.into(),
        namespace: claim.meta.namespace.to_string(),
        name: claim.meta.name.to_string(),
        uid: claim.meta.uid.to_string(),
        resource_version: version,
        subresource,
        merge,
    }
}
