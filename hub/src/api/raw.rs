//! Parts of stored objects as the bytes that they are, without a parsed object in between.
//!
//! In: the canonical JSON of an object. Out: the bytes of one of its fields.
//! Never: copies, or keeps more than a position while it skips what is not wanted.

use serde::de::{Deserialize, IgnoredAny};
use serde_json::Deserializer;
use std::borrow::Cow;

/// The value of a top-level field, as it stands there. `None` when the object has none, or is no object.
pub fn field<'b>(object: &'b [u8], name: &str) -> Option<&'b [u8]> {
    let mut rest = after(object, b'{')?;
    loop {
        let (key, behind) = next::<Cow<'b, str>>(rest)?;
        let start = after(behind, b':')?;
        let (IgnoredAny, behind) = next(start)?;
        if key == name {
            return start.get(..start.len() - behind.len());
        }
        rest = after(behind, b',')?;
    }
}

/// One value, and what follows it.
fn next<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Option<(T, &'b [u8])> {
    let mut values = Deserializer::from_slice(bytes).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, bytes.get(values.byte_offset()..)?))
}

fn after(bytes: &[u8], mark: u8) -> Option<&[u8]> {
    bytes.trim_ascii_start().strip_prefix(&[mark])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn finds_fields_where_a_parser_does() {
        let object = json!({
            "apiVersion": "v1", "data": {"metadata": "}{\"", "a\\": [1, {"b": null}]}, "kind": "ConfigMap",
            "metadata": {"name": "ü\"{", "labels": {"a": "b"}}, "status": [], "x": true,
        });
        for text in [object.to_string(), serde_json::to_string_pretty(&object).unwrap()] {
            for name in ["apiVersion", "data", "metadata", "status", "x"] {
                let found = field(text.as_bytes(), name).expect(name);
                assert_eq!(serde_json::from_slice::<Value>(found).unwrap(), object[name], "{name}");
            }
            assert_eq!(field(text.as_bytes(), "nothing"), None);
        }
        for text in ["", "[]", "{", "{}", "{\"metadata\"", "{\"metadata\":", "{\"metadata\":{]", "7"] {
            assert_eq!(field(text.as_bytes(), "metadata"), None, "{text}");
        }
    }
}
