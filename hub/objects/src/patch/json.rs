//! JSON patch (RFC 6902) with Kubernetes' limits and words.
//!
//! In: a document and the body of an `application/json-patch+json` request. Out: the patched document.
//! Never: changes the document that it was given; a failed operation changes nothing.

use json_patch::PatchOperation;
use serde_json::Value;

/// Operations in one patch, as upstream.
pub const OPERATIONS_MAX: usize = 10_000;
/// Bytes that `copy` operations of one patch may add, so that a few copies cannot double a document for
/// ever.
pub const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JsonPatchError {
    /// 400: the body is no JSON patch.
    #[error("{0}")]
    Malformed(String),
    /// 413.
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooMany(usize),
    /// 422: an operation does not fit the object.
    #[error("{0}")]
    Rejected(String),
}

/// Applies all operations, or none.
pub fn json(document: &Value, body: &[u8]) -> Result<Value, JsonPatchError> {
    let decoded = crate::strict::decode(body, Default::default())
        .map_err(|e| JsonPatchError::Malformed(e.to_string()))?;
    let Value::Array(items) = decoded.value else {
        return Err(JsonPatchError::Malformed(format!(
            "json: cannot unmarshal {} into Go value of type jsonpatch.Patch",
            go_kind(&decoded.value)
        )));
    };
    if items.len() > OPERATIONS_MAX {
        return Err(JsonPatchError::TooMany(items.len()));
    }
    let mut result = document.clone();
    let mut copied = 0usize;
    for item in items {
        one(&mut result, item, &mut copied)?;
    }
    Ok(result)
}

fn one(document: &mut Value, item: Value, copied: &mut usize) -> Result<(), JsonPatchError> {
    let field = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
    let (op, path, from) = (field("op"), field("path"), field("from"));
    if !["add", "remove", "replace", "move", "copy", "test"].contains(&op.as_str()) {
        return Err(JsonPatchError::Rejected(format!(
            "Unexpected kind: {}",
            if op.is_empty() { "unknown" } else { &op }
        )));
    }
    if item.get("path").is_none() {
        return Err(JsonPatchError::Rejected(format!("{op} operation failed to decode path: missing value")));
    }
    if op == "test" {
        let expected = item.get("value").cloned().unwrap_or(Value::Null);
        return test(document, &path, &expected);
    }
    if op == "copy" {
        *copied += document.pointer(&from).map_or(0, |v| v.to_string().len());
        if *copied > COPIED_BYTES_MAX {
            return Err(JsonPatchError::Rejected(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {copied}, \
                    exceeding the limit {COPIED_BYTES_MAX}"
            )));
        }
    }
    if matches!(op.as_str(), "replace" | "remove") && path.is_empty() {
        return Err(JsonPatchError::Rejected(format!(
            "{op} operation does not apply: doc is missing path: : missing value"
        )));
    }
    let operation: PatchOperation = serde_json::from_value(item.clone())
        .map_err(|e| JsonPatchError::Rejected(format!("{op} operation is incomplete: {e}")))?;
    json_patch::patch_unsafe(document, std::slice::from_ref(&operation))
        .map_err(|error| JsonPatchError::Rejected(words(document, &op, &path, &from, &error.kind)))
}

/// A missing place equals null, as in upstream's library.
fn test(document: &Value, path: &str, expected: &Value) -> Result<(), JsonPatchError> {
    let found = document.pointer(path).unwrap_or(&Value::Null);
    if super::typed::equal(found, expected) {
        return Ok(());
    }
    Err(JsonPatchError::Rejected(format!("testing value {path} failed: test failed")))
}

fn words(document: &Value, op: &str, path: &str, from: &str, kind: &json_patch::PatchErrorKind) -> String {
    let place = if matches!(kind, json_patch::PatchErrorKind::InvalidFromPointer) { from } else { path };
    let parent = place.rsplit_once('/').map_or("", |(parent, _)| parent);
    match (op, document.pointer(parent)) {
        (_, None) => {
            format!("{op} operation does not apply: doc is missing path: \"{place}\": missing value")
        }
        (_, Some(Value::Array(_))) => {
            format!(
                "{op} operation does not apply: index out of bounds or no number in \"{place}\": invalid \
                    index referenced"
            )
        }
        ("replace" | "test", _) => {
            format!("{op} operation does not apply: doc is missing key: {place}: missing value")
        }
        ("remove", _) => format!(
            "remove operation does not apply: unable to remove nonexistent key: {place}: missing value"
        ),
        _ => format!("{op} operation does not apply: {kind}: {place}"),
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(document: Value, patch: Value) -> Result<Value, String> {
        json(&document, patch.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn operations_apply() {
        let pod = || json!({"metadata":{"labels":{"a":"1"}},"spec":{"c":[{"n":"x"},{"n":"y"}]}});
        let cases = [
            (json!([]), pod()),
            (
                json!([{"op":"add","path":"/metadata/labels/b~1c","value":"2"}]),
                json!({"metadata":{"labels":{"a":"1","b/c":"2"}},"spec":{"c":[{"n":"x"},{"n":"y"}]}}),
            ),
            (
                json!([{"op":"add","path":"/spec/c/-","value":{"n":"z"}},{"op":"remove","path":"/spec/c/0"}]),
                json!({"metadata":{"labels":{"a":"1"}},"spec":{"c":[{"n":"y"},{"n":"z"}]}}),
            ),
            (
                json!([{"op":"test","path":"/spec/c/1/n","value":"y"},{"op":"replace",
                    "path":"/spec/c/1/n","value":"q"}]),
                json!({"metadata":{"labels":{"a":"1"}},"spec":{"c":[{"n":"x"},{"n":"q"}]}}),
            ),
            (
                json!([{"op":"move","from":"/spec/c/0","path":"/spec/d"},{"op":"copy","from":"/spec/d",
                    "path":"/e"}]),
                json!({"metadata":{"labels":{"a":"1"}},"spec":{"c":[{"n":"y"}],"d":{"n":"x"}},"e":{"n":"x"}}),
            ),
            (json!([{"op":"test","path":"/none","value":null}]), pod()),
        ];
        for (patch, expected) in cases {
            assert_eq!(run(pod(), patch.clone()), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn refusals_have_words() {
        let doc = || json!({"a":{"b":1},"l":[1]});
        let cases = [
            (json!({"op":"add"}), "json: cannot unmarshal object into Go value of type jsonpatch.Patch"),
            (json!([{"op":"frob","path":"/a"}]), "Unexpected kind: frob"),
            (
                json!([{"op":"remove","path":"/a/x"}]),
                "remove operation does not apply: unable to remove nonexistent key: /a/x: missing value",
            ),
            (
                json!([{"op":"replace","path":"/x","value":1}]),
                "replace operation does not apply: doc is missing key: /x: missing value",
            ),
            (
                json!([{"op":"add","path":"/x/y","value":1}]),
                "add operation does not apply: doc is missing path: \"/x/y\": missing value",
            ),
            (json!([{"op":"test","path":"/a/b","value":2}]), "testing value /a/b failed: test failed"),
            (
                json!([{"op":"add","path":"/l/7","value":1}]),
                "add operation does not apply: index out of bounds or no number in \"/l/7\": invalid \
                    index referenced",
            ),
        ];
        for (patch, words) in cases {
            assert_eq!(run(doc(), patch), Err(words.to_string()));
        }
    }

    #[test]
    fn bombs_are_refused() {
        let many: Vec<Value> =
            (0..=OPERATIONS_MAX).map(|_| json!({"op":"test","path":"/a","value":1})).collect();
        let words = "The allowed maximum operations in a JSON patch is 10000, got 10001";
        assert_eq!(run(json!({"a":1}), Value::Array(many)), Err(words.into()));
        let copies: Vec<Value> =
            (0..40).map(|i| json!({"op":"copy","from":"","path":format!("/c{i}")})).collect();
        assert!(
            run(json!({"a":"x".repeat(1000)}), Value::Array(copies))
                .unwrap_err()
                .contains("exceeding the limit")
        );
    }
}
