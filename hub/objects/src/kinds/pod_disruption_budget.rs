//! PodDisruptionBudgets (policy/v1).
//!
//! In: budgets as JSON. Out: rules and the table row. Never: evicts.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{name, number};
use super::rules::{Errors, count_or_percent, label_selector, one_of};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

#[derive(Debug, Clone, Copy)]
pub struct PodDisruptionBudget;

impl Behaviour for PodDisruptionBudget {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
            let words = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid("spec", spec.clone(), words));
        }
        count_or_percent(spec, "minAvailable", "spec", &mut errors);
        count_or_percent(spec, "maxUnavailable", "spec", &mut errors);
        label_selector(&spec["selector"], "spec.selector", &mut errors);
        let choices = ["AlwaysAllow", "IfHealthyBudget"];
        one_of(spec, "unhealthyPodEvictionPolicy", "spec", &choices, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Min Available"),
                Column::text("Max Unavailable"),
                Column::integer("Allowed Disruptions"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let or_na = |value: &Value| match value {
            Value::Null => json!("N/A"),
            Value::String(text) => json!(text),
            other => json!(other.to_string()),
        };
        let spec = &object["spec"];
        vec![
            name(object),
            or_na(&spec["minAvailable"]),
            or_na(&spec["maxUnavailable"]),
            number(&object["status"], "disruptionsAllowed"),
            table::age(object, now),
        ]
    }
}
