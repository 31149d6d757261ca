//! IPAddresses and ServiceCIDRs (networking.k8s.io/v1).
//!
//! In: objects as JSON. Out: rules and table rows. Never: allocates addresses.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::cidr::{Cidr, NOT_A_CIDR, NOT_AN_IP};
use super::fill::{list, text};
use super::rules::{Errors, immutable, required};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

#[derive(Debug, Clone, Copy)]
pub struct IpAddress;

impl Behaviour for IpAddress {
    /// The address itself, in its one canonical form.
    fn validate_name(&self, name: &str) -> Vec<String> {
        match name.parse::<std::net::IpAddr>() {
            Err(_) => vec![NOT_AN_IP.to_owned()],
            Ok(address) if address.to_string() != name => {
                vec![format!("must be in canonical form ({:?})", address.to_string())]
            }
            Ok(_) => Vec::new(),
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let parent = &object["spec"]["parentRef"];
        if !parent.is_object() {
            errors.push(FieldError::required("spec.parentRef", ""));
            return errors;
        }
        for field in ["resource", "name"] {
            _ = required(parent, field, "spec.parentRef", &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(&new["spec"], &old["spec"], "parentRef", "spec", &mut errors);
        errors
    }

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
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (spec, cidrs) = (&object["spec"], list(&object["spec"], "cidrs"));
        if cidrs.is_empty() {
            errors.push(FieldError::required("spec.cidrs", "at least one CIDR required"));
        }
        if cidrs.len() > 2 {
            let words = "may only hold up to 2 values";
            errors.push(FieldError::invalid("spec.cidrs", spec["cidrs"].clone(), words));
        }
        let parsed: Vec<Option<Cidr>> =
            cidrs.iter().map(|cidr| Cidr::parse(cidr.as_str().unwrap_or_default())).collect();
        for (at, cidr) in cidrs.iter().enumerate().filter(|(at, _)| parsed[*at].is_none()) {
            errors.push(FieldError::invalid(format!("spec.cidrs[{at}]"), cidr.clone(), NOT_A_CIDR));
        }
        if let [Some(one), Some(other)] = parsed.as_slice()
            && one.is_v4() == other.is_v4()
        {
            let words = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.push(FieldError::invalid("spec.cidrs", spec["cidrs"].clone(), words));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if subresource != "status" {
            immutable(&new["spec"], &old["spec"], "cidrs", "spec", &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("CIDRs"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cidrs: Vec<&str> = list(&object["spec"], "cidrs").iter().filter_map(Value::as_str).collect();
        vec![name(object), json!(cidrs.join(",")), table::age(object, now)]
    }
}
