//! Pods.
//!
//! In: pods as JSON. Out: defaults, first state, rules and the table row.
//! Never: what belongs to admission (priority, tokens) or the scheduler.

pub mod containers;
pub mod defaults;
mod env;
mod handlers;
mod mounts;
mod qos;
mod row;
pub mod scheduling;
mod security;
pub mod sources;
pub mod spec;
mod update;
pub mod volumes;
mod whole;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::behaviour::{Behaviour, Column, Ctx};
use crate::field::FieldError;
use crate::kinds::fill::{copy, text};
use crate::sieve::Part;

pub use qos::qos_class;

#[derive(Debug, Clone, Copy)]
pub struct Pod;

impl Behaviour for Pod {
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() {
            return super::warn::away_words(new, old);
        }
        let name = super::warn::host_name(new, "the Pod's hostname");
        name.into_iter().chain(super::warn::pod(new, "")).collect()
    }

    fn default(&self, object: &mut Value) {
        defaults::pod(object);
    }

    fn prepare_create(&self, object: &mut Value, _ctx: &Ctx<'_>) {
        // The class depends on requests, which may come from limits.
        defaults::pod(object);
        object["status"] = json!({"phase": "Pending", "qosClass": qos_class(&object["spec"])});
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, subresource: &str, _ctx: &Ctx<'_>) {
        update::prepare(new, old, subresource);
        if subresource == "status" && new["status"]["qosClass"].is_null() && new["status"].is_object() {
            copy(&mut new["status"], &old["status"], "qosClass");
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = spec::validate(&object["spec"], "spec", spec::For::Pod);
        if object["spec"]["ephemeralContainers"].as_array().is_some_and(|list| !list.is_empty()) {
            errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        update::validate(new, old, subresource)
    }

    fn columns(&self) -> &'static [Column] {
        row::COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        row::row(object, now)
    }

    fn row_looks_at(&self) -> Part {
        row::LOOKS_AT
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let field = |object: &Value, name: &str| text(object, name).to_owned();
        vec![
            ("spec.nodeName", field(spec, "nodeName")),
            // An old name of the same.
            ("spec.host", field(spec, "nodeName")),
            ("spec.restartPolicy", field(spec, "restartPolicy")),
            ("spec.schedulerName", field(spec, "schedulerName")),
            ("spec.serviceAccountName", field(spec, "serviceAccountName")),
            ("spec.hostNetwork", (spec["hostNetwork"] == true).to_string()),
            ("status.phase", field(status, "phase")),
            ("status.podIP", field(status, "podIP")),
            // Known, and never there: as upstream.
            ("status.podIPs", String::new()),
            ("status.nominatedNodeName", field(status, "nominatedNodeName")),
        ]
    }
}

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;
