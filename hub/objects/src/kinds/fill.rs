//! Small tools for defaulting: fill in what is missing, keep what is there.
//!
//! In: JSON objects. Out: the same with values added. Never: overwrites what a user said.

use serde_json::{Map, Value, json};

/// Sets a field that is missing, null or empty text.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match fields.get(field) {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(_) => return,
    }
    fields.insert(field.to_owned(), value.into());
}

/// Sets a number that is missing or 0 (Go's plain integers cannot tell them apart).
pub fn set_number(object: &mut Value, field: &str, value: i64) {
    if object.is_object() && object[field].as_i64().unwrap_or(0) == 0 {
        object[field] = json!(value);
    }
}

/// Sets a pointer-like field: only when missing or null.
pub fn set_absent(object: &mut Value, field: &str, value: impl Into<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    if fields.get(field).is_none_or(Value::is_null) {
        fields.insert(field.to_owned(), value.into());
    }
}

/// The object under `field`, made if it is missing. `None` if something else is there.
pub fn child<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let fields = object.as_object_mut()?;
    let entry = fields.entry(field).or_insert_with(|| json!({}));
    if entry.is_null() {
        *entry = json!({});
    }
    entry.is_object().then_some(entry)
}

/// The object under `field`, if it is there.
pub fn present<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    object.get_mut(field).filter(|value| value.is_object())
}

/// The elements of a list, none if it is missing.
pub fn each<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Removes a field, if the value is an object.
pub fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.remove(field)
}

/// Copies `from[field]` into `to`, removing it when `from` has none.
pub fn copy(to: &mut Value, from: &Value, field: &str) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => _ = fields.insert(field.to_owned(), value.clone()),
        None => _ = fields.remove(field),
    }
}

/// A field's map; an empty one when it is missing.
pub fn map<'a>(object: &'a Value, field: &str) -> &'a Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    object[field].as_object().unwrap_or(&EMPTY)
}

/// A field's list; an empty one when it is missing.
pub fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map_or(&[], Vec::as_slice)
}

/// A field's text; empty when it is missing.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}
