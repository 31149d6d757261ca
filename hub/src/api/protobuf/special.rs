//! Messages whose JSON form is not that of their fields.
//!
//! In: the bytes of a time, a quantity, an int-or-string, or JSON inside protobuf. Out: the JSON value.
//! Never: a message of the table.

use super::{
    ProtobufError, message as any,
    wire::{self, Item, Reader, WireError},
};
use jiff::Timestamp;
use limpet_objects::time;
use serde_json::{Value, json};

/// Whether the message is one of those here.
#[cfg(test)]
pub fn is_one(name: &str) -> bool {
    matches!(
        name.rsplit('.').next(),
        Some(
            "Time"
                | "MicroTime"
                | "Duration"
                | "Empty"
                | "Quantity"
                | "IntOrString"
                | "RawExtension"
                | "FieldsV1"
                | "JSON"
                | "JSONSchemaPropsOrArray"
                | "JSONSchemaPropsOrBool"
                | "JSONSchemaPropsOrStringArray"
        )
    )
}

type Outcome = Result<Value, ProtobufError>;

/// `None` when the message has the form of its fields.
pub fn message(name: &str, bytes: &[u8], depth: usize) -> Option<Outcome> {
    let short = name.rsplit('.').next().unwrap_or(name);
    Some(match short {
        "Time" => moment(bytes, false),
        "MicroTime" => moment(bytes, true),
        "Duration" => duration(bytes),
        "Quantity" => field(bytes, 1).and_then(|f| match f {
            Some(Item::Bytes(text)) => Ok(json!(wire::text(text)?)),
            _ => Ok(json!("0")),
        }),
        "IntOrString" => int_or_string(bytes),
        "RawExtension" | "FieldsV1" | "JSON" => field(bytes, 1).and_then(|f| match f {
            Some(Item::Bytes(raw)) if !raw.is_empty() => inner_json(raw),
            _ => Ok(Value::Null),
        }),
        "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => either(name, bytes, depth),
        "JSONSchemaPropsOrBool" => either(name, bytes, depth),
        _ => return None,
    })
}

fn field(bytes: &[u8], number: u32) -> Result<Option<Item<'_>>, ProtobufError> {
    let mut found = None;
    for item in Reader::new(bytes) {
        let (at, item) = item?;
        if at == number {
            found = Some(item);
        }
    }
    Ok(found)
}

fn varint(bytes: &[u8], number: u32) -> Result<i64, ProtobufError> {
    match field(bytes, number)? {
        None => Ok(0),
        Some(Item::Varint(value)) => Ok(value as i64),
        Some(_) => Err(WireError::Type.into()),
    }
}

fn inner_json(raw: &[u8]) -> Outcome {
    let decoded = limpet_objects::strict::decode(raw, Default::default()).map_err(|_| ProtobufError::Json)?;
    Ok(decoded.value)
}

/// An empty message is Go's zero time: null in JSON.
fn moment(bytes: &[u8], micro: bool) -> Outcome {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (seconds, nanos) = (varint(bytes, 1)?, varint(bytes, 2)?);
    let nanos = i32::try_from(nanos).map_err(|_| WireError::Varint)?;
    let at = Timestamp::new(seconds, nanos).map_err(|_| WireError::Varint)?;
    Ok(json!(if micro { time::rfc3339_micro(at) } else { time::rfc3339(at) }))
}

/// Go's text for a duration; whole seconds are exact, and more is not asked of any served field.
fn duration(bytes: &[u8]) -> Outcome {
    let nanos = varint(bytes, 1)?;
    Ok(json!(format!("{}s", nanos as f64 / 1e9)))
}

fn int_or_string(bytes: &[u8]) -> Outcome {
    if varint(bytes, 1)? == 0 {
        return Ok(json!(varint(bytes, 2)?));
    }
    match field(bytes, 3)? {
        Some(Item::Bytes(text)) => Ok(json!(wire::text(text)?)),
        _ => Ok(json!("")),
    }
}

/// A schema or something simpler.
fn either(name: &str, bytes: &[u8], depth: usize) -> Outcome {
    let schema =
        name.rsplit_once('.').map(|(package, _)| format!("{package}.JSONSchemaProps")).unwrap_or_default();
    if name.ends_with("OrBool") {
        return match field(bytes, 2)? {
            Some(Item::Bytes(inner)) => any(&schema, inner, depth + 1),
            _ => Ok(json!(varint(bytes, 1)? != 0)),
        };
    }
    let texts = name.ends_with("OrStringArray");
    let mut list = Vec::new();
    for item in Reader::new(bytes) {
        match item? {
            (1, Item::Bytes(inner)) => return any(&schema, inner, depth + 1),
            (2, Item::Bytes(text)) if texts => list.push(json!(wire::text(text)?)),
            (2, Item::Bytes(inner)) => list.push(any(&schema, inner, depth + 1)?),
            _ => {}
        }
    }
    Ok(Value::Array(list))
}
