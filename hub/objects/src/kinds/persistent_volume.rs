//! PersistentVolumes (v1).
//!
//! In: volumes as JSON. Out: defaults, rules and the table row. Never: provisions or binds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{access_modes, name};
use super::fill::{child, list, map, present, set, text};
use super::pod::defaults::rare_sources;
use super::persistent_volume_claim::{modes, or_unset, storage_class};
use super::rules::{Errors, join, named, one_of, required};
use crate::behaviour::{Behaviour, Column, Ctx};
use crate::field::FieldError;
use crate::quantity::Quantity;
use crate::table;

/// Fields of the spec that are not a source.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// A volume has one size.
fn capacity(spec: &Value, errors: &mut Errors) {
    let amounts = map(spec, "capacity");
    if amounts.is_empty() {
        errors.push(FieldError::required("spec.capacity", ""));
    } else if amounts.len() > 1 || !amounts.contains_key("storage") {
        errors.push(FieldError::not_supported("spec.capacity", spec["capacity"].clone(), &["storage"]));
    }
    for (name, amount) in amounts {
        if Quantity::from_json(amount).is_ok_and(|amount| amount.is_negative() || amount.is_zero()) {
            let path = format!("spec.capacity[{name}]");
            errors.push(FieldError::invalid(path, amount.clone(), "must be greater than zero"));
        }
    }
}

fn one_source(kind: &str, spec: &Value, errors: &mut Errors) {
    let (source, path) = (&spec[kind], format!("spec.{kind}"));
    match kind {
        "hostPath" => {
            super::pod::volumes::host_path(source, &path, errors);
            if spec["persistentVolumeReclaimPolicy"] == "Recycle" && source["path"] == "/" {
                let words = "may not be 'recycle' for a hostPath mount of '/'";
                errors.push(FieldError::forbidden("spec.persistentVolumeReclaimPolicy", words));
            }
        }
        "local" => {
            if let Some(place) = required(source, "path", &path, errors)
                && place.split('/').any(|part| part == "..")
            {
                errors.push(FieldError::invalid(join(&path, "path"), place, "must not contain '..'"));
            }
        }
        "csi" => {
            super::pod::sources::validate(kind, source, &path, errors);
            _ = required(source, "volumeHandle", &path, errors);
        }
        _ => super::pod::sources::validate(kind, source, &path, errors),
    }
}

#[derive(Debug, Clone, Copy)]
pub struct PersistentVolume;

impl Behaviour for PersistentVolume {
    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let words = "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the \
                     recommended approach is to use dynamic provisioning.";
        let recycles = new["spec"]["persistentVolumeReclaimPolicy"] == "Recycle";
        recycles.then(|| words.to_owned()).into_iter().collect()
    }

    fn default(&self, object: &mut Value) {
        if let Some(status) = child(object, "status") {
            set(status, "phase", "Pending");
        }
        let Some(spec) = present(object, "spec") else { return };
        set(spec, "persistentVolumeReclaimPolicy", "Retain");
        set(spec, "volumeMode", "Filesystem");
        if let Some(path) = present(spec, "hostPath") {
            super::fill::set_absent(path, "type", "");
        }
        rare_sources(spec);
    }

    fn prepare_create(&self, object: &mut Value, _ctx: &Ctx<'_>) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        modes(spec, "spec", &mut errors);
        capacity(spec, &mut errors);
        named(spec, "storageClassName", "spec", crate::names::dns_subdomain, &mut errors);
        named(spec, "volumeAttributesClassName", "spec", crate::names::dns_subdomain, &mut errors);
        one_of(spec, "persistentVolumeReclaimPolicy", "spec", &["Delete", "Recycle", "Retain"], &mut errors);
        one_of(spec, "volumeMode", "spec", &["Block", "Filesystem"], &mut errors);
        match sources(spec).as_slice() {
            [] => errors.push(FieldError::required("spec", "must specify a volume type")),
            [source] => one_source(source, spec, &mut errors),
            [_, extra @ ..] => {
                for name in extra {
                    let words = "may not specify more than 1 volume type";
                    errors.push(FieldError::forbidden(format!("spec.{name}"), words));
                }
            }
        }
        if spec["nodeAffinity"].is_object() {
            let required = &spec["nodeAffinity"]["required"];
            match required.is_object() {
                true => super::pod::scheduling::node_selector(required, "spec.nodeAffinity.required", &mut errors),
                false => {
                    let words = "must specify required node constraints";
                    errors.push(FieldError::required("spec.nodeAffinity.required", words));
                }
            }
        }
        if spec["local"].is_object() && !spec["nodeAffinity"].is_object() {
            let words = "Local volume requires node affinity";
            errors.push(FieldError::required("metadata.annotations", words));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return Vec::new();
        }
        let mut errors = self.validate_create(new);
        for source in sources(&old["spec"]) {
            if new["spec"][source] != old["spec"][source] {
                let words = "spec.persistentvolumesource is immutable after creation";
                errors.push(FieldError::forbidden("spec.persistentvolumesource", words));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Capacity"),
                Column::text("Access Modes"),
                Column::text("Reclaim Policy"),
                Column::text("Status"),
                Column::text("Claim"),
                Column::text("StorageClass"),
                Column::text("VolumeAttributesClass"),
                Column::text("Reason"),
                Column::AGE,
                Column::text("VolumeMode").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let claim = match spec["claimRef"].is_object() {
            true => format!("{}/{}", text(&spec["claimRef"], "namespace"), text(&spec["claimRef"], "name")),
            false => String::new(),
        };
        let deleting = !object["metadata"]["deletionTimestamp"].is_null();
        vec![
            name(object),
            json!(text(&spec["capacity"], "storage")),
            json!(access_modes(list(spec, "accessModes"))),
            json!(text(spec, "persistentVolumeReclaimPolicy")),
            json!(if deleting { "Terminating" } else { text(status, "phase") }),
            json!(claim),
            json!(storage_class(object)),
            json!(or_unset(spec, "volumeAttributesClassName")),
            json!(text(status, "reason")),
            table::age(object, now),
            json!(or_unset(spec, "volumeMode")),
        ]
    }
}

fn sources(spec: &Value) -> Vec<&str> {
    let fields = spec.as_object().into_iter().flatten();
    fields
        .filter(|(name, value)| !NOT_SOURCES.contains(&name.as_str()) && !value.is_null())
        .map(|(name, _)| name.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_kubernetes_words() {
        let base = json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/x"}}});
        assert_eq!(PersistentVolume.validate_create(&base), []);
        for (field, value, expect) in [
            ("capacity", json!({"storage": "0"}), "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"),
            ("capacity", json!({"cpu": "1"}), "spec.capacity: Unsupported value: {\"cpu\":\"1\"}: supported values: \"storage\""),
            ("hostPath", json!({"path": "/a/../b"}), "spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"),
            ("nodeAffinity", json!({}), "spec.nodeAffinity.required: Required value: must specify required node constraints"),
            ("nodeAffinity", json!({"required": {}}),
                "spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term"),
        ] {
            let mut object = base.clone();
            object["spec"][field] = value;
            let errors: Vec<String> = PersistentVolume.validate_create(&object).iter().map(ToString::to_string).collect();
            assert_eq!(errors, [expect], "{field}");
        }
        let mut root = base;
        root["spec"]["hostPath"]["path"] = json!("/");
        root["spec"]["persistentVolumeReclaimPolicy"] = json!("Recycle");
        let words = "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'";
        assert_eq!(PersistentVolume.validate_create(&root)[0].to_string(), words);
    }

    #[test]
    fn rare_sources_get_the_defaults_that_they_have_in_pods() {
        let mut object = json!({"spec": {"rbd": {"image": "i"}, "iscsi": {"lun": 0}, "scaleIO": {"fsType": "ext4"}}});
        PersistentVolume.default(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["rbd"], json!({"image": "i", "pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"}));
        assert_eq!(spec["iscsi"], json!({"lun": 0, "iscsiInterface": "default"}));
        assert_eq!(spec["scaleIO"], json!({"fsType": "ext4", "storageMode": "ThinProvisioned"}));
    }
}
