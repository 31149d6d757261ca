//! APIServices (apiregistration.k8s.io/v1): groups and versions, served here or by another server.
//!
//! In: APIServices as JSON. Out: defaults, rules in upstream's words and the table row. Never: proxies.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{condition, name};
use super::fill::{present, set_number, text};
use super::rules::{Errors, join, named, required};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{names, table};

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1_000;

#[derive(Debug, Clone, Copy)]
pub struct ApiService;

impl Behaviour for ApiService {
    fn default(&self, object: &mut Value) {
        if let Some(service) = present(object, "spec").and_then(|spec| present(spec, "service")) {
            set_number(service, "port", 443);
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        // The core group's is `v1.`.
        names::path_segment(name)
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let (spec, own) = (&object["spec"], text(&object["metadata"], "name"));
        let (group, version) = (text(spec, "group"), text(spec, "version"));
        let mut errors = Errors::new();
        let wanted = format!("{version}.{group}");
        if own != wanted {
            let words = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(FieldError::invalid("metadata.name", own, words));
        }
        if group.is_empty() && version != "v1" {
            let words = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required("spec.group", words));
        }
        if !group.is_empty() {
            named(spec, "group", "spec", names::dns_subdomain, &mut errors);
        }
        if required(spec, "version", "spec", &mut errors).is_some() {
            named(spec, "version", "spec", names::dns1035_label, &mut errors);
        }
        for (field, max) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
            let value = spec[field].as_i64().unwrap_or(0);
            if value <= 0 || value > max {
                let words = format!("must be positive and less than {max}");
                errors.push(FieldError::invalid(join("spec", field), value, words));
            }
        }
        place(spec, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Service"), Column::text("Available"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let service = &object["spec"]["service"];
        let place = match service.is_object() {
            true => format!("{}/{}", text(service, "namespace"), text(service, "name")),
            false => "Local".to_owned(),
        };
        let available = match condition(&object["status"], "Available") {
            None => "Unknown".to_owned(),
            Some(found) if found["status"] == "True" => "True".to_owned(),
            Some(found) => format!("{} ({})", text(found, "status"), text(found, "reason")),
        };
        vec![name(object), json!(place), json!(available), table::age(object, now)]
    }
}

/// Where the group is served, and whom the server there is to show.
fn place(spec: &Value, errors: &mut Errors) {
    let (skips, bundle) = (spec["insecureSkipTLSVerify"] == true, text(spec, "caBundle"));
    let insecure = "spec.insecureSkipTLSVerify";
    let service = &spec["service"];
    if !service.is_object() {
        if !bundle.is_empty() {
            let size = format!("{} bytes", bundle.len() / 4 * 3);
            errors.push(FieldError::invalid("spec.caBundle", size, "local APIServices may not have a caBundle"));
        }
        if skips {
            let words = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(insecure, true, words));
        }
        return;
    }
    if skips && !bundle.is_empty() {
        errors.push(FieldError::invalid(insecure, true, "may not be true if caBundle is present"));
    }
    _ = required(service, "namespace", "spec.service", errors);
    _ = required(service, "name", "spec.service", errors);
    let port = service["port"].as_i64().unwrap_or(443);
    if !(1..=65_535).contains(&port) {
        let words = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid("spec.service.port", port, words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let base = json!({"metadata": {"name": "v1.g.io"}, "spec": {"group": "g.io", "version": "v1",
            "groupPriorityMinimum": 100, "versionPriority": 10, "service": {"namespace": "a", "name": "b", "port": 443}}});
        assert_eq!(ApiService.validate_create(&base), []);
        for (pointer, value, expect) in [
            ("/metadata/name", json!("x"),
                "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.g.io\""),
            ("/spec/groupPriorityMinimum", json!(20_001),
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000"),
            ("/spec/versionPriority", json!(0),
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000"),
            ("/spec/service/name", json!(""), "spec.service.name: Required value"),
            ("/spec/service/port", json!(65_536),
                "spec.service.port: Invalid value: 65536: port is not valid: must be between 1 and 65535, inclusive"),
        ] {
            let mut object = base.clone();
            *object.pointer_mut(pointer).unwrap() = value;
            let errors: Vec<String> = ApiService.validate_create(&object).iter().map(ToString::to_string).collect();
            assert_eq!(errors, [expect]);
        }
        let core = json!({"metadata": {"name": "v1."}, "spec": {"group": "", "version": "v1", "groupPriorityMinimum": 18000,
            "versionPriority": 1}});
        assert_eq!((ApiService.validate_create(&core), ApiService.validate_name("v1.")), (vec![], vec![]));
        let mut local = base.clone();
        local["spec"]["service"] = Value::Null;
        local["spec"]["insecureSkipTLSVerify"] = json!(true);
        let errors = ApiService.validate_create(&local);
        assert_eq!(errors[0].detail, "local APIServices may not have insecureSkipTLSVerify");
    }
}
