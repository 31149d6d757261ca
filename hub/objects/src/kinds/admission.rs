//! Webhook configurations and admission policies (admissionregistration.k8s.io/v1).
//!
//! In: objects as JSON. Out: defaults and table rows. Never: calls a webhook or evaluates a policy.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::{child, each, list, present, set, set_absent, set_number, text};
use crate::behaviour::{Behaviour, Column};
use crate::table;

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
        }
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
