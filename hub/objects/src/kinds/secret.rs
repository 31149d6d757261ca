//! Secrets (v1).
//!
//! In: Secrets as JSON. Out: defaults (stringData goes into data), rules and the table row.
//! Never: prints a value, not even in an error.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::config_map::{DATA_BYTES_MAX, frozen, keys};
use super::fill::{child, map, remove, set, text};
use super::rules::{self, Errors};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

#[derive(Debug, Clone, Copy)]
pub struct Secret;

impl Behaviour for Secret {
    fn default(&self, object: &mut Value) {
        set(object, "type", "Opaque");
        let texts = remove(object, "stringData");
        let Some(texts) = texts.as_ref().and_then(Value::as_object) else { return };
        let Some(data) = child(object, "data") else { return };
        for (key, value) in texts {
            data[key] = json!(STANDARD.encode(value.as_str().unwrap_or_default()));
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if keys(object, "data", &mut errors) / 4 * 3 > DATA_BYTES_MAX {
            errors.push(FieldError::too_long("data", DATA_BYTES_MAX));
        }
        let mut needs = |key: &str| {
            if !map(object, "data").contains_key(key) {
                errors.push(FieldError::required(format!("data[{key}]"), ""));
            }
        };
        match text(object, "type") {
            "kubernetes.io/dockercfg" => {
                needs(".dockercfg");
                errors.extend(not_json(object, ".dockercfg"));
            }
            "kubernetes.io/dockerconfigjson" => {
                needs(".dockerconfigjson");
                errors.extend(not_json(object, ".dockerconfigjson"));
            }
            "kubernetes.io/ssh-auth" => needs("ssh-privatekey"),
            "kubernetes.io/tls" => {
                needs("tls.crt");
                needs("tls.key");
            }
            "kubernetes.io/basic-auth" => {
                let data = map(object, "data");
                if !data.contains_key("username") && !data.contains_key("password") {
                    errors.push(FieldError::required("data[username]", ""));
                    errors.push(FieldError::required("data[password]", ""));
                }
            }
            "kubernetes.io/service-account-token" => {
                let account = "kubernetes.io/service-account.name";
                if map(&object["metadata"], "annotations").get(account).is_none_or(|value| value == "") {
                    errors.push(FieldError::required(format!("metadata.annotations[{account}]"), ""));
                }
            }
            _ => {}
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        rules::immutable(new, old, "type", "", &mut errors);
        frozen(new, old, &["data"], &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Type"), Column::text("Data"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            name(object),
            json!(text(object, "type")),
            json!(map(object, "data").len()),
            table::age(object, now),
        ]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", text(object, "type").to_owned())]
    }
}

/// What pulls images reads it as an object; nothing of it is shown.
fn not_json(object: &Value, key: &str) -> Option<FieldError> {
    let text = map(object, "data").get(key)?.as_str()?;
    let bytes = STANDARD.decode(text).ok()?;
    let error = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes).err()?;
    // A parser's words may quote the text.
    let words = format!("not a JSON object (line {}, column {})", error.line(), error.column());
    Some(FieldError::invalid(format!("data[{key}]"), "<secret contents redacted>", words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_becomes_data() {
        let mut object = json!({"stringData": {"a": "hello", "b": ""}, "data": {"a": "b2xk", "c": "eA=="}});
        Secret.default(&mut object);
        assert_eq!(object, json!({"type": "Opaque", "data": {"a": "aGVsbG8=", "b": "", "c": "eA=="}}));
    }

    #[test]
    fn types_need_their_keys() {
        let texts = |object: Value| -> Vec<String> {
            Secret.validate_create(&object).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            texts(json!({"type": "kubernetes.io/tls", "data": {}})),
            ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
        );
        assert_eq!(texts(json!({"type": "Opaque"})), Vec::<String>::new());
        let new = json!({"type": "x"});
        let errors = Secret.validate_update(&new, &json!({"type": "y"}), "");
        assert_eq!(errors[0].to_string(), "type: Invalid value: \"x\": field is immutable");
    }
}
