//! ResourceQuotas (v1).
//!
//! In: quotas as JSON. Out: rules and the table row. Never: counts: that is the controller's and admission's.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::{list, map};
use super::rules::{Errors, IMMUTABLE, NOT_NEGATIVE};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::quantity::Quantity;
use crate::{names, table};

/// Resources without a domain that a quota may name.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const MEASURED: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

#[derive(Debug, Clone, Copy)]
pub struct ResourceQuota;

impl Behaviour for ResourceQuota {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = &object["spec"];
        for (resource, amount) in map(spec, "hard") {
            hard(resource, amount, &format!("spec.hard[{resource}]"), &mut errors);
        }
        scopes(spec, &mut errors);
        for (at, term) in list(&spec["scopeSelector"], "matchExpressions").iter().enumerate() {
            let path = format!("spec.scopeSelector.matchExpressions[{at}]");
            scope_term(term, &path, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return Vec::new();
        }
        let mut errors = self.validate_create(new);
        if new["spec"]["scopes"] != old["spec"]["scopes"] {
            errors.push(FieldError::invalid("spec.scopes", new["spec"]["scopes"].clone(), IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Request"), Column::text("Limit"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (hard, used) = (map(&object["status"], "hard"), map(&object["status"], "used"));
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, wanted) in hard {
            let used = used.get(resource).and_then(Value::as_str).unwrap_or("0");
            let entry = format!("{resource}: {used}/{}", wanted.as_str().unwrap_or_default());
            if resource.starts_with("limits.") { limits.push(entry) } else { requests.push(entry) }
        }
        vec![name(object), json!(requests.join(", ")), json!(limits.join(", ")), table::age(object, now)]
    }
}

fn hard(resource: &str, amount: &Value, path: &str, errors: &mut Errors) {
    let wrong = names::qualified_name(resource);
    errors.extend(wrong.into_iter().map(|w| FieldError::invalid(path, resource, w)));
    let counted = COUNTED.contains(&resource) || resource.starts_with("count/");
    let known = counted
        || MEASURED.contains(&resource)
        || resource.contains('/')
        || ["requests.hugepages-", "hugepages-"].iter().any(|prefix| resource.starts_with(prefix));
    if !known {
        errors.push(FieldError::invalid(path, resource, "must be a standard resource for quota"));
    }
    let Ok(amount) = Quantity::from_json(amount) else { return };
    if amount.is_negative() {
        errors.push(FieldError::invalid(path, amount.to_string(), NOT_NEGATIVE));
    }
    if counted && amount.milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(path, amount.to_string(), "must be an integer"));
    }
}

/// Whether a scope says anything about a resource that quotas know without a domain.
fn fits(scope: &str, resource: &str) -> bool {
    let measured = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => resource == "pods" || measured.contains(&resource),
    }
}

fn scopes(spec: &Value, errors: &mut Errors) {
    let mut wrong = |words: &str| errors.push(FieldError::invalid("spec.scopes", spec["scopes"].clone(), words));
    let all: Vec<&str> = list(spec, "scopes").iter().filter_map(Value::as_str).collect();
    for scope in &all {
        if !SCOPES.contains(scope) {
            wrong("unsupported scope");
        }
        let standard = |resource: &str| COUNTED.contains(&resource) || MEASURED.contains(&resource);
        for (resource, _) in map(spec, "hard") {
            if standard(resource) && !fits(scope, resource) {
                wrong("unsupported scope applied to resource");
            }
        }
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if all.contains(&one) && all.contains(&other) {
            wrong("conflicting scopes");
        }
    }
}

fn scope_term(term: &Value, path: &str, errors: &mut Errors) {
    let scope = term["scopeName"].as_str().unwrap_or_default();
    if !SCOPES.contains(&scope) {
        errors.push(FieldError::invalid(format!("{path}.scopeName"), scope, "unsupported scope"));
    }
    let values = list(term, "values");
    match term["operator"].as_str().unwrap_or_default() {
        "In" | "NotIn" if values.is_empty() => {
            let words = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(format!("{path}.values"), words));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let words = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(format!("{path}.values"), term["values"].clone(), words));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_limits() {
        let check = |hard: Value| -> Vec<String> {
            let object = json!({"spec": {"hard": hard}});
            ResourceQuota.validate_create(&object).iter().map(ToString::to_string).collect()
        };
        let good = json!({"pods": "2", "cpu": "500m", "count/jobs.batch": "3", "requests.example.com/gpu": "1"});
        assert_eq!(check(good), Vec::<String>::new());
        assert_eq!(check(json!({"pods": "-1"})), ["spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"]);
        assert_eq!(check(json!({"pods": "500m"})), ["spec.hard[pods]: Invalid value: \"500m\": must be an integer"]);
        assert_eq!(
            check(json!({"things": "1"})),
            ["spec.hard[things]: Invalid value: \"things\": must be a standard resource for quota"]
        );
    }
}
