//! FlowSchemas and PriorityLevelConfigurations (flowcontrol.apiserver.k8s.io/v1).
//!
//! In: objects as JSON. Out: defaults, table rows; the rules are in `flow_rules`. Never: queues requests.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, condition, name, number};
use super::fill::{present, set_absent, set_number, text};
use super::flow_rules;
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

#[derive(Debug, Clone, Copy)]
pub struct FlowSchema;

impl Behaviour for FlowSchema {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = present(object, "spec") {
            set_number(spec, "matchingPrecedence", 1000);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        flow_rules::schema(object)
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("PriorityLevel"),
                Column::text("MatchingPrecedence"),
                Column::text("DistinguisherMethod"),
                Column::AGE,
                Column::text("MissingPL"),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let method = match text(&spec["distinguisherMethod"], "type") {
            "" => NONE,
            method => method,
        };
        let dangling = condition(&object["status"], "Dangling").map_or("?", |found| text(found, "status"));
        vec![
            name(object),
            json!(text(&spec["priorityLevelConfiguration"], "name")),
            number(spec, "matchingPrecedence"),
            json!(method),
            table::age(object, now),
            json!(dangling),
        ]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct PriorityLevel;

impl Behaviour for PriorityLevel {
    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        if let Some(exempt) = present(spec, "exempt") {
            set_absent(exempt, "nominalConcurrencyShares", 0);
            set_absent(exempt, "lendablePercent", 0);
        }
        let Some(limited) = present(spec, "limited") else { return };
        set_absent(limited, "nominalConcurrencyShares", 30);
        set_absent(limited, "lendablePercent", 0);
        if let Some(queuing) =
            present(limited, "limitResponse").and_then(|response| present(response, "queuing"))
        {
            set_number(queuing, "queues", 64);
            set_number(queuing, "handSize", 8);
            set_number(queuing, "queueLengthLimit", 50);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        flow_rules::level(object)
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Type"),
                Column::text("NominalConcurrencyShares"),
                Column::text("Queues"),
                Column::text("HandSize"),
                Column::text("QueueLengthLimit"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let shares = [&spec["limited"], &spec["exempt"]]
            .iter()
            .find_map(|half| half["nominalConcurrencyShares"].as_i64())
            .map_or(json!(NONE), |shares| json!(shares));
        let queuing = &spec["limited"]["limitResponse"]["queuing"];
        let of = |field: &str| queuing[field].as_i64().map_or(json!(NONE), |count| json!(count));
        vec![
            name(object),
            json!(text(spec, "type")),
            shares,
            of("queues"),
            of("handSize"),
            of("queueLengthLimit"),
            table::age(object, now),
        ]
    }
}
