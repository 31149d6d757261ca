//! PATCH: JSON patch, merge patch, strategic merge patch, server-side apply.
//!
//! In: a patch and its media type. Out: the stored object; 409 for conflicts of apply, 415 for other media
//! types. A patch whose object changed meanwhile is made again on the new state. Never: a patch that its
//! kind's form forbids.

use super::{ask, dry_run, shape};
use crate::api::{
    Reply, Target, decode,
    dispatch::{Call, Input},
    negotiate, object,
    write::{
        self, Ask, Made,
        form::{Validation, conform_target},
    },
};
use bytes::Bytes;
use limpet_objects::{
    field::FieldError,
    patch::{self, ApplyError, JsonPatchError, Place, StrategicError},
    status::{Cause, Details, Status},
};
use serde_json::Value;

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let media = call.content_type();
    let known = known(target);
    if !known.contains(&media.as_str()) {
        return Err(Status::unsupported_media_type(known));
    }
    check_options(call, &media)?;
    let mut ask = ask(call, target)?;
    ask.dry_run = dry_run(call)?;
    let bytes = input.read().await?;
    let outcome = if media == "application/apply-patch+yaml" {
        apply(call, &mut ask, &bytes).await
    } else {
        let validation = Validation::of(&call.query)?;
        let patch = Patch::parse(&media, bytes.bytes.clone())?;
        let place = target.resource.place();
        write::update(&mut ask, |ask, old| {
            let new = patch.apply(old, place)?;
            formed(ask, new, &patch, validation)
        })
        .await
    };
    call.warnings.append(&mut ask.warnings);
    let written = outcome?;
    let code = if written.created { 201 } else { 200 };
    shape::written(call, target, code, written.bytes)
}

/// Custom resources have no strategic merge patch.
fn known(target: &Target) -> &'static [&'static str] {
    match target.resource.custom {
        Some(_) => negotiate::PATCHES_CUSTOM,
        None => negotiate::PATCHES,
    }
}

fn formed(
    ask: &mut Ask,
    mut new: Value,
    patch: &Patch,
    validation: Validation,
) -> Result<Made, Status> {
    let mut warnings = Vec::new();
    let outcome =
        conform_target(&mut new, &ask.target, patch.duplicates.clone(), validation, &mut warnings);
    // A retry finds the same again.
    ask.warnings = warnings;
    outcome.map(|()| Made::from(new))
}

pub fn check_options(call: &Call, media: &str) -> Result<(), Status> {
    let mut errors = Vec::new();
    let apply = media == "application/apply-patch+yaml";
    if apply && call.query.text("fieldManager").is_none() {
        errors.push(FieldError::required("fieldManager", "is required for apply patch"));
    }
    if !apply && call.query.text("force").is_some() {
        errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &errors)) }
}

/// A patch that is no apply.
pub struct Patch {
    kind: Kind,
    duplicates: Vec<String>,
}

enum Kind {
    Json(Bytes),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    pub fn parse(media: &str, bytes: Bytes) -> Result<Patch, Status> {
        if media == "application/json-patch+json" {
            return Ok(Patch { kind: Kind::Json(bytes), duplicates: Vec::new() });
        }
        let decoded = decode::json(&bytes).map_err(|s| match s.code {
            400 => Status::bad_request(format!("error decoding patch: {}", s.message)),
            _ => s,
        })?;
        let kind = match media {
            "application/merge-patch+json" => Kind::Merge(decoded.value),
            _ => Kind::Strategic(decoded.value),
        };
        Ok(Patch { kind, duplicates: decoded.duplicates })
    }

    /// The patched object; `place` is that of the object's kind.
    pub fn apply(&self, old: &Value, place: Place<'_>) -> Result<Value, Status> {
        match &self.kind {
            Kind::Json(bytes) => patch::json(old, bytes).map_err(|e| match e {
                JsonPatchError::Malformed(why) => Status::bad_request(format!("error decoding patch: {why}")),
                JsonPatchError::TooMany(_) => Status::new(413, "RequestEntityTooLarge", e.to_string()),
                JsonPatchError::Rejected(why) => rejected(&why),
            }),
            Kind::Merge(value) => patch::merge(old, value).map_err(|e| Status::bad_request(e.to_string())),
            Kind::Strategic(value) => patch::strategic(old, value, place).map_err(|e| match e {
                StrategicError::Malformed(why) => Status::bad_request(why),
                StrategicError::Rejected(why) => rejected(&why),
                StrategicError::Unmergeable(why) => Status::internal(why),
            }),
        }
    }
}

/// Upstream's words for a patch that does not fit the object.
fn rejected(why: &str) -> Status {
    let message = "the server rejected our request due to an error in our request";
    let mut status = Status::new(422, "Invalid", message);
    let cause =
        Cause { reason: "UnexpectedServerResponse".into(), message: why.into(), field: String::new() };
    status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
    status
}

/// Server-side apply: creates what is absent.
async fn apply(call: &Call, ask: &mut Ask, bytes: &[u8]) -> Result<write::Written, Status> {
    let mut decoded = decode::yaml(bytes).map_err(|s| {
        if s.code == 400 { Status::bad_request(format!("error decoding YAML: {}", s.message)) } else { s }
    })?;
    let force = call.query.flag("force");
    if Validation::of(&call.query)? == Validation::Strict && !decoded.duplicates.is_empty() {
        return Err(Status::bad_request(format!(
            "error strict decoding YAML: {}",
            limpet_objects::strict::strict_message(&decoded.duplicates)
        )));
    }
    check_name(&mut decoded.value, &ask.target)?;
    let applied = decoded.value;
    let outcome = write::update(ask, |ask, old| server_side(ask, Some(old), &applied, force)).await;
    match outcome {
        Err(status) if status.code == 404 && ask.subresource.is_empty() => {}
        outcome => return outcome,
    }
    if !object::uid(&applied).is_empty() {
        let wanted = object::uid(&applied);
        let why = format!(
            "uid mismatch: the provided object specified uid {wanted}, and no existing object was found"
        );
        return Err(ask.target.conflict_because(&why));
    }
    let name = ask.target.name.clone();
    let made = server_side(ask, None, &applied, force)?;
    match write::create(ask, made).await {
        // Somebody was faster: now it is there to be applied to.
        Err(status) if status.reason == "AlreadyExists" => {
            ask.target.name = name;
            write::update(ask, |ask, old| server_side(ask, Some(old), &applied, force)).await
        }
        outcome => outcome,
    }
}

fn check_name(applied: &mut Value, target: &Target) -> Result<(), Status> {
    let name = object::name(applied);
    if !name.is_empty() && name != target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    object::set_meta(applied, "name", target.name.clone().into());
    if target.resource.namespaced && object::namespace(applied).is_empty() {
        object::set_meta(applied, "namespace", target.namespace.clone().into());
    }
    Ok(())
}

/// One attempt of an apply to the object as it is.
pub fn server_side(ask: &mut Ask, live: Option<&Value>, applied: &Value, force: bool) -> Result<Made, Status> {
    let now = ask.api.now();
    let outcome = ask.with_writer(now, |writer| patch::apply(live, applied, writer, force, ask.place()));
    let outcome = outcome.map_err(|error| match &error {
        ApplyError::Conflicts(_) => {
            let text = |v: &Value, f: &str| v[f].as_str().unwrap_or_default().to_owned();
            let causes = error.causes();
            let causes = causes.iter().map(|c| Cause {
                reason: text(c, "reason"),
                message: text(c, "message"),
                field: text(c, "field"),
            });
            Status::apply_conflict(error.to_string(), causes.collect())
        }
        ApplyError::BadRequest(why) => Status::bad_request(why.clone()),
        ApplyError::NotTyped(why) => Status::new(500, "", why.clone()),
    })?;
    let mut object = outcome.object;
    conform_target(&mut object, &ask.target, Vec::new(), Validation::Ignore, &mut Vec::new())?;
    Ok(Made { object, managed: true })
}
