//! CustomResourceDefinitions (apiextensions.k8s.io/v1).
//!
//! In: definitions as JSON. Out: defaults and rules, most of them in `custom::definition`.
//! Never: serves the custom resources (see `custom`).

use serde_json::Value;

use super::fill::{child, each, present, remove, set, set_absent, text};
use crate::behaviour::{Behaviour, Ctx};
use crate::custom::definition;
use crate::field::FieldError;

#[derive(Debug, Clone, Copy)]
pub struct CustomResourceDefinition;

impl Behaviour for CustomResourceDefinition {
    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        if let Some(conversion) = child(spec, "conversion") {
            set(conversion, "strategy", "None");
            if let Some(service) =
                present(conversion, "webhook").and_then(|w| present(w, "clientConfig")).and_then(|c| present(c, "service"))
            {
                set_absent(service, "port", 443);
            }
        }
        for version in each(spec, "versions") {
            // What the Go type always writes.
            for flag in ["served", "storage"] {
                set_absent(version, flag, false);
            }
        }
        let Some(names) = present(spec, "names") else { return };
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            set(names, "singular", kind.to_lowercase());
            set(names, "listKind", format!("{kind}List"));
        }
    }

    fn prepare_create(&self, object: &mut Value, _ctx: &Ctx<'_>) {
        // The names' keeper fills the status in before it is stored.
        remove(object, "status");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        definition::validate(object, None)
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        match subresource {
            "" => definition::validate(new, Some(old)),
            _ => definition::validate_status(new),
        }
    }
}
