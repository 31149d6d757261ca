//! DELETE of one object.
//!
//! In: DeleteOptions in the body or in the query. Out: a Status, or the object where it is still there or
//! where upstream returns it. Never: waits until it is gone.

use super::{ask, dry_run, shape};
use crate::api::{
    Reply, Target, decode,
    dispatch::{Call, Input},
    reply,
    write::{self, DeleteOptions, form},
};
use limpet_objects::status::Status;
use serde_json::{Value, json};

/// Kinds whose last state is the answer.
const RETURNED: [&str; 6] = [
    "/persistentvolumeclaims",
    "/persistentvolumes",
    "/pods",
    "/podtemplates",
    "/serviceaccounts",
    "/services",
];

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let options = options(call, input).await?;
    let mut ask = ask(call, target)?;
    ask.dry_run = options.1;
    let outcome = write::delete(&mut ask, &options.0).await;
    call.warnings.append(&mut ask.warnings);
    let deleted = outcome?;
    let resource = &target.resource;
    if deleted.gone && !RETURNED.contains(&resource.storage.as_str()) {
        let status = Status::success(&resource.group, &resource.plural, &target.name, &deleted.uid);
        return Ok(reply::value(200, &status, call.wanted));
    }
    shape::written(call, target, 200, deleted.last.bytes)
}

/// What the body says, else the query; and whether it is a dry run.
pub async fn options(call: &mut Call, input: Input) -> Result<(DeleteOptions, bool), Status> {
    let bytes = input.read().await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        let value = json!({
            "gracePeriodSeconds": call.query.number("gracePeriodSeconds").map_err(Status::bad_request)?,
            "propagationPolicy": call.query.text("propagationPolicy"),
            "orphanDependents": call.query.has("orphanDependents").then(|| call.query.flag("orphanDependents")),
        });
        return Ok((DeleteOptions::of(&value)?, dry_run(call)?));
    }
    let decoded = decode::object(&bytes, &call.content_type(), "DeleteOptions")?;
    let mut value = decoded.value;
    // Clients send DeleteOptions of whatever group they talk to.
    let api_version = value["apiVersion"].as_str().unwrap_or("v1").to_owned();
    let form = form::Form {
        api_version: &api_version,
        kind: "DeleteOptions",
        definition: "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    };
    form::conform(&mut value, form, decoded.duplicates, form::Validation::Ignore, &mut call.warnings)?;
    let dry = match value["dryRun"].as_array() {
        Some(list) if !list.is_empty() => check_dry_run(list)?,
        _ => dry_run(call)?,
    };
    Ok((DeleteOptions::of(&value)?, dry))
}

fn check_dry_run(list: &[Value]) -> Result<bool, Status> {
    match list.iter().find(|v| *v != "All") {
        None => Ok(true),
        Some(other) => {
            let error = limpet_objects::field::FieldError::not_supported("dryRun", other.clone(), &["All"]);
            Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]))
        }
    }
}
