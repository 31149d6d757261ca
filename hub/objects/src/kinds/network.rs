//! NetworkPolicies, IPAddresses and ServiceCIDRs (networking.k8s.io/v1).
//!
//! In: objects as JSON. Out: defaults, rules and table rows. Never: filters packets or allocates
//! addresses.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{name, selector};
use super::fill::{each, list, present, set, text};
use super::rules::{Errors, label_selector};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

#[derive(Debug, Clone, Copy)]
pub struct NetworkPolicy;

impl Behaviour for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        for direction in ["ingress", "egress"] {
            for rule in each(spec, direction) {
                for port in each(rule, "ports") {
                    set(port, "protocol", "TCP");
                }
            }
        }
        if list(spec, "policyTypes").is_empty() {
            let egress = !list(spec, "egress").is_empty();
            spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        label_selector(&object["spec"]["podSelector"], "spec.podSelector", &mut errors);
        for (at, type_) in list(&object["spec"], "policyTypes").iter().enumerate() {
            let choices = ["Egress", "Ingress"];
            if !choices.contains(&type_.as_str().unwrap_or_default()) {
                errors.push(FieldError::not_supported(
                    format!("spec.policyTypes[{at}]"),
                    type_.clone(),
                    &choices,
                ));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Pod-Selector"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), json!(selector(&object["spec"]["podSelector"])), table::age(object, now)]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct IpAddress;

impl Behaviour for IpAddress {
    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("ParentRef")] }
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let parent = &object["spec"]["parentRef"];
        let resource = match text(parent, "group") {
            "" => text(parent, "resource").to_owned(),
            group => format!("{}.{group}", text(parent, "resource")),
        };
        let place = match text(parent, "namespace") {
            "" => text(parent, "name").to_owned(),
            namespace => format!("{namespace}/{}", text(parent, "name")),
        };
        vec![name(object), json!(format!("{resource}/{place}"))]
    }
}

#[derive(Debug, Clone, Copy)]
pub struct ServiceCidr;

impl Behaviour for ServiceCidr {
    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("CIDRs"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cidrs: Vec<&str> = list(&object["spec"], "cidrs").iter().filter_map(Value::as_str).collect();
        vec![name(object), json!(cidrs.join(",")), table::age(object, now)]
    }
}
