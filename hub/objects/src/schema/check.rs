//! Finds values of the wrong JSON type, in the words of Go's decoder.
//!
//! In: a JSON value and its definition. Out: messages for a 400 Bad Request, at most one a field.
//! Never: changes the value, judges ranges or formats beyond what decoding needs (see `kinds`).

use serde_json::Value;

use super::{Definition, Schema, Table, Type};

/// More would not help the reader, and the answer stays bounded.
const MESSAGES_MAX: usize = 16;

/// Go-like decoding errors: `json: cannot unmarshal string into Go struct field
/// DeploymentSpec.spec.replicas of type int32`.
pub fn check(value: &Value, definition: &Definition) -> Vec<String> {
    let mut walk = Walk { table: super::table(), messages: Vec::new(), path: Vec::new() };
    walk.visit(value, &definition.schema, definition.short_name());
    walk.messages
}

struct Walk<'a> {
    table: &'a Table,
    messages: Vec<String>,
    path: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    /// `owner` is the Go struct that holds the field being visited.
    fn visit(&mut self, value: &'a Value, schema: &'a Schema, owner: &'a str) {
        if value.is_null() || self.messages.len() >= MESSAGES_MAX {
            return;
        }
        match (&self.table.resolve(schema).kind, value) {
            (Type::Any | Type::Deduced, _) => {}
            (Type::Object(object), Value::Object(fields)) => {
                let owner = self.table.type_name(schema).unwrap_or(owner);
                for (name, field) in fields {
                    if let Some(property) = object.property(name) {
                        self.path.push(name);
                        self.visit(field, &property.schema, owner);
                        self.path.pop();
                    }
                }
            }
            (Type::Map(values), Value::Object(fields)) => {
                fields.values().for_each(|v| self.visit(v, values, owner))
            }
            (Type::List(items), Value::Array(elements)) => {
                elements.iter().for_each(|e| self.visit(e, items, owner))
            }
            (Type::String, Value::String(_))
            | (Type::Boolean, Value::Bool(_))
            | (Type::Number, Value::Number(_)) => {}
            (Type::IntOrString, Value::String(_)) => {}
            (Type::IntOrString | Type::Int32, Value::Number(number)) => {
                if number.as_i64().and_then(|n| i32::try_from(n).ok()).is_none() {
                    self.mismatch(&format!("number {number}"), "int32", owner);
                }
            }
            (Type::Int64, Value::Number(number)) if number.as_i64().is_some() => {}
            (Type::Int64, Value::Number(number)) => {
                self.mismatch(&format!("number {number}"), "int64", owner)
            }
            (Type::Time | Type::MicroTime, Value::String(text)) => self.time(text),
            (Type::Bytes, Value::String(text)) => self.base64(text),
            (Type::Quantity, Value::String(text)) => self.quantity(text),
            (Type::Quantity, Value::Number(_)) => {}
            _ => self.mismatch(json_type(value), &go_type(self.table, schema), owner),
        }
    }

    fn mismatch(&mut self, found: &str, wanted: &str, owner: &str) {
        let field = self.path.join(".");
        self.messages.push(if field.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {wanted}")
        } else {
            format!("json: cannot unmarshal {found} into Go struct field {owner}.{field} of type {wanted}")
        });
    }

    fn time(&mut self, text: &str) {
        if text.parse::<jiff::Timestamp>().is_err() {
            self.messages.push(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            ));
        }
    }

    fn base64(&mut self, text: &str) {
        let wrong =
            text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).enumerate().find_map(|(at, byte)| {
                (!(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))).then_some(at)
            });
        let length = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).count();
        let wrong = wrong.or_else(|| (length % 4 != 0).then_some(length / 4 * 4));
        if let Some(at) = wrong {
            self.messages.push(format!("illegal base64 data at input byte {at}"));
        }
    }

    fn quantity(&mut self, text: &str) {
        if !looks_like_quantity(text) {
            self.messages.push(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                    .to_owned(),
            );
        }
    }
}

/// The shape only; `quantity` parses the value.
fn looks_like_quantity(text: &str) -> bool {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = body.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(body.len());
    let (number, suffix) = body.split_at(digits);
    let number_ok = number.bytes().any(|byte| byte.is_ascii_digit()) && number.matches('.').count() <= 1;
    let suffix_ok = match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" => true,
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => true,
        _ => suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !exponent.is_empty() && exponent.len() <= 3 && exponent.bytes().all(|byte| byte.is_ascii_digit())
        }),
    };
    number_ok && suffix_ok
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn go_type(table: &Table, schema: &Schema) -> String {
    match &schema.kind {
        Type::Any | Type::Deduced => "interface {}".to_owned(),
        Type::String => "string".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Number => "float64".to_owned(),
        Type::Boolean => "bool".to_owned(),
        Type::List(items) => format!("[]{}", go_type(table, items)),
        Type::Map(values) => format!("map[string]{}", go_type(table, values)),
        Type::Object(_) => "struct".to_owned(),
        Type::Ref(id) => match table.at(*id) {
            Some(definition) => qualified(&definition.name),
            None => "struct".to_owned(),
        },
    }
}

/// `io.k8s.api.core.v1.Container` -> `v1.Container`.
fn qualified(name: &str) -> String {
    let mut parts = name.rsplit('.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(package)) => format!("{package}.{name}"),
        _ => name.to_owned(),
    }
}
