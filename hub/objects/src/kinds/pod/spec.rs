//! Rules for the spec of a pod or of a pod template (`ValidatePodSpec`).
//!
//! In: a defaulted spec and its path. Out: field errors. Never: asks other objects.

use serde_json::Value;

use super::{containers, volumes};
use crate::field::FieldError;
use crate::kinds::fill::{list, map, text};
use crate::kinds::rules::{Errors, join, named, not_negative};
use crate::{metadata, names};

/// Who holds the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    Pod,
    /// A template: no ephemeral containers.
    Template,
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn validate(spec: &Value, path: &str, holder: For) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let volume_names = volumes::validate(list(spec, "volumes"), &join(path, "volumes"), &mut errors);
    containers::validate(spec, path, &volume_names, &mut errors);
    if holder == For::Template && !list(spec, "ephemeralContainers").is_empty() {
        let words = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(join(path, "ephemeralContainers"), words));
    }
    policies(spec, path, &mut errors);
    places(spec, path, &mut errors);
    tolerations(list(spec, "tolerations"), &join(path, "tolerations"), &mut errors);
    affinity(&spec["affinity"], &join(path, "affinity"), &mut errors);
    spread(spec, path, &mut errors);
    security(&spec["securityContext"], &join(path, "securityContext"), &mut errors);
    errors
}

/// A `PodTemplateSpec`.
pub fn validate_template(template: &Value, path: &str) -> Vec<FieldError> {
    let meta = join(path, "metadata");
    let mut errors = metadata::labels(&template["metadata"]["labels"], &join(&meta, "labels"));
    errors.extend(metadata::annotations(&template["metadata"]["annotations"], &join(&meta, "annotations")));
    errors.extend(validate(&template["spec"], &join(path, "spec"), For::Template));
    errors
}

fn policies(spec: &Value, path: &str, errors: &mut Errors) {
    let mut choose = |field: &str, choices: &[&str]| match text(spec, field) {
        "" => errors.push(FieldError::required(join(path, field), "")),
        value if choices.contains(&value) => {}
        value => errors.push(FieldError::not_supported(join(path, field), value, choices)),
    };
    choose("restartPolicy", &["Always", "OnFailure", "Never"]);
    choose("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64().filter(|n| !(1..=2_147_483_647).contains(n))
    {
        let words = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(join(path, "activeDeadlineSeconds"), seconds, words));
    }
    not_negative(spec, "terminationGracePeriodSeconds", path, errors);
    if spec["dnsPolicy"] == "None" && list(&spec["dnsConfig"], "nameservers").is_empty() {
        let words = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{path}.dnsConfig.nameservers"), words));
    }
    for (at, server) in list(&spec["dnsConfig"], "nameservers").iter().enumerate() {
        ip(server, &format!("{path}.dnsConfig.nameservers[{at}]"), errors);
    }
    for (at, alias) in list(spec, "hostAliases").iter().enumerate() {
        ip(&alias["ip"], &format!("{path}.hostAliases[{at}].ip"), errors);
    }
}

fn ip(value: &Value, path: &str, errors: &mut Errors) {
    let value = value.as_str().unwrap_or_default();
    if value.parse::<std::net::IpAddr>().is_err() {
        errors.push(FieldError::invalid(
            path,
            value,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
}

fn places(spec: &Value, path: &str, errors: &mut Errors) {
    named(spec, "serviceAccountName", path, names::dns_subdomain, errors);
    named(spec, "nodeName", path, names::dns_subdomain, errors);
    named(spec, "hostname", path, names::dns_label, errors);
    named(spec, "subdomain", path, names::dns_label, errors);
    named(spec, "schedulerName", path, names::qualified_name, errors);
    named(spec, "priorityClassName", path, names::dns_subdomain, errors);
    named(spec, "runtimeClassName", path, names::dns_subdomain, errors);
    errors.extend(metadata::labels(&spec["nodeSelector"], &join(path, "nodeSelector")));
    for (at, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            errors.push(FieldError::required(format!("{path}.imagePullSecrets[{at}].name"), ""));
        }
    }
}

/// Rules for tolerations.
fn tolerations(tolerations: &[Value], path: &str, errors: &mut Errors) {
    for (at, toleration) in tolerations.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let (key, value) = (text(toleration, "key"), text(toleration, "value"));
        let (operator, effect) = (text(toleration, "operator"), text(toleration, "effect"));
        if !key.is_empty() {
            for wrong in names::qualified_name(key) {
                errors.push(FieldError::invalid(join(&path, "key"), key, wrong));
            }
        }
        if key.is_empty() && operator != "Exists" {
            let words =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(join(&path, "operator"), operator, words));
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            let words = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(join(&path, "effect"), effect, words));
        }
        match operator {
            "" | "Equal" => {
                for wrong in names::label_value(value) {
                    errors.push(FieldError::invalid(join(&path, "operator"), value, wrong));
                }
            }
            "Exists" if !value.is_empty() => {
                let words = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(join(&path, "operator"), value, words));
            }
            "Exists" => {}
            other => {
                errors.push(FieldError::not_supported(join(&path, "operator"), other, &["Equal", "Exists"]));
            }
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.push(FieldError::not_supported(join(&path, "effect"), effect, &EFFECTS));
        }
    }
}

fn affinity(affinity: &Value, path: &str, errors: &mut Errors) {
    let node = &affinity["nodeAffinity"];
    let node_path = join(path, "nodeAffinity");
    let required = &node["requiredDuringSchedulingIgnoredDuringExecution"];
    if required.is_object() {
        let path = join(&node_path, "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        let terms = list(required, "nodeSelectorTerms");
        if terms.is_empty() {
            errors.push(FieldError::required(path.as_str(), "must have at least one node selector term"));
        }
        for (at, term) in terms.iter().enumerate() {
            node_term(term, &format!("{path}[{at}]"), errors);
        }
    }
    for (at, choice) in list(node, "preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
        let path = format!("{node_path}.preferredDuringSchedulingIgnoredDuringExecution[{at}]");
        weight(choice, &path, errors);
        node_term(&choice["preference"], &join(&path, "preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = join(path, kind);
        for (at, term) in
            list(&affinity[kind], "requiredDuringSchedulingIgnoredDuringExecution").iter().enumerate()
        {
            pod_term(term, &format!("{path}.requiredDuringSchedulingIgnoredDuringExecution[{at}]"), errors);
        }
        for (at, choice) in
            list(&affinity[kind], "preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate()
        {
            let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{at}]");
            weight(choice, &path, errors);
            pod_term(&choice["podAffinityTerm"], &join(&path, "podAffinityTerm"), errors);
        }
    }
}

fn weight(choice: &Value, path: &str, errors: &mut Errors) {
    let weight = choice["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(join(path, "weight"), weight, "must be in the range 1-100"));
    }
}

fn node_term(term: &Value, path: &str, errors: &mut Errors) {
    const OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
    for (at, requirement) in list(term, "matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{at}]");
        let values = list(requirement, "values").len();
        match text(requirement, "operator") {
            "In" | "NotIn" if values == 0 => {
                let words = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(join(&path, "values"), words));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let words = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(join(&path, "values"), words));
            }
            "Gt" | "Lt" if values != 1 => {
                let words = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(join(&path, "values"), words));
            }
            operator if OPERATORS.contains(&operator) => {}
            other => {
                let words = "not a valid selector operator";
                errors.push(FieldError::invalid(join(&path, "operator"), other, words));
            }
        }
        let key = text(requirement, "key");
        for wrong in names::qualified_name(key) {
            errors.push(FieldError::invalid(join(&path, "key"), key, wrong));
        }
    }
}

fn pod_term(term: &Value, path: &str, errors: &mut Errors) {
    crate::kinds::rules::label_selector(&term["labelSelector"], &join(path, "labelSelector"), errors);
    match text(term, "topologyKey") {
        "" => errors.push(FieldError::required(join(path, "topologyKey"), "can not be empty")),
        key => {
            for wrong in names::qualified_name(key) {
                errors.push(FieldError::invalid(join(path, "topologyKey"), key, wrong));
            }
        }
    }
}

fn spread(spec: &Value, path: &str, errors: &mut Errors) {
    for (at, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{at}]");
        let skew = constraint["maxSkew"].as_i64().unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(join(&path, "maxSkew"), skew, "must be greater than zero"));
        }
        if text(constraint, "topologyKey").is_empty() {
            errors.push(FieldError::required(join(&path, "topologyKey"), "can not be empty"));
        }
        let action = text(constraint, "whenUnsatisfiable");
        let choices = ["DoNotSchedule", "ScheduleAnyway"];
        if !choices.contains(&action) {
            errors.push(FieldError::not_supported(join(&path, "whenUnsatisfiable"), action, &choices));
        }
        crate::kinds::rules::label_selector(
            &constraint["labelSelector"],
            &join(&path, "labelSelector"),
            errors,
        );
    }
}

/// Ids of a pod's or container's securityContext.
pub fn security(context: &Value, path: &str, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = context[field].as_i64().filter(|id| !(0..=2_147_483_647).contains(id)) {
            let words = "must be between 0 and 2147483647, inclusive";
            errors.push(FieldError::invalid(join(path, field), id, words));
        }
    }
    let seccomp = &context["seccompProfile"];
    if seccomp.is_object() {
        let choices = ["Localhost", "RuntimeDefault", "Unconfined"];
        let path = join(path, "seccompProfile");
        crate::kinds::rules::one_of(seccomp, "type", &path, &choices, errors);
        if seccomp["type"] == "Localhost" && text(seccomp, "localhostProfile").is_empty() {
            let words = "must be set when seccomp type is Localhost";
            errors.push(FieldError::required(join(&path, "localhostProfile"), words));
        }
    }
    if map(context, "capabilities").is_empty() {
        return;
    }
    if context["privileged"] == true && context["allowPrivilegeEscalation"] == false {
        let words = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(path, context.clone(), words));
    }
}
