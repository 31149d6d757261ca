//! PersistentVolumeClaims (v1).
//!
//! In: claims as JSON. Out: defaults, rules and the table row. Never: binds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{access_modes, name};
use super::fill::{child, copy, list, map, present, set, text};
use super::rules::{Errors, join, one_of};
use crate::behaviour::{Behaviour, Column, Ctx};
use crate::field::FieldError;
use crate::quantity::Quantity;
use crate::table;

pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Defaults, also of a StatefulSet's templates.
pub fn default_claim(claim: &mut Value) {
    if let Some(status) = child(claim, "status") {
        set(status, "phase", "Pending");
    }
    if let Some(spec) = present(claim, "spec") {
        set(spec, "volumeMode", "Filesystem");
    }
}

#[derive(Debug, Clone, Copy)]
pub struct PersistentVolumeClaim;

impl Behaviour for PersistentVolumeClaim {
    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let amounts = &new["spec"]["resources"]["requests"];
        super::warn::fraction(amounts, "storage", "spec.resources.requests").into_iter().collect()
    }

    fn default(&self, object: &mut Value) {
        default_claim(object);
    }

    fn prepare_create(&self, object: &mut Value, _ctx: &Ctx<'_>) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        claim_spec(&object["spec"], "spec", &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return Vec::new();
        }
        let mut errors = self.validate_create(new);
        let mut munged = new["spec"].clone();
        // Only a bound claim can grow; what its volume is worth is for the storage to say.
        if new["status"]["phase"] == "Bound" {
            if !munged["resources"]["requests"]["storage"].is_null() {
                munged["resources"]["requests"]["storage"] = old["spec"]["resources"]["requests"]["storage"].clone();
            }
            copy(&mut munged, &old["spec"], "volumeAttributesClassName");
        }
        if text(&old["spec"], "volumeName").is_empty() {
            copy(&mut munged, &old["spec"], "volumeName");
        }
        // A claim that named no class gets the default one, also when that comes later.
        if old["spec"]["storageClassName"].is_null() && storage_class(old).is_empty() {
            copy(&mut munged, &old["spec"], "storageClassName");
        }
        if munged != old["spec"] {
            let words = "spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for \
                         bound claims";
            errors.push(FieldError::forbidden("spec", words));
        }
        let size = |amounts: &Value| Quantity::from_json(&amounts["storage"]).ok();
        let request = |claim: &Value| size(&claim["spec"]["resources"]["requests"]);
        // It may shrink again as long as the volume has not grown.
        if let (Some(after), Some(before)) = (request(new), request(old))
            && after < before
            && size(&old["status"]["capacity"]).is_none_or(|capacity| after < capacity)
        {
            let words = "field can not be less than status.capacity";
            errors.push(FieldError::forbidden("spec.resources.requests.storage", words));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Status"),
                Column::text("Volume"),
                Column::text("Capacity"),
                Column::text("Access Modes"),
                Column::text("StorageClass"),
                Column::text("VolumeAttributesClass"),
                Column::AGE,
                Column::text("VolumeMode").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let deleting = !object["metadata"]["deletionTimestamp"].is_null();
        let bound = !text(spec, "volumeName").is_empty();
        let capacity = if bound { text(&status["capacity"], "storage") } else { "" };
        let modes = if bound { access_modes(list(status, "accessModes")) } else { String::new() };
        vec![
            name(object),
            json!(if deleting { "Terminating" } else { text(status, "phase") }),
            json!(text(spec, "volumeName")),
            json!(capacity),
            json!(modes),
            json!(storage_class(object)),
            json!(or_unset(spec, "volumeAttributesClassName")),
            table::age(object, now),
            json!(or_unset(spec, "volumeMode")),
        ]
    }
}

pub fn or_unset<'a>(object: &'a Value, field: &str) -> &'a str {
    match text(object, field) {
        "" => "<unset>",
        found => found,
    }
}

pub fn storage_class(object: &Value) -> &str {
    match map(&object["metadata"], "annotations").get(CLASS_ANNOTATION).and_then(Value::as_str) {
        Some(class) => class,
        None => text(&object["spec"], "storageClassName"),
    }
}

/// `ValidatePersistentVolumeClaimSpec`, also of a pod's own claim.
pub fn claim_spec(spec: &Value, path: &str, errors: &mut Errors) {
    modes(spec, path, errors);
    super::rules::label_selector(&spec["selector"], &join(path, "selector"), errors);
    let request = &spec["resources"]["requests"]["storage"];
    let at = format!("{path}.resources[storage]");
    match Quantity::from_json(request) {
        _ if request.is_null() => errors.push(FieldError::required(at, "")),
        Ok(size) if size.is_negative() || size.is_zero() => {
            errors.push(FieldError::invalid(at, request.clone(), "must be greater than zero"));
        }
        _ => {}
    }
    super::rules::named(spec, "storageClassName", path, crate::names::dns_subdomain, errors);
    one_of(spec, "volumeMode", path, &["Block", "Filesystem"], errors);
    super::rules::named(spec, "volumeAttributesClassName", path, crate::names::dns_subdomain, errors);
    data_source(&spec["dataSource"], &join(path, "dataSource"), errors);
    data_source(&spec["dataSourceRef"], &join(path, "dataSourceRef"), errors);
}

fn data_source(source: &Value, path: &str, errors: &mut Errors) {
    if !source.is_object() {
        return;
    }
    for field in ["name", "kind"] {
        _ = super::rules::required(source, field, path, errors);
    }
    if text(source, "apiGroup").is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
        let words = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, text(source, "kind"), words));
    }
}

/// Access modes of claims and volumes.
pub fn modes(spec: &Value, path: &str, errors: &mut Errors) {
    let (modes, path) = (list(spec, "accessModes"), join(path, "accessModes"));
    if modes.is_empty() {
        errors.push(FieldError::required(path.as_str(), "at least 1 access mode is required"));
    }
    for mode in modes {
        let mode = mode.as_str().unwrap_or_default();
        if !ACCESS_MODES.contains(&mode) {
            errors.push(FieldError::not_supported(path.as_str(), mode, &ACCESS_MODES));
        }
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let words = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(path, words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims() {
        let mut object = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "local"}});
        PersistentVolumeClaim.default(&mut object);
        assert_eq!(PersistentVolumeClaim.validate_create(&object), []);
        let row = PersistentVolumeClaim.row(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(
            json!(row),
            json!(["c", "Pending", "", "", "", "local", "<unset>", "<unknown>", "Filesystem"])
        );
        let mut new = object.clone();
        new["spec"]["storageClassName"] = json!("other");
        assert_eq!(PersistentVolumeClaim.validate_update(&new, &object, "").len(), 1);
        let mut classless = object.clone();
        classless["spec"]["storageClassName"] = Value::Null;
        assert_eq!(PersistentVolumeClaim.validate_update(&object, &classless, ""), []);
        let empty = json!({"spec": {}});
        let texts: Vec<String> =
            PersistentVolumeClaim.validate_create(&empty).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value"
            ]
        );
    }
}
