//! ResourceQuota: no more in a namespace than its quotas allow.
//!
//! In: creates, and changes that may take more (claims, Services, a pod's resize), in a namespace with quotas. Out: a 403 in
//! upstream's words. Usage is counted from the stored objects (`kept`), under a lock that is held until the new object is stored.
//! Never: trusts `status.used`.

use super::kept::Kept;
use crate::api::{object, write::Ask};
use limpet_hub_core::{
    quota::{sees, takes},
    view::Object,
};
use limpet_objects::{quantity::Quantity, status::Status};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const QUOTAS: &str = "/resourcequotas";
/// Where a quota limits one of these, every container has to name it.
const NAMED_BY_ALL: [(&str, &str, &str); 6] = [
    ("cpu", "requests", "cpu"),
    ("limits.cpu", "limits", "cpu"),
    ("limits.memory", "limits", "memory"),
    ("memory", "requests", "memory"),
    ("requests.cpu", "requests", "cpu"),
    ("requests.memory", "requests", "memory"),
];

pub(super) fn applies(ask: &Ask, is_new: bool) -> bool {
    let resource = &ask.target.resource;
    let counts = match (&*resource.storage, &*ask.subresource) {
        (QUOTAS, _) => false,
        ("/pods", "resize") => true,
        ("/persistentvolumeclaims" | "/services", "") => true,
        (_, "") => is_new,
        _ => false,
    };
    counts && resource.namespaced && {
        let namespace = ask.target.namespace.as_str();
        !ask.api.store.list_from(QUOTAS, Some(namespace), None, 1).records.is_empty()
    }
}

pub(super) fn check(ask: &Ask, new: &Value, old: Option<&Value>, kept: &mut Kept) -> Result<(), Status> {
    let (store, namespace) = (&ask.api.store, ask.target.namespace.as_str());
    let storage = ask.target.resource.storage.as_str();
    let parse = |value: &Value| Object::parse(storage, value.to_string().into_bytes().into());
    let Some(own) = parse(new) else { return Ok(()) };
    let before = old.and_then(parse);
    let records = store.list(QUOTAS, Some(namespace)).records;
    let quotas: Vec<Value> = records.iter().filter_map(|r| serde_json::from_slice(&r.bytes).ok()).collect();
    let specs: Vec<Value> = quotas.iter().map(|q| q["spec"].clone()).collect();
    let mut sums: Option<Vec<Quantity>> = None;
    let mut first = 0;
    for quota in &quotas {
        let (spec, name) = (&quota["spec"], object::name(quota));
        let own_first = first;
        first += spec["hard"].as_object().map_or(0, |h| h.len());
        let hard: Vec<(&String, &Value)> = spec["hard"].as_object().into_iter().flatten().collect();
        if old.is_none() && sees(spec, &own) {
            let limited: BTreeSet<&str> = hard.iter().map(|(name, _)| name.as_str()).collect();
            if let Some(missing) = missing(new, &limited) {
                return Err(ask.target.forbidden(&format!("failed quota: {name}: must specify {missing}")));
            }
        }
        let (mut asked, mut used, mut limited) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (resource, bound)) in hard.into_iter().enumerate() {
            let had = before.as_ref().map_or(Quantity::ZERO, |o| takes(spec, storage, o, resource));
            let more = takes(spec, storage, &own, resource).minus(had);
            let Ok(bound) = Quantity::from_json(bound) else { continue };
            if more.is_zero() || more.is_negative() {
                continue;
            }
            if sums.is_none() {
                let counted = kept.sums(store, storage, namespace, &specs);
                sums = Some(counted.ok_or_else(|| Status::unavailable("quotas cannot be counted now, try again"))?.to_vec());
            }
            let sum = sums.as_ref().and_then(|all| all.get(own_first + at)).copied().unwrap_or(Quantity::ZERO);
            if bound.minus(sum.plus(more)).is_negative() {
                asked.push(format!("{resource}={more}"));
                used.push(format!("{resource}={sum}"));
                limited.push(format!("{resource}={bound}"));
            }
        }
        if !asked.is_empty() {
            let [asked, used, limited] = [asked, used, limited].map(|list| list.join(","));
            return Err(ask.target.forbidden(&format!(
                "exceeded quota: {name}, requested: {asked}, used: {used}, limited: {limited}"
            )));
        }
    }
    Ok(())
}

/// `limits.cpu for: a,b; memory for: a`; what a pod names for all its containers no container has to name.
fn missing(pod: &Value, limited: &BTreeSet<&str>) -> Option<String> {
    let spec = &pod["spec"];
    let mut who: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, kind, resource) in NAMED_BY_ALL.into_iter().filter(|(name, ..)| limited.contains(name)) {
        if !spec["resources"][kind][resource].is_null() {
            continue;
        }
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                if container["resources"][kind][resource].is_null() {
                    who.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
                }
            }
        }
    }
    let join = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(",");
    let each: Vec<String> = who.iter().map(|(name, names)| format!("{name} for: {}", join(names))).collect();
    (!each.is_empty()).then(|| each.join("; "))
}
