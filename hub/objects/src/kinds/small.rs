//! Kinds with little of their own: mostly a table row, sometimes a default.
//!
//! In: objects as JSON. Out: rows (and defaults) of PriorityClass, RuntimeClass, PodTemplate,
//! ControllerRevision, ComponentStatus and DRA's small kinds. Never: more than fits a screen for
//! each.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{containers, labels, name, number};
use super::fill::{list, map, present, set, text};
use super::pod::defaults;
use super::rules::{Errors, IMMUTABLE, one_of};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{names, table};

/// The classes that every cluster has.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

#[derive(Debug, Clone, Copy)]
pub struct PriorityClass;

impl Behaviour for PriorityClass {
    fn default(&self, object: &mut Value) {
        set(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        const USER_MAX: i64 = 1_000_000_000;
        let (value, own) = (object["value"].as_i64().unwrap_or(0), text(&object["metadata"], "name"));
        let mut errors = Errors::new();
        if own.starts_with("system-") {
            if !SYSTEM_CLASSES.contains(&(own, value)) || object["globalDefault"] == true {
                let words = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {own} is not \
                     a known system priority class"
                );
                errors.push(FieldError::forbidden("metadata.name", words));
            }
        } else if value > USER_MAX {
            let words = format!("maximum allowed value of a user defined priority is {USER_MAX}");
            errors.push(FieldError::forbidden("value", words));
        }
        one_of(object, "preemptionPolicy", "", &["PreemptLowerPriority", "Never"], &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for field in ["value", "preemptionPolicy"] {
            if new[field] != old[field] {
                errors.push(FieldError::forbidden(field, "may not be changed in an update."));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::integer("Value"),
                Column::boolean("Global-Default"),
                Column::AGE,
                Column::text("PreemptionPolicy"),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            name(object),
            number(object, "value"),
            json!(object["globalDefault"] == true),
            table::age(object, now),
            json!(text(object, "preemptionPolicy")),
        ]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct RuntimeClass;

impl Behaviour for RuntimeClass {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let handler = text(object, "handler");
        let wrong = names::dns_label(handler).into_iter();
        let mut errors: Errors = wrong.map(|words| FieldError::invalid("handler", handler, words)).collect();
        let fixed = json!({"limits": object["overhead"]["podFixed"]});
        super::pod::containers::resources(&fixed, "overhead.podFixed", &mut errors);
        let scheduling = &object["scheduling"];
        errors.extend(crate::metadata::labels(&scheduling["nodeSelector"], "scheduling.nodeSelector"));
        let tolerations = list(scheduling, "tolerations");
        super::pod::scheduling::tolerations(tolerations, "scheduling.tolerations", &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        if new["handler"] == old["handler"] {
            return Vec::new();
        }
        vec![FieldError::invalid("handler", new["handler"].clone(), IMMUTABLE)]
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Handler"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), json!(text(object, "handler")), table::age(object, now)]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct PodTemplate;

impl Behaviour for PodTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = present(object, "template").and_then(|template| present(template, "spec")) {
            defaults::pod_spec(spec);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        super::pod::spec::validate_template(&object["template"], "template")
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Containers"), Column::text("Images"), Column::text("Pod \
         Labels")] }
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let [names, images] = containers(&object["template"]["spec"]);
        vec![name(object), names, images, json!(labels(map(&object["template"]["metadata"], "labels")))]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct ControllerRevision;

impl Behaviour for ControllerRevision {
    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        if new["data"] == old["data"] {
            return Vec::new();
        }
        vec![FieldError::invalid("data", new["data"].clone(), IMMUTABLE)]
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Controller"), Column::text("Revision"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let owner =
            list(&object["metadata"], "ownerReferences").iter().find(|owner| owner["controller"] == true);
        let controller = owner.map_or("<none>".to_owned(), |owner| {
            let (group, _) = crate::resource::split_api_version(text(owner, "apiVersion"));
            let kind = text(owner, "kind").to_lowercase();
            let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
            format!("{kind}/{}", text(owner, "name"))
        });
        vec![name(object), json!(controller), number(object, "revision"), table::age(object, now)]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct ComponentStatus;

impl Behaviour for ComponentStatus {
    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Status"), Column::text("Message"), Column::text("Error")] }
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let found = list(object, "conditions").iter().find(|condition| condition["type"] == "Healthy");
        let healthy = found.unwrap_or(&Value::Null);
        let word = match text(healthy, "status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![name(object), json!(word), json!(text(healthy, "message")), json!(text(healthy, "error"))]
    }
}

/// Kinds that show their name and age only (DeviceClass).
#[derive(Debug, Clone, Copy)]
pub struct NameAndAge;

impl Behaviour for NameAndAge {
    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), table::age(object, now)]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct ResourceSlice;

impl Behaviour for ResourceSlice {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (at, device) in list(&object["spec"], "devices").iter().enumerate() {
            for (number, taint) in list(device, "taints").iter().enumerate() {
                let path = format!("spec.devices[{at}].taints[{number}]");
                super::device_claims::taint(taint, &path, &mut errors);
            }
        }
        errors
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let field = |name: &str| text(&object["spec"], name).to_owned();
        vec![("spec.nodeName", field("nodeName")), ("spec.driver", field("driver"))]
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Node"), Column::text("Driver"), Column::text("Pool"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let node = if text(spec, "nodeName").is_empty() { "<unset>" } else { text(spec, "nodeName") };
        vec![
            name(object),
            json!(node),
            json!(text(spec, "driver")),
            json!(text(&spec["pool"], "name")),
            table::age(object, now),
        ]
    }
}
