//! LimitRanger: what containers get when they name no resources, and how much they may name.
//!
//! In: new pods, claims, and the LimitRanges of their namespace. Out: requests and limits, or a 403. Never: lowers
//! what was asked.

use super::Review;
use crate::api::object;
use limpet_objects::{
    quantity::{Quantity, canonical},
    status::Status,
};
use serde_json::{Map, Value, json};

pub(super) const CLAIMS: &str = "/persistentvolumeclaims";

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    let items = items(review);
    for item in items.iter().filter(|item| item["type"] == "Container") {
        fill(review.object, item);
    }
    let problems = items.iter().flat_map(|item| check(review.object, item)).collect();
    refuse(review, problems)
}

/// How much a claim may ask for.
pub(super) fn admit_claim(review: &Review<'_>) -> Result<(), Status> {
    let mut problems = Vec::new();
    for item in items(review).iter().filter(|item| item["type"] == "PersistentVolumeClaim") {
        let requests = json!({"requests": review.object["spec"]["resources"]["requests"]});
        at_least(&requests, item, "PersistentVolumeClaim", &mut problems);
        at_most(&requests["requests"], item, "PersistentVolumeClaim", &mut problems);
    }
    refuse(review, problems)
}

fn items(review: &Review<'_>) -> Vec<Value> {
    let records = review.api.store.list("/limitranges", Some(review.namespace)).records;
    let ranges = records.iter().filter_map(|r| serde_json::from_slice::<Value>(&r.bytes).ok());
    ranges.flat_map(|mut range| match range["spec"]["limits"].take() {
        Value::Array(items) => items,
        _ => vec![],
    }).collect()
}

fn refuse(review: &Review<'_>, problems: Vec<String>) -> Result<(), Status> {
    match problems.as_slice() {
        [] => Ok(()),
        [one] => Err(review.forbidden(one)),
        many => Err(review.forbidden(&format!("[{}]", many.join(", ")))),
    }
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
            let mut resources = json!({"limits": {}, "requests": {}});
            for field in ["limits", "requests"] {
                let named = ["max", "min", "maxLimitRequestRatio"].map(|f| item[f].as_object());
                for name in named.into_iter().flatten().flat_map(Map::keys) {
                    if let Some(sum) = sum(&of("containers"), &of("initContainers"), field, name) {
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

/// All containers together, or the largest of those before them, as the scheduler counts; `None`: nobody names it.
fn sum(containers: &[Value], init: &[Value], field: &str, name: &str) -> Option<Quantity> {
    let of = |c: &Value| quantity(&c["resources"][field][name]);
    let together = containers.iter().filter_map(of).reduce(Quantity::plus);
    let largest = init.iter().filter_map(of).reduce(Quantity::max);
    together.into_iter().chain(largest).reduce(Quantity::max)
}

fn check_one(resources: &Value, item: &Value, kind: &str, problems: &mut Vec<String>) {
    at_least(resources, item, kind, problems);
    let shown = |value: &Value| canonical(value).unwrap_or_default();
    for (name, max) in item["max"].as_object().into_iter().flatten() {
        let Some(bound) = quantity(max) else { continue };
        let [limit, request] = ["limits", "requests"].map(|f| &resources[f][name.as_str()]);
        let most = format!("maximum {name} usage per {kind} is {}", shown(max));
        match (quantity(limit), quantity(request)) {
            (None, _) => problems.push(format!("{most}.  No limit is specified")),
            (Some(own), _) if exceeds(own, bound) => problems.push(format!("{most}, but limit is {}", shown(limit))),
            (_, Some(own)) if exceeds(own, bound) => {
                problems.push(format!("{most}, but request is {}", shown(request)));
            }
            _ => {}
        }
    }
    for (name, ratio) in item["maxLimitRequestRatio"].as_object().into_iter().flatten() {
        let Some(bound) = quantity(ratio) else { continue };
        let [limit, request] =
            ["limits", "requests"].map(|f| quantity(&resources[f][name.as_str()]).filter(|q| !q.is_zero()));
        let most = format!("{name} max limit to request ratio per {kind} is {}", shown(ratio));
        match (request, limit) {
            (None, _) => problems.push(format!("{most}, but no request is specified or request is 0")),
            (_, None) => problems.push(format!("{most}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let found = limit.milli_value() as f64 / request.milli_value() as f64;
                if found * 1000.0 > bound.milli_value() as f64 {
                    problems.push(format!("{most}, but provided ratio is {found:.6}"));
                }
            }
        }
    }
}

fn at_least(resources: &Value, item: &Value, kind: &str, problems: &mut Vec<String>) {
    let shown = |value: &Value| canonical(value).unwrap_or_default();
    for (name, min) in item["min"].as_object().into_iter().flatten() {
        let Some(bound) = quantity(min) else { continue };
        let [limit, request] = ["limits", "requests"].map(|f| &resources[f][name.as_str()]);
        let least = format!("minimum {name} usage per {kind} is {}", shown(min));
        match (quantity(request), quantity(limit)) {
            (None, _) => problems.push(format!("{least}.  No request is specified")),
            (Some(own), _) if exceeds(bound, own) => {
                problems.push(format!("{least}, but request is {}", shown(request)));
            }
            (_, Some(own)) if exceeds(bound, own) => problems.push(format!("{least}, but limit is {}", shown(limit))),
            _ => {}
        }
    }
}

fn at_most(requests: &Value, item: &Value, kind: &str, problems: &mut Vec<String>) {
    let shown = |value: &Value| canonical(value).unwrap_or_default();
    for (name, max) in item["max"].as_object().into_iter().flatten() {
        let Some(bound) = quantity(max) else { continue };
        let request = &requests[name.as_str()];
        let most = format!("maximum {name} usage per {kind} is {}", shown(max));
        match quantity(request) {
            None => problems.push(format!("{most}.  No request is specified")),
            Some(own) if exceeds(own, bound) => problems.push(format!("{most}, but request is {}", shown(request))),
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
