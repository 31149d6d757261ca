//! Claims on devices that only look (`adminAccess`): where the namespace lets them.
//!
//! In: new ResourceClaims and templates. Out: a 422 in upstream's words, unless the namespace has the label.
//! Source: the Kubernetes page "Dynamic Resource Allocation", "Admin access". Never: looks at what is there already.

use super::{Operation, Review};
use limpet_objects::{field::FieldError, status::Status};

const CLAIMS: &str = "resource.k8s.io/resourceclaims";
const TEMPLATES: &str = "resource.k8s.io/resourceclaimtemplates";
const LABEL: &str = "resource.kubernetes.io/admin-access";

pub(super) fn admit(review: &Review<'_>) -> Result<(), Status> {
    let (spec, path) = match &*review.resource.storage {
        CLAIMS => (&review.object["spec"], "spec"),
        TEMPLATES => (&review.object["spec"]["spec"], "spec.spec"),
        _ => return Ok(()),
    };
    if review.operation != Operation::Create || !review.subresource.is_empty() {
        return Ok(());
    }
    let requests = spec["devices"]["requests"].as_array().into_iter().flatten().enumerate();
    let asking: Vec<usize> = requests.filter(|(_, r)| r["exactly"]["adminAccess"] == true).map(|(at, _)| at).collect();
    if asking.is_empty() {
        return Ok(());
    }
    let namespace = review.stored("/namespaces", "", review.namespace).unwrap_or_default();
    if namespace["metadata"]["labels"][LABEL] == "true" {
        return Ok(());
    }
    let words = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
    let error = |at: usize| FieldError::forbidden(format!("{path}.devices.requests[{at}].exactly.adminAccess"), words.clone());
    let errors: Vec<FieldError> = asking.into_iter().map(error).collect();
    Err(Status::invalid(&review.resource.group, &review.resource.kind, review.name, &errors))
}
