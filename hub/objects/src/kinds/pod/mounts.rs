//! Rules for what a container mounts, and for block devices (`ValidateVolumeMounts`, `ValidateVolumeDevices`).
//!
//! In: a container, its path and the pod's volumes. Out: field errors. Never: looks at what a volume refers to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::field::FieldError;
use crate::kinds::fill::{list, text};
use crate::kinds::rules::{Errors, join, one_of, required};

/// The volumes of a pod by name.
pub type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

pub fn validate(container: &Value, path: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    let devices: BTreeSet<&str> = list(container, "volumeDevices").iter().map(|one| text(one, "devicePath")).collect();
    let mut places = BTreeSet::new();
    for (at, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{at}]");
        if let Some(name) = required(mount, "name", &path, errors)
            && !volumes.contains_key(name)
        {
            errors.push(FieldError::not_found(join(&path, "name"), name));
        }
        let place = required(mount, "mountPath", &path, errors).unwrap_or_default();
        if !place.is_empty() && !places.insert(place) {
            errors.push(FieldError::invalid(join(&path, "mountPath"), place, "must be unique"));
        }
        if !place.is_empty() && devices.contains(place) {
            let words = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(join(&path, "mountPath"), place, words));
        }
        for field in ["subPath", "subPathExpr"] {
            descends(text(mount, field), &join(&path, field), errors);
        }
        if !text(mount, "subPath").is_empty() && !text(mount, "subPathExpr").is_empty() {
            let words = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(join(&path, "subPathExpr"), text(mount, "subPathExpr"), words));
        }
        one_of(mount, "mountPropagation", &path, &["Bidirectional", "HostToContainer", "None"], errors);
        let privileged = container["securityContext"]["privileged"] == true;
        if mount["mountPropagation"] == "Bidirectional" && !privileged {
            let words = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(join(&path, "mountPropagation"), words));
        }
        read_only_below(mount, &path, errors);
    }
    self::devices(container, path, volumes, &places, errors);
}

fn read_only_below(mount: &Value, path: &str, errors: &mut Errors) {
    let path_below = join(path, "recursiveReadOnly");
    match text(mount, "recursiveReadOnly") {
        "Enabled" | "IfPossible" => {
            if mount["readOnly"] != true {
                let words = "may only be specified when readOnly is true";
                errors.push(FieldError::forbidden(path_below.as_str(), words));
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                let words = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path_below, words));
            }
        }
        _ => one_of(mount, "recursiveReadOnly", path, &["Disabled", "Enabled", "IfPossible"], errors),
    }
}

fn devices(container: &Value, path: &str, volumes: &Volumes<'_>, mounted: &BTreeSet<&str>, errors: &mut Errors) {
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    for (at, device) in list(container, "volumeDevices").iter().enumerate() {
        let path = format!("{path}.volumeDevices[{at}]");
        if let Some(name) = required(device, "name", &path, errors) {
            if !names.insert(name) {
                errors.push(FieldError::invalid(join(&path, "name"), name, "must be unique"));
            }
            match volumes.get(name) {
                None => errors.push(FieldError::not_found(join(&path, "name"), name)),
                Some(volume) if volume["persistentVolumeClaim"].is_object() || volume["ephemeral"].is_object() => {}
                Some(_) => {
                    let words = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                    errors.push(FieldError::invalid(join(&path, "name"), name, words));
                }
            }
        }
        let Some(place) = required(device, "devicePath", &path, errors) else { continue };
        let path = join(&path, "devicePath");
        if !places.insert(place) {
            errors.push(FieldError::invalid(path.as_str(), place, "must be unique"));
        }
        if place.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(path.as_str(), place, "can not contain backsteps ('..')"));
        }
        if mounted.contains(place) {
            errors.push(FieldError::invalid(path, place, "must not already exist as a path in volumeMounts"));
        }
    }
}

/// A path that stays below where it starts.
pub fn descends(place: &str, path: &str, errors: &mut Errors) {
    if place.starts_with('/') {
        errors.push(FieldError::invalid(path, place, "must be a relative path"));
    }
    if place.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, place, "must not contain '..'"));
    }
}
