//! POST: a new object.
//!
//! In: a body. Out: 201 with the stored object. Never: overwrites.

use super::{ask, dry_run, shape};
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
    let warnings = &mut call.warnings;
    write::form::conform_target(&mut object, target, decoded.duplicates, validation, warnings)?;
    let outcome = write::create(&mut ask, object).await;
    call.warnings.append(&mut ask.warnings);
    let written = outcome?;
    shape::written(call, target, 201, written.bytes)
}
