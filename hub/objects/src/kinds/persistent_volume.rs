//! PersistentVolumes (v1).
//!
//! In: volumes as JSON. Out: defaults, rules and the table row. Never: provisions or binds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{access_modes, name};
use super::fill::{child, list, map, present, set, text};
use super::pod::defaults::rare_sources;
use super::persistent_volume_claim::{modes, or_unset, storage_class};
use super::rules::{Errors, one_of};
use crate::behaviour::{Behaviour, Column, Ctx};
use crate::field::FieldError;
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
        if let Some(claim) = present(spec, "claimRef") {
            set(claim, "apiVersion", "v1");
            set(claim, "kind", "PersistentVolumeClaim");
        }
    }

    fn prepare_create(&self, object: &mut Value, _ctx: &Ctx<'_>) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        modes(spec, &mut errors);
        if map(spec, "capacity").is_empty() {
            errors.push(FieldError::required("spec.capacity", ""));
        }
        one_of(spec, "persistentVolumeReclaimPolicy", "spec", &["Delete", "Recycle", "Retain"], &mut errors);
        one_of(spec, "volumeMode", "spec", &["Block", "Filesystem"], &mut errors);
        match sources(spec).as_slice() {
            [] => errors.push(FieldError::required("spec", "must specify a volume type")),
            [_] => {}
            [_, extra @ ..] => {
                for name in extra {
                    let words = "may not specify more than 1 volume type";
                    errors.push(FieldError::forbidden(format!("spec.{name}"), words));
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
    fn rare_sources_get_the_defaults_that_they_have_in_pods() {
        let mut object = json!({"spec": {"rbd": {"image": "i"}, "iscsi": {"lun": 0}, "scaleIO": {"fsType": "ext4"}}});
        PersistentVolume.default(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["rbd"], json!({"image": "i", "pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"}));
        assert_eq!(spec["iscsi"], json!({"lun": 0, "iscsiInterface": "default"}));
        assert_eq!(spec["scaleIO"], json!({"fsType": "ext4", "storageMode": "ThinProvisioned"}));
    }
}
