//! metav1.LabelSelector, matched on `Labels`.
//!
//! In: the JSON of a selector, or a plain map. Out: whether labels match.
//! Never: matches everything by accident: a missing selector matches nothing, an empty one everything.

use super::meta::{Labels, or_default};
use serde::Deserialize;
use serde_json::{Value, json};

/// A label selector. `Default` is the empty selector, which matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Selector {
    pub match_labels: Labels,
    #[serde(deserialize_with = "or_default")]
    pub match_expressions: Box<[Requirement]>,
}

/// One expression; operators as upstream, Gt and Lt for node selectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub struct Requirement {
    pub key: Box<str>,
    pub operator: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub values: Box<[Box<str>]>,
}

impl Selector {
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.match_expressions.iter().all(|r| r.matches(labels.get(&r.key)))
    }

    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    pub fn to_value(&self) -> Value {
        let mut out = json!({});
        if !self.match_labels.is_empty() {
            out["matchLabels"] = self.match_labels.to_value();
        }
        if !self.match_expressions.is_empty() {
            out["matchExpressions"] = self.match_expressions.iter().map(Requirement::to_value).collect();
        }
        out
    }
}

impl Requirement {
    /// `value`: what the labels hold under `key`.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| &**x == v);
        match &*self.operator {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => self.compare(value).is_some_and(|(a, b)| a > b),
            "Lt" => self.compare(value).is_some_and(|(a, b)| a < b),
            _ => false,
        }
    }

    pub fn to_value(&self) -> Value {
        json!({"key": self.key, "operator": self.operator, "values": self.values})
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_match_as_upstream() {
        let labels: Labels = [("app", "web"), ("tier", "3")].into_iter().collect();
        let cases = [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "x"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["web"]}]}), true),
            (json!({"matchExpressions": [{"key": "none", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "Gt", "values": ["2"]}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "Lt", "values": ["2"]}]}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "Nonsense"}]}), false),
        ];
        for (selector, expect) in cases {
            let s: Selector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(s.matches(&labels), expect, "{selector}");
        }
    }
}
