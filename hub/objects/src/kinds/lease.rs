//! Leases (coordination.k8s.io/v1).
//!
//! In: Leases as JSON. Out: rules and the table row. Never: judges who holds one.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::text;
use super::rules::not_negative;
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

#[derive(Debug, Clone, Copy)]
pub struct Lease;

impl Behaviour for Lease {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = &object["spec"];
        if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
            errors.push(FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
        }
        not_negative(spec, "leaseTransitions", "spec", &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Holder"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), json!(text(&object["spec"], "holderIdentity")), table::age(object, now)]
    }
}
