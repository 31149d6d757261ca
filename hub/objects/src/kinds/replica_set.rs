//! ReplicaSets (apps/v1) and ReplicationControllers (v1).
//!
//! In: objects as JSON. Out: defaults, rules and table rows. Never: makes pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, name, number};
use super::fill::{map, present, set_absent};
use super::{rules, workload};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Desired"),
    Column::integer("Current"),
    Column::integer("Ready"),
    Column::AGE,
    Column::text("Containers").wide(),
    Column::text("Images").wide(),
    Column::text("Selector").wide(),
];
const COUNTS: [&str; 4] = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

#[derive(Debug, Clone, Copy)]
pub struct ReplicaSet;

impl Behaviour for ReplicaSet {
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::warn::workload(new, old, super::warn::own_template, "spec.template")
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        set_absent(spec, "replicas", 1);
        workload::default_template(spec);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        workload::validate(&object["spec"], "deployment")
            .into_iter()
            .map(|mut error| {
                error.detail = error.detail.replace("in deployment is", "in ReplicaSet is");
                error
            })
            .collect()
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return status(new);
        }
        let mut errors = self.validate_create(new);
        errors.extend(workload::selector_immutable(new, old));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        row(object, cells::selector(&object["spec"]["selector"]), now)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", number(&object["status"], "replicas").to_string())]
    }
}

fn status(new: &Value) -> Vec<FieldError> {
    let mut errors = workload::status_counts(new, &COUNTS);
    let count = |field: &str| new["status"][field].as_i64().unwrap_or(0);
    for field in &COUNTS[1..] {
        if count(field) > count("replicas") {
            let words = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(format!("status.{field}"), count(field), words));
        }
    }
    errors
}

fn row(object: &Value, selector: String, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let [names, images] = cells::containers(&object["spec"]["template"]["spec"]);
    vec![
        name(object),
        number(&object["spec"], "replicas"),
        number(status, "replicas"),
        number(status, "readyReplicas"),
        table::age(object, now),
        names,
        images,
        json!(selector),
    ]
}

#[derive(Debug, Clone, Copy)]
pub struct ReplicationController;

impl Behaviour for ReplicationController {
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::warn::workload(new, old, super::warn::own_template, "spec.template")
    }

    fn default(&self, object: &mut Value) {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
            if map(&object["spec"], "selector").is_empty() {
                object["spec"]["selector"] = labels.clone();
            }
            if map(&object["metadata"], "labels").is_empty() {
                object["metadata"]["labels"] = labels;
            }
        }
        let Some(spec) = present(object, "spec") else { return };
        set_absent(spec, "replicas", 1);
        workload::default_template(spec);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Vec::new();
        rules::not_negative(spec, "replicas", "spec", &mut errors);
        rules::not_negative(spec, "minReadySeconds", "spec", &mut errors);
        if map(spec, "selector").is_empty() {
            errors.push(FieldError::required("spec.selector", ""));
        }
        if spec["template"].is_null() {
            errors.push(FieldError::required("spec.template", ""));
        } else {
            errors.extend(super::pod::spec::validate_template(&spec["template"], "spec.template"));
        }
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" { status(new) } else { self.validate_create(new) }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        row(object, cells::labels(map(&object["spec"], "selector")), now)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", number(&object["status"], "replicas").to_string())]
    }
}
