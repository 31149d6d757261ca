//! Brings a decoded object into the form in which Go would have kept it: no unknown fields, no nulls.
//!
//! In: a JSON value and its definition. Out: the value changed in place, and the paths of fields that
//! were unknown.
//! Never: adds defaults, judges values (see `check`).

use serde_json::Value;

use super::{Definition, Schema, Table, Type};

/// Removes fields that the definition does not know. Returns their paths: `spec.foo`,
/// `spec.containers[0].imagee`.
pub fn prune(value: &mut Value, definition: &Definition) -> Vec<String> {
    let mut walk = Walk { table: super::table(), unknown: Vec::new(), path: String::new() };
    walk.visit(value, &definition.schema, definition.name.as_ref());
    walk.unknown
}

/// `prune` without the list of paths.
pub fn tidy(value: &mut Value, definition: &Definition) {
    prune(value, definition);
}

struct Walk<'a> {
    table: &'a Table,
    unknown: Vec<String>,
    path: String,
}

impl Walk<'_> {
    fn visit(&mut self, value: &mut Value, schema: &Schema, _name: &str) {
        let table = self.table;
        match (&table.resolve(schema).kind, value) {
            (Type::Object(object), Value::Object(fields)) => {
                fields.retain(|name, field| {
                    let known = object.open || object.property(name).is_some();
                    if !known {
                        self.unknown.push(join(&self.path, name));
                    }
                    known && !field.is_null()
                });
                for (name, field) in fields.iter_mut() {
                    if let Some(property) = object.property(name) {
                        self.within(|path| push_name(path, name), field, &property.schema);
                    }
                }
            }
            (Type::Map(values), Value::Object(fields)) => {
                for (name, field) in fields.iter_mut() {
                    self.within(|path| push_name(path, name), field, values);
                }
            }
            (Type::List(items), Value::Array(elements)) => {
                for (index, element) in elements.iter_mut().enumerate() {
                    self.within(|path| path.push_str(&format!("[{index}]")), element, items);
                }
            }
            (Type::Time, Value::String(text)) => normalize_time(text),
            (Type::Quantity, value) => normalize_quantity(value),
            // In maps and lists Go turns null into the element's zero value.
            (Type::String | Type::Bytes, value @ Value::Null) => *value = Value::String(String::new()),
            _ => {}
        }
    }

    fn within(&mut self, extend: impl FnOnce(&mut String), value: &mut Value, schema: &Schema) {
        let length = self.path.len();
        extend(&mut self.path);
        self.visit(value, schema, "");
        self.path.truncate(length);
    }
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// metav1.Time is written in UTC and whole seconds.
fn normalize_time(text: &mut String) {
    if text.len() == 20 && text.ends_with('Z') {
        return;
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        *text = crate::time::rfc3339(time);
    }
}

/// Quantities are kept in their canonical form (`1000m` is `1`), numbers as texts.
fn normalize_quantity(value: &mut Value) {
    if let Ok(text) = crate::quantity::canonical(value) {
        *value = Value::String(text);
    }
}
