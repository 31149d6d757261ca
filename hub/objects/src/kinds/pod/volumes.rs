//! Rules for the volumes of a pod (`ValidateVolumes`).
//!
//! In: the list of volumes and its path. Out: field errors, and the names that mounts may use.
//! Never: looks at what a volume refers to.

use serde_json::Value;

use super::{env, mounts::Volumes, sources, spec::For};
use crate::field::FieldError;
use crate::kinds::fill::list;
use crate::kinds::persistent_volume_claim::claim_spec;
use crate::kinds::rules::{Errors, join, one_of, required};
use crate::quantity::Quantity;
use crate::{metadata, names};

const HOST_PATH_TYPES: [&str; 7] =
    ["BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const MODE_RULE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Checks the volumes and returns them by name.
pub fn validate<'a>(volumes: &'a [Value], path: &str, holder: For, errors: &mut Errors) -> Volumes<'a> {
    let mut seen = Volumes::new();
    for (at, volume) in volumes.iter().enumerate() {
        let path = format!("{path}[{at}]");
        source(volume, &path, holder, errors);
        let Some(name) = required(volume, "name", &path, errors) else { continue };
        let wrong = names::dns_label(name);
        if wrong.is_empty() && seen.insert(name, volume).is_some() {
            errors.push(FieldError::duplicate(join(&path, "name"), name));
        }
        errors.extend(wrong.into_iter().map(|words| FieldError::invalid(join(&path, "name"), name, words)));
    }
    seen
}

fn source(volume: &Value, path: &str, holder: For, errors: &mut Errors) {
    let mut sources =
        volume.as_object().into_iter().flatten().filter(|(name, value)| *name != "name" && !value.is_null());
    let Some((kind, source)) = sources.next() else {
        errors.push(FieldError::required(path, "must specify a volume type"));
        return;
    };
    for (extra, _) in sources {
        errors.push(FieldError::forbidden(join(path, extra), "may not specify more than 1 volume type"));
    }
    let path = join(path, kind);
    match kind.as_str() {
        "hostPath" => host_path(source, &path, errors),
        "configMap" => {
            _ = required(source, "name", &path, errors);
            items(source, &path, errors);
        }
        "secret" => {
            _ = required(source, "secretName", &path, errors);
            items(source, &path, errors);
        }
        "persistentVolumeClaim" => _ = required(source, "claimName", &path, errors),
        "downwardAPI" => downward(source, &path, errors),
        "projected" => projected(source, &path, errors),
        "emptyDir" => {
            if Quantity::from_json(&source["sizeLimit"]).is_ok_and(|size| size.is_negative()) {
                let words = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(join(&path, "sizeLimit"), words));
            }
        }
        "ephemeral" => ephemeral(source, &path, errors),
        "image" => {
            // A template may be completed by whoever makes pods of it.
            if holder == For::Pod {
                _ = required(source, "reference", &path, errors);
            }
            one_of(source, "pullPolicy", &path, &["Always", "IfNotPresent", "Never"], errors);
        }
        other => sources::validate(other, source, &path, errors),
    }
}

/// A claim that lives as long as the pod.
fn ephemeral(source: &Value, path: &str, errors: &mut Errors) {
    let (template, path) = (&source["volumeClaimTemplate"], join(path, "volumeClaimTemplate"));
    if !template.is_object() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let meta = join(&path, "metadata");
    errors.extend(metadata::annotations(&template["metadata"]["annotations"], &join(&meta, "annotations")));
    errors.extend(metadata::labels(&template["metadata"]["labels"], &join(&meta, "labels")));
    claim_spec(&template["spec"], &join(&path, "spec"), errors);
}

pub fn host_path(source: &Value, path: &str, errors: &mut Errors) {
    if let Some(place) = required(source, "path", path, errors) {
        backsteps(place, &join(path, "path"), errors);
    }
    one_of(source, "type", path, &HOST_PATH_TYPES, errors);
}

fn backsteps(place: &str, path: &str, errors: &mut Errors) {
    if place.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, place, "must not contain '..'"));
    }
}

fn mode(source: &Value, field: &str, path: &str, errors: &mut Errors) {
    if let Some(mode) = source[field].as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        errors.push(FieldError::invalid(join(path, field), mode, MODE_RULE));
    }
}

/// `KeyToPath` lists of ConfigMap and Secret sources.
fn items(source: &Value, path: &str, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    for (at, item) in list(source, "items").iter().enumerate() {
        let path = format!("{path}.items[{at}]");
        _ = required(item, "key", &path, errors);
        if let Some(place) = required(item, "path", &path, errors) {
            inside(place, &join(&path, "path"), errors);
        }
        mode(item, "mode", &path, errors);
    }
}

/// A relative path without back steps, as every file of a volume has.
/// A path that must stay where it begins.
pub(super) fn inside(place: &str, path: &str, errors: &mut Errors) {
    if place.starts_with('/') {
        errors.push(FieldError::invalid(path, place, "must be a relative path"));
    }
    backsteps(place, path, errors);
    if place.starts_with("..") && !place.starts_with("../") && place != ".." {
        errors.push(FieldError::invalid(path, place, "must not start with '..'"));
    }
}

fn downward(source: &Value, path: &str, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    for (at, item) in list(source, "items").iter().enumerate() {
        let path = format!("{path}.items[{at}]");
        if let Some(place) = required(item, "path", &path, errors) {
            inside(place, &join(&path, "path"), errors);
        }
        match (item["fieldRef"].is_object(), item["resourceFieldRef"].is_object()) {
            (true, true) => {
                let words = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path.as_str(), "resource", words));
            }
            (false, false) => {
                let words = "one of fieldRef and resourceFieldRef is required";
                errors.push(FieldError::required(path.as_str(), words));
            }
            (true, false) => {
                env::field(&item["fieldRef"], &env::FIELDS_OF_FILES, &join(&path, "fieldRef"), errors);
            }
            (false, true) => {
                let path = join(&path, "resourceFieldRef");
                if required(&item["resourceFieldRef"], "containerName", &path, errors).is_some() {
                    env::amount(&item["resourceFieldRef"], &path, errors);
                }
            }
        }
        mode(item, "mode", &path, errors);
    }
}

fn projected(source: &Value, path: &str, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    for (at, one) in list(source, "sources").iter().enumerate() {
        let path = format!("{path}.sources[{at}]");
        let mut kinds = one.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let Some((kind, projection)) = kinds.next() else { continue };
        for (extra, _) in kinds {
            errors.push(FieldError::forbidden(
                join(&path, extra),
                "may not specify more than 1 volume type per source",
            ));
        }
        let path = join(&path, kind);
        match kind.as_str() {
            "configMap" | "secret" => {
                _ = required(projection, "name", &path, errors);
                items(projection, &path, errors);
            }
            "downwardAPI" => downward(projection, &path, errors),
            "serviceAccountToken" => {
                if projection["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < 600) {
                    let words = "may not specify a duration less than 10 minutes";
                    let seconds = projection["expirationSeconds"].clone();
                    errors.push(FieldError::invalid(join(&path, "expirationSeconds"), seconds, words));
                }
                if let Some(seconds) = projection["expirationSeconds"].as_i64().filter(|s| *s > TOKEN_SECONDS_MAX) {
                    let words = "may not specify a duration larger than 2^32 seconds";
                    errors.push(FieldError::invalid(join(&path, "expirationSeconds"), seconds, words));
                }
                if let Some(place) = required(projection, "path", &path, errors) {
                    inside(place, &join(&path, "path"), errors);
                }
            }
            _ => {}
        }
    }
}
