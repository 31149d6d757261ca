//! Webhook configurations and admission policies (admissionregistration.k8s.io/v1).
//!
//! In: objects as JSON. Out: defaults and table rows. Never: calls a webhook or evaluates a policy.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::{child, each, list, present, set, set_absent, set_number, text};
use super::rules::{Errors, label_selector, one_of, required};
use crate::behaviour::{Behaviour, Column};
use crate::custom::definition::client_config;
use crate::field::FieldError;
use crate::{names, policy, table};

/// Validating and mutating webhook configurations.
#[derive(Debug, Clone, Copy)]
pub struct Webhooks {
    pub mutating: bool,
}

impl Behaviour for Webhooks {
    fn default(&self, object: &mut Value) {
        for webhook in each(object, "webhooks") {
            set(webhook, "failurePolicy", "Fail");
            set(webhook, "matchPolicy", "Equivalent");
            set_absent(webhook, "namespaceSelector", json!({}));
            set_absent(webhook, "objectSelector", json!({}));
            set_absent(webhook, "timeoutSeconds", 10);
            if self.mutating {
                set(webhook, "reinvocationPolicy", "Never");
            }
            for rule in each(webhook, "rules") {
                set(rule, "scope", "*");
            }
            if let Some(service) =
                present(webhook, "clientConfig").and_then(|config| present(config, "service"))
            {
                set_number(service, "port", 443);
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut seen = std::collections::BTreeSet::new();
        for (at, webhook) in list(object, "webhooks").iter().enumerate() {
            let path = format!("webhooks[{at}]");
            if !seen.insert(text(webhook, "name")) {
                errors.push(FieldError::duplicate(format!("{path}.name"), text(webhook, "name")));
            }
            one_webhook(webhook, &path, self.mutating, &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::integer("Webhooks"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), json!(list(object, "webhooks").len()), table::age(object, now)]
    }
}

fn default_constraints(spec: &mut Value) {
    set(spec, "failurePolicy", "Fail");
    if let Some(constraints) = child(spec, "matchConstraints") {
        set(constraints, "matchPolicy", "Equivalent");
        set_absent(constraints, "namespaceSelector", json!({}));
        set_absent(constraints, "objectSelector", json!({}));
        for rule in each(constraints, "resourceRules") {
            set(rule, "scope", "*");
        }
    }
}

/// ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub mutating: bool,
}

impl Behaviour for Policy {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = present(object, "spec") {
            default_constraints(spec);
            if self.mutating {
                set(spec, "reinvocationPolicy", "Never");
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        one_of(spec, "failurePolicy", "spec", &["Fail", "Ignore"], &mut errors);
        if self.mutating {
            one_of(spec, "reinvocationPolicy", "spec", &["IfNeeded", "Never"], &mut errors);
        }
        let constraints = &spec["matchConstraints"];
        if !constraints.is_object() {
            errors.push(FieldError::required("spec.matchConstraints", ""));
        } else if list(constraints, "resourceRules").is_empty() {
            errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
        }
        match_resources(constraints, "spec.matchConstraints", &mut errors);
        let work: &[&str] = if self.mutating { &["mutations"] } else { &["validations", "auditAnnotations"] };
        if work.iter().all(|field| list(spec, field).is_empty()) {
            let why = match self.mutating {
                true => "mutations must contain at least one item",
                false => "validations or auditAnnotations must contain at least one item",
            };
            errors.push(FieldError::required(format!("spec.{}", work[0]), why));
        }
        param_kind(&spec["paramKind"], &mut errors);
        errors.extend(policy::compile::policy(object, self.mutating).1);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const VALIDATING: &[Column] =
            &[Column::NAME, Column::integer("Validations"), Column::text("ParamKind"), Column::AGE];
        const MUTATING: &[Column] =
            &[Column::NAME, Column::integer("Mutations"), Column::text("ParamKind"), Column::AGE];
        if self.mutating { MUTATING } else { VALIDATING }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let count = list(spec, if self.mutating { "mutations" } else { "validations" }).len();
        let kind = &spec["paramKind"];
        let kind = match kind.is_object() {
            true => format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")),
            false => "<unset>".to_owned(),
        };
        vec![name(object), json!(count), json!(kind), table::age(object, now)]
    }
}

fn param_kind(kind: &Value, errors: &mut Errors) {
    if !kind.is_object() {
        return;
    }
    for field in ["apiVersion", "kind"] {
        _ = required(kind, field, "spec.paramKind", errors);
    }
}

fn match_resources(resources: &Value, path: &str, errors: &mut Errors) {
    one_of(resources, "matchPolicy", path, &["Equivalent", "Exact"], errors);
    for selector in ["namespaceSelector", "objectSelector"] {
        label_selector(&resources[selector], &format!("{path}.{selector}"), errors);
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (at, rule) in list(resources, field).iter().enumerate() {
            one_rule(rule, &format!("{path}.{field}[{at}]"), errors);
        }
    }
}

/// What a rule must name.
fn one_rule(rule: &Value, path: &str, errors: &mut Errors) {
    for field in ["apiGroups", "apiVersions", "resources", "operations"] {
        if list(rule, field).is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), ""));
        }
    }
    let operations = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    for (at, operation) in list(rule, "operations").iter().enumerate() {
        let operation = operation.as_str().unwrap_or_default();
        if !operations.contains(&operation) {
            errors.push(FieldError::not_supported(format!("{path}.operations[{at}]"), operation, &operations));
        }
    }
    for field in ["apiGroups", "apiVersions"] {
        let all = list(rule, field);
        if all.len() > 1 && all.iter().any(|value| value == "*") {
            let why = "if '*' is present, must not specify other values";
            errors.push(FieldError::invalid(format!("{path}.{field}"), json!(all), why));
        }
    }
    one_of(rule, "scope", path, &["*", "Cluster", "Namespaced"], errors);
}

fn actions(actions: &[Value], errors: &mut Errors) {
    let path = "spec.validationActions";
    if actions.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let known = ["Audit", "Deny", "Warn"];
    let mut seen = std::collections::BTreeSet::new();
    for (at, action) in actions.iter().enumerate() {
        let action = action.as_str().unwrap_or_default();
        if !known.contains(&action) {
            errors.push(FieldError::not_supported(format!("{path}[{at}]"), action, &known));
        } else if !seen.insert(action) {
            errors.push(FieldError::duplicate(format!("{path}[{at}]"), action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response \
                   and headers serves no purpose)";
        errors.push(FieldError::invalid(path, json!(actions), why));
    }
}

fn one_webhook(webhook: &Value, path: &str, mutating: bool, errors: &mut Errors) {
    let name = text(webhook, "name");
    for wrong in names::dns_subdomain(name) {
        errors.push(FieldError::invalid(format!("{path}.name"), name, wrong));
    }
    if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(format!("{path}.name"), name, why));
    }
    for (at, rule) in list(webhook, "rules").iter().enumerate() {
        one_rule(rule, &format!("{path}.rules[{at}]"), errors);
    }
    one_of(webhook, "failurePolicy", path, &["Fail", "Ignore"], errors);
    one_of(webhook, "matchPolicy", path, &["Equivalent", "Exact"], errors);
    if mutating {
        one_of(webhook, "reinvocationPolicy", path, &["IfNeeded", "Never"], errors);
    }
    match text(webhook, "sideEffects") {
        "" => errors.push(FieldError::required(format!("{path}.sideEffects"), "must specify one of None, NoneOnDryRun")),
        _ => one_of(webhook, "sideEffects", path, &["None", "NoneOnDryRun"], errors),
    }
    if let Some(seconds) = webhook["timeoutSeconds"].as_i64().filter(|seconds| !(1..=30).contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(format!("{path}.timeoutSeconds"), seconds, why));
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        label_selector(&webhook[selector], &format!("{path}.{selector}"), errors);
    }
    let versions = list(webhook, "admissionReviewVersions");
    if versions.is_empty() {
        let why = "must specify one of v1, v1beta1";
        errors.push(FieldError::required(format!("{path}.admissionReviewVersions"), why));
    } else if !versions.iter().any(|version| version == "v1" || version == "v1beta1") {
        let why = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(format!("{path}.admissionReviewVersions"), json!(versions), why));
    }
    errors.extend(client_config(&webhook["clientConfig"], &format!("{path}.clientConfig")));
    let env = policy::compile::env(false, true);
    let at = format!("{path}.matchConditions");
    errors.extend(policy::compile::conditions(&webhook["matchConditions"], &env, &at).1);
}

/// Bindings of both kinds of policy.
#[derive(Debug, Clone, Copy)]
pub struct PolicyBinding;

impl Behaviour for PolicyBinding {
    fn default(&self, object: &mut Value) {
        let resources = present(object, "spec").and_then(|spec| present(spec, "matchResources"));
        if let Some(resources) = resources {
            set(resources, "matchPolicy", "Equivalent");
            set_absent(resources, "namespaceSelector", json!({}));
            set_absent(resources, "objectSelector", json!({}));
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        _ = required(spec, "policyName", "spec", &mut errors);
        match_resources(&spec["matchResources"], "spec.matchResources", &mut errors);
        let reference = &spec["paramRef"];
        if reference.is_object() {
            match (text(reference, "name"), reference["selector"].is_object()) {
                ("", false) => {
                    errors.push(FieldError::required("spec.paramRef", "one of name or selector must be specified"));
                }
                ("", true) | (_, false) => {}
                (_, true) => {
                    let why = "name and selector are mutually exclusive";
                    errors.push(FieldError::forbidden("spec.paramRef.name", why));
                }
            }
            let actions = ["Deny", "Allow"];
            one_of(reference, "parameterNotFoundAction", "spec.paramRef", &actions, &mut errors);
            if text(reference, "parameterNotFoundAction").is_empty() {
                errors.push(FieldError::required("spec.paramRef.parameterNotFoundAction", ""));
            }
        }
        // Only bindings of validating policies say what a failure does.
        if object["kind"] == "ValidatingAdmissionPolicyBinding" {
            actions(list(spec, "validationActions"), &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("PolicyName"), Column::text("ParamRef"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let reference = &spec["paramRef"];
        let place = match (reference.is_object(), text(reference, "namespace")) {
            (false, _) => "<unset>".to_owned(),
            (true, "") => format!("*/{}", text(reference, "name")),
            (true, namespace) => format!("{namespace}/{}", text(reference, "name")),
        };
        vec![name(object), json!(text(spec, "policyName")), json!(place), table::age(object, now)]
    }
}
