//! Selectors as authorizers see them.
//!
//! In: the query of a list, watch or deletecollection. Out: authorization.k8s.io FieldSelectorAttributes and
//! LabelSelectorAttributes. Source: KEP-4601.
//! Never: a selector that cannot be read; authorizers then see none, which asks for more.

use crate::api::{query::Query, route::RequestInfo};
use limpet_objects::select::{FieldSelector, LabelSelector, Operator};
use serde_json::{Value, json};

/// What a request's selectors narrow it to.
#[derive(Default)]
pub struct Selectors {
    pub fields: Option<Value>,
    pub labels: Option<Value>,
}

impl Selectors {
    pub fn of(info: &RequestInfo, query: &Query) -> Selectors {
        if !info.is_resource || !matches!(info.verb, "list" | "watch" | "deletecollection") {
            return Selectors::default();
        }
        Selectors {
            fields: query.text("fieldSelector").and_then(fields),
            labels: query.text("labelSelector").and_then(labels),
        }
    }
}

impl Selectors {
    /// Those of a SubjectAccessReview; the error names the field.
    pub fn reviewed(attributes: &Value) -> Result<Selectors, (&'static str, String)> {
        let one = |field: &'static str, read: fn(&str) -> Option<Value>| {
            let own = &attributes[field];
            match (own["rawSelector"].as_str().filter(|raw| !raw.is_empty()), own["requirements"].is_array()) {
                (Some(_), true) => Err((field, "rawSelector and requirements may not be specified at the same time".to_owned())),
                (Some(raw), false) => Ok(read(raw)),
                (None, true) => Ok(Some(json!({"requirements": own["requirements"]}))),
                (None, false) if own.is_object() => {
                    Err((field, "one of rawSelector or requirements must be specified".to_owned()))
                }
                (None, false) => Ok(None),
            }
        };
        Ok(Selectors { fields: one("fieldSelector", fields)?, labels: one("labelSelector", labels)? })
    }
}

fn requirements(all: Vec<Value>) -> Option<Value> {
    (!all.is_empty()).then(|| json!({"requirements": all}))
}

fn fields(text: &str) -> Option<Value> {
    let terms = FieldSelector::parse(text).ok()?.terms;
    let one = |term: limpet_objects::select::FieldTerm| {
        json!({"key": term.field, "operator": if term.equal { "In" } else { "NotIn" }, "values": [term.value]})
    };
    requirements(terms.into_iter().map(one).collect())
}

fn labels(text: &str) -> Option<Value> {
    let selector = LabelSelector::parse(text).ok()?;
    let one = |own: &limpet_objects::select::Requirement| {
        let operator = match own.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // Authorizers do not know these; without them they are asked for more.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let mut value = json!({"key": own.key, "operator": operator});
        if !own.values.is_empty() {
            value["values"] = json!(own.values);
        }
        Some(value)
    };
    requirements(selector.requirements().iter().filter_map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_of_texts() {
        assert_eq!(
            fields("spec.nodeName=pi,status.phase!=Failed").unwrap()["requirements"],
            json!([{"key": "spec.nodeName", "operator": "In", "values": ["pi"]},
                {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]}])
        );
        assert_eq!(
            labels("a in (x,y),!b,c,d>3").unwrap()["requirements"],
            json!([{"key": "a", "operator": "In", "values": ["x", "y"]}, {"key": "b", "operator": "DoesNotExist"},
                {"key": "c", "operator": "Exists"}])
        );
        assert_eq!((fields("??"), labels("a in")), (None, None));
    }
}
