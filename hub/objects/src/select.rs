//! Label selectors and field selectors.
//!
//! In: `labelSelector=` and `fieldSelector=` texts, or a metav1.LabelSelector object. Out: what matches,
//! or an error in Kubernetes' words.
//! Never: knows which fields a kind can be selected by; the kind's row does.

mod field;
mod parse;
pub mod words;

pub use field::{FieldSelector, FieldTerm};

use serde_json::{Map, Value};

/// Terms and values in one selector. URLs are bounded already; this bounds stored selectors.
pub const SELECTOR_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without duplicates.
    pub values: Vec<String>,
}

/// A conjunction of requirements; none: everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// 400 from a URL, 422 from an object; the text is Kubernetes'.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl LabelSelector {
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    /// Matches no object at all (a metav1.LabelSelector that is absent).
    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    /// `app=web,tier in (a,b),!gone,size>3`
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError(format!("selector is longer than {SELECTOR_BYTES_MAX} bytes")));
        }
        Ok(LabelSelector { requirements: parse::parse(text)?, nothing: false })
    }

    /// From a metav1.LabelSelector; `null` selects nothing, `{}` everything.
    pub fn from_object(object: &Value) -> Result<LabelSelector, SelectorError> {
        if object.is_null() {
            return Ok(LabelSelector::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in object.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_string();
            requirements.push(requirement(key, Operator::In, vec![value])?);
        }
        for expression in object.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(expression_requirement(expression)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// From a map of labels that must all be there (Service and ReplicationController selectors).
    pub fn from_labels(labels: &Map<String, Value>) -> LabelSelector {
        let requirements = labels
            .iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str().unwrap_or_default().to_string()],
            })
            .collect();
        LabelSelector { requirements, nothing: false }
    }

    /// Whether an object's `metadata.labels` match.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        self.matches_with(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }

    /// The same over any store of labels.
    pub fn matches_with<'v>(&self, label: impl Fn(&str) -> Option<&'v str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl Requirement {
    fn matches(&self, label: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        match self.operator {
            Operator::In => label.is_some_and(listed),
            Operator::NotIn => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (label.and_then(|v| v.parse::<i64>().ok()), bound) {
                    (Some(n), Some(bound)) if self.operator == Operator::GreaterThan => n > bound,
                    (Some(n), Some(bound)) => n < bound,
                    _ => false,
                }
            }
        }
    }
}

fn expression_requirement(expression: &Value) -> Result<Requirement, SelectorError> {
    let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
    let operator = match text("operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
    };
    let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
    let values = values.map(|v| v.as_str().unwrap_or_default().to_string()).collect();
    requirement(text("key"), operator, values)
}

/// Upstream's `NewRequirement`: the key and the values are checked here.
fn requirement(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Requirement, SelectorError> {
    values.sort();
    values.dedup();
    check_key(key)?;
    let shown = || format!("[{}]", values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(","));
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            let why = "for 'in', 'notin' operators, values set can't be empty";
            return Err(SelectorError(format!("values: Invalid value: []: {why}")));
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            let why = "values set must be empty for exists and does not exist";
            return Err(SelectorError(format!("values: Invalid value: {}: {why}", shown())));
        }
        Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
            let why = "for 'Gt', 'Lt' operators, exactly one value is required";
            return Err(SelectorError(format!("values: Invalid value: {}: {why}", shown())));
        }
        Operator::GreaterThan | Operator::LessThan if values[0].parse::<i64>().is_err() => {
            let why = "for 'Gt', 'Lt' operators, the value must be an integer";
            return Err(SelectorError(format!("values[0]: Invalid value: {:?}: {why}", values[0])));
        }
        _ => {}
    }
    for (i, value) in values.iter().enumerate() {
        let findings = words::label_value(value);
        if !findings.is_empty() {
            return Err(SelectorError(format!(
                "values[{i}][{key}]: Invalid value: {value:?}: {}",
                findings.join("; ")
            )));
        }
    }
    Ok(Requirement { key: key.to_string(), operator, values })
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    let findings = words::qualified_name(key);
    if findings.is_empty() {
        return Ok(());
    }
    Err(SelectorError(format!("<nil>: Invalid value: {key:?}: {}", findings.join("; "))))
}

#[cfg(test)]
mod tests;
