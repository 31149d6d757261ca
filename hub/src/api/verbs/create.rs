//! POST: a new object.
//!
//! In: a body. Out: 201 with the stored object. Never: overwrites.

use super::{ask, dry_run, form, shape};
use crate::api::{
    Reply, Target, decode,
    dispatch::{Call, Input},
    write::{self, form::Validation},
};
use limpet_objects::status::Status;

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let validation = Validation::of(&call.query)?;
    let mut ask = ask(call, target)?;
    ask.dry_run = dry_run(call)?;
    let bytes = input.read().await?;
    let decoded = decode::object(&bytes, &call.content_type(), &target.resource.kind)?;
    let mut object = decoded.value;
    let api_version = target.resource.api_version();
    write::form::conform(
        &mut object,
        form(target, &api_version),
        decoded.duplicates,
        validation,
        &mut call.warnings,
    )?;
    let outcome = write::create(&mut ask, object).await;
    call.warnings.append(&mut ask.warnings);
    let written = outcome?;
    shape::written(call, target, 201, written.bytes)
}
