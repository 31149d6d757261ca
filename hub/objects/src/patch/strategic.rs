//! Strategic merge patch: merges lists by the keys that the schema names, with directives in the patch.
//!
//! In: an object, a patch and the place of the object's kind. Out: the patched object.
//! Directives: `$patch: replace|delete`, `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`,
//! `$retainKeys`.
//! Source: the Kubernetes documentation's "strategic merge patch", and the observable order of its results.
//! Never: applies to kinds without a schema (upstream answers 415 for custom resources).

mod order;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::typed::{Atom, MapAtom, Place};
use crate::schema::PatchStrategy;
use order::{Kind, identity, partition, place_in_order, positions};

pub const MARKER: &str = "$patch";
pub const DELETE_FROM: &str = "$deleteFromPrimitiveList";
pub const SET_ORDER: &str = "$setElementOrder";
pub const RETAIN_KEYS: &str = "$retainKeys";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StrategicError {
    /// 400: a directive of the wrong form.
    #[error("{0}")]
    Malformed(String),
    /// 422: an unknown directive, lists of lists.
    #[error("{0}")]
    Rejected(String),
    /// 500 upstream: an item without its merge key and the like.
    #[error("{0}")]
    Unmergeable(String),
}

type Outcome<T> = Result<T, StrategicError>;

/// The object with the patch merged in.
pub fn strategic(object: &Value, patch: &Value, place: Place<'_>) -> Outcome<Value> {
    let Value::Object(patch) = patch else {
        return Err(StrategicError::Malformed("invalid JSON document".into()));
    };
    let original = object.as_object().cloned().unwrap_or_default();
    merge_map(original, patch.clone(), Some(place)).map(Value::Object)
}

/// Where a member of a map is, with its strategy.
struct Member<'t> {
    place: Option<Place<'t>>,
    strategy: PatchStrategy,
    merge_key: &'t str,
}

fn member<'t>(place: Option<Place<'t>>, map: &Map<String, Value>, name: &str) -> Member<'t> {
    let atom = place.map(|p| p.atom(&Value::Object(Map::new())));
    let below = match atom {
        Some(Atom::Map(atom)) => MapAtom::member(&atom, name),
        _ => None,
    };
    let (strategy, merge_key) = below.map(|p| p.strategy()).unwrap_or_default();
    let item = below.and_then(|p| match p.atom(map.get(name).unwrap_or(&Value::Null)) {
        Atom::List(list) => Some(list.item),
        _ => None,
    });
    Member { place: item.or(below), strategy, merge_key: merge_key.unwrap_or_default() }
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    place: Option<Place<'_>>,
) -> Outcome<Map<String, Value>> {
    if let Some(directive) = patch.get(MARKER) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(MARKER);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => Err(bad_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_orders(&mut original, &mut patch, place)?;
    for (key, mut change) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM) {
            Some(rest) => (list_name(rest, "invalid patch format of primitive list")?, true),
            None => (key, false),
        };
        if change.is_null() {
            original.remove(&key);
            continue;
        }
        let Some(current) = original.remove(&key) else {
            if !deletes {
                discard_nulls(&mut change);
                original.insert(key, without_directives(change));
            }
            continue;
        };
        let merged = match (current, change) {
            (Value::Object(current), Value::Object(change)) => {
                let member = member(place, &original, &key);
                if member.strategy.replace {
                    Value::Object(change)
                } else {
                    Value::Object(merge_map(current, change, member.place)?)
                }
            }
            (Value::Array(current), Value::Array(change)) => {
                let mut shell = Map::new();
                shell.insert(key.clone(), Value::Array(Vec::new()));
                let member = member(place, &shell, &key);
                Value::Array(merge_field(current, change, &member, deletes)?)
            }
            (current, _) if deletes => current,
            (_, mut change) => {
                discard_nulls(&mut change);
                without_directives(change)
            }
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// `$retainKeys`: what the patch does not name goes.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Outcome<()> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || StrategicError::Malformed("invalid patch format of retainKeys".into());
    let keys = keys.as_array().cloned().ok_or_else(bad)?;
    let retained = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
        if !value.is_null() && !directive && !retained(key) {
            return Err(bad());
        }
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

/// `$setElementOrder/<field>`: merges that field's list at once and puts it in order.
fn set_orders(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    place: Option<Place<'_>>,
) -> Outcome<()> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let order = patch.remove(&directive).unwrap_or_default();
        let bad = "invalid patch format of setElementOrder list";
        let key = list_name(directive.strip_prefix(SET_ORDER).unwrap_or_default(), bad)?;
        let Value::Array(order) = order else { return Err(StrategicError::Malformed(bad.into())) };
        let current = list_of(original.get(&key), bad)?;
        let change = list_of(patch.get(&key), bad)?;
        let mut shell = Map::new();
        shell.insert(key.clone(), Value::Array(Vec::new()));
        let member = member(place, &shell, &key);
        order::check_order(change.as_deref().unwrap_or_default(), &order, member.merge_key)?;
        let server_order = current.clone().unwrap_or_default();
        let merged = match (current, change) {
            (Some(current), None) => current,
            (None, Some(change)) => match without_directives(Value::Array(change)) {
                Value::Array(list) => list,
                _ => Vec::new(),
            },
            (Some(current), Some(change)) => merge_field(current, change, &member, false)?,
            (None, None) => continue,
        };
        patch.remove(&key);
        let kind = Kind::of(&merged, &order)?;
        let (in_order, rest) = partition(merged, &order, member.merge_key)?;
        let list = place_in_order(in_order, rest, &order, &server_order, member.merge_key, kind);
        original.insert(key, Value::Array(list));
    }
    Ok(())
}

fn list_of(value: Option<&Value>, bad: &str) -> Outcome<Option<Vec<Value>>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list.clone())),
        Some(_) => Err(StrategicError::Malformed(bad.into())),
    }
}

/// The name behind `$directive/`.
fn list_name(rest: &str, bad: &str) -> Outcome<String> {
    match rest.strip_prefix('/') {
        Some(name) if !name.is_empty() => Ok(name.to_string()),
        _ => Err(StrategicError::Malformed(bad.into())),
    }
}

fn merge_field(
    current: Vec<Value>,
    change: Vec<Value>,
    member: &Member<'_>,
    deletes: bool,
) -> Outcome<Vec<Value>> {
    if member.strategy.merge || deletes { merge_list(current, change, member, deletes) } else { Ok(change) }
}

fn merge_list(
    current: Vec<Value>,
    change: Vec<Value>,
    member: &Member<'_>,
    deletes: bool,
) -> Outcome<Vec<Value>> {
    if current.is_empty() && change.is_empty() {
        return Ok(current);
    }
    let kind = Kind::of(&current, &change)?;
    let key = member.merge_key;
    let (merged, change, server_order) = match kind {
        Kind::Scalars if deletes => {
            let gone = positions(&change, "");
            let stays = |v: &Value| identity(v, "").is_none_or(|id| !gone.contains_key(&id));
            return Ok(current.into_iter().filter(stays).collect());
        }
        Kind::Scalars => {
            let mut seen = BTreeSet::new();
            let both = current.iter().chain(&change).filter(|v| seen.insert(identity(v, "")));
            (both.cloned().collect(), change, current)
        }
        Kind::Maps => {
            if key.is_empty() {
                return Err(StrategicError::Unmergeable("cannot merge lists without merge key".into()));
            }
            let (current, change) = special_items(current, change, key)?;
            let merged = merge_items(current.clone(), &change, key, member.place)?;
            (merged, change, current)
        }
    };
    let merge_key = if kind == Kind::Maps { key } else { "" };
    let (patched, server_only) = partition(merged, &change, merge_key)?;
    Ok(place_in_order(patched, server_only, &change, &server_order, merge_key, kind))
}

/// Handles items with `$patch`; what is left of the original and of the patch.
fn special_items(
    mut current: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Outcome<(Vec<Value>, Vec<Value>)> {
    let mut plain = Vec::new();
    let mut gone = BTreeSet::new();
    let mut replace = false;
    for item in change {
        let Some(directive) = item.get(MARKER) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                gone.insert(identity(&item, key).ok_or_else(|| no_merge_key(&item, key))?);
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(StrategicError::Unmergeable(
                    "merging lists cannot yet be specified in the patch".into(),
                ));
            }
            _ => return Err(bad_directive(directive, item.as_object().unwrap_or(&Map::new()))),
        }
    }
    current.retain(|c| !identity(c, key).is_some_and(|id| gone.contains(&id)));
    Ok(if replace { (plain, Vec::new()) } else { (current, plain) })
}

fn merge_items(
    mut current: Vec<Value>,
    change: &[Value],
    key: &str,
    place: Option<Place<'_>>,
) -> Outcome<Vec<Value>> {
    if let Some(lacking) = current.iter().chain(change).find(|item| item.get(key).is_none()) {
        return Err(no_merge_key(lacking, key));
    }
    let mut places = positions(&current, key);
    for item in change {
        let Some(id) = identity(item, key) else { continue };
        match places.get(&id) {
            Some(&i) => {
                let (Value::Object(mine), Value::Object(theirs)) =
                    (std::mem::take(&mut current[i]), item.clone())
                else {
                    continue;
                };
                current[i] = Value::Object(merge_map(mine, theirs, place)?);
            }
            None => {
                let mut item = item.clone();
                discard_nulls(&mut item);
                places.insert(id, current.len());
                current.push(without_directives(item));
            }
        }
    }
    Ok(current)
}

/// A null that meets nothing asks for nothing.
fn discard_nulls(value: &mut Value) {
    crate::strict::drop_nulls(value);
}

/// What a patch leaves when there is nothing to merge it with.
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let directive = |k: &str| {
                k == MARKER || k == RETAIN_KEYS || k.starts_with(DELETE_FROM) || k.starts_with(SET_ORDER)
            };
            Value::Object(
                map.into_iter()
                    .filter(|(k, _)| !directive(k))
                    .map(|(k, v)| (k, without_directives(v)))
                    .collect(),
            )
        }
        Value::Array(list) => {
            let marked = |v: &Value| match v.get(MARKER).and_then(Value::as_str) {
                Some("delete") => true,
                Some("replace") => v.as_object().is_some_and(|m| m.len() == 1),
                _ => false,
            };
            Value::Array(list.into_iter().filter(|v| !marked(v)).map(without_directives).collect())
        }
        scalar => scalar,
    }
}

pub(super) fn no_merge_key(item: &Value, key: &str) -> StrategicError {
    StrategicError::Unmergeable(format!("map: {} does not contain declared merge key: {key}", go_text(item)))
}

fn bad_directive(directive: &Value, map: &Map<String, Value>) -> StrategicError {
    let shown = go_text(&Value::Object(map.clone()));
    StrategicError::Rejected(format!("unknown patch type: {} in map: {shown}", go_text(directive)))
}

/// A value as Go prints it with `%v`.
pub(super) fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}
