//! LimitRanges (v1).
//!
//! In: ranges as JSON. Out: defaults and rules. Never: limits anything: that is admission's.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::fill::{child, each, list, map, present, set_absent, text};
use super::rules::{Errors, join};
use crate::behaviour::Behaviour;
use crate::field::FieldError;
use crate::quantity::Quantity;

const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

#[derive(Debug, Clone, Copy)]
pub struct LimitRange;

impl Behaviour for LimitRange {
    /// For containers: a limit's default is its maximum, a request's default its limit's default or
    /// minimum.
    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        for limit in each(spec, "limits").filter(|limit| limit["type"] == "Container") {
            let (max, min) = (map(limit, "max").clone(), map(limit, "min").clone());
            fill_all(limit, "default", &max);
            let defaults = map(limit, "default").clone();
            fill_all(limit, "defaultRequest", &defaults);
            fill_all(limit, "defaultRequest", &min);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut types = BTreeSet::new();
        for (at, limit) in list(&object["spec"], "limits").iter().enumerate() {
            let path = format!("spec.limits[{at}]");
            let type_ = text(limit, "type");
            if type_.is_empty() {
                errors.push(FieldError::required(join(&path, "type"), ""));
            } else if !types.insert(type_) {
                errors.push(FieldError::duplicate(join(&path, "type"), type_));
            }
            for wrong in crate::names::qualified_name(type_).into_iter().filter(|_| !type_.is_empty()) {
                errors.push(FieldError::invalid(join(&path, "type"), type_, wrong));
            }
            if !type_.is_empty() && !type_.contains('/') && !TYPES.contains(&type_) {
                let words = "must be a standard limit type or fully qualified";
                errors.push(FieldError::invalid(join(&path, "type"), type_, words));
            }
            one(limit, type_, &path, &mut errors);
        }
        errors
    }
}

fn fill_all(limit: &mut Value, field: &str, from: &Map<String, Value>) {
    if from.is_empty() {
        return;
    }
    if let Some(target) = child(limit, field) {
        for (resource, quantity) in from {
            set_absent(target, resource, quantity.clone());
        }
    }
}

/// Pairs of which the first must not be greater than the second, and what to say of it. The error is at the place
/// that the third names.
const ORDERS: [(&str, &str, &str, &str, &str); 6] = [
    ("min", "max", "min", "min value", "max value"),
    ("min", "defaultRequest", "defaultRequest", "min value", "default request value"),
    ("defaultRequest", "max", "defaultRequest", "default request value", "max value"),
    ("defaultRequest", "default", "defaultRequest", "default request value", "default limit value"),
    ("min", "default", "default", "min value", "default value"),
    ("default", "max", "default", "default value", "max value"),
];

fn one(limit: &Value, type_: &str, path: &str, errors: &mut Errors) {
    if type_ == "Pod" {
        for field in ["default", "defaultRequest"] {
            if !map(limit, field).is_empty() {
                let words = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(join(path, field), words));
            }
        }
    }
    if type_ == "PersistentVolumeClaim" && limit["min"]["storage"].is_null() && limit["max"]["storage"].is_null() {
        let words = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(join(path, "limits"), words));
    }
    let fields = ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"];
    let resources: BTreeSet<&String> = fields.iter().flat_map(|field| map(limit, field).keys()).collect();
    for resource in resources {
        let amount = |field: &str| Quantity::from_json(&limit[field][resource.as_str()]).ok();
        for (low, high, place, low_words, high_words) in ORDERS {
            let (Some(less), Some(more)) = (amount(low), amount(high)) else { continue };
            if less > more {
                let at = format!("{path}.{place}[{resource}]");
                let shown = if place == low { less } else { more };
                let words = format!("{low_words} {less} is greater than {high_words} {more}");
                errors.push(FieldError::invalid(at, shown.to_string(), words));
            }
        }
        if let Some(ratio) = amount("maxLimitRequestRatio").filter(|r| *r < Quantity::from_milli(1000)) {
            let at = format!("{path}.maxLimitRequestRatio[{resource}]");
            errors.push(FieldError::invalid(at, ratio.to_string(), format!("ratio {ratio} is less than 1")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ranges_are_in_order() {
        let check = |limit: Value| -> Vec<String> {
            let object = json!({"spec": {"limits": [limit]}});
            LimitRange.validate_create(&object).iter().map(ToString::to_string).collect()
        };
        let good = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "default": {"cpu": "500m"}});
        assert_eq!(check(good), Vec::<String>::new());
        assert_eq!(
            check(json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}})),
            ["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"]
        );
        assert_eq!(
            check(json!({"type": "Pod", "default": {"cpu": "1"}})),
            ["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"]
        );
        assert_eq!(
            check(json!({"type": "PersistentVolumeClaim"})),
            ["spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was \
              provided"]
        );
        assert_eq!(
            check(json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}})),
            ["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"]
        );
    }
}
