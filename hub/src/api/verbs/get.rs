//! GET of one object: the stored bytes, copied.
//!
//! In: a target with a name. Out: the object, 404, or 504 for a revision of the future. Never: parses the
//! common case.

use super::shape;
use crate::api::{Reply, Target, dispatch::Call};
use limpet_objects::{field::FieldError, status::Status};
use limpet_store::Revision;

pub fn answer(call: &Call, target: &Target) -> Result<Reply, Status> {
    if let Some(text) = call.query.text("resourceVersion") {
        let asked: Revision = text.parse().map_err(|_| {
            let error = FieldError::invalid("resourceVersion", text, "invalid syntax");
            Status::invalid("meta.k8s.io", "GetOptions", "", &[error])
        })?;
        not_of_the_future(asked, call.api.store.revision())?;
    }
    let record = call.api.store.get(&target.key()).ok_or_else(|| target.not_found())?;
    shape::stored(call, target, &record)
}

/// A revision that the store has not reached: the client talked with another hub, or with this one before a
/// restore.
pub fn not_of_the_future(asked: Revision, current: Revision) -> Result<(), Status> {
    if asked <= current {
        return Ok(());
    }
    let mut status = Status::timeout(&format!("Too large resource version: {asked}, current: {current}"), 1);
    if let Some(details) = &mut status.details {
        details.causes.push(limpet_objects::status::Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        });
    }
    Err(status)
}
