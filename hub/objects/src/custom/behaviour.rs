//! How objects of a custom resource are written: by what their definition says.
//!
//! In: objects and a `Custom`. Out: defaults, field errors, table cells. Never: knows any one kind.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Custom, prune, rules, validate};
use crate::behaviour::{Behaviour, Ctx};
use crate::field::{FieldError, Problem};
use crate::sieve::Part;

#[derive(Debug)]
pub struct ByDefinition(pub Arc<Custom>);

impl Behaviour for ByDefinition {
    fn default(&self, object: &mut Value) {
        prune::default(object, &self.0.schema);
    }

    fn prepare_create(&self, object: &mut Value, _ctx: &Ctx<'_>) {
        prune::prune(object, &self.0.schema, true);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, subresource: &str, _ctx: &Ctx<'_>) {
        prune::prune(new, &self.0.schema, true);
        if subresource == "status" {
            only_status(new, old);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let schema = &self.0.schema;
        let mut errors = scale_errors(&self.0, object);
        errors.extend(validate::validate(schema, object, None, ""));
        errors.extend(validate::duplicates(schema, object, ""));
        self.rules(object, None, errors)
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let schema = &self.0.schema;
        let mut errors = scale_errors(&self.0, new);
        errors.extend(validate::validate(schema, new, Some(old), ""));
        let doubled = validate::duplicates(schema, new, "");
        if !doubled.is_empty() && validate::duplicates(schema, old, "").is_empty() {
            errors.extend(doubled);
        }
        self.rules(new, Some(old), errors)
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.0.columns.cells(object, now)
    }

    /// A column may show whatever its definition names.
    fn row_looks_at(&self) -> Part {
        Part::All
    }
}

impl ByDefinition {
    /// Runs the rules, unless the object is of another shape than they expect.
    fn rules(
        &self,
        object: &Value,
        old: Option<&Value>,
        mut errors: Vec<FieldError>,
    ) -> Vec<FieldError> {
        if self.0.rules.is_empty() {
            return errors;
        }
        let blocks = |error: &FieldError| {
            matches!(
                error.problem,
                Problem::Required
                    | Problem::TooLong
                    | Problem::TooMany
                    | Problem::TypeInvalid
                    | Problem::NotSupported
            )
        };
        if errors.iter().any(blocks) {
            let words = "some validation rules were not checked because the object was invalid; correct the existing errors \
                         to complete validation";
            errors.push(FieldError::invalid("", Value::Null, words));
        } else {
            errors.extend(rules::validate(&self.0.rules, &self.0.schema, object, old));
        }
        errors
    }
}

/// A status update of a custom resource changes nothing else, metadata included.
fn only_status(new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let managed = new["metadata"].get("managedFields").cloned();
    let version = new["metadata"].get("resourceVersion").cloned();
    let mut kept = old.clone();
    for (field, value) in [("managedFields", managed), ("resourceVersion", version)] {
        if let (Some(value), Some(metadata)) = (value, kept["metadata"].as_object_mut()) {
            metadata.insert(field.to_owned(), value);
        }
    }
    if let Some(fields) = kept.as_object_mut() {
        match status {
            Some(status) => _ = fields.insert("status".to_owned(), status),
            None => _ = fields.remove("status"),
        }
    }
    *new = kept;
}

/// What the scale subresource needs of its fields.
fn scale_errors(custom: &Custom, object: &Value) -> Vec<FieldError> {
    let Some(scale) = &custom.scale else {
        return Vec::new();
    };
    let mut errors = Vec::new();
    for path in [&scale.spec, &scale.status] {
        let value = path.iter().try_fold(object, |value, name| value.get(name));
        let Some(number) = value.and_then(Value::as_i64) else {
            continue;
        };
        let at = path.join(".");
        if number < 0 {
            errors.push(FieldError::invalid(
                at,
                json!(number),
                "should be a non-negative integer",
            ));
        } else if number > i64::from(i32::MAX) {
            let words = format!("should be less than or equal to {}", i32::MAX);
            errors.push(FieldError::invalid(at, json!(number), words));
        }
    }
    errors
}
