//! ConfigMaps (v1), and the rules of keyed data that Secrets share.
//!
//! In: ConfigMaps as JSON. Out: rules and the table row. Never: reads the data.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::map;
use super::rules::Errors;
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{names, table};

/// 1 MiB, as in Kubernetes.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

#[derive(Debug, Clone, Copy)]
pub struct ConfigMap;

impl Behaviour for ConfigMap {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut bytes = 0;
        for field in ["data", "binaryData"] {
            bytes += keys(object, field, &mut errors);
        }
        for key in map(object, "binaryData").keys().filter(|key| map(object, "data").contains_key(*key)) {
            let words = "duplicate of key present in data";
            errors.push(FieldError::invalid(format!("binaryData[{key}]"), key.as_str(), words));
        }
        if bytes > DATA_BYTES_MAX {
            errors.push(FieldError::too_long("", DATA_BYTES_MAX));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        frozen(new, old, &["data", "binaryData"], &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Data"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = map(object, "data").len() + map(object, "binaryData").len();
        vec![name(object), json!(count), table::age(object, now)]
    }
}

/// Checks the keys and returns the bytes of the values.
pub fn keys(object: &Value, field: &str, errors: &mut Errors) -> usize {
    let mut bytes = 0;
    for (key, value) in map(object, field) {
        bytes += value.as_str().map_or(0, str::len);
        for wrong in names::config_key(key) {
            errors.push(FieldError::invalid(format!("{field}[{key}]"), key.as_str(), wrong));
        }
    }
    bytes
}

/// An immutable object stays immutable, and its data what it is.
pub fn frozen(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", FROZEN));
    }
    for field in fields {
        if map(new, field) != map(old, field) {
            errors.push(FieldError::forbidden(*field, FROZEN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immutable_means_immutable() {
        let old = json!({"data": {"a": "1"}, "immutable": true});
        assert_eq!(ConfigMap.validate_update(&old, &old, ""), []);
        let new = json!({"data": {"a": "2"}});
        let texts: Vec<String> =
            ConfigMap.validate_update(&new, &old, "").iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set"
            ]
        );
    }

    #[test]
    fn keys_are_file_names() {
        let errors = ConfigMap.validate_create(&json!({"data": {"a/b": "1"}}));
        assert!(
            errors[0]
                .to_string()
                .starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key must consist of")
        );
        let big = "x".repeat(DATA_BYTES_MAX + 1);
        assert_eq!(ConfigMap.validate_create(&json!({"data": {"a": big}})).len(), 1);
    }
}
