//! Ingresses and IngressClasses (networking.k8s.io/v1).
//!
//! In: objects as JSON. Out: defaults, rules and table rows. Never: routes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, name};
use super::fill::{list, map, present, set, text};
use super::rules::{Errors, immutable, join, named, one_of, required};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{names, table};

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const HOSTS_SHOWN_MAX: usize = 3;
/// An IngressClass' controller.
const CONTROLLER_BYTES_MAX: usize = 250;

#[derive(Debug, Clone, Copy)]
pub struct Ingress;

impl Behaviour for Ingress {
    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let old_way = new["metadata"]["annotations"].get("kubernetes.io/ingress.class").is_some();
        let words = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";
        old_way.then(|| words.to_owned()).into_iter().collect()
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        if list(spec, "rules").is_empty() && !spec["defaultBackend"].is_object() {
            let words = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid("spec", spec.clone(), words));
        }
        named(spec, "ingressClassName", "spec", names::dns_subdomain, &mut errors);
        for (at, tls) in list(spec, "tls").iter().enumerate() {
            let path = format!("spec.tls[{at}]");
            for (at, name) in list(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
                domain(name, &format!("{path}.hosts[{at}]"), &mut errors);
            }
            named(tls, "secretName", &path, names::dns_subdomain, &mut errors);
        }
        if spec["defaultBackend"].is_object() {
            backend(&spec["defaultBackend"], "spec.defaultBackend", &mut errors);
        }
        for (at, rule) in list(spec, "rules").iter().enumerate() {
            let path = format!("spec.rules[{at}]");
            host(text(rule, "host"), &join(&path, "host"), &mut errors);
            if rule["http"].is_object() {
                paths(&rule["http"], &join(&path, "http"), &mut errors);
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Class"),
                Column::text("Hosts"),
                Column::text("Address"),
                Column::text("Ports"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let class = match text(spec, "ingressClassName") {
            "" => map(&object["metadata"], "annotations")
                .get(CLASS_ANNOTATION)
                .and_then(Value::as_str)
                .unwrap_or(NONE),
            class => class,
        };
        let ingress = list(&object["status"]["loadBalancer"], "ingress").iter();
        let address: Vec<&str> = ingress
            .map(
                |entry| {
                    if text(entry, "ip").is_empty() { text(entry, "hostname") } else { text(entry, "ip") }
                },
            )
            .collect();
        let ports = if list(spec, "tls").is_empty() { "80" } else { "80, 443" };
        vec![
            name(object),
            json!(class),
            json!(hosts(list(spec, "rules"))),
            json!(address.join(",")),
            json!(ports),
            table::age(object, now),
        ]
    }
}

fn paths(http: &Value, path: &str, errors: &mut Errors) {
    let entries = list(http, "paths");
    if entries.is_empty() {
        errors.push(FieldError::required(join(path, "paths"), ""));
    }
    for (at, entry) in entries.iter().enumerate() {
        let path = format!("{path}.paths[{at}]");
        match text(entry, "pathType") {
            "" => errors.push(FieldError::required(join(&path, "pathType"), "pathType must be specified")),
            type_ if !PATH_TYPES.contains(&type_) => {
                errors.push(FieldError::not_supported(join(&path, "pathType"), type_, &PATH_TYPES));
            }
            type_ => {
                let place = text(entry, "path");
                if !place.starts_with('/') && (type_ != "ImplementationSpecific" || !place.is_empty()) {
                    errors.push(FieldError::invalid(join(&path, "path"), place, "must be an absolute path"));
                }
                if type_ != "ImplementationSpecific" {
                    plain(place, &join(&path, "path"), errors);
                }
            }
        }
        backend(&entry["backend"], &join(&path, "backend"), errors);
    }
}

/// A path that two readers could read in two ways is refused.
fn plain(place: &str, path: &str, errors: &mut Errors) {
    for piece in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|piece| place.contains(piece)) {
        errors.push(FieldError::invalid(path, place, format!("must not contain '{piece}'")));
    }
    for end in ["/..", "/."].into_iter().filter(|end| place.ends_with(end)) {
        errors.push(FieldError::invalid(path, place, format!("cannot end with '{end}'")));
    }
}

fn host(name: &str, path: &str, errors: &mut Errors) {
    if name.parse::<std::net::IpAddr>().is_ok() {
        errors.push(FieldError::invalid(path, name, "must be a DNS name, not an IP address"));
    } else if !name.is_empty() {
        domain(name, path, errors);
    }
}

/// A name, or one for all names below it.
fn domain(name: &str, path: &str, errors: &mut Errors) {
    const WILD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
                        consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character \
                        (e.g. '*.example.com', regex used for validation is \
                        '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let wrong = match name.contains('*') {
        false => names::dns_subdomain(name),
        true if name.strip_prefix("*.").is_some_and(|rest| names::dns_subdomain(rest).is_empty()) => Vec::new(),
        true => vec![WILD.to_owned()],
    };
    errors.extend(wrong.into_iter().map(|words| FieldError::invalid(path, name, words)));
}

fn backend(backend: &Value, path: &str, errors: &mut Errors) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_object(), resource.is_object()) {
        (true, true) => {
            errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (false, false) => errors.push(FieldError::required(path, "resource or service backend is required")),
        (false, true) => {}
        (true, false) => {
            let path = join(path, "service");
            _ = required(service, "name", &path, errors);
            let (port_name, number) =
                (text(&service["port"], "name"), service["port"]["number"].as_i64().unwrap_or(0));
            match (port_name.is_empty(), number) {
                (true, 0) => {
                    errors.push(FieldError::required(path, "port name or number is required"));
                }
                (false, n) if n != 0 => {
                    errors.push(FieldError::invalid(path, "", "cannot set both port name & port number"));
                }
                (true, n) => {
                    for wrong in names::port_number(n) {
                        errors.push(FieldError::invalid(join(&path, "port.number"), n, wrong));
                    }
                }
                (false, _) => {
                    for wrong in names::port_name(port_name) {
                        errors.push(FieldError::invalid(join(&path, "port.name"), port_name, wrong));
                    }
                }
            }
        }
    }
}

fn hosts(rules: &[Value]) -> String {
    let hosts: Vec<&str> =
        rules.iter().map(|rule| text(rule, "host")).filter(|host| !host.is_empty()).collect();
    match hosts.len() {
        0 => "*".to_owned(),
        count if count > HOSTS_SHOWN_MAX => {
            format!("{} + {} more...", hosts[..HOSTS_SHOWN_MAX].join(","), count - HOSTS_SHOWN_MAX)
        }
        _ => hosts.join(","),
    }
}

fn class_parameters(parameters: &Value, errors: &mut Errors) {
    const PATH: &str = "spec.parameters";
    named(parameters, "apiGroup", PATH, names::dns_subdomain, errors);
    _ = required(parameters, "kind", PATH, errors);
    _ = required(parameters, "name", PATH, errors);
    let (scope, namespace) = (text(parameters, "scope"), text(parameters, "namespace"));
    one_of(parameters, "scope", PATH, &["Cluster", "Namespace"], errors);
    match scope {
        "Namespace" if namespace.is_empty() => {
            let words = "`parameters.scope` is set to 'Namespace'";
            errors.push(FieldError::required("spec.parameters.namespace", words));
        }
        "Namespace" => named(parameters, "namespace", PATH, names::dns_label, errors),
        "Cluster" if !namespace.is_empty() => {
            let words = "`parameters.scope` is set to 'Cluster'";
            errors.push(FieldError::forbidden("spec.parameters.namespace", words));
        }
        _ => {}
    }
}

#[derive(Debug, Clone, Copy)]
pub struct IngressClass;

impl Behaviour for IngressClass {
    fn default(&self, object: &mut Value) {
        if let Some(parameters) = present(object, "spec").and_then(|spec| present(spec, "parameters")) {
            set(parameters, "scope", "Cluster");
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut errors) = (&object["spec"], Errors::new());
        let controller = text(spec, "controller");
        if controller.len() > CONTROLLER_BYTES_MAX {
            errors.push(FieldError::too_long("spec.controller", CONTROLLER_BYTES_MAX));
        }
        match controller.split_once('/') {
            _ if controller.is_empty() => errors.push(FieldError::required("spec.controller", "")),
            Some((domain, path)) if !path.is_empty() => {
                for wrong in names::dns_subdomain(domain) {
                    errors.push(FieldError::invalid("spec.controller", domain, wrong));
                }
            }
            _ => {
                let words = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                errors.push(FieldError::invalid("spec.controller", controller, words));
            }
        }
        if spec["parameters"].is_object() {
            class_parameters(&spec["parameters"], &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(&new["spec"], &old["spec"], "controller", "spec", &mut errors);
        errors.extend(self.validate_create(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Controller"), Column::text("Parameters"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, parameters) = (&object["spec"], &object["spec"]["parameters"]);
        let kind = match (parameters.is_object(), text(parameters, "apiGroup")) {
            (false, _) => NONE.to_owned(),
            (true, "") => format!("{}/{}", text(parameters, "kind"), text(parameters, "name")),
            (true, group) => format!("{}.{group}/{}", text(parameters, "kind"), text(parameters, "name")),
        };
        vec![name(object), json!(text(spec, "controller")), json!(kind), table::age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_paths_mean_one_thing() {
        let base = json!({"spec": {"ingressClassName": "c", "tls": [{"hosts": ["a.example"], "secretName": "s"}],
            "rules": [{"host": "*.a.example", "http": {"paths": [{"path": "/a", "pathType": "Prefix",
                "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}});
        assert_eq!(Ingress.validate_create(&base), []);
        for (pointer, value, expect) in [
            ("/spec/rules/0/host", "1.2.3.4",
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"),
            ("/spec/rules/0/http/paths/0/path", "/a//b",
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'"),
            ("/spec/rules/0/http/paths/0/path", "/a/..",
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a/..\": cannot end with '/..'"),
            ("/spec/rules/0/host", "*.a_b.example", "spec.rules[0].host: Invalid value: \"*.a_b.example\": a wildcard"),
            ("/spec/ingressClassName", "A", "spec.ingressClassName: Invalid value: \"A\": a lowercase RFC 1123 subdomain"),
            ("/spec/tls/0/hosts/0", "1 2", "spec.tls[0].hosts[0]: Invalid value: \"1 2\": a lowercase RFC 1123 subdomain"),
            ("/spec/tls/0/secretName", "S", "spec.tls[0].secretName: Invalid value: \"S\": a lowercase RFC 1123 subdomain"),
        ] {
            let mut object = base.clone();
            *object.pointer_mut(pointer).unwrap() = json!(value);
            let errors: Vec<String> = Ingress.validate_create(&object).iter().map(ToString::to_string).collect();
            assert!(errors.len() == 1 && errors[0].starts_with(expect), "{pointer}: {errors:?}");
        }
        let mut loose = base;
        loose["spec"]["rules"][0]["http"]["paths"][0]["pathType"] = json!("ImplementationSpecific");
        loose["spec"]["rules"][0]["http"]["paths"][0]["path"] = json!("/a//b");
        assert_eq!(Ingress.validate_create(&loose), []);
    }

    #[test]
    fn classes() {
        let base = json!({"spec": {"controller": "acme.io/lb", "parameters": {"kind": "K", "name": "n", "scope": "Cluster"}}});
        assert_eq!(IngressClass.validate_create(&base), []);
        for (pointer, value, expect) in [
            ("/spec/controller", json!("acme"),
                "spec.controller: Invalid value: \"acme\": must be a domain-prefixed path (such as \"acme.io/foo\")"),
            ("/spec/controller", json!(""), "spec.controller: Required value"),
            ("/spec/parameters/name", json!(""), "spec.parameters.name: Required value"),
            ("/spec/parameters/scope", json!("Namespace"),
                "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"),
            ("/spec/parameters/scope", json!("Planet"), "spec.parameters.scope: Unsupported value: \"Planet\": \
                supported values: \"Cluster\", \"Namespace\""),
        ] {
            let mut object = base.clone();
            *object.pointer_mut(pointer).unwrap() = value;
            let errors: Vec<String> = IngressClass.validate_create(&object).iter().map(ToString::to_string).collect();
            assert_eq!(errors, [expect], "{pointer}");
        }
        let mut moved = base.clone();
        moved["spec"]["controller"] = json!("acme.io/other");
        assert_eq!(IngressClass.validate_update(&moved, &base, "")[0].detail, "field is immutable");
    }
}
