//! Changes an object: replacement, patch, apply, and their subresources.
//!
//! In: an `Ask` with a name, and a function from the stored object to the new one. Out: the stored object.
//! When the object changed meanwhile the function is asked again, unless the client named a resourceVersion.
//! An object that is being deleted goes away with its last finalizer.
//! Never: writes when nothing changed.

use super::{Ask, Chance, Written, to_bytes};
use crate::{
    admission::{self, Held, Operation, Review, dynamic},
    api::{limits, object},
    run::lead::is_term,
};
use limpet_objects::{managed, status::Status, strategy};
use limpet_store::{Expect, Record, StoreError, Write};
use serde_json::Value;
use std::sync::Arc;

/// The new state of an object.
pub struct Made {
    pub object: Value,
    /// Whether managedFields are already right (server-side apply).
    pub managed: bool,
}

impl From<Value> for Made {
    fn from(object: Value) -> Made {
        Made { object, managed: false }
    }
}

/// What the store said; a conflict may be tried again.
type Stored = Result<Written, StoreError>;

pub async fn update(
    ask: &mut Ask,
    mut make: impl FnMut(&mut Ask, &Value) -> Result<Made, Status>,
) -> Result<Written, Status> {
    let mut attempt = 0;
    loop {
        let record = ask.api.store.get(&ask.target.key()).ok_or_else(|| ask.target.not_found())?;
        let old = ask.target.parse(&record)?;
        let made = make(ask, &old)?;
        match replace(ask, &record, &old, made).await? {
            Ok(written) => return Ok(written),
            Err(StoreError::Conflict { key, .. } | StoreError::Exists(key))
                if attempt < limits::CONFLICT_RETRIES_MAX && !is_term(&key) =>
            {
                attempt += 1;
                ask.moved_on(&key, record.revision).await;
            }
            Err(error) => return Err(ask.target.refused(&error)),
        }
    }
}

async fn replace(ask: &mut Ask, record: &Record, old: &Value, made: Made) -> Result<Stored, Status> {
    let resource = Arc::clone(&ask.target.resource);
    let mut new = made.object;
    match object::resource_version(&new) {
        "" => object::set_meta(&mut new, "resourceVersion", record.revision.to_string().into()),
        version if version != record.revision.to_string() => return Err(ask.target.conflict()),
        _ => {}
    }
    let name = object::name(&new);
    if !name.is_empty() && name != ask.target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            ask.target.name
        )));
    }
    let namespace = object::namespace(&new);
    if !namespace.is_empty() && namespace != ask.target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    strategy::default(&resource, &mut new);
    let mut review = Review::new(ask, Operation::Update, &mut new, Some(old));
    let outcome = admission::mutate(&mut review).await;
    let warnings = std::mem::take(&mut review.warnings);
    ask.warnings.extend(warnings);
    outcome?;
    let mut said = Vec::new();
    let outcome = dynamic::mutate(ask, Operation::Update, &mut new, Some(old), &mut said).await;
    ask.warnings.extend(said);
    outcome?;
    let chance = Chance::new(&ask.api);
    // A binding also says in the status that the pod is scheduled.
    let bound_status = (ask.subresource == "binding").then(|| new["status"].clone());
    strategy::update(&resource, &mut new, old, &ask.subresource, &chance.ctx(&ask.user))?;
    if ask.subresource.is_empty() {
        ask.warnings.extend(resource.behaviour.warnings(&new, Some(old)));
    }
    if let Some(status) = bound_status {
        new["status"] = status;
        // Where it runs is not what its author wants of it: upstream counts no generation for a binding.
        new["metadata"]["generation"] = old["metadata"]["generation"].clone();
    }
    if !made.managed {
        ask.with_writer(chance.now, |writer| managed::update(Some(old), &mut new, writer, ask.place()));
    }
    let (said, outcome) = dynamic::validate(ask, Operation::Update, &new, Some(old)).await;
    ask.warnings.extend(said);
    outcome?;
    let held = admission::reserve(ask, &mut new, Some(old)).await?;
    store(ask, &held, record, old, new).await
}

async fn store(ask: &Ask, held: &Held<'_>, record: &Record, old: &Value, new: Value) -> Result<Stored, Status> {
    let goes = may_go(&new) && object::is_deleting(old);
    let as_it_is = |bytes| Ok(Ok(Written { bytes, revision: record.revision, created: false }));
    if new == *old && !goes {
        return as_it_is(ask.seen(&record.bytes)?);
    }
    if ask.dry_run {
        return as_it_is(to_bytes(&new)?);
    }
    let (key, expect, draft) = (ask.target.key(), Expect::Revision(record.revision), ask.draft(new)?);
    let write = match goes {
        true => Write::Delete { key, expect, last: Some(draft) },
        false => Write::Put { key, expect, draft },
    };
    match ask.write(held, write).await {
        Ok(record) => {
            ask.stored();
            Ok(Ok(Written { bytes: ask.seen(&record.bytes)?, revision: record.revision, created: false }))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// Whether an object that is being deleted has nothing left to wait for.
pub(super) fn may_go(object: &Value) -> bool {
    let namespace_waits = object["kind"] == "Namespace"
        && object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    object::is_deleting(object)
        && !object::has_finalizers(object)
        && !namespace_waits
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}
