//! Who may approve and sign certificate requests, and what may never be asked for.
//!
//! In: writes of CertificateSigningRequests. Out: 403, unless the user holds `approve` or `sign` on the signer. Source: the
//! Kubernetes pages "Certificates and Certificate Signing Requests" and "Admission Controllers" (CertificateApproval,
//! CertificateSigning, CertificateSubjectRestriction). Never: signs.

use super::{Operation, Review};
use crate::{
    auth::{Asked, user::MASTERS},
    pki::CsrAsk,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use limpet_objects::status::Status;

const STORAGE: &str = "certificates.k8s.io/certificatesigningrequests";
const GROUP: &str = "certificates.k8s.io";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    if review.resource.storage != STORAGE {
        return Ok(());
    }
    let (old, new) = (review.old.map(|old| &old["status"]), &review.object["status"]);
    let changed = |field: &str| old.and_then(|old| old.get(field)) != new.get(field);
    match (review.operation, review.subresource) {
        (Operation::Create, "") => subject(review),
        (Operation::Update, "approval") => may(review, "approve"),
        (Operation::Update, "status") if changed("certificate") || changed("conditions") => may(review, "sign"),
        _ => Ok(()),
    }
}

/// The right is on the signer, or on all signers of its domain.
fn may(review: &Review<'_>, verb: &str) -> Result<(), Status> {
    // The old one's: an update cannot change it.
    let spec = review.old.map_or(&review.object["spec"], |old| &old["spec"]);
    let signer = spec["signerName"].as_str().unwrap_or_default();
    let all = format!("{}/*", signer.split('/').next().unwrap_or_default());
    let allowed = |name: &str| {
        let asked = Asked { verb, group: GROUP, version: "*", resource: "signers", name, ..Asked::default() };
        review.api.authorizer.decide(review.user, &asked).is_allowed()
    };
    if allowed(signer) || allowed(&all) {
        return Ok(());
    }
    Err(review.forbidden(&format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// Nobody asks for a certificate of the group that may everything.
fn subject(review: &Review<'_>) -> Result<(), Status> {
    let spec = &review.object["spec"];
    if spec["signerName"] != CLIENT {
        return Ok(());
    }
    let pem = spec["request"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let asked = pem.and_then(|pem| CsrAsk::read(std::str::from_utf8(&pem).ok()?).ok());
    // One that cannot be read is refused by its validation, or by the signer.
    match asked.is_some_and(|asked| asked.subject.organizations.iter().any(|o| o == MASTERS)) {
        true => Err(review.forbidden(&format!("use of {CLIENT} signer with {MASTERS} group is not allowed"))),
        false => Ok(()),
    }
}
