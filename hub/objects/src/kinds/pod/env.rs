//! Rules for a container's environment and for references to fields (`ValidateEnv`, `ValidateEnvFrom`).
//!
//! In: a container and its path. Out: field errors. Never: looks at what is referred to.

use serde_json::Value;

use super::volumes;
use crate::field::FieldError;
use crate::kinds::fill::{list, map, text};
use crate::kinds::rules::{Errors, join, required};
use crate::names;

/// What the downward API can convert, whether or not a place supports it.
const FIELDS_KNOWN: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
const FIELDS_OF_ENV: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub const FIELDS_OF_FILES: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const AMOUNTS: [&str; 6] =
    ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage",
        "requests.memory"];
const DIVISORS_OF_BYTES: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub fn validate(container: &Value, path: &str, errors: &mut Errors) {
    for (at, source) in list(container, "envFrom").iter().enumerate() {
        whole(source, &format!("{path}.envFrom[{at}]"), errors);
    }
    for (at, variable) in list(container, "env").iter().enumerate() {
        let path = format!("{path}.env[{at}]");
        if let Some(name) = required(variable, "name", &path, errors) {
            for wrong in names::env_name(name) {
                errors.push(FieldError::invalid(join(&path, "name"), name, wrong));
            }
        }
        if variable["valueFrom"].is_object() {
            value_from(variable, &join(&path, "valueFrom"), errors);
        }
    }
}

fn whole(source: &Value, path: &str, errors: &mut Errors) {
    let prefix = text(source, "prefix");
    if !prefix.is_empty() {
        let wrong = names::env_name(prefix).into_iter();
        errors.extend(wrong.map(|words| FieldError::invalid(join(path, "prefix"), prefix, words)));
    }
    let kinds = ["configMapRef", "secretRef"].into_iter().filter(|kind| source[*kind].is_object());
    for kind in kinds.clone() {
        let path = join(path, kind);
        if required(&source[kind], "name", &path, errors).is_some() {
            crate::kinds::rules::named(&source[kind], "name", &path, names::dns_subdomain, errors);
        }
    }
    match kinds.count() {
        0 => errors.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
        1 => {}
        _ => errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time")),
    }
}

fn value_from(variable: &Value, path: &str, errors: &mut Errors) {
    let from = &variable["valueFrom"];
    let sources = map(variable, "valueFrom").values().filter(|source| !source.is_null()).count();
    for reference in ["configMapKeyRef", "secretKeyRef"].into_iter().filter(|kind| from[*kind].is_object()) {
        let (path, reference) = (join(path, reference), &from[reference]);
        let name = text(reference, "name");
        let wrong = names::dns_subdomain(name).into_iter();
        errors.extend(wrong.map(|words| FieldError::invalid(join(&path, "name"), name, words)));
        if let Some(key) = required(reference, "key", &path, errors) {
            let wrong = names::config_key(key).into_iter();
            errors.extend(wrong.map(|words| FieldError::invalid(join(&path, "key"), key, words)));
        }
    }
    if from["fieldRef"].is_object() {
        field(&from["fieldRef"], &FIELDS_OF_ENV, &join(path, "fieldRef"), errors);
    }
    if from["resourceFieldRef"].is_object() {
        amount(&from["resourceFieldRef"], &join(path, "resourceFieldRef"), errors);
    }
    if from["fileKeyRef"].is_object() {
        let (path, file) = (join(path, "fileKeyRef"), &from["fileKeyRef"]);
        if let Some(key) = required(file, "key", &path, errors) {
            let wrong = names::env_name(key).into_iter();
            errors.extend(wrong.map(|words| FieldError::invalid(join(&path, "key"), key, words)));
        }
        _ = required(file, "volumeName", &path, errors);
        if let Some(place) = required(file, "path", &path, errors) {
            volumes::inside(place, &join(&path, "path"), errors);
        }
    }
    if sources == 0 {
        let words = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(FieldError::invalid(path, "", words));
    } else if !text(variable, "value").is_empty() {
        errors.push(FieldError::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time"));
    }
}

/// A reference to a field of the pod; `supported` are those of its place.
pub fn field(reference: &Value, supported: &[&str], path: &str, errors: &mut Errors) {
    let Some(field) = required(reference, "fieldPath", path, errors) else { return };
    let subscript = field.strip_suffix("']").and_then(|start| start.split_once("['"));
    let known = subscript.map_or(field, |(start, _)| start);
    if !FIELDS_KNOWN.contains(&known) {
        let words = format!("error converting fieldPath: field label not supported: {known}");
        errors.push(FieldError::invalid(join(path, "fieldPath"), field, words));
        return;
    }
    match subscript {
        None if !supported.contains(&field) => {
            errors.push(FieldError::not_supported(join(path, "fieldPath"), field, supported));
        }
        None => {}
        Some((start @ ("metadata.annotations" | "metadata.labels"), key)) => {
            // Keys of annotations are compared in lower case.
            let lower = key.to_ascii_lowercase();
            let wrong = names::qualified_name(if start.ends_with("annotations") { &lower } else { key });
            errors.extend(wrong.into_iter().map(|words| FieldError::invalid(path, key, words)));
        }
        Some((start, _)) => errors.push(FieldError::invalid(path, start, "does not support subscript")),
    }
}

/// A reference to an amount that a container asks for.
pub fn amount(reference: &Value, path: &str, errors: &mut Errors) {
    let Some(name) = required(reference, "resource", path, errors) else { return };
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|start| name.starts_with(start));
    if !huge && !AMOUNTS.contains(&name) {
        errors.push(FieldError::not_supported(join(path, "resource"), name, &AMOUNTS));
        return;
    }
    let divisor = match &reference["divisor"] {
        Value::Null => return,
        divisor => divisor.as_str().map_or_else(|| divisor.to_string(), str::to_owned),
    };
    let (allowed, which): (&[&str], &str) = match name.ends_with(".cpu") {
        true => (&["1m", "1"], "1m and 1 are supported with the cpu resource"),
        false => (&DIVISORS_OF_BYTES, "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the \
                                       memory resource"),
    };
    // Nothing said is zero in Go, and means one.
    if divisor != "0" && !allowed.contains(&divisor.as_str()) {
        let words = format!("only divisor's values {which}");
        errors.push(FieldError::invalid(join(path, "divisor"), divisor, words));
    }
}
