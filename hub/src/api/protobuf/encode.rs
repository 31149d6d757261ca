//! Objects as protobuf, byte for byte as upstream's encoder writes them.
//!
//! In: objects as JSON values (`Node`), of checked types. Out: bytes with the envelope of `runtime.Unknown`, and frames
//! of a watch. Fields come in the order of their numbers; what is no pointer in Go is written also when it is
//! zero; maps are sorted by key.
//! Never: fails: what has no form in the table is asked for with `knows` before.

use super::{
    MAGIC, message_name, special,
    table::{self, Base, Field, Form},
    tree::Node,
    wire,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Number, Value};

/// Objects nest no deeper than they were let in; this only guards the stack.
const DEPTH_MAX: usize = 200;

/// Whether the kind has a form in protobuf.
pub fn knows(api_version: &str, kind: &str) -> bool {
    message_name(api_version, kind).is_some()
}

/// An object with its envelope; `None` when its kind has no such form.
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let name = message_name(api_version, kind)?;
    Some(enveloped(api_version, kind, |out| message(&name, object, 0, out)))
}

/// A list of a kind's objects, which the iterator makes one by one.
pub fn list(
    api_version: &str,
    list_kind: &str,
    metadata: &Value,
    items: impl Iterator<Item = impl Node>,
) -> Option<Vec<u8>> {
    let name = message_name(api_version, list_kind)?;
    let fields = table::message(&name)?;
    let field = |name: &str| fields.iter().find(|f| f.name == name);
    let (head, each) = (field("metadata")?, field("items")?);
    Some(enveloped(api_version, list_kind, |out| {
        put(head, metadata, 0, out);
        items.for_each(|item| one(each, &item, 0, out));
    }))
}

/// One event of a watch: a WatchEvent without an envelope, whose object has one. Over a plain connection four
/// bytes of length come first; a websocket has messages of its own.
pub fn frame(kind: &str, object: &[u8], with_length: bool) -> Vec<u8> {
    let mut out = vec![0; if with_length { 4 } else { 0 }];
    wire::put_bytes(1, kind.as_bytes(), &mut out);
    wire::put_nested(2, &mut out, |out| wire::put_bytes(1, object, out));
    if with_length {
        let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_be_bytes());
    }
    out
}

fn enveloped(api_version: &str, kind: &str, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    wire::put_nested(1, &mut out, |out| {
        wire::put_bytes(1, api_version.as_bytes(), out);
        wire::put_bytes(2, kind.as_bytes(), out);
    });
    wire::put_nested(2, &mut out, fill);
    wire::put_bytes(3, b"", &mut out);
    wire::put_bytes(4, b"", &mut out);
    out
}

/// The fields of a message whose JSON form is `value`; null is a message of zeros.
pub(super) fn message(name: &str, value: &impl Node, depth: usize, out: &mut Vec<u8>) {
    fill(table::message(name).unwrap_or_default(), value, depth, out);
}

fn fill(fields: &[Field], value: &impl Node, depth: usize, out: &mut Vec<u8>) {
    for field in fields.iter().filter(|_| depth < DEPTH_MAX) {
        let inner = if field.name.is_empty() { value } else { value.field(field.name) };
        put(field, inner, depth, out);
    }
}

fn put(field: &Field, value: &impl Node, depth: usize, out: &mut Vec<u8>) {
    match field.form {
        Form::Optional if value.is_null() => {}
        Form::Optional | Form::Plain => one(field, value, depth, out),
        Form::List => value.items().into_iter().flatten().for_each(|item| one(field, item, depth, out)),
        Form::Map => {
            for (key, value) in value.entries() {
                wire::put_nested(field.number, out, |out| {
                    wire::put_bytes(1, key.as_bytes(), out);
                    scalar(&field.base, 2, value, depth, out);
                });
            }
        }
    }
}

fn one(field: &Field, value: &impl Node, depth: usize, out: &mut Vec<u8>) {
    scalar(&field.base, field.number, value, depth, out);
}

fn scalar(base: &Base, number: u32, value: &impl Node, depth: usize, out: &mut Vec<u8>) {
    match base {
        Base::Text => wire::put_bytes(number, value.text().unwrap_or_default().as_bytes(), out),
        Base::Bool => wire::put_number(number, u64::from(value.truth().unwrap_or(false)), out),
        Base::Integer => wire::put_number(number, value.integer() as u64, out),
        Base::Double => wire::put_fixed64(number, value.number().and_then(Number::as_f64).unwrap_or(0.0).to_bits(), out),
        // Absent bytes are not written, empty ones are.
        Base::Bytes => {
            if let Some(text) = value.text() {
                wire::put_bytes(number, &BASE64.decode(text).unwrap_or_default(), out);
            }
        }
        Base::Items => wire::put_nested(number, out, |out| {
            for text in value.items().into_iter().flatten() {
                wire::put_bytes(1, text.text().unwrap_or_default().as_bytes(), out);
            }
        }),
        Base::Message(inner) => wire::put_nested(number, out, |out| fill(inner.fields(), value, depth + 1, out)),
        Base::Special(special, name) => {
            wire::put_nested(number, out, |out| special::encode(*special, name, value, out));
        }
    }
}
