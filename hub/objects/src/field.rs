//! Errors about fields of objects, in Kubernetes' own words (apimachinery `field.Error`).
//!
//! In: a path, a kind of error, the bad value and a reason. Out: text and the pieces of
//! `Status.details.causes`.
//! Never: decides what is wrong (see `kinds`).

use std::fmt;

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl Problem {
    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    /// `reason` of a cause in a Status.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// One wrong field. `Display` gives `spec.replicas: Invalid value: -1: must be …`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    pub problem: Problem,
    /// `spec.containers[0].image`; empty for the object as a whole.
    pub field: String,
    pub bad: Option<Value>,
    pub detail: String,
}

impl FieldError {
    fn new(
        problem: Problem,
        field: impl Into<String>,
        bad: Option<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { problem, field: field.into(), bad, detail: detail.into() }
    }

    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Problem::Required, field, None, detail)
    }

    pub fn invalid(field: impl Into<String>, bad: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(Problem::Invalid, field, Some(bad.into()), detail)
    }

    /// Something as a whole is wrong: its value is not shown.
    pub fn invalid_whole(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Problem::Invalid, field, None, detail)
    }

    pub fn duplicate(field: impl Into<String>, bad: impl Into<Value>) -> Self {
        Self::new(Problem::Duplicate, field, Some(bad.into()), "")
    }

    pub fn not_found(field: impl Into<String>, bad: impl Into<Value>) -> Self {
        Self::new(Problem::NotFound, field, Some(bad.into()), "")
    }

    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Problem::Forbidden, field, None, detail)
    }

    pub fn too_long(field: impl Into<String>, bytes_max: usize) -> Self {
        Self::new(Problem::TooLong, field, None, format!("may not be more than {bytes_max} bytes"))
    }

    pub fn too_many(field: impl Into<String>, count: usize, max: usize) -> Self {
        Self::new(Problem::TooMany, field, Some(count.into()), format!("must have at most {max} items"))
    }

    /// `choices` are printed in the given order.
    pub fn not_supported(field: impl Into<String>, bad: impl Into<Value>, choices: &[&str]) -> Self {
        let quoted: Vec<String> = choices.iter().map(|choice| format!("{choice:?}")).collect();
        let detail = if choices.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(Problem::NotSupported, field, Some(bad.into()), detail)
    }

    /// The text without the field: `message` of a cause in a Status.
    pub fn body(&self) -> String {
        let mut text = self.problem.words().to_owned();
        if let Some(bad) = self.bad.as_ref().filter(|_| self.problem.shows_value()) {
            text.push_str(": ");
            text.push_str(&shown(bad));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

fn shown(value: &Value) -> String {
    match value {
        // Go's null prints as the quoted word.
        Value::Null => "\"null\"".to_owned(),
        value => value.to_string(),
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { "<nil>" } else { &self.field };
        write!(f, "{field}: {}", self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_like_kubernetes() {
        let cases = [
            (
                FieldError::invalid("spec.replicas", -1, "must be greater than or equal to 0"),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (FieldError::required("spec.selector", ""), "spec.selector: Required value"),
            (
                FieldError::not_supported("a", "x", &["Always", "Never"]),
                "a: Unsupported value: \"x\": supported values: \"Always\", \"Never\"",
            ),
            (FieldError::too_long("a", 63), "a: Too long: may not be more than 63 bytes"),
            (FieldError::duplicate("a[1].name", "x"), "a[1].name: Duplicate value: \"x\""),
            (FieldError::forbidden("spec", "no"), "spec: Forbidden: no"),
            (FieldError::too_many("a", 3, 2), "a: Too many: 3: must have at most 2 items"),
        ];
        for (error, expect) in cases {
            assert_eq!(error.to_string(), expect);
        }
    }
}
