//! Deletes an object: at once, after its finalizers, or after the node has ended its containers.
//!
//! In: an `Ask` with a name, `DeleteOptions`. Out: whether it is gone, and its last state.
//! Source: the Kubernetes pages "Garbage Collection" and "Pod Lifecycle" (termination).
//! Never: removes a bound, running pod before its node reports it gone, unless grace is 0.

use super::{Ask, Written, to_bytes, update::may_go};
use crate::{
    admission::{self, Held, Operation, Review, dynamic},
    api::{kinds, limits, object},
    run::lead::is_term,
};
use jiff::{Timestamp, ToSpan};
use limpet_hub_core::Propagation;
use limpet_objects::{field::FieldError, status::Status, time};
use limpet_store::{Expect, Record, StoreError, Write};
use serde_json::Value;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const POD_GRACE_S: i64 = 30;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    /// Seconds; negative counts as 1.
    pub grace: Option<i64>,
    pub propagation: Option<Propagation>,
    /// Preconditions.
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

pub struct Deleted {
    /// Whether it is gone; otherwise it waits for finalizers or its node.
    pub gone: bool,
    pub uid: String,
    pub last: Written,
}

impl DeleteOptions {
    /// From the body of a request; fields of the query count where the body has none.
    pub fn of(value: &Value) -> Result<DeleteOptions, Status> {
        let wrong = |error| Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
        let orphan = value["orphanDependents"].as_bool();
        let policy = value["propagationPolicy"].as_str();
        if orphan.is_some() && policy.is_some() {
            return wrong(FieldError::invalid(
                "propagationPolicy",
                policy.unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        let propagation = match (policy, orphan) {
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some(other), _) => {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                return wrong(FieldError::not_supported("propagationPolicy", other, &known));
            }
            (None, None) => None,
        };
        let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        Ok(DeleteOptions {
            grace: value["gracePeriodSeconds"].as_i64(),
            propagation,
            uid: text(&value["preconditions"]["uid"]),
            resource_version: text(&value["preconditions"]["resourceVersion"]),
        })
    }
}

pub async fn delete(ask: &mut Ask, options: &DeleteOptions) -> Result<Deleted, Status> {
    for _ in 0..limits::CONFLICT_RETRIES_MAX {
        let record = ask.api.store.get(&ask.target.key()).ok_or_else(|| ask.target.not_found())?;
        let mut object = ask.target.parse(&record)?;
        check_preconditions(ask, options, &object)?;
        let mut review = Review::new(ask, Operation::Delete, &mut object, None);
        admission::mutate(&mut review).await?;
        judge(ask, &object).await?;
        let old = object.clone();
        let now = ask.api.now();
        set_finalizers(&mut object, options.propagation);
        kinds::mark_deleted(&ask.target, &mut object, now);
        mark(&mut object, options, now);
        match store(ask, &record, &old, object).await? {
            Ok(deleted) => return Ok(deleted),
            Err(StoreError::Conflict { key, .. }) if !is_term(&key) => ask.moved_on(&key, record.revision).await,
            Err(error) => return Err(ask.target.refused(&error)),
        }
    }
    Err(ask.target.conflict())
}

/// Policies and webhooks about the delete.
async fn judge(ask: &mut Ask, object: &Value) -> Result<(), Status> {
    let mut said = Vec::new();
    let outcome = dynamic::mutate(ask, Operation::Delete, &mut Value::Null, Some(object), &mut said).await;
    ask.warnings.append(&mut said);
    outcome?;
    let (said, outcome) = dynamic::validate(ask, Operation::Delete, &Value::Null, Some(object)).await;
    ask.warnings.extend(said);
    outcome
}

async fn store(
    ask: &Ask,
    record: &Record,
    old: &Value,
    new: Value,
) -> Result<Result<Deleted, StoreError>, Status> {
    let uid = object::uid(old).to_owned();
    let gone = may_go(&new);
    let unchanged = !gone && new == *old;
    if ask.dry_run || unchanged {
        let last = Written { bytes: to_bytes(&new)?, revision: record.revision, created: false };
        return Ok(Ok(Deleted { gone, uid, last }));
    }
    let (key, expect) = (ask.target.key(), Expect::Revision(record.revision));
    // What is gone at once was never "being deleted": its last state is as it was.
    let draft = ask.draft(if gone && !object::is_deleting(old) { old.clone() } else { new })?;
    let write = match gone {
        true => Write::Delete { key, expect, last: Some(draft) },
        false => Write::Put { key, expect, draft },
    };
    let record = match ask.write(&Held::default(), write).await {
        Ok(record) => record,
        Err(error) => return Ok(Err(error)),
    };
    ask.stored();
    let last = Written { bytes: ask.seen(&record.bytes)?, revision: record.revision, created: false };
    Ok(Ok(Deleted { gone, uid, last }))
}

fn check_preconditions(ask: &Ask, options: &DeleteOptions, object: &Value) -> Result<(), Status> {
    let (uid, version) = (object::uid(object), object::resource_version(object));
    if let Some(wanted) = options.uid.as_deref().filter(|w| *w != uid) {
        return Err(ask.target.conflict_because(&format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have \
             been deleted and then recreated"
        )));
    }
    if let Some(wanted) = options.resource_version.as_deref().filter(|w| *w != version) {
        return Err(ask.target.conflict_because(&format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
             ({version}). The object might have been modified"
        )));
    }
    Ok(())
}

/// The garbage collector acts on these finalizers.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    let (add, drop): (Option<&str>, &[&str]) = match propagation {
        None => return,
        Some(Propagation::Background) => (None, &[ORPHAN, FOREGROUND]),
        Some(Propagation::Foreground) => (Some(FOREGROUND), &[ORPHAN]),
        Some(Propagation::Orphan) => (Some(ORPHAN), &[FOREGROUND]),
    };
    drop.iter().for_each(|f| object::remove_finalizer(object, f));
    // Somebody else may be waiting for a finalizer; none is added to what is already being deleted.
    if let Some(finalizer) = add
        && !object::is_deleting(object)
    {
        object::add_finalizer(object, finalizer);
    }
}

/// Marks the object as being deleted.
fn mark(object: &mut Value, options: &DeleteOptions, now: Timestamp) {
    let grace = grace(object, options);
    if !object::is_deleting(object) {
        let at = now.checked_add(grace.seconds()).unwrap_or(now);
        object::set_meta(object, "deletionTimestamp", time::rfc3339(at).into());
        object::set_meta(object, "deletionGracePeriodSeconds", grace.into());
        if let Some(generation) = object["metadata"]["generation"].as_i64() {
            object::set_meta(object, "generation", (generation + 1).into());
        }
        if object["kind"] == "Namespace"
            && let Some(status) = object::map(object, "status")
        {
            status.insert("phase".into(), "Terminating".into());
        }
        return;
    }
    // A second delete may only shorten the time.
    let before = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let asked = options.grace.is_some() || grace == 0;
    if asked && grace < before {
        let ends = object["metadata"]["deletionTimestamp"].as_str().and_then(time::parse).unwrap_or(now);
        let at = ends.checked_sub((before - grace).seconds()).unwrap_or(now);
        object::set_meta(object, "deletionTimestamp", time::rfc3339(at).into());
        object::set_meta(object, "deletionGracePeriodSeconds", grace.into());
    }
}

/// Seconds that the object's node gets. Only pods that may have running containers have any.
fn grace(object: &Value, options: &DeleteOptions) -> i64 {
    if object["kind"] != "Pod" {
        return 0;
    }
    let bound = object["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !bound || ended {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    match options.grace.or(own).unwrap_or(POD_GRACE_S) {
        negative if negative < 0 => 1,
        grace => grace.min(i64::from(i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(node: &str, phase: &str) -> Value {
        let spec = json!({"nodeName": node, "terminationGracePeriodSeconds": 20});
        json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": spec,
            "status": {"phase": phase}})
    }

    #[test]
    fn grace_is_for_bound_pods_that_may_run() {
        let options = |grace| DeleteOptions { grace, ..DeleteOptions::default() };
        for (object, asked, expect) in [
            (pod("n", "Running"), None, 20),
            (pod("n", "Running"), Some(5), 5),
            (pod("n", "Running"), Some(0), 0),
            (pod("n", "Running"), Some(-7), 1),
            (pod("", "Pending"), None, 0),
            (pod("n", "Succeeded"), Some(9), 0),
            (json!({"kind": "Secret"}), Some(9), 0),
        ] {
            assert_eq!(grace(&object, &options(asked)), expect, "{object}");
        }
    }

    #[test]
    fn a_second_delete_only_shortens() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut object = pod("n", "Running");
        let with = |grace| DeleteOptions { grace, ..DeleteOptions::default() };
        mark(&mut object, &with(None), now);
        assert_eq!(object["metadata"]["deletionTimestamp"], "2026-01-01T00:00:20Z");
        mark(&mut object, &with(Some(60)), now);
        assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], 20);
        mark(&mut object, &with(Some(5)), now);
        assert_eq!(object["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
        mark(&mut object, &with(Some(0)), now);
        assert!(may_go(&object));
    }

    #[test]
    fn options_of_bodies() {
        let of = |value| DeleteOptions::of(&value).map(|o| o.propagation).map_err(|s| s.code);
        assert_eq!(of(json!({"propagationPolicy": "Foreground"})), Ok(Some(Propagation::Foreground)));
        assert_eq!(of(json!({"orphanDependents": true})), Ok(Some(Propagation::Orphan)));
        assert_eq!(of(json!({"propagationPolicy": "x"})), Err(422));
        assert_eq!(of(json!({"propagationPolicy": "Orphan", "orphanDependents": true})), Err(422));
        assert_eq!(of(json!(null)), Ok(None));
    }
}
