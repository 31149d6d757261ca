//! Which volumes a pod may mount.
//!
//! In: a pod. Out: violations. Never: knows what is behind a claim.

use super::{Pod, Version, Violation, violation};
use crate::pod_security::containers::{plural, quoted, sorted};
use serde_json::Value;

fn volumes<'a>(pod: &Pod<'a>) -> impl Iterator<Item = &'a Value> + use<'a> {
    pod.spec["volumes"].as_array().into_iter().flatten()
}

fn name(volume: &Value) -> String {
    volume["name"].as_str().unwrap_or_default().to_owned()
}

pub fn host_path(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let names: Vec<String> = volumes(pod).filter(|v| !v["hostPath"].is_null()).map(name).collect();
    let noun = plural("volume", "volumes", names.len());
    (!names.is_empty()).then(|| violation("hostPath volumes", format!("{noun} {}", quoted(&names))))?
}

const ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub fn restricted(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let kind = |volume: &Value| -> Option<String> {
        let fields = volume.as_object()?;
        if fields.keys().any(|key| ALLOWED.contains(&key.as_str())) {
            return None;
        }
        let source = fields.iter().find(|(key, value)| *key != "name" && !value.is_null());
        Some(source.map_or_else(|| "unknown".to_owned(), |(key, _)| key.clone()))
    };
    let names: Vec<String> = volumes(pod).filter(|v| kind(v).is_some()).map(name).collect();
    if names.is_empty() {
        return None;
    }
    let kinds = sorted(volumes(pod).filter_map(kind).collect());
    let detail = format!(
        "{} {} {} restricted volume {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("type", "types", kinds.len()),
        quoted(&kinds)
    );
    violation("restricted volume types", detail)
}
