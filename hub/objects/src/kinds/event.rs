//! Events: core/v1, which is what is stored, and events.k8s.io/v1, another view of the same objects.
//!
//! In: Events as JSON. Out: conversion between the two forms, rules and the table row. Never: merges
//! repeated events.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::{remove, text};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{metadata, table};

/// Field names of events.k8s.io/v1 and core/v1.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

const COLUMNS: &[Column] = &[
    Column::text("Last Seen"),
    Column::text("Type"),
    Column::text("Reason"),
    Column::text("Object"),
    Column::text("Subobject").wide(),
    Column::text("Source").wide(),
    Column::text("Message"),
    Column::text("First Seen").wide(),
    Column::text("Count").wide(),
    Column::NAME.wide(),
];

#[derive(Debug, Clone, Copy)]
pub struct CoreEvent;

impl Behaviour for CoreEvent {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let own = metadata::text(object, "namespace");
        let about = text(&object["involvedObject"], "namespace");
        // Events about cluster-wide objects live in "default".
        if own == about || (about.is_empty() && matches!(own, "default" | "kube-system")) {
            return Vec::new();
        }
        vec![FieldError::invalid("involvedObject.namespace", about, "does not match event.namespace")]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        row(object, now)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let about = |field: &str| text(&object["involvedObject"], field).to_owned();
        let own = |field: &str| text(object, field).to_owned();
        let source = match text(&object["source"], "component") {
            "" => own("reportingComponent"),
            component => component.to_owned(),
        };
        vec![
            ("involvedObject.kind", about("kind")),
            ("involvedObject.namespace", about("namespace")),
            ("involvedObject.name", about("name")),
            ("involvedObject.uid", about("uid")),
            ("involvedObject.apiVersion", about("apiVersion")),
            ("involvedObject.resourceVersion", about("resourceVersion")),
            ("involvedObject.fieldPath", about("fieldPath")),
            ("reason", own("reason")),
            ("reportingComponent", own("reportingComponent")),
            ("source", source),
            ("type", own("type")),
        ]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Event;

impl Behaviour for Event {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut core = object.clone();
        self.to_storage(&mut core);
        CoreEvent
            .validate_create(&core)
            .into_iter()
            .map(|error| FieldError { field: "involvedObject.namespace".to_owned(), ..error })
            .collect()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut core = object.clone();
        self.to_storage(&mut core);
        row(&core, now)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let about = |field: &str| text(&object["regarding"], field).to_owned();
        vec![
            ("regarding.kind", about("kind")),
            ("regarding.namespace", about("namespace")),
            ("regarding.name", about("name")),
            ("regarding.uid", about("uid")),
            ("regarding.apiVersion", about("apiVersion")),
            ("regarding.resourceVersion", about("resourceVersion")),
            ("regarding.fieldPath", about("fieldPath")),
            ("reason", text(object, "reason").to_owned()),
            ("reportingController", text(object, "reportingController").to_owned()),
            ("type", text(object, "type").to_owned()),
        ]
    }

    fn to_storage(&self, object: &mut Value) {
        for (new, core) in RENAMED {
            rename(object, new, core);
        }
        object["apiVersion"] = json!("v1");
    }

    fn from_storage(&self, object: &mut Value) {
        for (new, core) in RENAMED {
            rename(object, core, new);
        }
        object["apiVersion"] = json!("events.k8s.io/v1");
    }
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let (Some(value), Some(fields)) = (remove(object, from), object.as_object_mut()) {
        fields.insert(to.to_owned(), value);
    }
}

fn row(event: &Value, now: Timestamp) -> Vec<Value> {
    let time = |fields: &[&Value]| {
        fields.iter().find(|value| !value.is_null()).map(|value| table::since(value, now))
    };
    let unknown = || "<unknown>".to_owned();
    let first = time(&[&event["firstTimestamp"], &event["eventTime"]]).unwrap_or_else(unknown);
    let mut last = time(&[&event["lastTimestamp"]]).unwrap_or_else(|| first.clone());
    let mut count = event["count"].as_i64().unwrap_or(0).max(1);
    if event["series"].is_object() {
        last = table::since(&event["series"]["lastObservedTime"], now);
        count = event["series"]["count"].as_i64().unwrap_or(0);
    }
    let about = &event["involvedObject"];
    let kind = text(about, "kind").to_lowercase();
    let target = match text(about, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        json!(last),
        json!(text(event, "type")),
        json!(text(event, "reason")),
        json!(target),
        json!(text(about, "fieldPath")),
        json!(source(event)),
        json!(text(event, "message").trim()),
        json!(first),
        json!(count),
        name(event),
    ]
}

fn source(event: &Value) -> String {
    let either = |old: &str, new: &str| match text(&event["source"], old) {
        "" => text(event, new).to_owned(),
        found => found.to_owned(),
    };
    let (component, host) = (either("component", "reportingComponent"), either("host", "reportingInstance"));
    if host.is_empty() { component } else { format!("{component}, {host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Value {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"}, "type": "Normal",
            "reason": "Pulled", "message": "ok\n", "count": 3, "source": {"component": "agent", "host": "pi"},
            "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:00:30Z",
            "involvedObject": {"kind": "Pod", "name": "web", "namespace": "d", "fieldPath": "spec.containers{a}"}})
    }

    #[test]
    fn both_forms_are_one_object() {
        let mut object = event();
        Event.from_storage(&mut object);
        assert_eq!((&object["note"], &object["regarding"]["name"]), (&json!("ok\n"), &json!("web")));
        assert!(object.get("message").is_none());
        Event.to_storage(&mut object);
        assert_eq!(object, event());
    }

    #[test]
    fn row_and_selection() {
        let now = "1970-01-01T00:01:00Z".parse().unwrap();
        let expect = json!([
            "30s",
            "Normal",
            "Pulled",
            "pod/web",
            "spec.containers{a}",
            "agent, pi",
            "ok",
            "60s",
            3,
            "e"
        ]);
        assert_eq!(json!(CoreEvent.row(&event(), now)), expect);
        let mut other = event();
        Event.from_storage(&mut other);
        assert_eq!(json!(Event.row(&other, now)), expect);
        assert!(CoreEvent.selectable_fields(&event()).contains(&("involvedObject.name", "web".to_owned())));
    }

    #[test]
    fn events_live_beside_their_objects() {
        let mut object = event();
        assert_eq!(CoreEvent.validate_create(&object), []);
        object["metadata"]["namespace"] = json!("other");
        assert_eq!(
            CoreEvent.validate_create(&object)[0].to_string(),
            "involvedObject.namespace: Invalid value: \"d\": does not match event.namespace"
        );
    }
}
