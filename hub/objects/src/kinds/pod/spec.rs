//! Rules for the spec of a pod or of a pod template (`ValidatePodSpec`).
//!
//! In: a defaulted spec and its path. Out: field errors. Never: asks other objects.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{containers, scheduling, security, volumes, whole};
use crate::field::FieldError;
use crate::kinds::fill::{list, text};
use crate::kinds::rules::{Errors, join, named, not_negative};
use crate::{metadata, names};

/// Who holds the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    Pod,
    /// A template: no ephemeral containers.
    Template,
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;
const IP_RULE: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub fn validate(spec: &Value, path: &str, holder: For) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let known = volumes::validate(list(spec, "volumes"), &join(path, "volumes"), holder, &mut errors);
    containers::validate(spec, path, &known, &mut errors);
    whole::validate(spec, path, &mut errors);
    if holder == For::Template && !list(spec, "ephemeralContainers").is_empty() {
        let words = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(join(path, "ephemeralContainers"), words));
    }
    policies(spec, path, &mut errors);
    security::of_pod(spec, path, &mut errors);
    dns(spec, path, &mut errors);
    scheduling::validate(spec, path, &mut errors);
    claims(spec, path, &mut errors);
    places(spec, path, &mut errors);
    security::system(spec, path, &mut errors);
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
}

fn dns(spec: &Value, path: &str, errors: &mut Errors) {
    let (config, at) = (&spec["dnsConfig"], join(path, "dnsConfig"));
    let servers = list(config, "nameservers");
    if spec["dnsPolicy"] == "None" {
        if !config.is_object() {
            let words = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(FieldError::required(at.as_str(), words));
        } else if servers.is_empty() {
            let words = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(join(&at, "nameservers"), words));
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        let words = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(FieldError::invalid(join(&at, "nameservers"), config["nameservers"].clone(), words));
    }
    for (index, server) in servers.iter().enumerate() {
        ip(server, &format!("{at}.nameservers[{index}]"), errors);
    }
    let searches: Vec<&str> = list(config, "searches").iter().filter_map(Value::as_str).collect();
    if searches.len() > SEARCHES_MAX {
        let words = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.push(FieldError::invalid(join(&at, "searches"), config["searches"].clone(), words));
    }
    if searches.join(" ").len() > SEARCH_BYTES_MAX {
        let words = format!("must not have more than {SEARCH_BYTES_MAX} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(join(&at, "searches"), config["searches"].clone(), words));
    }
    for (index, search) in searches.iter().enumerate() {
        // The root, a dot at the end and underscores are fine in a search list.
        let plain = search.strip_suffix('.').unwrap_or(search).replace('_', "a");
        if !plain.is_empty() {
            let at = format!("{at}.searches[{index}]");
            let wrong = names::dns_subdomain(&plain).into_iter();
            errors.extend(wrong.map(|words| FieldError::invalid(at.as_str(), *search, words)));
        }
    }
    for (index, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.push(FieldError::required(format!("{at}.options[{index}]"), "must not be empty"));
        }
    }
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        ip(&alias["ip"], &format!("{path}.hostAliases[{index}].ip"), errors);
        for name in list(alias, "hostnames").iter().filter_map(Value::as_str) {
            let at = format!("{path}.hostAliases[{index}].hostnames");
            errors.extend(names::dns_subdomain(name).into_iter().map(|words| FieldError::invalid(at.as_str(), name, words)));
        }
    }
}

fn ip(value: &Value, path: &str, errors: &mut Errors) {
    let value = value.as_str().unwrap_or_default();
    if value.parse::<std::net::IpAddr>().is_err() {
        errors.push(FieldError::invalid(path, value, IP_RULE));
    }
}

/// `resourceClaims`: each has a name of its own and one source.
fn claims(spec: &Value, path: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, claim) in list(spec, "resourceClaims").iter().enumerate() {
        let path = format!("{path}.resourceClaims[{at}]");
        match text(claim, "name") {
            "" => errors.push(FieldError::required(join(&path, "name"), "")),
            name if !seen.insert(name) => errors.push(FieldError::duplicate(join(&path, "name"), name)),
            _ => named(claim, "name", &path, names::dns_label, errors),
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let given: Vec<&str> = sources.into_iter().filter(|field| !claim[*field].is_null()).collect();
        match given.len() {
            0 => {
                let words = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(FieldError::invalid(path.as_str(), claim.clone(), words));
            }
            1 => {}
            _ => {
                let words = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(FieldError::invalid(path.as_str(), claim.clone(), words));
            }
        }
        for field in given {
            let name = text(claim, field);
            let wrong = names::dns_subdomain(name).into_iter();
            errors.extend(wrong.map(|words| FieldError::invalid(join(&path, field), name, words)));
        }
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
    containers::resources(&serde_json::json!({"limits": spec["overhead"]}), &join(path, "overhead"), errors);
}
