//! What an autoscaler's metrics and behavior may say, and what behavior is when it is only named.
//!
//! In: specs as JSON. Out: defaults, and field errors in upstream's words (autoscaling's validation).
//! Never: scales.

use serde_json::{Value, json};

use super::fill::{child, list, present, set, set_absent, text};
use super::rules::{Errors, join};
use crate::field::FieldError;

const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// Whoever sets a part of behavior gets the rest of both directions.
pub fn default_behavior(spec: &mut Value) {
    let Some(behavior) = present(spec, "behavior") else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    if let Some(up) = child(behavior, "scaleUp") {
        set_absent(up, "stabilizationWindowSeconds", 0);
        direction(up, json!([pods, percent]));
    }
    if let Some(down) = child(behavior, "scaleDown") {
        direction(down, json!([percent]));
    }
}

fn direction(rules: &mut Value, policies: Value) {
    set(rules, "selectPolicy", "Max");
    set_absent(rules, "policies", policies);
}

pub fn behavior(spec: &Value, errors: &mut Errors) {
    for way in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][way];
        if rules.is_object() {
            scaling(rules, &format!("spec.behavior.{way}"), errors);
        }
    }
}

fn scaling(rules: &Value, path: &str, errors: &mut Errors) {
    let window = join(path, "stabilizationWindowSeconds");
    match rules["stabilizationWindowSeconds"].as_i64() {
        Some(seconds) if seconds < 0 => {
            errors.push(FieldError::invalid(window, seconds, "must be greater than or equal to zero"));
        }
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => {
            let words = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            errors.push(FieldError::invalid(window, seconds, words));
        }
        _ => {}
    }
    let select = text(rules, "selectPolicy");
    if rules.get("selectPolicy").is_some() && !["Disabled", "Max", "Min"].contains(&select) {
        errors.push(FieldError::not_supported(join(path, "selectPolicy"), select, &["Disabled", "Max", "Min"]));
    }
    let policies = list(rules, "policies");
    if policies.is_empty() {
        errors.push(FieldError::required(join(path, "policies"), "must specify at least one Policy"));
    }
    for (at, policy) in policies.iter().enumerate() {
        let path = format!("{path}.policies[{at}]");
        let kind = text(policy, "type");
        if !["Percent", "Pods"].contains(&kind) {
            errors.push(FieldError::not_supported(join(&path, "type"), kind, &["Percent", "Pods"]));
        }
        let (value, period) = (policy["value"].as_i64().unwrap_or(0), policy["periodSeconds"].as_i64().unwrap_or(0));
        if value <= 0 {
            errors.push(FieldError::invalid(join(&path, "value"), value, "must be greater than zero"));
        }
        if period <= 0 {
            errors.push(FieldError::invalid(join(&path, "periodSeconds"), period, "must be greater than zero"));
        } else if period > PERIOD_SECONDS_MAX {
            let words = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            errors.push(FieldError::invalid(join(&path, "periodSeconds"), period, words));
        }
    }
}

pub fn metrics(spec: &Value, errors: &mut Errors) {
    for (at, metric) in list(spec, "metrics").iter().enumerate() {
        let (path, kind) = (format!("spec.metrics[{at}]"), text(metric, "type"));
        let Some((_, field)) = SOURCES.iter().find(|(known, _)| *known == kind) else {
            let path = join(&path, "type");
            errors.push(match kind {
                "" => FieldError::required(path, "must specify a metric source type"),
                _ => FieldError::not_supported(path, kind, &SOURCES.map(|(known, _)| known)),
            });
            continue;
        };
        match metric[*field].is_object() {
            true => source(field, &metric[*field], &join(&path, field), errors),
            false => {
                let words = "must populate information for the given metric source";
                errors.push(FieldError::required(join(&path, field), words));
            }
        }
    }
}

fn source(field: &str, source: &Value, path: &str, errors: &mut Errors) {
    let target = &source["target"];
    let place = join(path, "target");
    let name = |of: &Value, path: &str, words: &str, errors: &mut Errors| {
        if text(of, "name").is_empty() {
            errors.push(FieldError::required(join(path, "name"), words));
        }
    };
    let has = |field: &str| !target[field].is_null();
    match field {
        "resource" | "containerResource" => {
            name(source, path, "must specify a resource name", errors);
            if field == "containerResource" && text(source, "container").is_empty() {
                errors.push(FieldError::required(join(path, "container"), "must specify a container name"));
            }
        }
        _ => name(&source["metric"], &join(path, "metric"), "must specify a metric name", errors),
    }
    let before = errors.len();
    amounts(target, &place, errors);
    if errors.len() > before {
        return;
    }
    let finding = match field {
        "resource" | "containerResource" => match (has("averageUtilization"), has("averageValue")) {
            (false, false) => Some(FieldError::required(
                join(&place, "averageUtilization"),
                "must set either a target raw value or a target utilization",
            )),
            (true, true) => Some(FieldError::forbidden(
                join(&place, "averageValue"),
                "may not set both a target raw value and a target utilization",
            )),
            _ => None,
        },
        "pods" if !has("averageValue") => {
            Some(FieldError::required(join(&place, "averageValue"), "must specify a positive target averageValue"))
        }
        "object" if !has("value") && !has("averageValue") => {
            Some(FieldError::required(join(&place, "averageValue"), "must set either a target value or averageValue"))
        }
        "external" => match (has("value"), has("averageValue")) {
            (false, false) => Some(FieldError::required(
                join(&place, "averageValue"),
                "must set either a target value for metric or a per-pod target",
            )),
            (true, true) => Some(FieldError::forbidden(
                join(&place, "value"),
                "may not set both a target value for metric and a per-pod target",
            )),
            _ => None,
        },
        _ => None,
    };
    errors.extend(finding);
}

/// A MetricTarget by itself.
fn amounts(target: &Value, path: &str, errors: &mut Errors) {
    let kind = text(target, "type");
    match kind {
        "" => errors.push(FieldError::required(join(path, "type"), "must specify a metric target type")),
        "Utilization" | "Value" | "AverageValue" => {}
        other => {
            let words = "must be either Utilization, Value, or AverageValue";
            errors.push(FieldError::invalid(join(path, "type"), other, words));
        }
    }
    for field in ["value", "averageValue"] {
        let amount = crate::quantity::Quantity::from_json(&target[field]);
        let positive = |amount: crate::quantity::Quantity| !amount.is_negative() && amount != crate::quantity::Quantity::ZERO;
        if !target[field].is_null() && !amount.is_ok_and(positive) {
            errors.push(FieldError::invalid(join(path, field), target[field].clone(), "must be positive"));
        }
    }
    if let Some(percent) = target["averageUtilization"].as_i64().filter(|percent| *percent < 1) {
        let words = "must be greater than 0";
        errors.push(FieldError::invalid(join(path, "averageUtilization"), percent, words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(spec: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        metrics(spec, &mut errors);
        behavior(spec, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn half_of_a_behavior_is_completed() {
        let mut spec = json!({"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 10}]}}});
        default_behavior(&mut spec);
        let full = json!({"behavior": {
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 10}]}}});
        assert_eq!(spec, full);
        default_behavior(&mut spec);
        assert_eq!(spec, full, "again changes nothing");
        assert_eq!(texts(&spec), [""; 0]);
        let mut none = json!({});
        default_behavior(&mut none);
        assert_eq!(none, json!({}));
    }

    #[test]
    fn words_of_behavior() {
        for (rules, expect) in [
            (json!({"policies": []}), "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy"),
            (json!({"stabilizationWindowSeconds": 3601, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 1}]}),
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600"),
            (json!({"selectPolicy": "Some", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 1}]}),
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Some\": supported values: \"Disabled\", \
                 \"Max\", \"Min\""),
            (json!({"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1}]}),
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero"),
            (json!({"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}),
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"),
        ] {
            assert_eq!(texts(&json!({"behavior": {"scaleUp": rules}})), [expect]);
        }
    }

    #[test]
    fn words_of_metrics() {
        let cpu = |target: Value| json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        for (metric, expect) in [
            (json!({}), "spec.metrics[0].type: Required value: must specify a metric source type"),
            (json!({"type": "Pods"}),
                "spec.metrics[0].pods: Required value: must populate information for the given metric source"),
            (cpu(json!({"type": "Utilization"})), "spec.metrics[0].resource.target.averageUtilization: Required value: \
                must set either a target raw value or a target utilization"),
            (cpu(json!({"type": "Utilization", "averageUtilization": 0})),
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0"),
            (cpu(json!({"type": "Much", "averageUtilization": 1})), "spec.metrics[0].resource.target.type: Invalid value: \
                \"Much\": must be either Utilization, Value, or AverageValue"),
            (cpu(json!({"type": "AverageValue", "averageValue": "0"})),
                "spec.metrics[0].resource.target.averageValue: Invalid value: \"0\": must be positive"),
            (json!({"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "1",
                "averageValue": "1"}}}), "spec.metrics[0].external.target.value: Forbidden: may not set both a target value \
                for metric and a per-pod target"),
        ] {
            assert_eq!(texts(&json!({"metrics": [metric]})), [expect]);
        }
        assert_eq!(texts(&json!({"metrics": [cpu(json!({"type": "Utilization", "averageUtilization": 80}))]})), [""; 0]);
    }
}
