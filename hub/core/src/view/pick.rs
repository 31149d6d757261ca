//! Parts of an object's bytes, without reading what is beside them.
//!
//! In: JSON and a pointer (RFC 6901). Out: the value there, null when there is none. Or the bytes of each field.
//! What comes before the field is passed over, what comes after it is not looked at.
//! Never: a tree of the whole object; two fields of one name, which the store does not hold.

use memchr::memchr2;
use serde_json::Value;

pub fn pick(raw: &[u8], pointer: &str) -> Value {
    if pointer.contains('~') {
        let mut whole: Value = serde_json::from_slice(raw).unwrap_or_default();
        return whole.pointer_mut(pointer).map(Value::take).unwrap_or_default();
    }
    find(raw, pointer).and_then(|found| serde_json::from_slice(found).ok()).unwrap_or_default()
}

/// The bytes of a field; pointers with `~` find nothing.
pub fn find<'a>(raw: &'a [u8], pointer: &str) -> Option<&'a [u8]> {
    let mut at = raw.trim_ascii();
    if pointer.is_empty() {
        return Some(at);
    }
    for name in pointer.strip_prefix('/')?.split('/') {
        at = match at.first()? {
            b'{' => fields(at).find(|(written, _)| is(written, name))?.1,
            b'[' => {
                let is_plain = !name.starts_with('+') && (name == "0" || !name.starts_with('0'));
                elements(at).nth(name.parse().ok().filter(|_| is_plain)?)?
            }
            _ => return None,
        };
    }
    Some(at)
}

/// Whether a name is this one. With its quotes as it is written; hardly any has an escape.
fn is(written: &[u8], name: &str) -> bool {
    match written.contains(&b'\\') {
        true => serde_json::from_slice::<String>(written).is_ok_and(|written| written == name),
        false => written.strip_prefix(b"\"").and_then(|w| w.strip_suffix(b"\"")) == Some(name.as_bytes()),
    }
}

/// Names and values of an object's fields, as they are written: names with their quotes, neither with white space around.
/// What is not an object has none; what is not JSON has some, as far as it goes.
pub fn fields(raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = raw.trim_ascii_start().strip_prefix(b"{").unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, after) = first(behind(rest, b','))?;
        let (value, after) = first(after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())?;
        rest = after;
        Some((name, value))
    })
}

/// The elements of a list, as they are written.
pub fn elements(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = raw.trim_ascii_start().strip_prefix(b"[").unwrap_or_default();
    std::iter::from_fn(move || {
        let (element, after) = first(behind(rest, b','))?;
        rest = after;
        Some(element)
    })
}

/// What is behind white space and this byte, should it be there.
fn behind(raw: &[u8], byte: u8) -> &[u8] {
    let raw = raw.trim_ascii_start();
    raw.strip_prefix(&[byte]).unwrap_or(raw).trim_ascii_start()
}

/// The first value, which begins here, and what is behind it.
fn first(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = match raw.first()? {
        b'"' => 1 + text(&raw[1..])?,
        b'{' | b'[' => {
            let (mut depth, mut at) = (0usize, 0);
            loop {
                match raw.get(at)? {
                    b'"' => at += text(&raw[at + 1..])?,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth == 1 => break at + 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
        }
        _ => raw.iter().position(|b| b",:}]\" \t\r\n".contains(b)).unwrap_or(raw.len()),
    };
    (end > 0).then(|| raw.split_at(end))
}

/// How long a text is, with the quote that ends it.
fn text(raw: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', raw.get(at..)?)?;
        match raw[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
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
