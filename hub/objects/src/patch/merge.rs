//! JSON merge patch (RFC 7396).
//!
//! In: a document and a patch value. Out: the patched document.
//! Never: fails on a patch that is an object.

use serde_json::{Map, Value};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
/// 400: the body is no object.
#[error("Invalid JSON Patch")]
pub struct MergePatchError;

/// The document with the patch merged in: null removes, objects merge, everything else replaces.
pub fn merge(document: &Value, patch: &Value) -> Result<Value, MergePatchError> {
    if !patch.is_object() {
        return Err(MergePatchError);
    }
    let mut result = document.clone();
    merge_into(&mut result, patch);
    Ok(result)
}

/// RFC 7396's MergePatch on any value.
pub fn merge_into(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(map) = target {
        for (key, value) in patch {
            if value.is_null() {
                map.remove(key);
            } else {
                merge_into(map.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
    }
}

/// The smallest merge patch that leads from `old` to `new`; None when they are equal.
pub fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                patch.insert(key.clone(), Value::Null);
            }
            for (key, value) in new {
                let change = match old.get(key) {
                    Some(before) => difference(before, value),
                    None => Some(value.clone()),
                };
                if let Some(change) = change {
                    patch.insert(key.clone(), change);
                }
            }
            if patch.is_empty() { None } else { Some(Value::Object(patch)) }
        }
        (old, new) if old == new => None,
        (_, new) => Some(new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_rfc_examples() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (document, patch, expected) in cases {
            assert_eq!(merge(&document, &patch), Ok(expected), "{patch}");
        }
        assert_eq!(merge(&json!({}), &json!([1])), Err(MergePatchError));
        assert_eq!(merge(&json!({}), &Value::Null), Err(MergePatchError));
    }

    #[test]
    fn a_difference_leads_from_old_to_new() {
        let old = json!({"a":1,"b":{"c":[1],"d":2},"e":{"x":1}});
        let new = json!({"b":{"c":[1,2],"d":2,"f":3},"e":{"x":1}});
        let patch = difference(&old, &new).unwrap();
        assert_eq!(patch, json!({"a":null,"b":{"c":[1,2],"f":3}}));
        assert_eq!(merge(&old, &patch).unwrap(), new);
        assert_eq!(difference(&old, &old), None);
    }
}
