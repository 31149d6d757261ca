//! Rules that several kinds share, with Kubernetes' words.
//!
//! In: values and the path where they are. Out: field errors added to the caller's list.
//! Never: knows kinds.

use serde_json::Value;

use super::fill::{list, map, text};
use crate::field::FieldError;
use crate::names;

pub type Errors = Vec<FieldError>;

pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub const IMMUTABLE: &str = "field is immutable";

/// A number that may be absent but not negative.
pub fn not_negative(object: &Value, field: &str, path: &str, errors: &mut Errors) {
    if let Some(number) = object[field].as_i64().filter(|number| *number < 0) {
        errors.push(FieldError::invalid(join(path, field), number, NOT_NEGATIVE));
    }
}

/// A number that may be absent but not below one.
pub fn positive(object: &Value, field: &str, path: &str, errors: &mut Errors) {
    if let Some(number) = object[field].as_i64().filter(|number| *number <= 0) {
        errors.push(FieldError::invalid(join(path, field), number, "must be greater than zero"));
    }
}

/// Text that must be there. Returns it when it is.
pub fn required<'a>(object: &'a Value, field: &str, path: &str, errors: &mut Errors) -> Option<&'a str> {
    match text(object, field) {
        "" => {
            errors.push(FieldError::required(join(path, field), ""));
            None
        }
        found => Some(found),
    }
}

/// Text out of a list of choices; absent is fine.
pub fn one_of(object: &Value, field: &str, path: &str, choices: &[&str], errors: &mut Errors) {
    let value = text(object, field);
    if !value.is_empty() && !choices.contains(&value) {
        errors.push(FieldError::not_supported(join(path, field), value, choices));
    }
}

/// Each text that `rule` finds wrong becomes an error; absent is fine.
pub fn named(object: &Value, field: &str, path: &str, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let value = text(object, field);
    if !value.is_empty() {
        for wrong in rule(value) {
            errors.push(FieldError::invalid(join(path, field), value, wrong));
        }
    }
}

/// `field` must be as it was.
pub fn immutable(new: &Value, old: &Value, field: &str, path: &str, errors: &mut Errors) {
    if new[field] != old[field] {
        errors.push(FieldError::invalid(join(path, field), new[field].clone(), IMMUTABLE));
    }
}

/// `spec` + `replicas` -> `spec.replicas`.
pub fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// A metav1.LabelSelector.
pub fn label_selector(selector: &Value, path: &str, errors: &mut Errors) {
    errors.extend(crate::metadata::labels(&selector["matchLabels"], &join(path, "matchLabels")));
    for (at, requirement) in list(selector, "matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{at}]");
        let values = list(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let words = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(join(&path, "values"), words));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let words = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(join(&path, "values"), words));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let words = "not a valid selector operator";
                errors.push(FieldError::invalid(join(&path, "operator"), other, words));
            }
        }
        let key = text(requirement, "key");
        for wrong in names::qualified_name(key) {
            errors.push(FieldError::invalid(join(&path, "key"), key, wrong));
        }
        for (index, value) in values.iter().enumerate() {
            for wrong in names::label_value(value.as_str().unwrap_or_default()) {
                errors.push(FieldError::invalid(format!("{path}.values[{index}]"), value.clone(), wrong));
            }
        }
    }
}

pub fn selector_is_empty(selector: &Value) -> bool {
    map(selector, "matchLabels").is_empty() && list(selector, "matchExpressions").is_empty()
}

/// Whether a metav1.LabelSelector chooses these labels.
pub fn selector_matches(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let all_equal = map(selector, "matchLabels")
        .iter()
        .all(|(key, value)| label(key).is_some() && label(key) == value.as_str());
    let expressions = list(selector, "matchExpressions").iter().all(|requirement| {
        let value = label(text(requirement, "key"));
        let among = value.is_some_and(|value| list(requirement, "values").iter().any(|one| one == value));
        match text(requirement, "operator") {
            "In" => among,
            "NotIn" => !among,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    all_equal && expressions
}

/// An int-or-string that is a count or a percentage.
pub fn count_or_percent(object: &Value, field: &str, path: &str, errors: &mut Errors) {
    match &object[field] {
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
            errors.push(FieldError::invalid(join(path, field), object[field].clone(), NOT_NEGATIVE));
        }
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                let words = "a valid percent string must be a numeric string followed by an ending '%' \
                 (e.g. '1%',  or \
                             '93%', regex used for validation is '[0-9]+%')";
                errors.push(FieldError::invalid(join(path, field), text.as_str(), words));
            }
        }
        _ => {}
    }
}

/// The number behind `25%`; 0 for anything else.
pub fn percent(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Whether an int-or-string is 0 or 0%.
pub fn is_zero_count(value: &Value) -> bool {
    value.as_i64() == Some(0) || (value.is_string() && percent(value) == 0)
}
