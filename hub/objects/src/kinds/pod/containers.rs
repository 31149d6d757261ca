//! Rules for the containers of a pod (`ValidateContainers`, `ValidateInitContainers`, ephemeral ones).
//!
//! In: a pod's spec, its path and its volumes. Out: field errors. Never: asks registries.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{env, handlers, mounts, mounts::Volumes, security};
use crate::field::FieldError;
use crate::kinds::fill::{list, map, text};
use crate::kinds::rules::{Errors, join, one_of, required};
use crate::names;
use crate::quantity::Quantity;

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const RESTARTS: [&str; 3] = ["Always", "Never", "OnFailure"];
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
/// What an ephemeral container may have.
const OF_EPHEMERAL: [&str; 15] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
];

pub fn validate(spec: &Value, path: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    let main = list(spec, "containers");
    if main.is_empty() {
        errors.push(FieldError::required(join(path, "containers"), ""));
    }
    let mut host_ports = BTreeSet::new();
    for (at, container) in main.iter().enumerate() {
        let path = format!("{path}.containers[{at}]");
        one(spec, container, &path, volumes, &mut seen, errors);
        ports(spec, container, &path, &mut host_ports, errors);
        handlers::lifecycle(spec, container, &path, errors);
        handlers::probes(spec, container, &path, errors);
        one_of(container, "restartPolicy", &path, &RESTARTS, errors);
        restart_rules(container, &path, errors);
    }
    for (at, container) in list(spec, "initContainers").iter().enumerate() {
        let path = format!("{path}.initContainers[{at}]");
        one(spec, container, &path, volumes, &mut seen, errors);
        ports(spec, container, &path, &mut BTreeSet::new(), errors);
        one_of(container, "restartPolicy", &path, &RESTARTS, errors);
        restart_rules(container, &path, errors);
        if container["restartPolicy"] == "Always" {
            handlers::lifecycle(spec, container, &path, errors);
            handlers::probes(spec, container, &path, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container[field].is_object() {
                let words = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(join(&path, field), words));
            }
        }
    }
    ephemeral(spec, path, volumes, &mut seen, errors);
}

fn ephemeral(spec: &Value, path: &str, volumes: &Volumes<'_>, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    for (at, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let path = format!("{path}.ephemeralContainers[{at}]");
        one(spec, container, &path, volumes, seen, errors);
        let target = text(container, "targetContainerName");
        let others = list(spec, "containers").iter().chain(list(spec, "initContainers"));
        if !target.is_empty() && !others.into_iter().any(|other| other["name"] == target) {
            errors.push(FieldError::not_found(join(&path, "targetContainerName"), target));
        }
        for (field, value) in container.as_object().into_iter().flatten() {
            let allowed = OF_EPHEMERAL.contains(&field.as_str()) || matches!(field.as_str(), "tty" | "targetContainerName");
            let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            if !allowed && !empty {
                errors.push(FieldError::forbidden(join(&path, field), "cannot be set for an Ephemeral Container"));
            }
        }
        for (at, mount) in list(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"].into_iter().filter(|field| !text(mount, field).is_empty()) {
                let path = format!("{path}.volumeMounts[{at}].{field}");
                errors.push(FieldError::forbidden(path, "cannot be set for an Ephemeral Container"));
            }
        }
    }
}

fn one(
    spec: &Value,
    container: &Value,
    path: &str,
    volumes: &Volumes<'_>,
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
    env::validate(container, path, errors);
    mounts::validate(container, path, volumes, errors);
    resources(&container["resources"], &join(path, "resources"), errors);
    claims(spec, container, &join(path, "resources.claims"), errors);
    resize_policy(spec, container, path, errors);
    security::of_container(spec, &container["securityContext"], &join(path, "securityContext"), errors);
}

fn ports(
    spec: &Value,
    container: &Value,
    path: &str,
    host_ports: &mut BTreeSet<(String, i64)>,
    errors: &mut Errors,
) {
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
        let inside = port["containerPort"].as_i64().unwrap_or(0);
        match inside {
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
            if spec["hostNetwork"] == true && host != inside {
                let words = "must match `hostPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(join(&path, "containerPort"), inside, words));
            }
        }
        match text(port, "protocol") {
            "" => errors.push(FieldError::required(join(&path, "protocol"), "")),
            _ => one_of(port, "protocol", &path, &PROTOCOLS, errors),
        }
    }
}

/// Resource names of containers that need no domain.
fn standard_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

/// Whether more may be used than was asked for.
fn overcommits(name: &str) -> bool {
    !name.starts_with("hugepages-") && (!name.contains('/') || name.starts_with("kubernetes.io/"))
}

pub fn resources(resources: &Value, path: &str, errors: &mut Errors) {
    let quantity = |value: &Value| Quantity::from_json(value).ok();
    let mut huge = false;
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
            huge |= name.starts_with("hugepages-");
            let Some(amount) = quantity(value) else { continue };
            if amount.is_negative() {
                let words = "must be greater than or equal to 0";
                errors.push(FieldError::invalid(path.as_str(), value.clone(), words));
            }
            if name.contains('/') && amount.milli_value() % 1000 != 0 {
                errors.push(FieldError::invalid(path, value.clone(), "must be an integer"));
            }
        }
    }
    for (name, request) in map(resources, "requests") {
        let Some(limit) = map(resources, "limits").get(name) else {
            if !overcommits(name) {
                let words = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(join(path, "limits"), words));
            }
            continue;
        };
        let (Some(wanted), Some(allowed)) = (quantity(request), quantity(limit)) else { continue };
        let shown = limit.as_str().unwrap_or_default();
        let words = match overcommits(name) {
            true if wanted > allowed => format!("must be less than or equal to {name} limit of {shown}"),
            false if wanted != allowed => format!("must be equal to {name} limit of {shown}"),
            _ => continue,
        };
        errors.push(FieldError::invalid(join(path, "requests"), request.clone(), words));
    }
    let has = |name: &str| ["limits", "requests"].iter().any(|side| map(resources, side).contains_key(name));
    if huge && !has("cpu") && !has("memory") {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// `resources.claims` name what `spec.resourceClaims` has.
fn claims(spec: &Value, container: &Value, path: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, claim) in list(&container["resources"], "claims").iter().enumerate() {
        let path = format!("{path}[{at}]");
        let Some(name) = required(claim, "name", &path, errors) else { continue };
        let key = match text(claim, "request") {
            "" => name.to_owned(),
            request => format!("{name}/{request}"),
        };
        if !seen.insert(key.clone()) {
            errors.push(FieldError::duplicate(path.as_str(), key));
        }
        if !list(spec, "resourceClaims").iter().any(|own| own["name"] == name) {
            errors.push(FieldError::not_found(join(&path, "name"), name));
        }
    }
}

fn resize_policy(spec: &Value, container: &Value, path: &str, errors: &mut Errors) {
    let (path, mut seen) = (join(path, "resizePolicy"), BTreeSet::new());
    for (at, policy) in list(container, "resizePolicy").iter().enumerate() {
        let name = text(policy, "resourceName");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}[{at}]"), name));
        }
        match name {
            "cpu" | "memory" => {}
            "" => errors.push(FieldError::required(path.as_str(), "")),
            other => errors.push(FieldError::not_supported(path.as_str(), other, &["cpu", "memory"])),
        }
        match text(policy, "restartPolicy") {
            "NotRequired" => {}
            "RestartContainer" => {
                if spec["restartPolicy"] == "Never" {
                    let words = "must be 'NotRequired' when `restartPolicy` is 'Never'";
                    errors.push(FieldError::invalid(path.as_str(), "RestartContainer", words));
                }
            }
            "" => errors.push(FieldError::required(path.as_str(), "")),
            other => {
                let choices = ["NotRequired", "RestartContainer"];
                errors.push(FieldError::not_supported(path.as_str(), other, &choices));
            }
        }
    }
}

fn restart_rules(container: &Value, path: &str, errors: &mut Errors) {
    let (rules, at) = (list(container, "restartPolicyRules"), join(path, "restartPolicyRules"));
    if rules.is_empty() {
        return;
    }
    if text(container, "restartPolicy").is_empty() {
        let words = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(join(path, "restartPolicy"), words));
    }
    if rules.len() > RESTART_RULES_MAX {
        errors.push(FieldError::too_many(at.as_str(), rules.len(), RESTART_RULES_MAX));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("{at}[{index}]");
        let actions = ["Restart", "RestartAllContainers"];
        if !actions.contains(&text(rule, "action")) {
            errors.push(FieldError::not_supported(join(&path, "action"), text(rule, "action"), &actions));
        }
        let (codes, path) = (&rule["exitCodes"], join(&path, "exitCodes"));
        if !codes.is_object() {
            errors.push(FieldError::required(path, "must be specified"));
            continue;
        }
        if !matches!(text(codes, "operator"), "In" | "NotIn") {
            let operator = text(codes, "operator");
            errors.push(FieldError::not_supported(join(&path, "operator"), operator, &["In", "NotIn"]));
        }
        match list(codes, "values").len() {
            0 => errors.push(FieldError::required(join(&path, "values"), "")),
            count if count > EXIT_CODES_MAX => {
                errors.push(FieldError::too_many(join(&path, "values"), count, EXIT_CODES_MAX));
            }
            _ => {}
        }
    }
}
