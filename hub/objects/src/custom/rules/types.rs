//! Schemas as types of expressions, and objects as their values.
//!
//! In: structural schemas, objects. Out: declarations with bounds, values. Never: runs anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use limpet_cel::{Decl, Key, ListKind, Type, Value as Cel};
use serde_json::Value;

use crate::custom::structural::{Additional, Kind, Structural};
use crate::schema::ListType;

/// What has no bound of its own is bounded by the body of a request.
pub const BODY_BYTES_MAX: u64 = 3 * 1024 * 1024;

pub fn items_max(schema: &Structural) -> u64 {
    let smallest = schema
        .items
        .as_deref()
        .map_or(1, |items| smallest(items, 0))
        + 1;
    schema.max_items.unwrap_or(BODY_BYTES_MAX / smallest)
}

pub fn entries_max(schema: &Structural) -> u64 {
    let smallest = schema.values().map_or(1, |values| smallest(values, 0)) + 6;
    schema.max_properties.unwrap_or(BODY_BYTES_MAX / smallest)
}

/// The fewest bytes that a value takes in a request.
fn smallest(schema: &Structural, depth: usize) -> u64 {
    if depth > 8 {
        return 1;
    }
    match schema.kind {
        Kind::Object => {
            let required = schema
                .required
                .iter()
                .filter_map(|name| schema.property(name).map(|below| (name, below)));
            2 + required
                .filter(|(_, below)| below.default.is_none())
                .map(|(name, below)| name.len() as u64 + 4 + smallest(below, depth + 1))
                .sum::<u64>()
        }
        Kind::Array | Kind::String => 2,
        Kind::Boolean => 4,
        _ => 1,
    }
}

fn string_max(schema: &Structural) -> u64 {
    let of_format = match schema.format.as_str() {
        "date" => Some(10),
        "duration" | "date-time" => Some(32),
        _ => None,
    };
    let of_choices = schema
        .choices
        .iter()
        .filter_map(|choice| choice.as_str().map(str::len))
        .max();
    // A letter takes at most four bytes; sizes are measured in bytes.
    let own = schema.max_length.map(|letters| letters.saturating_mul(4));
    own.or(of_format)
        .or(of_choices.map(|length| length as u64))
        .unwrap_or(BODY_BYTES_MAX)
}

/// The type of a node and its bounds.
pub fn declaration(schema: &Structural, root: bool) -> Decl {
    declare(schema, root, &mut Names(0))
}

/// Numbers for the names of struct types.
struct Names(usize);

fn declare(schema: &Structural, root: bool, names: &mut Names) -> Decl {
    if schema.int_or_string {
        return Decl::of(Type::Dyn, string_max(schema));
    }
    match schema.kind {
        Kind::Boolean => Decl::of(Type::Bool, 1),
        Kind::Integer => Decl::of(Type::Int, 1),
        Kind::Number => Decl::of(Type::Double, 1),
        Kind::String => {
            let type_ = match schema.format.as_str() {
                "byte" => Type::Bytes,
                "date" | "date-time" | "datetime" => Type::Timestamp,
                "duration" => Type::Duration,
                _ => Type::String,
            };
            Decl::of(type_, string_max(schema))
        }
        Kind::Array => {
            let below = schema.items.as_deref().map_or_else(
                || Decl::of(Type::Dyn, BODY_BYTES_MAX),
                |items| declare(items, items.embedded, names),
            );
            let type_ = Type::list(below.type_.clone());
            Decl {
                below: Some(Box::new(below)),
                ..Decl::of(type_, items_max(schema))
            }
        }
        Kind::Object => object(schema, root || schema.embedded, names),
        Kind::None | Kind::Unknown => Decl::of(Type::Dyn, BODY_BYTES_MAX),
    }
}

fn object(schema: &Structural, root: bool, names: &mut Names) -> Decl {
    if let Additional::Schema(values) = &schema.additional {
        let below = declare(values, values.embedded, names);
        let type_ = Type::map(Type::String, below.type_.clone());
        return Decl {
            below: Some(Box::new(below)),
            key_max: BODY_BYTES_MAX,
            ..Decl::of(type_, entries_max(schema))
        };
    }
    if schema.properties.is_empty() && !root {
        return Decl::of(Type::Dyn, BODY_BYTES_MAX);
    }
    let mut fields = BTreeMap::new();
    for (name, below) in &schema.properties {
        if let Some(escaped) = escape(name) {
            fields.insert(escaped, declare(below, below.embedded, names));
        }
    }
    if root {
        for name in ["apiVersion", "kind"] {
            fields.insert(name.to_owned(), Decl::of(Type::String, 256));
        }
        let text = |max| Decl::of(Type::String, max);
        let inner = BTreeMap::from([
            ("name".to_owned(), text(253)),
            ("generateName".to_owned(), text(253)),
        ]);
        let type_ = Type::object(
            "ObjectMeta",
            inner
                .iter()
                .map(|(name, decl)| (name.clone(), decl.type_.clone())),
        );
        fields.insert(
            "metadata".to_owned(),
            Decl {
                fields: inner,
                ..Decl::of(type_, 1)
            },
        );
    }
    names.0 += 1;
    let type_ = Type::Object(Arc::new(limpet_cel::Object {
        name: format!("object{}", names.0),
        fields: fields
            .iter()
            .map(|(name, decl)| (name.clone(), decl.type_.clone()))
            .collect(),
        open: false,
    }));
    Decl {
        fields,
        ..Decl::of(type_, 1)
    }
}

/// Beside the reserved words: what else an expression reads as something other than a name.
const LITERALS: [&str; 4] = ["true", "false", "null", "in"];

/// A property's name in expressions; nothing when it cannot be named.
pub fn escape(name: &str) -> Option<String> {
    if LITERALS.contains(&name) || limpet_cel::RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let first = name.chars().next()?;
    if !(first.is_ascii_alphabetic() || first == '_') {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(letter) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match letter {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            letter if letter.is_ascii_alphanumeric() || letter == '_' => out.push(letter),
            _ => return None,
        }
        rest = &rest[letter.len_utf8()..];
    }
    Some(out)
}

/// A value as its schema means it.
pub fn to_cel(schema: &Structural, value: &Value, root: bool) -> Cel {
    match (value, schema.kind) {
        (Value::Object(fields), Kind::Object) if schema.values().is_some() => {
            let values = schema.values();
            let entry = |(name, field): (&String, &Value)| {
                (
                    Key::from(name.as_str()),
                    values.map_or(Cel::Null, |values| to_cel(values, field, values.embedded)),
                )
            };
            Cel::map(fields.iter().map(entry))
        }
        (Value::Object(fields), Kind::Object) if !schema.properties.is_empty() || root => {
            let mut map = Vec::with_capacity(fields.len());
            for (name, field) in fields {
                let Some(key) = escape(name) else { continue };
                let below = schema.property(name);
                let known = match below {
                    // A null where null is not a value counts as absent.
                    Some(below) if field.is_null() && !below.nullable => continue,
                    Some(below) => to_cel(below, field, below.embedded),
                    None if root || schema.preserve_unknown => Cel::from_json(field),
                    None => continue,
                };
                map.push((Key::from(key.as_str()), known));
            }
            Cel::map(map)
        }
        (Value::Array(items), Kind::Array) => {
            let item = |item: &Value| match &schema.items {
                Some(below) => to_cel(below, item, below.embedded),
                None => Cel::from_json(item),
            };
            let kind = match schema.list_type {
                Some(ListType::Set) => ListKind::Set,
                Some(ListType::Map) => ListKind::Map(schema.list_keys.clone().into()),
                _ => ListKind::Plain,
            };
            Cel::List(Arc::new(items.iter().map(item).collect()), kind)
        }
        (Value::String(text), Kind::String) => of_format(&schema.format, text),
        (Value::Number(number), Kind::Number) => Cel::Double(number.as_f64().unwrap_or_default()),
        (Value::Number(number), Kind::Integer) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|n| n as i64))
            .map_or(Cel::Null, Cel::Int),
        (value, _) => Cel::from_json(value),
    }
}

fn of_format(format: &str, text: &str) -> Cel {
    let time = |text: &str| text.parse().ok().map(Cel::Timestamp);
    let made = match format {
        "byte" => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text)
            .ok()
            .map(|b| Cel::Bytes(b.into())),
        "date" => time(&format!("{text}T00:00:00Z")),
        "date-time" | "datetime" => time(text),
        "duration" => limpet_cel::duration::parse(text).map(Cel::Duration),
        _ => None,
    };
    made.unwrap_or_else(|| Cel::text(text))
}
