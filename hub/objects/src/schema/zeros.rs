//! Writes what Go writes even when nobody set it: structs that are no pointers (`status: {}`), required numbers and
//! texts (`replicas: 0`).
//!
//! In: a value of a definition, defaulted. Out: the value, with these fields; clients of other languages count on them.
//! Never: changes a field that is there, or makes one that may be absent.

use serde_json::{Map, Value};

use super::{Definition, Object, Schema, Table, Type};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    Structs,
    All,
}

pub fn fill(value: &mut Value, definition: &Definition, which: Zeros) {
    visit(super::table(), &definition.schema, value, which);
}

fn visit(table: &Table, schema: &Schema, value: &mut Value, which: Zeros) {
    // Most fields are scalars, of which nothing is missing.
    if !value.is_object() && !value.is_array() {
        return;
    }
    match (&table.resolve(schema).kind, value) {
        (Type::Object(object), Value::Object(fields)) => fill_struct(table, object, fields, which),
        (Type::Map(values), Value::Object(fields)) => {
            fields.values_mut().for_each(|field| visit(table, values, field, which));
        }
        (Type::List(items), Value::Array(elements)) => {
            elements.iter_mut().for_each(|element| visit(table, items, element, which));
        }
        _ => {}
    }
}

fn fill_struct(table: &Table, object: &Object, fields: &mut Map<String, Value>, which: Zeros) {
    for property in object.always.iter().filter_map(|at| object.properties.get(*at)) {
        let name = property.name.as_ref();
        if !fields.contains_key(name) && (which == Zeros::All || table.object(&property.schema).is_some()) {
            fields.insert(name.to_owned(), zero(table, &property.schema));
        }
    }
    for (name, field) in fields.iter_mut() {
        if let Some(property) = object.property(name) {
            visit(table, &property.schema, field, which);
        }
    }
}

fn zero(table: &Table, schema: &Schema) -> Value {
    match table.resolve(schema).kind {
        Type::Int32 | Type::Int64 | Type::Number => Value::from(0),
        Type::Boolean => Value::from(false),
        Type::String | Type::Bytes => Value::from(""),
        _ => Value::Object(Map::new()),
    }
}
