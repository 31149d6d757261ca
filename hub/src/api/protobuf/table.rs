//! The numbers, names and types of fields, from the generated table.
//!
//! In: `fields-1.36.txt` and `fields-by-hand.txt`. Out: the fields of a message, by number. The text is indexed
//! once; a message's line is parsed when it is first asked for, and then kept.
//! Never: parses what nobody asks for: most of the kinds are never seen by most hubs.

use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{OnceLock, RwLock},
};

static TEXTS: [&str; 2] = [include_str!("fields-1.36.txt"), include_str!("fields-by-hand.txt")];
const META: &str = super::META;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain,
    Optional,
    List,
    Map,
}

#[derive(Debug)]
pub enum Base {
    Text,
    Bool,
    Integer,
    Double,
    Bytes,
    /// A list of texts as a message of its own.
    Items,
    Message(Inner),
    /// A message whose JSON form is not that of its fields.
    Special(Special, String),
}

/// A message inside of a message. Its fields are looked up once.
#[derive(Debug)]
pub struct Inner {
    pub name: String,
    fields: OnceLock<&'static [Field]>,
}

impl Inner {
    pub fn fields(&self) -> &'static [Field] {
        self.fields.get_or_init(|| message(&self.name).unwrap_or_default())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// RawExtension, FieldsV1, JSON: JSON as bytes in field 1.
    Json,
    SchemaOrArray,
    SchemaOrBool,
    SchemaOrTexts,
}

impl Special {
    fn of(name: &str) -> Option<Special> {
        Some(match name.rsplit('.').next()? {
            "Time" => Special::Time,
            "MicroTime" => Special::MicroTime,
            "Duration" => Special::Duration,
            "Quantity" => Special::Quantity,
            "IntOrString" => Special::IntOrString,
            "RawExtension" | "FieldsV1" | "JSON" => Special::Json,
            "JSONSchemaPropsOrArray" => Special::SchemaOrArray,
            "JSONSchemaPropsOrBool" => Special::SchemaOrBool,
            "JSONSchemaPropsOrStringArray" => Special::SchemaOrTexts,
            _ => return None,
        })
    }
}

impl Base {
    pub fn zero(&self) -> Value {
        match self {
            Base::Text | Base::Bytes => json!(""),
            Base::Bool => json!(false),
            Base::Integer | Base::Double => json!(0),
            Base::Items => json!([]),
            Base::Message(_) | Base::Special(..) => json!({}),
        }
    }
}

#[derive(Debug)]
pub struct Field {
    pub number: u32,
    /// Empty: the fields of the message belong to the outer one.
    pub name: &'static str,
    pub form: Form,
    pub base: Base,
}

type Lines = HashMap<(&'static str, &'static str), &'static str>;

fn lines() -> &'static Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    LINES.get_or_init(|| {
        let mut package = "";
        let mut lines = HashMap::new();
        let texts = TEXTS.iter().flat_map(|text| text.lines());
        for line in texts.filter(|l| !l.starts_with('#')) {
            match line.strip_prefix("= ") {
                Some(name) => package = name,
                None => {
                    let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
                    lines.insert((package, name), fields);
                }
            }
        }
        lines
    })
}

/// The fields of `io.k8s.api.core.v1.Pod`, by number. What is kept is bounded by the table.
pub fn message(name: &str) -> Option<&'static [Field]> {
    static KNOWN: OnceLock<RwLock<HashMap<String, &'static [Field]>>> = OnceLock::new();
    let known = KNOWN.get_or_init(RwLock::default);
    if let Some(fields) = known.read().ok().and_then(|k| k.get(name).copied()) {
        return Some(fields);
    }
    let (package, short) = name.rsplit_once('.')?;
    let text = *lines().get(&(package, short))?;
    let mut fields: Vec<Field> =
        text.split(' ').filter(|f| !f.is_empty()).filter_map(|f| field(f, package)).collect();
    fields.sort_by_key(|f| f.number);
    let mut known = known.write().ok()?;
    Some(*known.entry(name.to_owned()).or_insert_with(|| Box::leak(fields.into_boxed_slice())))
}

fn field(text: &'static str, package: &str) -> Option<Field> {
    let (number, rest) = text.split_once(':')?;
    let (name, type_) = rest.split_once(':')?;
    let (form, base) = match type_.as_bytes().first()? {
        b'*' => (Form::List, &type_[1..]),
        b'%' => (Form::Map, &type_[1..]),
        b'?' => (Form::Optional, &type_[1..]),
        _ => (Form::Plain, type_),
    };
    let base = match base {
        "s" => Base::Text,
        "b" => Base::Bool,
        "i" => Base::Integer,
        "d" => Base::Double,
        "y" => Base::Bytes,
        "items" => Base::Items,
        other => {
            let full = match other.as_bytes().first()? {
                b'.' => format!("{package}{other}"),
                b'@' => format!("{META}.{}", &other[1..]),
                _ => other.to_owned(),
            };
            match Special::of(&full) {
                Some(special) => Base::Special(special, full),
                None => Base::Message(Inner { name: full, fields: OnceLock::new() }),
            }
        }
    };
    Some(Field { number: number.parse().ok()?, name, form, base })
}

/// Every message of the table.
#[cfg(test)]
pub fn names() -> Vec<String> {
    lines().keys().map(|(package, name)| format!("{package}.{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_readable_and_leads_somewhere() {
        let mut count = 0;
        for full in names() {
            for field in message(&full).unwrap() {
                count += 1;
                let Base::Message(inner) = &field.base else { continue };
                let known = message(&inner.name).is_some() || inner.name.ends_with(".Empty");
                assert!(known, "{full}.{} has the unknown type {}", field.name, inner.name);
            }
        }
        assert!(count > 2000);
    }
}
