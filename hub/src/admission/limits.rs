//! LimitRanger: what containers get when they name no resources, and how much they may name.
//!
//! In: new pods and the LimitRanges of their namespace. Out: requests and limits, or a 403. Never: lowers
//! what was asked.

use super::Review;
use crate::api::object;
use limpet_objects::{
    quantity::{Quantity, canonical},
    status::Status,
};
use serde_json::{Map, Value};

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    let records = review.api.store.list("/limitranges", Some(review.namespace)).records;
    for range in records.iter().filter_map(|r| serde_json::from_slice::<Value>(&r.bytes).ok()) {
        for item in range["spec"]["limits"].as_array().into_iter().flatten() {
            if item["type"] == "Container" {
                fill(review.object, item);
            }
            let problems = check(review.object, item);
            if !problems.is_empty() {
                return Err(review.forbidden(&match problems.as_slice() {
                    [one] => one.clone(),
                    many => format!("[{}]", many.join(", ")),
                }));
            }
        }
    }
    Ok(())
}

fn containers_mut(pod: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let lists = pod.get_mut("spec").and_then(Value::as_object_mut).into_iter().flat_map(|s| s.iter_mut());
    lists
        .filter(|(name, _)| matches!(name.as_str(), "containers" | "initContainers"))
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn fill(pod: &mut Value, item: &Value) {
    for container in containers_mut(pod) {
        let resources = container.entry("resources").or_insert_with(|| Value::Object(Map::new()));
        for (field, source) in [("limits", "default"), ("requests", "defaultRequest")] {
            let Some(given) = item[source].as_object() else { continue };
            let limits = resources["limits"].clone();
            let Some(values) = object::map(resources, field) else { continue };
            for (name, quantity) in given {
                // Who names a limit only, requests as much.
                let own = (field == "requests").then(|| limits.get(name)).flatten();
                let from_pod = own.filter(|own| Some(*own) != item["default"].get(name));
                values.entry(name.clone()).or_insert_with(|| from_pod.unwrap_or(quantity).clone());
            }
        }
    }
}

fn check(pod: &Value, item: &Value) -> Vec<String> {
    let kind = item["type"].as_str().unwrap_or_default();
    let spec = &pod["spec"];
    let of = |list: &str| spec[list].as_array().cloned().unwrap_or_default();
    let mut problems = Vec::new();
    match kind {
        "Container" => {
            for container in of("initContainers").iter().chain(&of("containers")) {
                check_one(&container["resources"], item, kind, &mut problems);
            }
        }
        "Pod" => {
            let all = of("containers");
            let mut resources = serde_json::json!({"limits": {}, "requests": {}});
            for field in ["limits", "requests"] {
                for name in
                    item["max"].as_object().into_iter().chain(item["min"].as_object()).flat_map(Map::keys)
                {
                    let each: Option<Vec<Quantity>> =
                        all.iter().map(|c| quantity(&c["resources"][field][name.as_str()])).collect();
                    if let Some(each) = each {
                        let sum = each.into_iter().fold(Quantity::ZERO, Quantity::plus);
                        resources[field][name.as_str()] = sum.to_string().into();
                    }
                }
            }
            check_one(&resources, item, kind, &mut problems);
        }
        _ => {}
    }
    problems
}

fn check_one(resources: &Value, item: &Value, kind: &str, problems: &mut Vec<String>) {
    let shown = |value: &Value| canonical(value).unwrap_or_default();
    for (name, max) in item["max"].as_object().into_iter().flatten() {
        let (limit, bound) = (&resources["limits"][name.as_str()], quantity(max));
        match (quantity(limit), bound) {
            (None, Some(_)) => {
                problems.push(format!(
                    "maximum {name} usage per {kind} is {}.  No limit is specified",
                    shown(max)
                ));
            }
            (Some(own), Some(bound)) if exceeds(own, bound) => problems.push(format!(
                "maximum {name} usage per {kind} is {}, but limit is {}",
                shown(max),
                shown(limit)
            )),
            _ => {}
        }
    }
    for (name, min) in item["min"].as_object().into_iter().flatten() {
        let (request, bound) = (&resources["requests"][name.as_str()], quantity(min));
        match (quantity(request), bound) {
            (None, Some(_)) => problems
                .push(format!("minimum {name} usage per {kind} is {}.  No request is specified", shown(min))),
            (Some(own), Some(bound)) if exceeds(bound, own) => problems.push(format!(
                "minimum {name} usage per {kind} is {}, but request is {}",
                shown(min),
                shown(request)
            )),
            _ => {}
        }
    }
}

fn quantity(value: &Value) -> Option<Quantity> {
    if value.is_null() { None } else { Quantity::from_json(value).ok() }
}

fn exceeds(a: Quantity, b: Quantity) -> bool {
    let rest = a.minus(b);
    !rest.is_zero() && !rest.is_negative()
}
