//! Parts of an object's bytes, without reading what is beside them.
//!
//! In: JSON and a pointer (RFC 6901). Out: the value there, null when there is none. Or the bytes of each field.
//! What comes before the field is passed over, what comes after it is not looked at.
//! Never: a tree of the whole object; two fields of one name, which the store does not hold.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

pub fn pick(raw: &[u8], pointer: &str) -> Value {
    if pointer.contains('~') {
        let mut whole: Value = serde_json::from_slice(raw).unwrap_or_default();
        return whole.pointer_mut(pointer).map(Value::take).unwrap_or_default();
    }
    let path = match (pointer, pointer.strip_prefix('/')) {
        ("", _) => None,
        (_, Some(path)) => Some(path),
        _ => return Value::Null,
    };
    let mut found = None;
    // The error only ends the reading; what was found is beside it.
    let _ = Walk { path, found: &mut found }.deserialize(&mut serde_json::Deserializer::from_slice(raw));
    found.unwrap_or_default()
}

/// Names and values of an object's fields, as they are written: names with their quotes, neither with white space around.
/// What is not an object has none; what is not JSON has some, as far as it goes.
pub fn fields(raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let raw = raw.trim_ascii();
    let mut rest = raw.strip_prefix(b"{").and_then(|r| r.strip_suffix(b"}")).unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, after) = until(rest, b':')?;
        let (value, after) = until(after, b',').unwrap_or((after.trim_ascii(), &[]));
        rest = after;
        Some((name, value))
    })
}

/// What stands before the first such byte that is neither in a text nor in brackets, and what stands behind it.
fn until(raw: &[u8], end: u8) -> Option<(&[u8], &[u8])> {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(byte) = raw.get(at) {
        match byte {
            b'"' => at += text(&raw[at + 1..]),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            byte if *byte == end && depth == 0 => return Some((raw[..at].trim_ascii(), &raw[at + 1..])),
            _ => {}
        }
        at += 1;
    }
    None
}

/// How long a text is, with the quote that ends it.
fn text(raw: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    raw.len()
}

/// The way from here to the field; `None`: it is here.
struct Walk<'p> {
    path: Option<&'p str>,
    found: &'p mut Option<Value>,
}

impl<'p> Walk<'p> {
    /// The next name, and the way from there.
    fn step(path: &'p str) -> (&'p str, Option<&'p str>) {
        path.split_once('/').map_or((path, None), |(name, rest)| (name, Some(rest)))
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        if self.path.is_some() {
            return d.deserialize_any(self);
        }
        *self.found = Some(serde::Deserialize::deserialize(d)?);
        Err(D::Error::custom(""))
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (name, path) = Walk::step(self.path.unwrap_or_default());
        while let Some(is_it) = map.next_key_seed(Is(name))? {
            if is_it {
                map.next_value_seed(Walk { path, found: self.found })?;
                return Err(A::Error::custom(""));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (name, path) = Walk::step(self.path.unwrap_or_default());
        let is_plain = !name.starts_with('+') && (name == "0" || !name.starts_with('0'));
        let Some(index) = name.parse::<usize>().ok().filter(|_| is_plain) else { return Err(A::Error::custom("")) };
        for _ in 0..index {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        list.next_element_seed(Walk { path, found: self.found })?;
        Err(A::Error::custom(""))
    }
}

/// Whether a name is this one.
struct Is<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<bool, D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn is_what_a_pointer_finds_in_the_whole() {
        let object = json!({"metadata": {"name": "a", "annotations": {"x/y": "1", "q\"uote": "2", "": "3"}},
            "spec": {"list": [1, {"b": [true, null]}, "c"], "n": null, "t": "text"}, "é": {"ü": 1}, "last": -1.5});
        let raw = object.to_string();
        for pointer in [
            "", "/metadata", "/metadata/name", "/metadata/name/deeper", "/metadata/annotations/x~1y",
            "/metadata/annotations/q\"uote",
            "/metadata/annotations/", "/spec/list", "/spec/list/0", "/spec/list/1/b/0", "/spec/list/1/b/1", "/spec/list/2/x",
            "/spec/list/3", "/spec/list/-", "/spec/list/+1", "/spec/list/01", "/spec/list/x",
            "/spec/n", "/spec/t", "/é/ü", "/last", "/none", "/none/at/all", "name", "/",
        ] {
            let whole = object.pointer(pointer).cloned().unwrap_or_default();
            assert_eq!(pick(raw.as_bytes(), pointer), whole, "{pointer}");
        }
    }

    #[test]
    fn what_is_not_json_has_no_fields() {
        for raw in ["", "{", "nothing", "{\"a\"", "[1", "\u{1}"] {
            assert_eq!(pick(raw.as_bytes(), "/a"), Value::Null, "{raw}");
        }
    }

    #[test]
    fn fields_are_as_they_are_written() {
        let utf8 = String::from_utf8_lossy;
        let text = |(name, value): (&[u8], &[u8])| format!("{}={}", utf8(name), utf8(value));
        let of = |raw: &str| fields(raw.as_bytes()).map(text).collect::<Vec<_>>();
        let raw = r#" {"a": {"b": [1, "}"]} , "q\":,": "x\\" ,"n":-1.5, "l":[{"a":1},2] } "#;
        assert_eq!(of(raw), [r#""a"={"b": [1, "}"]}"#, r#""q\":,"="x\\""#, r#""n"=-1.5"#, r#""l"=[{"a":1},2]"#]);
        for raw in ["{}", "[]", "5", "\"text\"", "", "{", "}"] {
            assert!(of(raw).is_empty(), "{raw}");
        }
        for raw in ["{\"a\":\"}", "{\"a\":]}", "{\"a\\\":1}"] {
            let _ = of(raw);
        }
    }

    #[test]
    fn what_comes_after_the_field_is_not_looked_at() {
        assert_eq!(pick(b"{\"a\": 1, and so on", "/a"), json!(1));
    }
}
