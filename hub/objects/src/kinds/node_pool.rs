//! NodePools (limpet.dev/v1): boards that belong together.
//!
//! In: pools as JSON. Out: rules and the table row. Never: looks at nodes.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{name, number};
use super::fill::{list, map, text};
use super::rules::{Errors, label_selector, one_of, selector_is_empty};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{absence, table, time};

#[derive(Debug, Clone, Copy)]
pub struct NodePool;

/// Labels that say which board it is; a pool that gave them to all of its boards would make them one.
const OWN: [&str; 2] = ["kubernetes.io/hostname", "limpet.dev/pool"];

impl Behaviour for NodePool {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        if selector_is_empty(&spec["selector"]) {
            let words = "a pool that selects every node is not a pool; name at least one label";
            errors.push(FieldError::invalid("spec.selector", spec["selector"].clone(), words));
        }
        label_selector(&spec["selector"], "spec.selector", &mut errors);
        errors.extend(crate::metadata::labels(&spec["labels"], "spec.labels"));
        for key in map(spec, "labels").keys() {
            let words = match OWN.contains(&key.as_str()) {
                true => "belongs to each board itself",
                false if names_label(&spec["selector"], key) => "is what the pool selects its boards by",
                false => continue,
            };
            errors.push(FieldError::forbidden(format!("spec.labels[{key}]"), words));
        }
        super::node::taints(spec, &mut errors);
        let offline = &spec["offline"];
        let lost_after = text(offline, "lostAfter");
        if !lost_after.is_empty() && absence::lost_after(lost_after).is_none() {
            let words = "must be a span of time such as 90s, 15m, 2h or 7d, or never";
            errors.push(FieldError::invalid("spec.offline.lostAfter", lost_after, words));
        }
        one_of(offline, "reconcile", "spec.offline", &absence::RECONCILE_VALUES, &mut errors);
        super::link_rules(&spec["link"], "spec.link", &mut errors);
        errors
    }

    /// It becomes the value of a label.
    fn validate_name(&self, name: &str) -> Vec<String> {
        let mut wrong = crate::names::dns_subdomain(name);
        wrong.extend(crate::names::label_value(name));
        wrong
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::integer("Nodes"),
                Column::integer("Ready"),
                Column::integer("Offline"),
                Column::text("Lost After"),
                Column::AGE,
                Column::text("Selector").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let lost_after = match text(&object["spec"]["offline"], "lostAfter") {
            "" => "never",
            text => text,
        };
        vec![
            name(object),
            number(status, "nodes"),
            number(status, "ready"),
            number(status, "offline"),
            lost_after.into(),
            table::age(object, now),
            super::cells::selector(&object["spec"]["selector"]).into(),
        ]
    }
}

fn names_label(selector: &Value, key: &str) -> bool {
    map(selector, "matchLabels").contains_key(key)
        || list(selector, "matchExpressions").iter().any(|e| text(e, "key") == key)
}

/// Complains when a text is not a span of time.
pub(super) fn span(text: &str, path: &str, errors: &mut Errors) {
    if time::span_seconds(text).is_none() {
        errors.push(FieldError::invalid(path, text, "must be a span of time such as 90s, 15m, 2h or 7d"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_say_what_to_do() {
        let tills = json!({"matchLabels": {"role": "till"}});
        let cases = [
            (json!({"selector": tills}), ""),
            (json!({"selector": {}}), "name at least one label"),
            (json!({"selector": tills, "labels": {"kubernetes.io/hostname": "x"}}), "belongs to each board itself"),
            (json!({"selector": tills, "labels": {"role": "sign"}}), "spec.labels[role]: Forbidden: is what the pool selects"),
            (
                json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "labels": {"a": "b"}}),
                "is what the pool selects",
            ),
            (json!({"selector": tills, "taints": [{"key": "k", "effect": "Banana"}]}), "Unsupported value: \"Banana\""),
            (json!({"selector": tills, "offline": {"lostAfter": "banana"}}), "must be a span of time"),
            (json!({"selector": tills, "offline": {"lostAfter": "-5m"}}), "must be a span of time"),
            (json!({"selector": tills, "offline": {"lostAfter": "never"}}), ""),
            (json!({"selector": tills, "offline": {"reconcile": "both"}}), "Unsupported value: \"both\""),
        ];
        for (spec, words) in cases {
            let errors = NodePool.validate_create(&json!({"metadata": {"name": "p"}, "spec": spec}));
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let all = all.join("\n");
            assert!(if words.is_empty() { all.is_empty() } else { all.contains(words) }, "{spec}: {all}");
        }
        assert!(NodePool.validate_name("tills.north").is_empty());
        assert!(!NodePool.validate_name(&"a".repeat(64)).is_empty());
    }
}
