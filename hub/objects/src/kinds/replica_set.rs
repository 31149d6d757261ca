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
        let selector = map(spec, "selector");
        if selector.is_empty() {
            errors.push(FieldError::required("spec.selector", ""));
        }
        let template = &spec["template"];
        if template.is_null() {
            errors.push(FieldError::required("spec.template", ""));
            return errors;
        }
        let labels = map(&template["metadata"], "labels");
        if selector.iter().any(|(key, value)| labels.get(key) != Some(value)) {
            let words = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid("spec.template.metadata.labels", json!(labels), words));
        }
        errors.extend(super::pod::spec::validate_template(template, "spec.template"));
        workload::restarts_always(template, "ReplicationController", &mut errors);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(change: Value) -> Value {
        let mut object = json!({"metadata": {"name": "r"}, "spec": {
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        merge(&mut object, &change);
        ReplicationController.default(&mut object);
        object
    }

    fn merge(into: &mut Value, change: &Value) {
        match change {
            Value::Object(fields) => fields.iter().for_each(|(k, v)| merge(&mut into[k.as_str()], v)),
            other => *into = other.clone(),
        }
    }

    #[test]
    fn what_a_replication_controller_does_not_say_comes_from_its_template() {
        let object = controller(json!({}));
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!((&object["spec"]["selector"], &object["metadata"]["labels"]), (&json!({"a": "b"}), &json!({"a": "b"})));
        assert_eq!(object["spec"]["template"]["spec"]["restartPolicy"], "Always");
        let own = controller(json!({"metadata": {"labels": {"x": "y"}}, "spec": {"replicas": 0, "selector": {"a": "b"}}}));
        assert_eq!((&own["spec"]["replicas"], &own["metadata"]["labels"]), (&json!(0), &json!({"x": "y"})));
        assert_eq!(ReplicationController.validate_create(&own), []);
    }

    #[test]
    fn rules_of_replication_controllers() {
        let template = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
        let cases = [
            (json!({}), ""),
            (json!({"spec": {"selector": {"a": "c"}}}),
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"),
            (json!({"spec": {"replicas": -1}}), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
            (json!({"spec": {"minReadySeconds": -1}}),
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"),
            (template(json!({"restartPolicy": "Never"})),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""),
            (template(json!({"activeDeadlineSeconds": 5})), "spec.template.spec.activeDeadlineSeconds: Forbidden: \
                activeDeadlineSeconds in ReplicationController is not Supported"),
        ];
        for (change, want) in cases {
            let errors = ReplicationController.validate_create(&controller(change.clone()));
            let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(got.join("; "), want, "{change}");
        }
    }
}
