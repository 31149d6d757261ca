//! Short looks at objects that are JSON values.
//!
//! In: a value, perhaps hostile. Out: texts (empty when absent), lists, and small changes of metadata.
//! Never: panics on a value of another type.

use serde_json::{Map, Value};

/// A text of metadata, empty when missing.
pub fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    meta(object, "name")
}

pub fn namespace(object: &Value) -> &str {
    meta(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    meta(object, "uid")
}

pub fn resource_version(object: &Value) -> &str {
    meta(object, "resourceVersion")
}

pub fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

pub fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

/// The texts of a list.
pub fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The map in `object.field`, made when it is missing; `None` when something else is there.
pub fn map<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    let object = object.as_object_mut()?;
    let value = object.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// The list in `map.field`, made when it is missing.
pub fn list<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Vec<Value>> {
    let value = map.entry(field).or_insert_with(|| Value::Array(Vec::new()));
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut()
}

pub fn set_meta(object: &mut Value, field: &str, value: Value) {
    if let Some(metadata) = map(object, "metadata") {
        metadata.insert(field.to_owned(), value);
    }
}

pub fn remove_meta(object: &mut Value, field: &str) {
    if let Some(metadata) = map(object, "metadata") {
        metadata.remove(field);
    }
}

/// Adds a finalizer unless it is there.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    let Some(list) = map(object, "metadata").and_then(|m| list(m, "finalizers")) else { return };
    if !list.iter().any(|f| f == finalizer) {
        list.push(finalizer.into());
    }
}

/// Removes a finalizer, and the list with its last entry.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let Some(metadata) = map(object, "metadata") else { return };
    if let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        list.retain(|f| f != finalizer);
        if list.is_empty() {
            metadata.remove("finalizers");
        }
    }
}

/// metav1.PartialObjectMetadata of an object.
pub fn partial(object: &Value, version: &str) -> Value {
    serde_json::json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"].clone(),
    })
}
