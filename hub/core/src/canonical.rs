//! Canonical hashes and differences of JSON.
//!
//! In: JSON values. Out: bytes to hash that do not depend on key order, and RFC 7386 merge patches.
//! Never: a difference between a missing field and `null`.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// SHA-256 of a value: keys sorted, nulls left out.
pub fn sha256(value: &Value) -> [u8; 32] {
    let mut hasher = Sha256::new();
    feed(value, &mut hasher);
    hasher.finalize().into()
}

fn feed(value: &Value, h: &mut Sha256) {
    match value {
        Value::Null => h.update(b"n"),
        Value::Bool(b) => h.update([b'b', u8::from(*b)]),
        Value::Number(n) => {
            h.update(b"d");
            h.update(n.to_string().as_bytes());
            h.update(b";");
        }
        Value::String(s) => text(s, h),
        Value::Array(a) => {
            h.update(b"[");
            a.iter().for_each(|v| feed(v, h));
            h.update(b"]");
        }
        Value::Object(m) => {
            h.update(b"{");
            let mut entries: Vec<_> = m.iter().filter(|(_, v)| !v.is_null()).collect();
            entries.sort_unstable_by_key(|(k, _)| k.as_str());
            for (k, v) in entries {
                text(k, h);
                feed(v, h);
            }
            h.update(b"}");
        }
    }
}

fn text(s: &str, h: &mut Sha256) {
    h.update(b"s");
    h.update((s.len() as u64).to_le_bytes());
    h.update(s.as_bytes());
}

/// The merge patch that makes `old` into `new`; `None` when they are equal. A null in `new` counts as missing.
pub fn json_diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (key, before) in old {
        let after = new.get(key).unwrap_or(&Value::Null);
        if after.is_null() {
            if !before.is_null() {
                patch.insert(key.clone(), Value::Null);
            }
        } else if let Some(p) = json_diff(before, after) {
            patch.insert(key.clone(), p);
        }
    }
    for (key, after) in new {
        if !old.contains_key(key) && !after.is_null() {
            patch.insert(key.clone(), after.clone());
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// As `json_diff`, where `new` is not needed any more.
pub fn json_diff_of(old: &Value, new: Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(mut new)) => {
            for (key, before) in old {
                match new.get_mut(key) {
                    None | Some(Value::Null) if before.is_null() => _ = new.remove(key),
                    None => _ = new.insert(key.clone(), Value::Null),
                    Some(Value::Null) => {}
                    Some(after) => match json_diff_of(before, after.take()) {
                        Some(differs) => *after = differs,
                        None => _ = new.remove(key),
                    },
                }
            }
            new.retain(|key, after| !after.is_null() || old.get(key).is_some_and(|before| !before.is_null()));
            (!new.is_empty()).then_some(Value::Object(new))
        }
        (old, new) => (*old != new).then_some(new),
    }
}

/// RFC 7386.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Removes nulls everywhere inside objects.
pub fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(m) => {
            // Mostly there are none, and looking is cheaper than keeping.
            if m.values().any(Value::is_null) {
                m.retain(|_, v| !v.is_null());
            }
            m.values_mut().for_each(strip_nulls);
        }
        Value::Array(a) => a.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_merge_back() {
        let cases = [
            (json!({}), json!({"a": 1})),
            (json!({"a": 1, "b": {"c": 2, "d": 3}}), json!({"b": {"c": 2}})),
            (json!({"a": [1, 2]}), json!({"a": [2]})),
            (json!({"a": {"b": 1}}), json!({"a": "x"})),
        ];
        for (old, new) in cases {
            let patch = json_diff(&old, &new).unwrap();
            let mut merged = old.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, new, "{old} -> {patch}");
            assert_eq!(json_diff(&new, &new), None);
            assert_eq!(json_diff_of(&new, new.clone()), None);
            assert_eq!(json_diff_of(&old, new), Some(patch));
        }
        let (null, deep) = (json!({"a": null}), json!({"a": {"b": null}}));
        let nulls = [null, deep, json!({}), json!({"a": {}}), json!({"a": {"b": 1}}), json!(1)];
        for old in &nulls {
            nulls.iter().for_each(|new| assert_eq!(json_diff_of(old, new.clone()), json_diff(old, new), "{old} {new}"));
        }
        assert_eq!(json_diff(&json!({"a": null}), &json!({})), None);
    }

    #[test]
    fn hash_passes_over_nulls_but_not_over_shape() {
        let h = |v: Value| sha256(&v);
        assert_eq!(h(json!({"a": 1, "b": null})), h(json!({"a": 1})));
        assert_ne!(h(json!({"a": "1"})), h(json!({"a": 1})));
        assert_ne!(h(json!(["ab"])), h(json!(["a", "b"])));
    }
}
