//! Rules for the containers of a pod (`ValidateContainers`, `ValidateInitContainers`).
//!
//! In: a pod's spec, its path and the names of its volumes. Out: field errors. Never: asks registries.

use std::collections::BTreeSet;

use serde_json::Value;

use super::spec::security;
use crate::field::FieldError;
use crate::kinds::fill::{list, map, text};
use crate::kinds::rules::{Errors, join, not_negative, one_of, positive, required};
use crate::names;
use crate::quantity::Quantity;

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub fn validate(spec: &Value, path: &str, volumes: &BTreeSet<String>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    let main = list(spec, "containers");
    if main.is_empty() {
        errors.push(FieldError::required(join(path, "containers"), ""));
    }
    let mut host_ports = BTreeSet::new();
    for (at, container) in main.iter().enumerate() {
        let path = format!("{path}.containers[{at}]");
        one(container, &path, volumes, &mut seen, errors);
        ports(container, &path, &mut host_ports, errors);
        probes(container, &path, errors);
    }
    for (at, container) in list(spec, "initContainers").iter().enumerate() {
        let path = format!("{path}.initContainers[{at}]");
        one(container, &path, volumes, &mut seen, errors);
        ports(container, &path, &mut BTreeSet::new(), errors);
        if container["restartPolicy"] == "Always" {
            probes(container, &path, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container[field].is_object() {
                let words = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(join(&path, field), words));
            }
        }
    }
}

fn one(
    container: &Value,
    path: &str,
    volumes: &BTreeSet<String>,
    seen: &mut BTreeSet<String>,
    errors: &mut Errors,
) {
    if let Some(name) = required(container, "name", path, errors) {
        for wrong in names::dns_label(name) {
            errors.push(FieldError::invalid(join(path, "name"), name, wrong));
        }
        if !seen.insert(name.to_owned()) {
            errors.push(FieldError::duplicate(join(path, "name"), name));
        }
    }
    if let Some(image) = required(container, "image", path, errors)
        && image.trim() != image
    {
        let words = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(join(path, "image"), image, words));
    }
    one_of(container, "imagePullPolicy", path, &PULL_POLICIES, errors);
    one_of(container, "terminationMessagePolicy", path, &["FallbackToLogsOnError", "File"], errors);
    env(container, path, errors);
    mounts(container, path, volumes, errors);
    resources(&container["resources"], &join(path, "resources"), errors);
    security(&container["securityContext"], &join(path, "securityContext"), errors);
    for hook in ["postStart", "preStop"] {
        let handler = &container["lifecycle"][hook];
        if handler.is_object() {
            self::handler(handler, &format!("{path}.lifecycle.{hook}"), errors);
        }
    }
}

fn ports(container: &Value, path: &str, host_ports: &mut BTreeSet<(String, i64)>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, port) in list(container, "ports").iter().enumerate() {
        let path = format!("{path}.ports[{at}]");
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(join(&path, "name"), name));
            }
            errors
                .extend(wrong.into_iter().map(|words| FieldError::invalid(join(&path, "name"), name, words)));
        }
        match port["containerPort"].as_i64().unwrap_or(0) {
            0 => errors.push(FieldError::required(join(&path, "containerPort"), "")),
            number => {
                for wrong in names::port_number(number) {
                    errors.push(FieldError::invalid(join(&path, "containerPort"), number, wrong));
                }
            }
        }
        let host = port["hostPort"].as_i64().unwrap_or(0);
        if host != 0 {
            for wrong in names::port_number(host) {
                errors.push(FieldError::invalid(join(&path, "hostPort"), host, wrong));
            }
            let key = format!("{}/{}", text(port, "protocol"), text(port, "hostIP"));
            if !host_ports.insert((key.clone(), host)) {
                let shown = format!("{}/{host}", key.trim_end_matches('/'));
                errors.push(FieldError::duplicate(join(&path, "hostPort"), shown));
            }
        }
        match text(port, "protocol") {
            "" => errors.push(FieldError::required(join(&path, "protocol"), "")),
            _ => one_of(port, "protocol", &path, &PROTOCOLS, errors),
        }
    }
}

fn env(container: &Value, path: &str, errors: &mut Errors) {
    for (at, variable) in list(container, "env").iter().enumerate() {
        let path = format!("{path}.env[{at}]");
        if let Some(name) = required(variable, "name", &path, errors) {
            for wrong in names::env_name(name) {
                errors.push(FieldError::invalid(join(&path, "name"), name, wrong));
            }
        }
        let from = &variable["valueFrom"];
        if !from.is_object() {
            continue;
        }
        let path = join(&path, "valueFrom");
        let sources: Vec<&String> = map(variable, "valueFrom").keys().collect();
        if !text(variable, "value").is_empty() {
            let words = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(path.as_str(), "", words));
        }
        match sources.as_slice() {
            [] => {
                let words = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
                 `secretKeyRef` or \
                             `fileKeyRef`";
                errors.push(FieldError::invalid(path.as_str(), "", words));
            }
            [_] => {}
            _ => {
                let words = "may not have more than one field specified at a time";
                errors.push(FieldError::invalid(path.as_str(), "", words));
            }
        }
        for reference in ["configMapKeyRef", "secretKeyRef"] {
            if from[reference].is_object() {
                let path = join(&path, reference);
                _ = required(&from[reference], "name", &path, errors);
                if let Some(key) = required(&from[reference], "key", &path, errors) {
                    for wrong in names::config_key(key) {
                        errors.push(FieldError::invalid(join(&path, "key"), key, wrong));
                    }
                }
            }
        }
        if from["fieldRef"].is_object() {
            field_ref(&from["fieldRef"], &join(&path, "fieldRef"), errors);
        }
        if from["resourceFieldRef"].is_object() {
            _ = required(&from["resourceFieldRef"], "resource", &join(&path, "resourceFieldRef"), errors);
        }
    }
}

fn field_ref(reference: &Value, path: &str, errors: &mut Errors) {
    const FIELDS: [&str; 9] = [
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
    let Some(field) = required(reference, "fieldPath", path, errors) else { return };
    let subscript =
        ["metadata.labels['", "metadata.annotations['"].iter().any(|start| field.starts_with(start));
    if !(FIELDS.contains(&field) || subscript && field.ends_with("']")) {
        errors.push(FieldError::not_supported(join(path, "fieldPath"), field, &FIELDS));
    }
}

fn mounts(container: &Value, path: &str, volumes: &BTreeSet<String>, errors: &mut Errors) {
    let mut places = BTreeSet::new();
    for (at, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{at}]");
        if let Some(name) = required(mount, "name", &path, errors)
            && !volumes.contains(name)
        {
            errors.push(FieldError::not_found(join(&path, "name"), name));
        }
        if let Some(place) = required(mount, "mountPath", &path, errors)
            && !places.insert(place)
        {
            errors.push(FieldError::invalid(join(&path, "mountPath"), place, "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            let sub = text(mount, field);
            if sub.starts_with('/') {
                errors.push(FieldError::invalid(join(&path, field), sub, "must be a relative path"));
            }
            if sub.split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(join(&path, field), sub, "must not contain '..'"));
            }
        }
        one_of(mount, "mountPropagation", &path, &["Bidirectional", "HostToContainer", "None"], errors);
        let privileged = container["securityContext"]["privileged"] == true;
        if mount["mountPropagation"] == "Bidirectional" && !privileged {
            let words = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(join(&path, "mountPropagation"), words));
        }
    }
}

/// Resource names of containers that need no domain.
fn standard_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

pub fn resources(resources: &Value, path: &str, errors: &mut Errors) {
    let quantity = |value: &Value| Quantity::from_json(value).ok();
    for side in ["limits", "requests"] {
        for (name, value) in map(resources, side) {
            let path = format!("{path}.{side}[{name}]");
            for wrong in names::qualified_name(name) {
                errors.push(FieldError::invalid(path.as_str(), name.as_str(), wrong));
            }
            if !name.contains('/') && !standard_resource(name) {
                let words = "must be a standard resource for containers";
                errors.push(FieldError::invalid(path.as_str(), name.as_str(), words));
            }
            if quantity(value).is_some_and(|quantity| quantity.is_negative()) {
                let words = "must be greater than or equal to 0";
                errors.push(FieldError::invalid(path, value.clone(), words));
            }
        }
    }
    for (name, request) in map(resources, "requests") {
        let Some(limit) = map(resources, "limits").get(name) else { continue };
        if let (Some(wanted), Some(allowed)) = (quantity(request), quantity(limit))
            && wanted > allowed
        {
            let shown = limit.as_str().unwrap_or_default();
            let words = format!("must be less than or equal to {name} limit of {shown}");
            errors.push(FieldError::invalid(join(path, "requests"), request.clone(), words));
        }
    }
}

fn probes(container: &Value, path: &str, errors: &mut Errors) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[name];
        if !probe.is_object() {
            continue;
        }
        let path = join(path, name);
        handler(probe, &path, errors);
        for field in
            ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            not_negative(probe, field, &path, errors);
        }
        positive(probe, "terminationGracePeriodSeconds", &path, errors);
        let successes = probe["successThreshold"].as_i64().unwrap_or(1);
        if name != "readinessProbe" && successes != 1 {
            errors.push(FieldError::invalid(join(&path, "successThreshold"), successes, "must be 1"));
        }
    }
}

/// Probe and lifecycle handlers: exactly one way.
fn handler(handler: &Value, path: &str, errors: &mut Errors) {
    let kinds: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"]
        .into_iter()
        .filter(|kind| handler[*kind].is_object())
        .collect();
    let Some(first) = kinds.first() else {
        errors.push(FieldError::required(path, "must specify a handler type"));
        return;
    };
    for extra in kinds.iter().skip(1) {
        errors.push(FieldError::forbidden(join(path, extra), "may not specify more than 1 handler type"));
    }
    let (action, path) = (&handler[*first], join(path, first));
    match *first {
        "exec" if list(action, "command").is_empty() => {
            errors.push(FieldError::required(join(&path, "command"), ""));
        }
        "httpGet" => {
            _ = required(action, "path", &path, errors);
            port(&action["port"], &join(&path, "port"), errors);
            one_of(action, "scheme", &path, &["HTTP", "HTTPS"], errors);
        }
        "tcpSocket" | "grpc" => port(&action["port"], &join(&path, "port"), errors),
        _ => {}
    }
}

fn port(port: &Value, path: &str, errors: &mut Errors) {
    let wrong = match port {
        Value::String(name) => names::port_name(name),
        other => names::port_number(other.as_i64().unwrap_or(0)),
    };
    let shown = if port.is_null() { Value::from(0) } else { port.clone() };
    errors.extend(wrong.into_iter().map(|words| FieldError::invalid(path, shown.clone(), words)));
}
