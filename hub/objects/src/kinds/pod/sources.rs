//! Rules for sources of volumes beyond the everyday ones: what each cannot do without.
//!
//! In: a source, its kind and its path. Out: field errors. Never: says whether a board can mount it.

use serde_json::Value;

use crate::field::FieldError;
use crate::kinds::fill::{list, text};
use crate::kinds::rules::{Errors, join, named, one_of, required};
use crate::names;

const LUN_RULE: &str = "must be between 0 and 255, inclusive";

/// (kind, fields that are texts and must be there)
const NEEDED: [(&str, &[&str]); 17] = [
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cinder", &["volumeID"]),
    ("csi", &["driver"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("nfs", &["server", "path"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("quobyte", &["registry", "volume"]),
    ("rbd", &["image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("vsphereVolume", &["volumePath"]),
    ("azureDisk", &["diskName", "diskURI"]),
];

pub fn validate(kind: &str, source: &Value, path: &str, errors: &mut Errors) {
    let needed = NEEDED.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, fields)| fields);
    let before = errors.len();
    for field in needed {
        _ = required(source, field, path, errors);
    }
    let whole = errors.len() == before;
    match kind {
        "rbd" | "cephfs" if list(source, "monitors").is_empty() => {
            errors.push(FieldError::required(join(path, "monitors"), ""));
        }
        "iscsi" => {
            if let Some(lun) = source["lun"].as_i64().filter(|lun| !(0..=255).contains(lun)) {
                errors.push(FieldError::invalid(join(path, "lun"), lun, LUN_RULE));
            }
            let chap = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|field| source[*field] == true);
            if chap && !source["secretRef"].is_object() {
                errors.push(FieldError::required(join(path, "secretRef"), ""));
            }
        }
        "nfs" if whole && !text(source, "path").starts_with('/') => {
            let words = "must be an absolute path";
            errors.push(FieldError::invalid(join(path, "path"), text(source, "path"), words));
        }
        "azureDisk" => azure_disk(source, path, errors),
        "csi" => {
            named(source, "driver", path, names::dns_subdomain, errors);
            if source["nodePublishSecretRef"].is_object() {
                _ = required(&source["nodePublishSecretRef"], "name", &join(path, "nodePublishSecretRef"), errors);
            }
        }
        "flocker" => {
            let given = ["datasetName", "datasetUUID"].iter().filter(|field| !text(source, field).is_empty()).count();
            if given == 0 {
                errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
            } else if given == 2 {
                let words = "datasetName and datasetUUID can not be specified simultaneously";
                errors.push(FieldError::invalid(path, "resource", words));
            }
        }
        "fc" => fibre_channel(source, path, errors),
        "scaleIO" => {
            let modes = ["ThickProvisioned", "ThinProvisioned"];
            one_of(source, "storageMode", path, &modes, errors);
        }
        _ => {}
    }
}

fn azure_disk(source: &Value, path: &str, errors: &mut Errors) {
    let kinds = ["Dedicated", "Managed", "Shared"];
    one_of(source, "cachingMode", path, &["None", "ReadOnly", "ReadWrite"], errors);
    one_of(source, "kind", path, &kinds, errors);
    let (kind, uri) = (text(source, "kind"), text(source, "diskURI"));
    let (managed, start) = (kind == "Managed", "/subscriptions/");
    if uri.is_empty() || !kinds.contains(&kind) || uri.starts_with(start) == managed {
        return;
    }
    let choices = if managed {
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
    } else {
        "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
    };
    if managed || !uri.starts_with("https://") {
        errors.push(FieldError::not_supported(join(path, "diskURI"), uri, &[choices]));
    }
}

fn fibre_channel(source: &Value, path: &str, errors: &mut Errors) {
    let (names, ids) = (list(source, "targetWWNs").len(), list(source, "wwids").len());
    if names == 0 && ids == 0 {
        let words = "must specify either targetWWNs or wwids, but not both";
        errors.push(FieldError::required(join(path, "targetWWNs"), words));
    } else if names > 0 && ids > 0 {
        let words = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(join(path, "targetWWNs"), source["targetWWNs"].clone(), words));
    } else if names > 0 {
        match source["lun"].as_i64() {
            None => errors.push(FieldError::required(join(path, "lun"), "lun is required if targetWWNs is specified")),
            Some(lun) if !(0..=255).contains(&lun) => {
                errors.push(FieldError::invalid(join(path, "lun"), lun, LUN_RULE));
            }
            Some(_) => {}
        }
    }
}
