//! HorizontalPodAutoscalers: autoscaling/v2, which is what is stored, and autoscaling/v1, a narrower
//! view.
//!
//! In: autoscalers as JSON. Out: conversion, defaults, rules and the table row. Never: scales.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::autoscaler_rules;
use super::cells::{name, number};
use super::fill::{list, present, remove, set_absent, text};
use super::rules::{Errors, required};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Reference"),
    Column::text("Targets"),
    Column::text("MinPods"),
    Column::text("MaxPods"),
    Column::text("Replicas"),
    Column::AGE,
];
const METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/metrics";
/// How many metrics the cell shows.
const TARGETS_SHOWN_MAX: usize = 2;

/// autoscaling/v2
#[derive(Debug, Clone, Copy)]
pub struct Autoscaler;

impl Behaviour for Autoscaler {
    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        set_absent(spec, "minReplicas", 1);
        if list(spec, "metrics").is_empty() {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
        }
        autoscaler_rules::default_behavior(spec);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        let (min, max) =
            (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
        if min < 1 {
            errors.push(FieldError::invalid("spec.minReplicas", min, "must be greater than or equal to 1"));
        }
        if max < 1 {
            errors.push(FieldError::invalid("spec.maxReplicas", max, "must be greater than 0"));
        } else if max < min {
            let words = "must be greater than or equal to `minReplicas`";
            errors.push(FieldError::invalid("spec.maxReplicas", max, words));
        }
        let target = &spec["scaleTargetRef"];
        _ = required(target, "kind", "spec.scaleTargetRef", &mut errors);
        _ = required(target, "name", "spec.scaleTargetRef", &mut errors);
        autoscaler_rules::metrics(spec, &mut errors);
        autoscaler_rules::behavior(spec, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let target = &spec["scaleTargetRef"];
        let min = spec["minReplicas"].as_i64().map_or("<unset>".to_owned(), |min| min.to_string());
        vec![
            name(object),
            json!(format!("{}/{}", text(target, "kind"), text(target, "name"))),
            json!(targets(list(spec, "metrics"), list(status, "currentMetrics"))),
            json!(min),
            number(spec, "maxReplicas"),
            number(status, "currentReplicas"),
            table::age(object, now),
        ]
    }
}

fn targets(wanted: &[Value], current: &[Value]) -> String {
    if wanted.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<String> =
        wanted.iter().take(TARGETS_SHOWN_MAX).map(|metric| target(metric, current)).collect();
    match wanted.len().saturating_sub(TARGETS_SHOWN_MAX) {
        0 => shown.join(", "),
        more => format!("{} + {more} more...", shown.join(", ")),
    }
}

fn target(metric: &Value, current: &[Value]) -> String {
    let kind = text(metric, "type");
    let field = match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        _ => "external",
    };
    let spec = &metric[field];
    let of = |entry: &&Value| entry["type"] == kind && entry[field]["name"] == spec["name"];
    let now = current.iter().find(of).map(|entry| &entry[field]["current"]).unwrap_or(&Value::Null);
    let unknown = "<unknown>".to_owned();
    let amount = |value: &Value| value.as_str().map(str::to_owned);
    let pair = match spec["target"]["averageUtilization"].as_i64() {
        Some(wanted) => {
            let now = now["averageUtilization"].as_i64().map_or(unknown, |percent| format!("{percent}%"));
            format!("{now}/{wanted}%")
        }
        None => {
            let average = amount(&spec["target"]["averageValue"]);
            let which = if average.is_some() { "averageValue" } else { "value" };
            let wanted = average.or_else(|| amount(&spec["target"]["value"])).unwrap_or_default();
            format!("{}/{wanted}", amount(&now[which]).unwrap_or(unknown))
        }
    };
    if field == "resource" { format!("{}: {pair}", text(spec, "name")) } else { pair }
}

/// autoscaling/v1
#[derive(Debug, Clone, Copy)]
pub struct AutoscalerV1;

impl Behaviour for AutoscalerV1 {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = present(object, "spec") {
            set_absent(spec, "minReplicas", 1);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        Autoscaler.validate_create(object)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut stored = object.clone();
        self.to_storage(&mut stored);
        Autoscaler.row(&stored, now)
    }

    fn to_storage(&self, object: &mut Value) {
        object["apiVersion"] = json!("autoscaling/v2");
        let kept = present(object, "metadata")
            .and_then(|metadata| present(metadata, "annotations"))
            .and_then(|annotations| remove(annotations, METRICS_ANNOTATION))
            .and_then(|text| serde_json::from_str::<Vec<Value>>(text.as_str()?).ok());
        if let Some(spec) = present(object, "spec") {
            let mut metrics = kept.unwrap_or_default();
            if let Some(percent) = remove(spec, "targetCPUUtilizationPercentage") {
                let target = json!({"type": "Utilization", "averageUtilization": percent});
                metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
            }
            spec["metrics"] = json!(metrics);
        }
        if let Some(status) = present(object, "status")
            && let Some(percent) = remove(status, "currentCPUUtilizationPercentage")
        {
            let current = json!({"averageUtilization": percent});
            status["currentMetrics"] =
                json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}]);
        }
        Autoscaler.default(object);
    }

    fn from_storage(&self, object: &mut Value) {
        object["apiVersion"] = json!("autoscaling/v1");
        let mut others = Vec::new();
        if let Some(spec) = present(object, "spec") {
            _ = remove(spec, "behavior");
            for metric in remove(spec, "metrics").as_ref().and_then(Value::as_array).into_iter().flatten() {
                let percent = &metric["resource"]["target"]["averageUtilization"];
                if metric["resource"]["name"] == "cpu" && !percent.is_null() {
                    spec["targetCPUUtilizationPercentage"] = percent.clone();
                } else {
                    others.push(metric.clone());
                }
            }
        }
        if let Some(status) = present(object, "status") {
            _ = remove(status, "conditions");
            let current = remove(status, "currentMetrics");
            let cpu = current.as_ref().and_then(Value::as_array).into_iter().flatten().find_map(|metric| {
                (metric["resource"]["name"] == "cpu")
                    .then(|| metric["resource"]["current"]["averageUtilization"].clone())
            });
            if let Some(percent) = cpu.filter(|percent| !percent.is_null()) {
                status["currentCPUUtilizationPercentage"] = percent;
            }
        }
        if !others.is_empty()
            && let Some(metadata) = super::fill::child(object, "metadata")
            && let Some(annotations) = super::fill::child(metadata, "annotations")
        {
            annotations[METRICS_ANNOTATION] = json!(json!(others).to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_one_object() {
        let narrow = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "a"}, "spec": {"minReplicas": 1,
            "maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
        let mut object = narrow.clone();
        AutoscalerV1.to_storage(&mut object);
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        assert_eq!(Autoscaler.validate_create(&object), []);
        let row = Autoscaler.row(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["a", "Deployment/web", "cpu: <unknown>/50%", "1", 3, 0, "<unknown>"]));
        assert_eq!(json!(AutoscalerV1.row(&narrow, Timestamp::UNIX_EPOCH)), json!(row));
        AutoscalerV1.from_storage(&mut object);
        assert_eq!(object, narrow);
    }
}
