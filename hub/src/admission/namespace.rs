//! NamespaceLifecycle: nothing new in a namespace that is missing or going, and some namespaces never go.
//!
//! In: creates and deletes. Out: 404 or 403 in upstream's words. Never: creates a namespace.

use super::{Operation, Review};
use limpet_objects::status::{Cause, Status};
use serde_json::Value;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    if review.operation == Operation::Delete && review.is("/namespaces") && IMMORTAL.contains(&review.name) {
        return Err(review.forbidden("this namespace may not be deleted"));
    }
    if review.operation != Operation::Create || !review.resource.namespaced {
        return Ok(());
    }
    let name = review.namespace;
    let found = review.stored("/namespaces", "", name);
    let namespace = found.ok_or_else(|| Status::not_found("", "namespaces", name))?;
    if namespace["status"]["phase"] == "Terminating"
        || namespace["metadata"]["deletionTimestamp"] != Value::Null
    {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut status = review.forbidden(&why);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".into(),
            });
        }
        return Err(status);
    }
    Ok(())
}
