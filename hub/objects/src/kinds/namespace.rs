//! Namespaces (v1).
//!
//! In: Namespaces as JSON. Out: label and finalizer, rules and the table row. Never: deletes what is
//! inside.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::{child, copy, text};
use super::rules::Errors;
use crate::behaviour::{Behaviour, Column, Ctx};
use crate::field::FieldError;
use crate::{names, table};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

#[derive(Debug, Clone, Copy)]
pub struct Namespace;

impl Behaviour for Namespace {
    fn default(&self, object: &mut Value) {
        let own = text(&object["metadata"], "name").to_owned();
        if own.is_empty() {
            return;
        }
        if let Some(labels) = child(object, "metadata").and_then(|metadata| child(metadata, "labels")) {
            labels[NAME_LABEL] = json!(own);
        }
    }

    fn prepare_create(&self, object: &mut Value, _ctx: &Ctx<'_>) {
        object["status"] = json!({"phase": "Active"});
        let Some(spec) = child(object, "spec") else { return };
        let mut finalizers = spec["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == "kubernetes") {
            finalizers.push(json!("kubernetes"));
        }
        spec["finalizers"] = json!(finalizers);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, subresource: &str, _ctx: &Ctx<'_>) {
        // Only `finalize` may change the finalizers of the spec.
        if subresource != "finalize" {
            copy(new, old, "spec");
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns_label(name)
    }

    fn validate_update(&self, new: &Value, _old: &Value, subresource: &str) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let deleting = !new["metadata"]["deletionTimestamp"].is_null();
        let phase = text(&new["status"], "phase");
        if subresource == "status" {
            if deleting && phase != "Terminating" {
                let words = "may only be 'Terminating' if `deletionTimestamp` is not empty";
                errors.push(FieldError::invalid("status.Phase", phase, words));
            } else if !deleting && phase != "Active" {
                let words = "may only be 'Active' if `deletionTimestamp` is empty";
                errors.push(FieldError::invalid("status.Phase", phase, words));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Status"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), json!(text(&object["status"], "phase")), table::age(object, now)]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.phase", text(&object["status"], "phase").to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::registry;
    use crate::strategy;

    #[test]
    fn a_new_namespace() {
        let namespaces = registry().by_path("", "v1", "namespaces").unwrap();
        let mut object = json!({"metadata": {"generateName": "ns-"}});
        let ctx = Ctx { now: Timestamp::UNIX_EPOCH, user: "", groups: &[], uid: "u", suffix: "bcdfg" };
        strategy::create(namespaces, &mut object, None, &ctx).unwrap();
        assert_eq!(object["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "ns-bcdfg"}));
        assert_eq!(object["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(object["status"], json!({"phase": "Active"}));
        let mut new = object.clone();
        new["spec"] = json!({"finalizers": []});
        strategy::update(namespaces, &mut new, &object, "", &ctx).unwrap();
        assert_eq!(new["spec"], object["spec"]);
        let mut new = object.clone();
        new["spec"] = json!({"finalizers": []});
        strategy::update(namespaces, &mut new, &object, "finalize", &ctx).unwrap();
        assert_eq!(new["spec"], json!({"finalizers": []}));
    }
}
