//! StorageClasses, CSI objects and VolumeAttachments (storage.k8s.io/v1).
//!
//! In: objects as JSON. Out: defaults, rules and table rows. Never: attaches anything.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::{list, map, present, set, set_absent, text};
use super::persistent_volume_claim::or_unset;
use super::rules::{Errors, NOT_NEGATIVE, immutable, label_selector, named, one_of, required};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// What a driver says of the room that it has for a class.
#[derive(Debug, Clone, Copy)]
pub struct CsiStorageCapacity;

impl Behaviour for CsiStorageCapacity {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        _ = required(object, "storageClassName", "", &mut errors);
        named(object, "storageClassName", "", crate::names::dns_subdomain, &mut errors);
        label_selector(&object["nodeTopology"], "nodeTopology", &mut errors);
        for field in ["capacity", "maximumVolumeSize"] {
            if crate::quantity::Quantity::from_json(&object[field]).is_ok_and(|amount| amount.is_negative()) {
                errors.push(FieldError::invalid(field, object[field].clone(), NOT_NEGATIVE));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        for field in ["nodeTopology", "storageClassName"] {
            immutable(new, old, field, "", &mut errors);
        }
        errors
    }
}

#[derive(Debug, Clone, Copy)]
pub struct StorageClass;

impl Behaviour for StorageClass {
    fn default(&self, object: &mut Value) {
        set(object, "reclaimPolicy", "Delete");
        set(object, "volumeBindingMode", "Immediate");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        _ = required(object, "provisioner", "", &mut errors);
        one_of(object, "reclaimPolicy", "", &["Delete", "Retain"], &mut errors);
        one_of(object, "volumeBindingMode", "", &["Immediate", "WaitForFirstConsumer"], &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if new[field] != old[field] {
                let words = format!("updates to {field} are forbidden.");
                errors.push(FieldError::forbidden(field, words));
            }
        }
        immutable(new, old, "volumeBindingMode", "", &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Provisioner"),
                Column::text("ReclaimPolicy"),
                Column::text("VolumeBindingMode"),
                Column::text("AllowVolumeExpansion"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let annotations = map(&object["metadata"], "annotations");
        let default =
            DEFAULT_CLASS.iter().any(|key| annotations.get(*key).is_some_and(|value| value == "true"));
        let own = text(&object["metadata"], "name");
        vec![
            json!(if default { format!("{own} (default)") } else { own.to_owned() }),
            json!(text(object, "provisioner")),
            json!(text(object, "reclaimPolicy")),
            json!(text(object, "volumeBindingMode")),
            json!(object["allowVolumeExpansion"] == true),
            table::age(object, now),
        ]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct CsiDriver;

impl Behaviour for CsiDriver {
    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        set_absent(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            set_absent(spec, field, false);
        }
        set(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if list(spec, "volumeLifecycleModes").is_empty() {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = &object["spec"];
        let own = text(&object["metadata"], "name");
        if own.len() > 63 {
            errors.push(FieldError::too_long("metadata.name", 63));
        }
        let policies = ["ReadWriteOnceWithFSType", "File", "None"];
        one_of(spec, "fsGroupPolicy", "spec", &policies, &mut errors);
        for (at, mode) in list(spec, "volumeLifecycleModes").iter().enumerate() {
            let known = ["Persistent", "Ephemeral"];
            if !known.contains(&mode.as_str().unwrap_or_default()) {
                let path = format!("spec.volumeLifecycleModes[{at}]");
                errors.push(FieldError::not_supported(path, mode.clone(), &known));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        for field in ["attachRequired", "volumeLifecycleModes"] {
            immutable(&new["spec"], &old["spec"], field, "spec", &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::boolean("AttachRequired"),
                Column::boolean("PodInfoOnMount"),
                Column::boolean("StorageCapacity"),
                Column::text("TokenRequests"),
                Column::boolean("RequiresRepublish"),
                Column::text("Modes"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let texts =
            |entries: Vec<&str>| if entries.is_empty() { "<unset>".to_owned() } else { entries.join(",") };
        let modes = list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
        let tokens = list(spec, "tokenRequests").iter().map(|request| text(request, "audience")).collect();
        let on = |field: &str| spec[field] != false && !spec[field].is_null();
        vec![
            name(object),
            json!(spec["attachRequired"] != false),
            json!(on("podInfoOnMount")),
            json!(on("storageCapacity")),
            json!(texts(tokens)),
            json!(on("requiresRepublish")),
            json!(texts(modes)),
            table::age(object, now),
        ]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct CsiNode;

impl Behaviour for CsiNode {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut seen = std::collections::BTreeSet::new();
        for (at, driver) in list(&object["spec"], "drivers").iter().enumerate() {
            let path = format!("spec.drivers[{at}]");
            _ = required(driver, "nodeID", &path, &mut errors);
            if let Some(name) = required(driver, "name", &path, &mut errors)
                && !seen.insert(name)
            {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::integer("Drivers"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), json!(list(&object["spec"], "drivers").len()), table::age(object, now)]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct VolumeAttachment;

impl Behaviour for VolumeAttachment {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = &object["spec"];
        for field in ["attacher", "nodeName"] {
            _ = required(spec, field, "spec", &mut errors);
        }
        let source = &spec["source"];
        let volume = !text(source, "persistentVolumeName").is_empty();
        if volume == source["inlineVolumeSpec"].is_object() {
            let words = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.push(FieldError::required("spec.source", words));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if subresource != "status" {
            immutable(new, old, "spec", "", &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column { format: "name", ..Column::text("Attacher") },
                Column::text("PV"),
                Column::text("Node"),
                Column::boolean("Attached"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            name(object),
            json!(text(spec, "attacher")),
            json!(text(&spec["source"], "persistentVolumeName")),
            json!(text(spec, "nodeName")),
            json!(object["status"]["attached"] == true),
            table::age(object, now),
        ]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct VolumeAttributesClass;

impl Behaviour for VolumeAttributesClass {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        _ = required(object, "driverName", "", &mut errors);
        if map(object, "parameters").is_empty() {
            let words = "must contain at least one key/value pair";
            errors.push(FieldError::required("parameters", words));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let changed = ["driverName", "parameters"].into_iter().filter(|field| new[*field] != old[*field]);
        changed.map(|field| FieldError::forbidden(field, format!("updates to {field} are forbidden."))).collect()
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("DriverName"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), json!(or_unset(object, "driverName")), table::age(object, now)]
    }
}
