//! CertificateSigningRequests (certificates.k8s.io/v1).
//!
//! In: requests as JSON. Out: who asked, rules and the table row. Never: signs or approves.

use base64::Engine;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, name};
use super::fill::{child, copy, list, text};
use super::rules::{Errors, immutable, required};
use crate::behaviour::{Behaviour, Column, Ctx};
use crate::field::FieldError;
use crate::{names, table};

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

#[derive(Debug, Clone, Copy)]
pub struct CertificateSigningRequest;

impl Behaviour for CertificateSigningRequest {
    fn prepare_create(&self, object: &mut Value, ctx: &Ctx<'_>) {
        let Some(spec) = child(object, "spec") else { return };
        // Who asks is what the server knows, never what the request says.
        spec["username"] = json!(ctx.user);
        spec["groups"] = json!(ctx.groups);
        for field in ["uid", "extra"] {
            _ = super::fill::remove(spec, field);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, subresource: &str, _ctx: &Ctx<'_>) {
        if subresource == "approval" {
            // Approval brings conditions and nothing else.
            let conditions = new["status"]["conditions"].clone();
            copy(new, old, "spec");
            copy(new, old, "status");
            if let (false, Some(status)) = (conditions.is_null(), child(new, "status")) {
                status["conditions"] = conditions;
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        request(text(spec, "request"), &mut errors);
        if let Some(name) = required(spec, "signerName", "spec", &mut errors) {
            signer(name, &mut errors);
        }
        let (usages, mut seen) = (list(spec, "usages"), std::collections::BTreeSet::new());
        if usages.is_empty() {
            errors.push(FieldError::required("spec.usages", ""));
        }
        for (at, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
            if !USAGES.contains(&usage) {
                errors.push(FieldError::not_supported(format!("spec.usages[{at}]"), usage, &USAGES));
            }
            if !seen.insert(usage) {
                errors.push(FieldError::duplicate(format!("spec.usages[{at}]"), usage));
            }
        }
        if spec["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < 600) {
            let words = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(
                "spec.expirationSeconds",
                spec["expirationSeconds"].clone(),
                words,
            ));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(new, old, "spec", "", &mut errors);
        let decided = |kind: &str| list(&new["status"], "conditions").iter().any(|condition| condition["type"] == kind);
        if decided("Approved") && decided("Denied") {
            let words = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid("status.conditions", new["status"]["conditions"].clone(), words));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::AGE,
                Column::text("SignerName"),
                Column::text("Requestor"),
                Column::text("RequestedDuration"),
                Column::text("Condition"),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let duration = spec["expirationSeconds"].as_i64().map_or(NONE.to_owned(), table::human);
        vec![
            name(object),
            table::age(object, now),
            json!(text(spec, "signerName")),
            json!(text(spec, "username")),
            json!(duration),
            json!(condition_words(&object["status"])),
        ]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", text(&object["spec"], "signerName").to_owned())]
    }
}

/// The request is one block of PEM; what is in it is judged by whoever signs.
fn request(encoded: &str, errors: &mut Errors) {
    let text = base64::prelude::BASE64_STANDARD.decode(encoded).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let body = text.split_once("-----BEGIN CERTIFICATE REQUEST-----").map(|(_, rest)| rest);
    if !body.is_some_and(|rest| rest.contains("-----END CERTIFICATE REQUEST-----")) {
        let words = "unable to parse csr: PEM block type must be CERTIFICATE REQUEST";
        errors.push(FieldError::invalid("spec.request", encoded, words));
    }
}

/// A domain of two parts at least, a slash, and a path.
fn signer(name: &str, errors: &mut Errors) {
    let at = "spec.signerName";
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let words = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(at, name, words));
        return;
    };
    let mut wrong = names::dns_subdomain(domain);
    if wrong.is_empty() && !domain.contains('.') {
        wrong.push("should be a domain with at least two segments separated by dots".to_owned());
    }
    wrong.extend(path.split('.').flat_map(names::dns_subdomain));
    errors.extend(wrong.into_iter().map(|words| FieldError::invalid(at, name, words)));
}

fn condition_words(status: &Value) -> String {
    let is = |type_: &str| list(status, "conditions").iter().any(|condition| condition["type"] == type_);
    let mut words = vec![match (is("Denied"), is("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }];
    if is("Failed") {
        words.push("Failed");
    }
    if !text(status, "certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",")
}
