//! Creates an object.
//!
//! In: an `Ask` without a name, an object in the form of its kind. Out: the stored object. A generated name
//! that is taken is tried again. Never: overwrites.

use super::{Ask, Chance, Made, Written, to_bytes};
use crate::{
    admission::{self, Operation, Review, dynamic, is_guard},
    api::{kinds, limits, object},
};
use limpet_objects::{managed, status::Status, strategy};
use limpet_store::{Expect, StoreError, Write};
use serde_json::Value;
use std::sync::Arc;

pub async fn create(ask: &mut Ask, made: impl Into<Made>) -> Result<Written, Status> {
    let Made { mut object, managed } = made.into();
    if !object::resource_version(&object).is_empty() {
        return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    kinds::check_create(ask)?;
    let resource = Arc::clone(&ask.target.resource);
    ask.target.name = object::name(&object).to_owned();
    strategy::default(&resource, &mut object);
    let namespace = ask.target.namespace.clone();
    if resource.namespaced && object::namespace(&object).is_empty() {
        object::set_meta(&mut object, "namespace", namespace.clone().into());
    }
    let mut review = Review::new(ask, Operation::Create, &mut object, None);
    let outcome = admission::mutate(&mut review).await;
    let warnings = std::mem::take(&mut review.warnings);
    ask.warnings.extend(warnings);
    outcome?;
    let mut said = Vec::new();
    let outcome = dynamic::mutate(ask, Operation::Create, &mut object, None, &mut said).await;
    ask.warnings.extend(said);
    outcome?;
    if !ask.target.name.is_empty() {
        return attempt_create(ask, Made { object, managed }).await;
    }
    for attempt in 0.. {
        match attempt_create(ask, Made { object: object.clone(), managed }).await {
            Err(status) if status.reason == "AlreadyExists" => {
                if attempt + 1 < limits::GENERATE_NAME_RETRIES_MAX {
                    continue;
                }
                let (group, plural) = (&resource.group, &resource.plural);
                return Err(Status::generated_name_taken(group, plural, &ask.target.name));
            }
            outcome => return outcome,
        }
    }
    Err(Status::internal("no attempt was made"))
}

/// The uid of a pod that its node knows beforehand (runs of CronJobs that are bound to a node); only the hub's own Job
/// controller may choose one.
fn known_uid(ask: &Ask, object: &serde_json::Value) -> Option<String> {
    let own = ask.user.name == "system:limpet:job-controller" && ask.user.in_group("system:masters");
    let uid = object::uid(object);
    (own && ask.target.resource.storage == "/pods" && !uid.is_empty()).then(|| uid.to_owned())
}

async fn attempt_create(ask: &mut Ask, made: Made) -> Result<Written, Status> {
    let mut object = made.object;
    let resource = Arc::clone(&ask.target.resource);
    let chance = Chance::new(&ask.api);
    let namespace = resource.namespaced.then_some(ask.target.namespace.as_str());
    let known = known_uid(ask, &object);
    strategy::create(&resource, &mut object, namespace, &chance.ctx(&ask.user))?;
    if let Some(uid) = known {
        object::set_meta(&mut object, "uid", uid.into());
    }
    ask.warnings.extend(resource.behaviour.warnings(&object, None));
    ask.target.name = object::name(&object).to_owned();
    if !made.managed {
        ask.with_writer(chance.now, |writer| managed::update(None, &mut object, writer, ask.place()));
    }
    let (said, outcome) = dynamic::validate(ask, Operation::Create, &object, None).await;
    ask.warnings.extend(said);
    outcome?;
    let attempts = if ask.api.store.is_shared() { limits::CONFLICT_RETRIES_MAX } else { 1 };
    for attempt in 1..=attempts {
        let own = if attempt == attempts { std::mem::take(&mut object) } else { object.clone() };
        match store(ask, own).await? {
            Ok(written) => return Ok(written),
            // Another hub gave an address or charged a quota meanwhile.
            Err(StoreError::Conflict { key, .. } | StoreError::Exists(key)) if is_guard(&key) => {}
            Err(error) => return Err(ask.target.refused(&error)),
        }
    }
    Err(ask.target.conflict())
}

async fn store(ask: &Ask, mut object: Value) -> Result<Result<Written, StoreError>, Status> {
    // From here to the store's answer, addresses and quotas are held.
    let held = admission::reserve(ask, &mut object, None).await?;
    if ask.dry_run {
        if ask.api.store.get(&ask.target.key()).is_some() {
            return Ok(Err(StoreError::Exists(ask.target.key().into())));
        }
        return Ok(Ok(Written { bytes: to_bytes(&object)?, revision: ask.api.store.revision(), created: true }));
    }
    let write = Write::Put { key: ask.target.key(), expect: Expect::Absent, draft: ask.draft(object)? };
    let record = match ask.write(&held, write).await {
        Ok(record) => record,
        Err(error) => return Ok(Err(error)),
    };
    ask.stored();
    Ok(Ok(Written { bytes: ask.seen(&record.bytes)?, revision: record.revision, created: true }))
}
