//! PUT: an object as a whole.
//!
//! In: a body, perhaps with the resourceVersion that it was made from. Out: the stored object; 409 when it
//! changed meanwhile. Kinds that agents keep by PUT alone (leases, endpoints, …) are created when absent, as
//! upstream does.
//! Never: changes what belongs to a subresource.

use super::{ask, dry_run, shape};
use crate::api::{
    Reply, Target, decode,
    dispatch::{Call, Input},
    object,
    write::{self, Ask, Made, form::Validation},
};
use limpet_objects::{field::FieldError, status::Status};
use serde_json::Value;

const CREATED_WHEN_ABSENT: [&str; 9] = [
    "/endpoints",
    "/events",
    "/limitranges",
    "coordination.k8s.io/leases",
    "discovery.k8s.io/endpointslices",
    "rbac.authorization.k8s.io/clusterrolebindings",
    "rbac.authorization.k8s.io/clusterroles",
    "rbac.authorization.k8s.io/rolebindings",
    "rbac.authorization.k8s.io/roles",
];

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let validation = Validation::of(&call.query)?;
    let mut ask = ask(call, target)?;
    ask.dry_run = dry_run(call)?;
    let bytes = input.read().await?;
    let decoded = decode::object(&bytes, &call.content_type(), &target.resource.kind)?;
    let mut new = decoded.value;
    let warnings = &mut call.warnings;
    write::form::conform_target(&mut new, target, decoded.duplicates, validation, warnings)?;
    if object::name(&new).is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object (based on URL) was {:?} but the object has no name",
            target.name
        )));
    }
    let outcome = put(&mut ask, new).await;
    call.warnings.append(&mut ask.warnings);
    let written = outcome?;
    let code = if written.created { 201 } else { 200 };
    shape::written(call, target, code, written.bytes)
}

/// Kinds whose PUT must say from which version it was made.
const VERSION_REQUIRED: [&str; 16] = [
    "admissionregistration.k8s.io/mutatingadmissionpolicies",
    "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
    "admissionregistration.k8s.io/mutatingwebhookconfigurations",
    "admissionregistration.k8s.io/validatingadmissionpolicies",
    "admissionregistration.k8s.io/validatingadmissionpolicybindings",
    "admissionregistration.k8s.io/validatingwebhookconfigurations",
    "apiextensions.k8s.io/customresourcedefinitions",
    "apiregistration.k8s.io/apiservices",
    "coordination.k8s.io/leases",
    "node.k8s.io/runtimeclasses",
    "policy/poddisruptionbudgets",
    "storage.k8s.io/csidrivers",
    "storage.k8s.io/csinodes",
    "storage.k8s.io/csistoragecapacities",
    "storage.k8s.io/volumeattachments",
    "storage.k8s.io/volumeattributesclasses",
];

fn check_version(target: &Target, new: &Value) -> Result<(), Status> {
    let resource = &target.resource;
    if !object::resource_version(new).is_empty() || !VERSION_REQUIRED.contains(&resource.storage.as_str()) {
        return Ok(());
    }
    let why = "must be specified for an update";
    let error = FieldError::invalid("metadata.resourceVersion", 0, why);
    Err(Status::invalid(&resource.group, &resource.plural, &target.name, &[error]))
}

async fn put(ask: &mut Ask, new: Value) -> Result<write::Written, Status> {
    let absent = ask.api.store.get(&ask.target.key()).is_none();
    let storage = ask.target.resource.storage.as_str();
    let may_create = CREATED_WHEN_ABSENT.contains(&storage) && ask.subresource.is_empty();
    if absent && may_create && object::resource_version(&new).is_empty() {
        return write::create(ask, new).await;
    }
    if !absent {
        check_version(&ask.target, &new)?;
    }
    write::update(ask, |_, _| Ok(Made::from(new.clone()))).await
}
