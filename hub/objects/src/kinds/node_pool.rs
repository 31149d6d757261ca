//! NodePools (limpet.dev/v1): boards that belong together.
//!
//! In: pools as JSON. Out: rules and the table row. Never: looks at nodes.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{name, number};
use super::fill::text;
use super::rules::{Errors, label_selector, one_of, selector_is_empty};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{table, time};

#[derive(Debug, Clone, Copy)]
pub struct NodePool;

const RECONCILE: [&str; 3] = ["keep-original", "keep-replacement", "longest-running"];

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
        let offline = &spec["offline"];
        let lost_after = text(offline, "lostAfter");
        if !lost_after.is_empty() && lost_after != "never" {
            span(lost_after, "spec.offline.lostAfter", &mut errors);
        }
        one_of(offline, "reconcile", "spec.offline", &RECONCILE, &mut errors);
        errors
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

/// Complains when a text is not a span of time.
pub(super) fn span(text: &str, path: &str, errors: &mut Errors) {
    if time::span_seconds(text).is_none() {
        errors.push(FieldError::invalid(path, text, "must be a span of time such as 90s, 15m, 2h or 7d"));
    }
}
