//! CustomResourceDefinitions (apiextensions.k8s.io/v1).
//!
//! In: definitions as JSON. Out: defaults and the first rules. Never: serves the custom resources.

use serde_json::{Value, json};

use super::fill::{child, list, present, set, text};
use super::rules::{Errors, one_of, required};
use crate::behaviour::Behaviour;
use crate::field::FieldError;

#[derive(Debug, Clone, Copy)]
pub struct CustomResourceDefinition;

impl Behaviour for CustomResourceDefinition {
    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        if let Some(conversion) = child(spec, "conversion") {
            set(conversion, "strategy", "None");
        }
        let Some(names) = present(spec, "names") else { return };
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            set(names, "singular", kind.to_lowercase());
            set(names, "listKind", format!("{kind}List"));
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        let own = text(&object["metadata"], "name");
        let wanted = format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"));
        if own != wanted {
            let words = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid("metadata.name", own, words));
        }
        _ = required(spec, "group", "spec", &mut errors);
        match text(spec, "scope") {
            "" => errors.push(FieldError::required("spec.scope", "")),
            _ => one_of(spec, "scope", "spec", &["Cluster", "Namespaced"], &mut errors),
        }
        for field in ["plural", "kind"] {
            _ = required(&spec["names"], field, "spec.names", &mut errors);
        }
        let versions = list(spec, "versions");
        if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
            let words = "must have exactly one version marked as storage version";
            errors.push(FieldError::invalid("spec.versions", json!(versions), words));
        }
        for (at, version) in versions.iter().enumerate() {
            if !version["schema"]["openAPIV3Schema"].is_object() {
                let path = format!("spec.versions[{at}].schema.openAPIV3Schema");
                errors.push(FieldError::required(path, "schemas are required"));
            }
        }
        errors
    }
}
