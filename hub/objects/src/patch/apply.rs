//! Server-side apply: an applied configuration is the whole of what its manager wants, and only that.
//!
//! In: the live object (or none), the configuration, who applies. Out: the new object with its
//! managedFields, or the conflicts with other managers in Kubernetes' words.
//! Source: the Kubernetes documentation's "Server-Side Apply".
//! Never: defaults or validates beyond the schema; stores nothing.

use serde_json::{Map, Value, json};

use super::fields::{Path, Set, path_text};
use super::join::{join, zero};
use super::typed::{Place, check};
use super::walk::{Comparison, compare, fields_of, with_named_fields, without};
use crate::managed::{self, BEFORE_FIRST_APPLY, Entry, ManagerId, Managers, Writer};
use crate::time;

/// Where `kubectl apply` (client-side) keeps its last configuration.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager of `kubectl apply --server-side`, for which conflicts with its client-side past are none.
const KUBECTL: &str = "kubectl";
/// Bytes of all annotations; a longer last-applied configuration is not kept.
const ANNOTATIONS_MAX: usize = 256 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: ManagerId,
    pub path: Path,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApplyError {
    /// 409 with reason Conflict; see `causes`.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// 400.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the schema. Upstream answers 500 with this text and no reason.
    #[error("{0}")]
    NotTyped(String),
}

impl ApplyError {
    /// `details.causes` of the Status.
    pub fn causes(&self) -> Vec<Value> {
        let ApplyError::Conflicts(conflicts) = self else { return Vec::new() };
        let cause = |c: &Conflict| {
            json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", manager_text(&c.manager)),
                "field": path_text(&c.path),
            })
        };
        conflicts.iter().map(cause).collect()
    }
}

/// `"kubectl" using apps/v1`, `"hpa" with subresource "scale" using apps/v1`, `"applier"`.
fn manager_text(id: &ManagerId) -> String {
    let mut text = format!("{:?}", id.manager);
    if !id.subresource.is_empty() {
        text += &format!(" with subresource {:?}", id.subresource);
    }
    if !id.apply {
        text += &format!(" using {}", id.api_version);
    }
    text
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        let path = path_text(&only.path);
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {path}",
            manager_text(&only.manager)
        );
    }
    let mut lines = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", manager_text(&conflict.manager)));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", path_text(&conflict.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// The outcome of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub object: Value,
    /// False: neither fields nor ownership changed, nothing need be written.
    pub changed: bool,
}

/// Applies a configuration. `live` is None when the object does not exist yet.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
    place: Place<'_>,
) -> Result<Applied, ApplyError> {
    precheck(live, applied, writer, place)?;
    let outcome = attempt(live, applied, writer, force, place);
    match outcome {
        Err(ApplyError::Conflicts(conflicts)) if writer.manager == KUBECTL => {
            // What client-side apply set last is kubectl's own.
            let allowed = live.map(|live| last_applied_fields(live, place)).unwrap_or_default();
            let rest: Vec<Conflict> = conflicts.into_iter().filter(|c| !allowed.has(&c.path)).collect();
            if rest.is_empty() {
                attempt(live, applied, writer, true, place)
            } else {
                Err(ApplyError::Conflicts(rest))
            }
        }
        outcome => outcome,
    }
}

fn precheck(
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    place: Place<'_>,
) -> Result<(), ApplyError> {
    if !applied.is_object() {
        return Err(ApplyError::BadRequest("error decoding YAML: the configuration is not an object".into()));
    }
    let version = applied.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if version != writer.api_version {
        return Err(ApplyError::BadRequest(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
            writer.api_version
        )));
    }
    if applied.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    if let Some(live) = live {
        Managers::decode(managed::entries_of(live))
            .map_err(|e| ApplyError::BadRequest(format!("failed to decode managed fields: {e}")))?;
    }
    let findings = check(place, applied);
    match findings.as_slice() {
        [] => Ok(()),
        [one] => Err(not_typed(applied, one)),
        many => Err(not_typed(applied, &format!("errors:\n  {}", many.join("\n  ")))),
    }
}

fn not_typed(applied: &Value, why: &str) -> ApplyError {
    let text = |pointer: &str| applied.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let version = text("/apiVersion");
    let group_version = if version.contains('/') { version.to_string() } else { format!("/{version}") };
    ApplyError::NotTyped(format!(
        "failed to create typed patch object ({}/{}; {group_version}, Kind={}): {why}",
        text("/metadata/namespace"),
        text("/metadata/name"),
        text("/kind")
    ))
}

fn attempt(
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
    place: Place<'_>,
) -> Result<Applied, ApplyError> {
    let base = match live {
        Some(live) => managed::stripped(live),
        None => json!({}),
    };
    let mut managers =
        live.map(|l| Managers::decode(managed::entries_of(l)).unwrap_or_default()).unwrap_or_default();
    managers.reconcile(&base, place);
    if live.is_some() && managers.entries.is_empty() {
        let earlier = Writer { manager: BEFORE_FIRST_APPLY, subresource: "", ..*writer };
        managers.record_update(&zero(place, &base), &base, &earlier, place);
    }

    let ignored = managed::reset_set(writer.reset);
    let mentioned = fields_of(place, applied).recursive_difference(&ignored);
    let configured = mentioned.difference(managed::unowned());
    let id = writer.id(true);
    let previous = managers.entries.get(&id).cloned();
    let joined = join(place, &base, applied);
    let entry = Entry {
        api_version: writer.api_version.to_string(),
        fields: mentioned,
        time: previous.as_ref().and_then(|e| e.time.clone()),
    };
    managers.entries.insert(id.clone(), entry);

    let mut object = prune(place, joined, &managers, previous.as_ref().map(|e| &e.fields));
    if place.is_typed() {
        crate::strict::drop_nulls(&mut object);
    }
    let change = compare(place, &base, &object).without(&ignored);
    settle(&mut managers, &id, &change, force)?;

    let same_fields = previous.is_some_and(|e| e.fields == configured && e.api_version == writer.api_version);
    if same_fields && change.is_same() {
        return Ok(Applied { object: live.cloned().unwrap_or(object), changed: false });
    }
    if let Some(entry) = managers.entries.get_mut(&id) {
        entry.fields = configured;
        entry.time = Some(time::rfc3339(writer.now));
    }
    managers.drop_empty();
    managers.cap();
    keep_last_applied(&mut object, applied, writer);
    managers.encode_into(&mut object);
    Ok(Applied { object, changed: true })
}

/// Removes what this manager applied before, applies no longer, and nobody else owns.
fn prune(place: Place<'_>, joined: Value, managers: &Managers, last: Option<&Set>) -> Value {
    let Some(last) = last.filter(|last| !last.is_empty()) else { return joined };
    let named = |set: &Set| with_named_fields(place, &joined, set);
    let empty = || Value::Object(Map::new());
    let last_named = named(last);
    let pruned = without(place, &joined, &last_named).unwrap_or_else(empty);

    // What any manager owns comes back …
    let owned = managers.entries.values().fold(Set::default(), |all, entry| all.union(&entry.fields));
    let all = named(&fields_of(place, &joined));
    let keep = named(&fields_of(place, &pruned)).union(&named(&owned));
    let pruned = without(place, &joined, &all.difference(&keep)).unwrap_or_else(empty);

    // … and what nobody owns stays, unless it was this manager's or lies in what went.
    let gone = all.difference(&named(&fields_of(place, &pruned))).intersection(&last_named);
    without(place, &joined, &gone).unwrap_or_else(empty)
}

/// Finds conflicts; with force takes the fields from the others.
fn settle(
    managers: &mut Managers,
    id: &ManagerId,
    change: &Comparison,
    force: bool,
) -> Result<(), ApplyError> {
    let set = change.modified.union(&change.added);
    let mut conflicts = Vec::new();
    for (other, entry) in managers.entries.iter().filter(|(other, _)| *other != id) {
        for path in entry.fields.intersection(&set).paths() {
            conflicts.push(Conflict { manager: other.clone(), path });
        }
    }
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    let lost = set.union(&change.removed);
    for (_, entry) in managers.entries.iter_mut().filter(|(other, _)| *other != id) {
        entry.fields = entry.fields.difference(&lost);
    }
    Ok(())
}

/// The fields that `kubectl apply` set last on its own side, as far as the live object still has them so.
fn last_applied_fields(live: &Value, place: Place<'_>) -> Set {
    let Some(text) =
        live.pointer("/metadata/annotations").and_then(|a| a.get(LAST_APPLIED)).and_then(Value::as_str)
    else {
        return Set::default();
    };
    let Ok(decoded) = crate::strict::decode(text.as_bytes(), Default::default()) else {
        return Set::default();
    };
    let last = decoded.value;
    if last.get("apiVersion") != live.get("apiVersion") {
        return Set::default();
    }
    let change = compare(place, &last, live);
    fields_of(place, &last).difference(&change.modified.union(&change.removed))
}

/// Keeps the annotation of client-side apply true for clients that still read it.
fn keep_last_applied(object: &mut Value, applied: &Value, writer: &Writer<'_>) {
    if writer.manager != KUBECTL {
        return;
    }
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if !annotations.contains_key(LAST_APPLIED) {
        return;
    }
    let mut last = applied.clone();
    if let Some(annotations) = last.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{last}\n");
    let others: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if others + text.len() <= ANNOTATIONS_MAX {
        annotations.insert(LAST_APPLIED.into(), Value::String(text));
    } else {
        annotations.remove(LAST_APPLIED);
    }
}

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
