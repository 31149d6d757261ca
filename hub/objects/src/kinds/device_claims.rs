//! ResourceClaims, ResourceClaimTemplates and DeviceClasses (resource.k8s.io/v1).
//!
//! In: claims as JSON. Out: defaults, rules in upstream's words and table rows. Never: allocates a device.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::{each, list, present, set, set_number, text};
use super::rules::{Errors, IMMUTABLE, join, named, one_of, required};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{names, table};

/// Requests of one claim.
const REQUESTS_MAX: usize = 32;

#[derive(Debug, Clone, Copy)]
pub struct ResourceClaim;

impl Behaviour for ResourceClaim {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = present(object, "spec") {
            default_spec(spec);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        validate_spec(&object["spec"], "spec")
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        unchanged(new, old, subresource)
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("State"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let deleted = !object["metadata"]["deletionTimestamp"].is_null();
        let mut states = Vec::new();
        if deleted {
            states.push("deleted");
        }
        if status["allocation"].is_object() {
            states.push("allocated");
        } else if !deleted {
            states.push("pending");
        }
        if !list(status, "reservedFor").is_empty() {
            states.push("reserved");
        }
        vec![name(object), json!(states.join(",")), table::age(object, now)]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct ResourceClaimTemplate;

impl Behaviour for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = present(object, "spec").and_then(|template| present(template, "spec")) {
            default_spec(spec);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        validate_spec(&object["spec"]["spec"], "spec.spec")
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        unchanged(new, old, subresource)
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), table::age(object, now)]
    }
}

fn default_spec(spec: &mut Value) {
    let Some(devices) = present(spec, "devices") else { return };
    for request in each(devices, "requests") {
        if let Some(exactly) = present(request, "exactly") {
            default_request(exactly);
        }
        each(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    set(request, "allocationMode", "ExactCount");
    if request["allocationMode"] == "ExactCount" {
        set_number(request, "count", 1);
    }
    for toleration in each(request, "tolerations") {
        set(toleration, "operator", "Equal");
    }
}

/// What a claim asks for does not change.
fn unchanged(new: &Value, old: &Value, subresource: &str) -> Errors {
    if subresource.is_empty() && new["spec"] != old["spec"] {
        return vec![FieldError::invalid("spec", new["spec"].clone(), IMMUTABLE)];
    }
    Errors::new()
}

fn validate_spec(spec: &Value, path: &str) -> Errors {
    let mut errors = Errors::new();
    let (requests, path) = (list(&spec["devices"], "requests"), join(path, "devices.requests"));
    if requests.len() > REQUESTS_MAX {
        errors.push(FieldError::too_many(path.clone(), requests.len(), REQUESTS_MAX));
    }
    let mut known = std::collections::BTreeSet::new();
    for (at, request) in requests.iter().take(REQUESTS_MAX).enumerate() {
        let path = format!("{path}[{at}]");
        if required(request, "name", &path, &mut errors).is_some_and(|own| !known.insert(own)) {
            errors.push(FieldError::duplicate(join(&path, "name"), text(request, "name")));
        }
        named(request, "name", &path, names::dns_label, &mut errors);
        let alternatives = list(request, "firstAvailable");
        match (request["exactly"].is_object(), alternatives.is_empty()) {
            (true, true) => wanted(&request["exactly"], &join(&path, "exactly"), &mut errors),
            (false, false) => {
                for (at, one) in alternatives.iter().enumerate() {
                    let path = format!("{path}.firstAvailable[{at}]");
                    if required(one, "name", &path, &mut errors).is_some() {
                        named(one, "name", &path, names::dns_label, &mut errors);
                    }
                    wanted(one, &path, &mut errors);
                }
            }
            (both, _) => {
                let words = match both {
                    true => "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
                    false => "exactly one of `exactly` or `firstAvailable` is required",
                };
                errors.push(match both {
                    true => FieldError::invalid(path, request.clone(), words),
                    false => FieldError::required(path, words),
                });
            }
        }
    }
    errors
}

/// An ExactDeviceRequest or a DeviceSubRequest.
fn wanted(request: &Value, path: &str, errors: &mut Errors) {
    if required(request, "deviceClassName", path, errors).is_some() {
        named(request, "deviceClassName", path, names::dns_subdomain, errors);
    }
    one_of(request, "allocationMode", path, &["All", "ExactCount"], errors);
    for (at, toleration) in list(request, "tolerations").iter().enumerate() {
        tolerates(toleration, &format!("{path}.tolerations[{at}]"), errors);
    }
    let count = request["count"].as_i64().unwrap_or(0);
    match text(request, "allocationMode") {
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(join(path, "count"), count, "must be greater than zero"));
        }
        "All" if count != 0 => {
            let words = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(join(path, "count"), count, words));
        }
        _ => {}
    }
}

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// A device's taint.
pub(super) fn taint(taint: &Value, path: &str, errors: &mut Errors) {
    let (key, value) = (text(taint, "key"), text(taint, "value"));
    errors.extend(names::qualified_name(key).into_iter().map(|words| FieldError::invalid(join(path, "key"), key, words)));
    errors.extend(names::label_value(value).into_iter().map(|words| FieldError::invalid(join(path, "value"), value, words)));
    match text(taint, "effect") {
        "" => errors.push(FieldError::required(join(path, "effect"), "")),
        _ => one_of(taint, "effect", path, &EFFECTS, errors),
    }
}

/// What of a device's taints a request bears.
fn tolerates(toleration: &Value, path: &str, errors: &mut Errors) {
    named(toleration, "key", path, names::qualified_name, errors);
    let value = text(toleration, "value");
    match text(toleration, "operator") {
        "Exists" if !value.is_empty() => {
            let words = "must be empty for operator `Exists`";
            errors.push(FieldError::invalid(join(path, "value"), value, words));
        }
        "Exists" => {}
        "Equal" => {
            let wrong = names::label_value(value).into_iter();
            errors.extend(wrong.map(|words| FieldError::invalid(join(path, "value"), value, words)));
        }
        "" => errors.push(FieldError::required(join(path, "operator"), "")),
        other => errors.push(FieldError::not_supported(join(path, "operator"), other, &["Equal", "Exists"])),
    }
    if text(toleration, "key").is_empty() && toleration["operator"] != "Exists" {
        let words = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::required(join(path, "key"), words));
    }
    one_of(toleration, "effect", path, &EFFECTS, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(request: Value) -> Value {
        json!({"spec": {"devices": {"requests": [request]}}})
    }

    #[test]
    fn a_request_is_for_one_device_unless_it_says_otherwise() {
        let mut object = claim(json!({"name": "a", "exactly": {"deviceClassName": "c.io", "tolerations": [{"key": "k"}]}}));
        ResourceClaim.default(&mut object);
        let exactly = json!({"deviceClassName": "c.io", "allocationMode": "ExactCount", "count": 1,
            "tolerations": [{"key": "k", "operator": "Equal"}]});
        assert_eq!(object["spec"]["devices"]["requests"][0]["exactly"], exactly);
        assert_eq!(ResourceClaim.validate_create(&object), []);
        let mut template = json!({"spec": object});
        ResourceClaimTemplate.default(&mut template);
        assert_eq!(ResourceClaimTemplate.validate_create(&template), []);
        let every = json!({"name": "x", "deviceClassName": "c", "allocationMode": "All"});
        let mut all = claim(json!({"name": "a", "firstAvailable": [every]}));
        ResourceClaim.default(&mut all);
        assert!(all["spec"]["devices"]["requests"][0]["firstAvailable"][0]["count"].is_null());
        assert_eq!(ResourceClaim.validate_create(&all), []);
        let changed = claim(json!({"name": "b"}));
        assert_eq!(ResourceClaim.validate_update(&changed, &all, "")[0].detail, IMMUTABLE);
        assert_eq!(ResourceClaim.validate_update(&changed, &all, "status"), []);
    }

    #[test]
    fn words() {
        for (request, expect) in [
            (json!({"exactly": {"deviceClassName": "c"}}), "spec.devices.requests[0].name: Required value"),
            (json!({"name": "a", "exactly": {}}), "spec.devices.requests[0].exactly.deviceClassName: Required value"),
            (json!({"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "Some"}}),
                "spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \
                 \"ExactCount\""),
            (json!({"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "ExactCount", "count": -1}}),
                "spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero"),
            (json!({"name": "a"}),
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"),
        ] {
            let errors: Vec<String> = ResourceClaim.validate_create(&claim(request)).iter().map(ToString::to_string).collect();
            assert_eq!(errors, [expect]);
        }
    }
}
