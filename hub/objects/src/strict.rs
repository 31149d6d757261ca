//! Decodes JSON from outside into a value, with bounds, and tells which fields came twice.
//!
//! In: the bytes of a request's body. Out: the value (the last of two equal fields wins, as Kubernetes has
//! it) and the paths of duplicates in Kubernetes' words; or an error in the words of Go's decoder.
//! Never: knows schemas (unknown fields are the schema's matter), reads YAML, or recurses without a bound.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Nesting that is accepted. Kubernetes takes 10,000; every walk over values here is recursive, and no
/// known kind nests deeper than about 40, so a smaller number costs nobody anything.
pub const DEPTH_MAX: usize = 100;
/// So many strict errors are collected; the rest is dropped, as upstream does.
pub const STRICT_ERRORS_MAX: usize = 100;
/// A request's body: upstream's `--max-request-bytes` for the API server.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes_max: usize,
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes_max: BODY_BYTES_MAX, depth_max: DEPTH_MAX }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// For instance `duplicate field "spec.containers[0].image"`, each once, at most `STRICT_ERRORS_MAX`.
    pub duplicates: Vec<String>,
}

/// Why a body is no JSON value. The texts follow Go's `encoding/json`; the caller puts its own words in
/// front.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The client sends less (413).
    #[error("Request entity too large: limit is {limit}")]
    TooLarge { limit: usize },
    /// The client nests less (400).
    #[error("exceeded max depth: a JSON body may nest at most {limit} levels")]
    TooDeep { limit: usize },
    /// The client repairs its JSON (400).
    #[error("{0}")]
    Syntax(String),
}

/// Decodes one JSON value. Invalid UTF-8 becomes U+FFFD, as in Go.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Decoded, DecodeError> {
    if bytes.len() > limits.bytes_max {
        return Err(DecodeError::TooLarge { limit: limits.bytes_max });
    }
    let text = String::from_utf8_lossy(bytes);
    let mut state = State {
        path: Vec::new(),
        found: Vec::new(),
        seen: HashSet::new(),
        depth_max: limits.depth_max.min(DEPTH_MAX),
    };
    let mut decoder = serde_json::Deserializer::from_str(&text);
    let parsed = Seed { state: &mut state, depth: 0 }.deserialize(&mut decoder);
    let value = parsed.map_err(|e| describe(&text, &e, limits.depth_max.min(DEPTH_MAX)))?;
    decoder.end().map_err(|e| DecodeError::Syntax(after_value(&text, &e)))?;
    Ok(Decoded { value, duplicates: state.found })
}

/// Removes `null` members of objects at every depth: for Kubernetes' typed kinds a null field is an unset
/// one.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The message of upstream's strict decoder for a list of findings.
pub fn strict_message(findings: &[String]) -> String {
    format!("strict decoding error: {}", findings.join(", "))
}

enum Step {
    Field(String),
    Index(usize),
}

struct State {
    path: Vec<Step>,
    found: Vec<String>,
    seen: HashSet<String>,
    depth_max: usize,
}

impl State {
    fn duplicate(&mut self, field: &str) {
        if self.found.len() >= STRICT_ERRORS_MAX {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if path.is_empty() => path.push_str(name),
                Step::Field(name) => {
                    path.push('.');
                    path.push_str(name);
                }
                Step::Index(i) => path.push_str(&format!("[{i}]")),
            }
        }
        let path = if path.is_empty() { field.to_string() } else { format!("{path}.{field}") };
        if self.seen.insert(path.clone()) {
            self.found.push(format!("duplicate field \"{path}\""));
        }
    }
}

const TOO_DEEP: &str = "exceeded max depth";

struct Seed<'s> {
    state: &'s mut State,
    depth: usize,
}

impl<'s> Seed<'s> {
    fn child(&mut self) -> Seed<'_> {
        Seed { state: self.state, depth: self.depth + 1 }
    }

    fn enter<E: de::Error>(&self) -> Result<(), E> {
        if self.depth >= self.state.depth_max { Err(E::custom(TOO_DEEP)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_string()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut list = Vec::new();
        loop {
            self.state.path.push(Step::Index(list.len()));
            let item = seq.next_element_seed(self.child())?;
            self.state.path.pop();
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                self.state.duplicate(&key);
            }
            self.state.path.push(Step::Field(key));
            let value = access.next_value_seed(self.child())?;
            if let Some(Step::Field(key)) = self.state.path.pop() {
                map.insert(key, value);
            }
        }
        Ok(Value::Object(map))
    }
}

/// Go's words for what serde_json found.
fn describe(text: &str, error: &serde_json::Error, limit: usize) -> DecodeError {
    let words = error.to_string();
    if words.starts_with(TOO_DEEP) || words.starts_with("recursion limit") {
        return DecodeError::TooDeep { limit };
    }
    if error.is_eof() {
        return DecodeError::Syntax("unexpected end of JSON input".into());
    }
    let place = if words.starts_with("expected value") || words.starts_with("expected ident") {
        "looking for beginning of value"
    } else if words.starts_with("key must be a string") || words.starts_with("trailing comma") {
        "looking for beginning of object key string"
    } else if words.starts_with("expected `:`") {
        "after object key"
    } else if words.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if words.starts_with("expected `,` or `]`") {
        "after array element"
    } else if words.starts_with("control character") {
        "in string literal"
    } else if words.starts_with("invalid escape") {
        "in string escape code"
    } else if words.starts_with("invalid number") {
        "in numeric literal"
    } else {
        return DecodeError::Syntax(words);
    };
    match at(text, error) {
        Some(c) => DecodeError::Syntax(format!("invalid character {} {place}", quote(c))),
        None => DecodeError::Syntax("unexpected end of JSON input".into()),
    }
}

fn after_value(text: &str, error: &serde_json::Error) -> String {
    let shown = at(text, error).map_or_else(|| "' '".to_string(), quote);
    format!("invalid character {shown} after top-level value")
}

/// The character that serde_json stopped at (its columns count bytes from 1).
fn at(text: &str, error: &serde_json::Error) -> Option<char> {
    let line = text.split('\n').nth(error.line().saturating_sub(1))?;
    let mut column = error.column().saturating_sub(1).min(line.len());
    while !line.is_char_boundary(column) {
        column -= 1;
    }
    line[column..].chars().next()
}

fn quote(c: char) -> String {
    match c {
        '\'' => "'\\''".into(),
        '"' => "'\"'".into(),
        '\n' => "'\\n'".into(),
        '\t' => "'\\t'".into(),
        '\r' => "'\\r'".into(),
        c => format!("'{c}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ok(text: &str) -> Decoded {
        decode(text.as_bytes(), Limits::default()).unwrap()
    }

    #[test]
    fn duplicates_are_named_in_upstream_words_and_the_last_wins() {
        let cases: &[(&str, Value, &[&str])] = &[
            (r#"{"a":1}"#, json!({"a":1}), &[]),
            (r#"{"a":1,"a":2}"#, json!({"a":2}), &[r#"duplicate field "a""#]),
            (
                r#"{"spec":{"bar":1,"bar":null}}"#,
                json!({"spec":{"bar":null}}),
                &[r#"duplicate field "spec.bar""#],
            ),
            (
                r#"{"s":{"c":[{"i":1},{"i":1,"i":2}]}}"#,
                json!({"s":{"c":[{"i":1},{"i":2}]}}),
                &[r#"duplicate field "s.c[1].i""#],
            ),
            (r#"{"a":1,"a":2,"a":3}"#, json!({"a":3}), &[r#"duplicate field "a""#]),
            (r#"[[{"x":1,"x":2}]]"#, json!([[{"x":2}]]), &[r#"duplicate field "[0][0].x""#]),
            (r#"{"a":{"b":1},"a":{"c":1}}"#, json!({"a":{"c":1}}), &[r#"duplicate field "a""#]),
            ("null", Value::Null, &[]),
            ("\"\\u00e9\"", json!("é"), &[]),
            (" 18446744073709551615 ", json!(18446744073709551615u64), &[]),
        ];
        for (text, value, duplicates) in cases {
            let decoded = ok(text);
            assert_eq!(&decoded.value, value, "{text}");
            assert_eq!(&decoded.duplicates, duplicates, "{text}");
        }
    }

    #[test]
    fn malformed_bodies_are_refused_in_words_of_go() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            (r#"{"a":"#, "unexpected end of JSON input"),
            ("hello", "invalid character 'h' looking for beginning of value"),
            (r#"{"a":1} x"#, "invalid character 'x' after top-level value"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b":2}"#, "invalid character '\"' after object key:value pair"),
            (r#"[1 2]"#, "invalid character '2' after array element"),
            (r#"{a:1}"#, "invalid character 'a' looking for beginning of object key string"),
            (r#"{"a":,}"#, "invalid character ',' looking for beginning of value"),
        ];
        for (text, words) in cases {
            let error = decode(text.as_bytes(), Limits::default()).unwrap_err();
            assert_eq!(error.to_string(), words, "{text}");
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(decode(deep(DEPTH_MAX).as_bytes(), Limits::default()).is_ok());
        for n in [DEPTH_MAX + 1, 128, 129, 10_000, 1_000_000] {
            let error = decode(deep(n).as_bytes(), Limits::default()).unwrap_err();
            assert_eq!(error, DecodeError::TooDeep { limit: DEPTH_MAX }, "{n}");
        }
        let small = Limits { bytes_max: 3, ..Limits::default() };
        assert_eq!(decode(b"1234", small).unwrap_err(), DecodeError::TooLarge { limit: 3 });
        assert!(decode(b"123", small).is_ok());
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(decode(b"\"a\xffb\"", Limits::default()).unwrap().value, json!("a\u{fffd}b"));
    }

    #[test]
    fn many_duplicates_are_capped() {
        let body = format!("[{}]", vec![r#"{"a":1,"a":1}"#; 500].join(","));
        assert_eq!(ok(&body).duplicates.len(), STRICT_ERRORS_MAX);
    }

    #[test]
    fn nulls_are_dropped_from_objects_only() {
        let mut value = json!({"a":null,"b":[null,{"c":null,"d":1}],"e":{"f":null}});
        drop_nulls(&mut value);
        assert_eq!(value, json!({"b":[null,{"d":1}],"e":{}}));
    }
}
