//! What is written into claims.
//!
//! In: a claim, the devices that were found for it, the node, the pod. Out: changes. Source: the API reference of
//! AllocationResult. Never: overwrites what others wrote to an allocated claim in between.

use super::{capacity::Amounts, offers::Offer, search::Alternative};
use crate::{
    Change,
    control::CLAIM_FINALIZER as FINALIZER,
    view::{DeviceClass, Kind, Node, Pod, ResourceClaim, Toleration},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc};

/// A device that was found for a request.
pub struct Pick<'a> {
    pub wanted: &'a Alternative,
    pub offer: &'a Offer<'a>,
    /// Of a device that several may have.
    pub share: Option<&'a Amounts>,
}

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
    chosen: &[Pick<'_>],
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
    let allocation = allocated(Some(claim), classes, chosen, node, &claim.meta.uid);
    let status = json!({"status": {"allocation": allocation, "reservedFor": [consumer(pod)]}});
    changes.push(patch(claim, Some("status"), version, status));
    changes
}

fn consumer(pod: &Pod) -> Value {
    json!({"resource": "pods", "name": pod.meta.name, "uid": pod.meta.uid})
}

/// An AllocationResult. `uid`: whose it is, for the names of shares.
pub fn allocated(
    claim: Option<&ResourceClaim>,
    classes: &BTreeMap<Box<str>, Arc<DeviceClass>>,
    chosen: &[Pick<'_>],
    node: &Node,
    uid: &str,
) -> Value {
    let results: Vec<Value> = chosen.iter().enumerate().map(|(at, pick)| result(pick, uid, at)).collect();
    let mut allocation = json!({"devices": {"results": results}});
    let config = config(claim, classes, chosen);
    if !config.is_empty() {
        allocation["devices"]["config"] = json!(config);
    }
    if let Some(selector) = node_selector(chosen, node) {
        allocation["nodeSelector"] = selector;
    }
    allocation
}

/// A claim that nobody will use.
pub fn removal(claim: &ResourceClaim) -> Change {
    Change::Delete {
        resource: ResourceClaim::RESOURCE.into(),
        namespace: claim.meta.namespace.to_string(),
        name: claim.meta.name.to_string(),
        uid: claim.meta.uid.to_string(),
        grace: None,
        propagation: None,
    }
}

fn result(pick: &Pick<'_>, uid: &str, at: usize) -> Value {
    let (driver, pool, device) = pick.offer.id();
    let mut result = json!({"request": pick.wanted.name, "driver": driver, "pool": pool, "device": device});
    if pick.wanted.admin {
        result["adminAccess"] = json!(true);
    }
    if !pick.wanted.tolerations.is_empty() {
        result["tolerations"] = pick.wanted.tolerations.iter().map(toleration).collect();
    }
    if let Some(amounts) = pick.share {
        result["shareID"] = json!(share_id(uid, at));
        if !amounts.is_empty() {
            result["consumedCapacity"] = amounts.iter().map(|(name, a)| (name.to_string(), json!(a.to_string()))).collect();
        }
    }
    result
}

fn toleration(t: &Toleration) -> Value {
    let mut out = json!({"operator": if t.operator.is_empty() { "Equal" } else { &t.operator }});
    for (name, text) in [("key", &t.key), ("value", &t.value), ("effect", &t.effect)] {
        if !text.is_empty() {
            out[name] = json!(text);
        }
    }
    if let Some(seconds) = t.toleration_seconds {
        out["tolerationSeconds"] = json!(seconds);
    }
    out
}

/// A UUID of its own for each share of a claim: made of the claim's, so that a decision stays a function.
fn share_id(uid: &str, at: usize) -> String {
    let hash = Sha256::new().chain_update(uid).chain_update(at.to_le_bytes()).finalize();
    let hex: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// The parameters of drivers: those of the classes, then those of the claim, each with the requests that it is for.
fn config(
    claim: Option<&ResourceClaim>,
    classes: &BTreeMap<Box<str>, Arc<DeviceClass>>,
    chosen: &[Pick<'_>],
) -> Vec<Value> {
    let mut config = Vec::new();
    let mut names: Vec<(&str, &str)> = chosen.iter().map(|p| (&*p.wanted.name, &*p.wanted.class)).collect();
    names.dedup();
    for (name, class) in &names {
        let own = classes.get(*class).map(|c| c.field("/spec/config"));
        for mut entry in own.as_ref().and_then(Value::as_array).cloned().unwrap_or_default() {
            entry["source"] = json!("FromClass");
            entry["requests"] = json!([name]);
            config.push(entry);
        }
    }
    let own = claim.map(|c| c.field("/spec/devices/config")).unwrap_or_default();
    for mut entry in own.as_array().cloned().unwrap_or_default() {
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
fn node_selector(chosen: &[Pick<'_>], node: &Node) -> Option<Value> {
    if chosen.iter().any(|p| p.offer.place().node_name.is_some()) {
        let here = json!({"key": "metadata.name", "operator": "In", "values": [node.meta.name]});
        return Some(json!({"nodeSelectorTerms": [{"matchFields": [here]}]}));
    }
    let (mut expressions, mut fields) = (Vec::new(), Vec::new());
    for selector in chosen.iter().filter_map(|p| p.offer.place().node_selector.as_ref()) {
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
