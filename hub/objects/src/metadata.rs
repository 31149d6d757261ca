//! ObjectMeta: first filling, what an update may change, and its validation, the same for all kinds.
//!
//! In: objects as JSON. Out: changed metadata, field errors in the words of apimachinery's
//! `ValidateObjectMeta`.
//! Never: knows kinds.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::behaviour::Ctx;
use crate::field::FieldError;
use crate::names;
use crate::resource::Resource;

const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const IMMUTABLE: &str = "field is immutable";

/// Fields that only the server writes; an update gets them from the stored object.
const SERVER_OWNED: [&str; 5] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// The metadata object, made if missing.
pub fn of(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let object = object.as_object_mut()?;
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata.as_object_mut()
}

/// A text of metadata, empty when missing.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// What the system writes into a new object.
pub fn fill_new(object: &mut Value, namespace: Option<&str>, ctx: &Ctx<'_>) {
    let Some(metadata) = of(object) else { return };
    for field in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "resourceVersion"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), json!(ctx.uid));
    metadata.insert("creationTimestamp".into(), json!(crate::time::rfc3339(ctx.now)));
    match namespace {
        Some(namespace) => _ = metadata.insert("namespace".into(), json!(namespace)),
        None => _ = metadata.remove("namespace"),
    }
    let named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let base = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default();
    if !named && !base.is_empty() {
        let name = names::generated(base, ctx.suffix);
        metadata.insert("name".into(), json!(name));
    }
}

/// Takes over from the stored object what clients cannot write.
pub fn carry_over(new: &mut Value, old: &Value) {
    let Some(metadata) = of(new) else { return };
    for field in SERVER_OWNED {
        match &old["metadata"][field] {
            Value::Null => _ = metadata.remove(field),
            // A different uid is an error that validation reports; a missing one is filled in.
            _ if field == "uid" && metadata.get(field).is_some_and(|uid| uid.as_str() != Some("")) => {}
            value => _ = metadata.insert(field.into(), value.clone()),
        }
    }
    metadata.remove("selfLink");
    for field in ["generateName"] {
        if let (false, Some(value)) = (metadata.contains_key(field), old["metadata"].get(field)) {
            metadata.insert(field.into(), value.clone());
        }
    }
}

/// Errors of the metadata of a new object.
pub fn validate(object: &Value, resource: &Resource) -> Vec<FieldError> {
    let metadata = &object["metadata"];
    let mut errors = Vec::new();
    if let Some(base) = metadata["generateName"].as_str().filter(|base| !base.is_empty()) {
        // The base may end in a dash: the suffix follows.
        for wrong in resource.behaviour.validate_name(&format!("{}a", base.trim_end_matches('-'))) {
            errors.push(FieldError::invalid("metadata.generateName", base, wrong));
        }
    }
    match metadata["name"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("metadata.name", "name or generateName is required")),
        name => {
            for wrong in resource.behaviour.validate_name(name) {
                errors.push(FieldError::invalid("metadata.name", name, wrong));
            }
        }
    }
    match (resource.namespaced, metadata["namespace"].as_str().unwrap_or_default()) {
        (true, "") => errors.push(FieldError::required("metadata.namespace", "")),
        (true, namespace) => {
            for wrong in names::dns_label(namespace) {
                errors.push(FieldError::invalid("metadata.namespace", namespace, wrong));
            }
        }
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type")),
    }
    errors.extend(validate_common(metadata));
    errors
}

/// Errors of the metadata of an object inside another.
pub fn validate_embedded(metadata: &Value) -> Vec<FieldError> {
    validate_common(metadata)
}

fn validate_common(metadata: &Value) -> Vec<FieldError> {
    let mut errors = labels(&metadata["labels"], "metadata.labels");
    errors.extend(annotations(&metadata["annotations"], "metadata.annotations"));
    errors.extend(owners(&metadata["ownerReferences"]));
    errors.extend(finalizers(&metadata["finalizers"]));
    errors
}

/// Errors of labels, at any path.
pub fn labels(labels: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        for wrong in names::qualified_name(key) {
            errors.push(FieldError::invalid(path, key.as_str(), wrong));
        }
        for wrong in names::label_value(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(path, value.clone(), wrong));
        }
    }
    errors
}

pub fn annotations(annotations: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        for wrong in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(path, key.as_str(), wrong));
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
    errors
}

fn owners(owners: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controller = None;
    for (at, owner) in owners.as_array().into_iter().flatten().enumerate() {
        let path = format!("metadata.ownerReferences[{at}]");
        let rules = [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ];
        for (field, words) in rules {
            let value = owner[field].as_str().unwrap_or_default();
            if value.is_empty() {
                errors.push(FieldError::invalid(format!("{path}.{field}"), value, words));
            }
        }
        if owner["controller"] == true {
            let kind = owner["kind"].as_str().unwrap_or_default();
            let name = owner["name"].as_str().unwrap_or_default();
            if let Some((kind_before, name_before)) = controller.replace((kind, name)) {
                let words = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for \
                     {kind_before}/{name_before} and {kind}/{name}"
                );
                errors.push(FieldError::invalid("metadata.ownerReferences", owners.clone(), words));
            }
        }
    }
    errors
}

fn finalizers(finalizers: &Value) -> Vec<FieldError> {
    const STANDARD: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];
    let mut errors = Vec::new();
    for (at, finalizer) in finalizers.as_array().into_iter().flatten().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        let path = format!("metadata.finalizers[{at}]");
        for wrong in names::qualified_name(name) {
            errors.push(FieldError::invalid(path.as_str(), name, wrong));
        }
        if !name.contains('/') && !STANDARD.contains(&name) {
            let words = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(path, name, words));
        }
    }
    errors
}

/// Errors of the metadata of an update, beyond those of `validate_common`.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old) = (&new["metadata"], &old["metadata"]);
    let mut errors = validate_common(new);
    for field in ["name", "namespace", "uid"] {
        let (before, after) =
            (old[field].as_str().unwrap_or_default(), new[field].as_str().unwrap_or_default());
        if before != after {
            errors.push(FieldError::invalid(format!("metadata.{field}"), after, IMMUTABLE));
        }
    }
    if !old["deletionTimestamp"].is_null() {
        let set = |value: &Value| -> BTreeSet<String> {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect()
        };
        let added: Vec<String> = set(&new["finalizers"])
            .difference(&set(&old["finalizers"]))
            .map(|name| format!("{name:?}"))
            .collect();
        if !added.is_empty() {
            let words = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers \
                 []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", words));
        }
    }
    errors
}
