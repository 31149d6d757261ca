//! ResourceQuota: no more in a namespace than its quotas allow.
//!
//! In: creates in a namespace with quotas. Out: a 403 in upstream's words. Usage is counted from the stored
//! objects, under a lock that is held until the new object is stored. Never: trusts `status.used`.

use crate::api::{object, write::Ask};
use limpet_objects::{quantity::Quantity, status::Status};
use serde_json::Value;

const QUOTAS: &str = "/resourcequotas";

pub(super) fn applies(ask: &Ask) -> bool {
    let resource = &ask.target.resource;
    resource.namespaced && resource.storage != QUOTAS && {
        let namespace = ask.target.namespace.as_str();
        !ask.api.store.list_from(QUOTAS, Some(namespace), None, 1).records.is_empty()
    }
}

pub(super) fn check(ask: &Ask, new: &Value) -> Result<(), Status> {
    let (store, namespace) = (&ask.api.store, ask.target.namespace.as_str());
    let resource = &ask.target.resource;
    let mut existing = None;
    for quota in store.list(QUOTAS, Some(namespace)).records.iter().filter_map(|r| parse(&r.bytes)) {
        let hard = quota["spec"]["hard"].as_object();
        let (mut asked, mut used, mut limited) = (Vec::new(), Vec::new(), Vec::new());
        for (name, bound) in hard.into_iter().flatten() {
            let Some(own) = charge(resource.storage.as_str(), new, name) else { continue };
            let Some(own) = own else {
                let why = format!("failed quota: {}: must specify {name}", object::name(&quota));
                return Err(ask.target.forbidden(&why));
            };
            let all: &Vec<Value> = existing.get_or_insert_with(|| {
                store
                    .list(&resource.storage, Some(namespace))
                    .records
                    .iter()
                    .filter_map(|r| parse(&r.bytes))
                    .collect()
            });
            let before = all.iter().fold(Quantity::ZERO, |sum, object| {
                sum.plus(charge(resource.storage.as_str(), object, name).flatten().unwrap_or(Quantity::ZERO))
            });
            let Ok(bound) = Quantity::from_json(bound) else { continue };
            let rest = bound.minus(before.plus(own));
            if rest.is_negative() {
                asked.push(format!("{name}={own}"));
                used.push(format!("{name}={before}"));
                limited.push(format!("{name}={bound}"));
            }
        }
        if !asked.is_empty() {
            return Err(ask.target.forbidden(&format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                object::name(&quota),
                asked.join(","),
                used.join(","),
                limited.join(",")
            )));
        }
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

/// What an object takes of a named resource. `None`: nothing to do with it; `Some(None)`: it must name a
/// figure.
fn charge(storage: &str, object: &Value, name: &str) -> Option<Option<Quantity>> {
    let one = Some(Some(Quantity::from_value_of(1, limpet_objects::quantity::Format::DecimalSi)));
    let (group, plural) = storage.split_once('/').unwrap_or(("", storage));
    if let Some(counted) = name.strip_prefix("count/") {
        let own = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        return if counted == own { one } else { None };
    }
    const COUNTED: [&str; 7] = [
        "pods",
        "services",
        "configmaps",
        "secrets",
        "persistentvolumeclaims",
        "replicationcontrollers",
        "resourcequotas",
    ];
    let ended =
        storage == "/pods" && matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if ended {
        return None;
    }
    if group.is_empty() && plural == name && COUNTED.contains(&name) {
        return one;
    }
    match (storage, name) {
        ("/services", "services.nodeports") => {
            let ports = object["spec"]["ports"].as_array().map_or(0, Vec::len) as i64;
            let has = matches!(object["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"));
            has.then(|| Some(Quantity::from_value_of(ports, limpet_objects::quantity::Format::DecimalSi)))
        }
        ("/services", "services.loadbalancers") if object["spec"]["type"] == "LoadBalancer" => one,
        ("/pods", "cpu" | "memory" | "ephemeral-storage") => Some(pod_sum(object, "requests", name)),
        ("/pods", _) => match name.split_once('.') {
            Some((kind @ ("requests" | "limits"), resource)) => Some(pod_sum(object, kind, resource)),
            _ => None,
        },
        _ => None,
    }
}

/// Sum over the containers; `None` when one names nothing.
fn pod_sum(pod: &Value, kind: &str, resource: &str) -> Option<Quantity> {
    let containers = pod["spec"]["containers"].as_array()?;
    containers.iter().try_fold(Quantity::ZERO, |sum, container| {
        let value = &container["resources"][kind][resource];
        let own = if value.is_null() { None } else { Quantity::from_json(value).ok() };
        own.map(|own| sum.plus(own))
    })
}
