//! The verbs of the API, one file each: from a routed request to its answer.
//!
//! In: a `Call` and its `Target`. Out: a reply. The work on objects is in `write`, so that the hub's own
//! parts do it in the same way. Never: authorizes.

pub mod get;
pub mod list;
mod rendered;
pub mod watch;

pub mod create;
pub mod delete;
pub mod deletecollection;
pub mod patch;
pub mod update;

pub mod documents;

mod options;
pub mod shape;

use super::{
    Target,
    dispatch::Call,
    write::{Ask, form::Form},
};
use limpet_objects::{field::FieldError, managed, status::Status};
use std::sync::Arc;

/// A write for this call, of the object itself.
pub fn ask(call: &Call, target: &Target) -> Result<Ask, Status> {
    let agent = call.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok());
    let manager = managed::manager_name(call.query.text("fieldManager"), agent);
    if let Some(wrong) = managed::check_manager_name(&manager) {
        return Err(Status::new(
            422,
            "Invalid",
            format!("CreateOptions.meta.k8s.io \"\" is invalid: {wrong}"),
        ));
    }
    Ok(Ask {
        api: Arc::clone(&call.api),
        user: Arc::clone(&call.user),
        target: target.clone(),
        subresource: call.info.subresource.clone(),
        dry_run: false,
        manager,
        warnings: Vec::new(),
        trail: call.trail.clone(),
        checks: Vec::new(),
    })
}

/// The form of objects of the target itself.
pub fn form<'a>(target: &'a Target, api_version: &'a str) -> Form<'a> {
    let resource = &target.resource;
    Form { api_version, kind: &resource.kind, definition: &resource.schema }
}

/// `dryRun=All`.
pub fn dry_run(call: &Call) -> Result<bool, Status> {
    match call.query.all("dryRun").find(|v| !v.is_empty() && *v != "All") {
        Some(other) => {
            let error = FieldError::not_supported("dryRun", other, &["All"]);
            Err(Status::invalid("meta.k8s.io", "CreateOptions", "", &[error]))
        }
        None => Ok(call.query.all("dryRun").any(|v| v == "All")),
    }
}
