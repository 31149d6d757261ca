//! Messages whose JSON form is not that of their fields.
//!
//! In: the bytes of a time, a quantity, an int-or-string, or JSON inside protobuf; or their JSON values.
//! Out: the JSON value, or the bytes. Never: a message of the table.

use super::{
    ProtobufError,
    encode::message as put_any,
    message as any,
    table::Special,
    tree::Node,
    wire::{self, Item, Reader, WireError},
};
use jiff::Timestamp;
use limpet_objects::time;
use serde_json::{Number, Value, json};

type Outcome = Result<Value, ProtobufError>;

/// The JSON value of a special message; `name` is the message's.
pub fn decode(special: Special, name: &str, bytes: &[u8], depth: usize) -> Outcome {
    match special {
        Special::Time => moment(bytes, false),
        Special::MicroTime => moment(bytes, true),
        Special::Duration => duration(bytes),
        Special::Quantity => match field(bytes, 1)? {
            Some(Item::Bytes(text)) => Ok(json!(wire::text(text)?)),
            _ => Ok(json!("0")),
        },
        Special::IntOrString => int_or_string(bytes),
        Special::Json => match field(bytes, 1)? {
            Some(Item::Bytes(raw)) if !raw.is_empty() => inner_json(raw),
            _ => Ok(Value::Null),
        },
        Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrTexts => either(name, bytes, depth),
    }
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

/// The bytes of a special message. A value of another form becomes the zero of its type, as the stored
/// objects were checked when they came.
pub fn encode(special: Special, name: &str, value: &impl Node, out: &mut Vec<u8>) {
    match special {
        Special::Time => put_moment(value, false, out),
        Special::MicroTime => put_moment(value, true, out),
        Special::Duration => {
            out.push(1 << 3);
            wire::put_varint(nanoseconds(value.text().unwrap_or_default()) as u64, out);
        }
        Special::Quantity => match value.number() {
            Some(number) => wire::put_bytes(1, number.to_string().as_bytes(), out),
            None => {
                let text = value.text().filter(|t| !t.is_empty()).unwrap_or("0");
                wire::put_bytes(1, text.as_bytes(), out);
            }
        },
        Special::IntOrString => {
            let text = value.text();
            wire::put_number(1, u64::from(text.is_some()), out);
            wire::put_number(2, value.number().and_then(Number::as_i64).unwrap_or(0) as u64, out);
            wire::put_bytes(3, text.unwrap_or_default().as_bytes(), out);
        }
        Special::Json => {
            if !value.is_null() {
                // A value that was parsed can be written.
                wire::put_bytes(1, &serde_json::to_vec(value).unwrap_or_default(), out);
            }
        }
        Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrTexts => {
            put_either(special, name, value, out);
        }
    }
}

fn put_moment(value: &impl Node, micro: bool, out: &mut Vec<u8>) {
    let Some(at) = value.text().and_then(time::parse) else { return };
    let nanos = if micro { at.subsec_nanosecond() / 1000 * 1000 } else { 0 };
    wire::put_number(1, at.as_second() as u64, out);
    wire::put_number(2, i64::from(nanos) as u64, out);
}

/// Go's text of a duration (`1h30m`, `0.5s`) in nanoseconds; 0 when it is none.
fn nanoseconds(text: &str) -> i64 {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<f64>() else { return 0 };
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1.0,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return 0,
            };
        rest = &rest[unit..];
    }
    (sign * total) as i64
}

fn put_either<N: Node>(special: Special, name: &str, value: &N, out: &mut Vec<u8>) {
    let schema =
        name.rsplit_once('.').map(|(package, _)| format!("{package}.JSONSchemaProps")).unwrap_or_default();
    let put = |number: u32, value: &N, out: &mut Vec<u8>| {
        wire::put_nested(number, out, |out| put_any(&schema, value, 0, out));
    };
    if special == Special::SchemaOrBool {
        let allows = value.truth().unwrap_or(value.is_object());
        wire::put_number(1, u64::from(allows), out);
        if value.is_object() {
            put(2, value, out);
        }
        return;
    }
    match value.items() {
        Some(items) if special == Special::SchemaOrTexts => {
            for text in items {
                wire::put_bytes(2, text.text().unwrap_or_default().as_bytes(), out);
            }
        }
        Some(items) => items.iter().for_each(|item| put(2, item, out)),
        None if value.is_object() => put(1, value, out),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expect) in
            [("0s", 0), ("1.5s", 1_500_000_000), ("1h2m", 3_720_000_000_000), ("-3ms", -3_000_000), ("x", 0)]
        {
            assert_eq!(nanoseconds(text), expect, "{text}");
        }
    }
}
