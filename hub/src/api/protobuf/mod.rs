//! Kubernetes' protobuf encoding of objects: read into JSON values, and written from them.
//!
//! In: a request's body with the media type application/vnd.kubernetes.protobuf, hostile (kubectl's typed
//! commands and Go clients send it); or an object for an answer. Out: the value that the same object has in
//! JSON (unknown numbers are skipped, as upstream does); or the bytes that upstream's encoder writes.
//! Never: a kind that is not in the table (custom resources have no such form).
//! Source: apimachinery's `runtime.Unknown` envelope; the numbers are in `fields-1.36.txt`.

mod encode;
mod special;
mod table;
mod tree;
mod wire;

pub use encode::{encode, frame, knows, list};
pub use tree::{Lean, Node};

use limpet_objects::registry::definition_name;
use serde_json::{Map, Value, json};
use table::{Base, Field, Form};
use wire::{Item, Reader, WireError};

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
pub const MAGIC: &[u8] = b"k8s\0";
const DEPTH_MAX: usize = 100;
/// Where messages are that every group uses under its own name.
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Why a body is no object. The client sends something else, or JSON.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtobufError {
    #[error("the body does not begin as Kubernetes' protobuf does")]
    Magic,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("no kind {0:?} is known in protobuf; send JSON")]
    Kind(String),
    #[error("messages are nested too deep")]
    Depth,
    #[error("a message of JSON inside is not readable")]
    Json,
}

pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for item in Reader::new(body) {
        match item? {
            (1, Item::Bytes(type_meta)) => {
                for item in Reader::new(type_meta) {
                    match item? {
                        (1, Item::Bytes(text)) => api_version = wire::text(text)?,
                        (2, Item::Bytes(text)) => kind = wire::text(text)?,
                        _ => {}
                    }
                }
            }
            (2, Item::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    let name = message_name(&api_version, &kind);
    let name = name.ok_or_else(|| ProtobufError::Kind(format!("{api_version}, Kind={kind}")))?;
    let mut value = message(&name, raw, 0)?;
    value["apiVersion"] = json!(api_version);
    value["kind"] = json!(kind);
    Ok(value)
}

/// The message of a kind: its own, or one that every group has under its own name.
fn message_name(api_version: &str, kind: &str) -> Option<String> {
    let own = definition_name(api_version, kind);
    let shared = format!("{META}.{kind}");
    [own, shared].into_iter().find(|n| table::message(n).is_some())
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::Depth);
    }
    let mut fields = Map::new();
    if let Some(known) = table::message(name) {
        for item in Reader::new(bytes) {
            let (number, item) = item?;
            if let Some(field) = known.iter().find(|f| f.number == number) {
                put(&mut fields, field, item, depth)?;
            }
        }
    }
    Ok(Value::Object(fields))
}

fn put(
    fields: &mut Map<String, Value>,
    field: &Field,
    item: Item<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match field.form {
        Form::List => {
            let list = fields.entry(field.name).or_insert_with(|| json!([]));
            let values = match (&field.base, item) {
                // Numbers may come packed.
                (Base::Integer, Item::Bytes(packed)) => {
                    wire::varints(packed)?.into_iter().map(Value::from).collect()
                }
                (base, item) => vec![one(base, item, depth)?],
            };
            if let Some(list) = list.as_array_mut() {
                list.extend(values);
            }
        }
        Form::Map => {
            let Item::Bytes(entry) = item else { return Err(WireError::Type.into()) };
            let (mut key, mut value) = (String::new(), None);
            for item in Reader::new(entry) {
                match item? {
                    (1, Item::Bytes(text)) => key = wire::text(text)?,
                    (2, item) => value = Some(one(&field.base, item, depth)?),
                    _ => {}
                }
            }
            let map = fields.entry(field.name).or_insert_with(|| json!({}));
            map[key.as_str()] = value.unwrap_or_else(|| field.base.zero());
        }
        Form::Optional => _ = fields.insert(field.name.to_owned(), one(&field.base, item, depth)?),
        Form::Plain => {
            let value = one(&field.base, item, depth)?;
            match value {
                Value::Object(inner) if field.name.is_empty() => fields.extend(inner),
                // Go writes every plain field; what is zero was not set.
                value if is_zero(&value) => {}
                value => _ = fields.insert(field.name.to_owned(), value),
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn one(base: &Base, item: Item<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match (base, item) {
        (Base::Text, Item::Bytes(text)) => json!(wire::text(text)?),
        (Base::Bool, Item::Varint(number)) => json!(number != 0),
        (Base::Integer, Item::Varint(number)) => json!(number as i64),
        (Base::Double, Item::Fixed64(bits)) => json!(f64::from_bits(bits)),
        (Base::Bytes, Item::Bytes(bytes)) => {
            json!(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes))
        }
        (Base::Message(inner), Item::Bytes(bytes)) => message(&inner.name, bytes, depth + 1)?,
        (Base::Special(special, name), Item::Bytes(bytes)) => {
            special::decode(*special, name, bytes, depth + 1)?
        }
        // The list inside a map's value.
        (Base::Items, Item::Bytes(bytes)) => {
            let mut list = Vec::new();
            for item in Reader::new(bytes) {
                if let (1, Item::Bytes(text)) = item? {
                    list.push(json!(wire::text(text)?));
                }
            }
            Value::Array(list)
        }
        _ => return Err(WireError::Type.into()),
    })
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod spoilt;
