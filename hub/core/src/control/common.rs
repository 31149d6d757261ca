//! What several controllers do in the same way: owner references, pods from templates, claims, status writes.
//!
//! In: objects of the view. Out: JSON and changes. Never: a status write that changes nothing.

use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    canonical::json_diff,
    view::{Kind, Meta, Namespace, Obj, Pod, Selector, conditions::rfc3339},
};
use jiff::SignedDuration;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The controller reference to an object.
pub fn owner_reference<T>(owner: &Obj<T>) -> Value
where
    Obj<T>: Kind,
{
    json!({
        "apiVersion": <Obj<T> as Kind>::API_VERSION,
        "kind": <Obj<T> as Kind>::KIND,
        "name": owner.meta.name,
        "uid": owner.meta.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// A pod of a template: labels, annotations and finalizers of the template, one owner.
pub fn pod_of_template(template: &Value, namespace: &str, name: &str, owner: Value) -> Value {
    let meta = template.get("metadata").cloned().unwrap_or_default();
    let mut out = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": [owner]},
        "spec": template.get("spec").cloned().unwrap_or_default(),
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(v) = meta.get(field).filter(|v| !v.is_null()) {
            out["metadata"][field] = v.clone();
        }
    }
    out
}

/// Patches `/status` to be `status` when it is not. Only for status that one controller alone writes.
pub fn set_status<T>(plan: &mut Plan, object: &Obj<T>, status: Value)
where
    Obj<T>: Kind,
{
    if let Some(diff) = status_diff(object, &status) {
        plan.patch(<Obj<T> as Kind>::RESOURCE, &object.meta, Some("status"), json!({"status": diff}));
    }
}

/// As `set_status`, for status that others write, too: nothing happens when they did meanwhile.
pub fn set_shared_status<T>(plan: &mut Plan, object: &Obj<T>, status: Value)
where
    Obj<T>: Kind,
{
    if let Some(diff) = status_diff(object, &status) {
        plan.patch_exact(<Obj<T> as Kind>::RESOURCE, &object.meta, Some("status"), json!({"status": diff}));
    }
}

fn status_diff<T>(object: &Obj<T>, status: &Value) -> Option<Value> {
    let old = object.field("/status");
    let old = if old.is_null() { json!({}) } else { old };
    json_diff(&old, status)
}

/// A controller's own condition among those of others, which stay as they are and where they are.
pub fn with_condition(conditions: &Value, own: Value) -> Value {
    let mut all = conditions.as_array().cloned().unwrap_or_default();
    match all.iter_mut().find(|c| c["type"] == own["type"]) {
        Some(before) => *before = own,
        None => all.push(own),
    }
    Value::Array(all)
}

/// Whether a namespace is being deleted: nothing new can be made in it.
pub fn is_terminating(view: &ObjectStore, namespace: &str) -> bool {
    view.get::<Namespace>("", namespace).is_some_and(|n| n.meta.deleting.is_some())
}

/// Later by so many seconds; the end of time when that is out of range.
pub fn after(t: Timestamp, seconds: i64) -> Timestamp {
    let bound = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    t.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(bound)
}

/// A number, or null for 0 (Kubernetes leaves zeros out).
pub fn count(n: i32) -> Value {
    if n == 0 { Value::Null } else { json!(n) }
}

pub fn time(t: Timestamp) -> Value {
    json!(rfc3339(t))
}

pub fn optional_time(t: Option<Timestamp>) -> Value {
    t.map_or(Value::Null, time)
}

/// The objects of kind `K` that `owner` controls; adopts loose ones that match, lets go of those that no longer do.
pub fn claim<'a, K: Kind + 'a, T>(
    view: &'a ObjectStore,
    owner: &'a Obj<T>,
    selector: &Selector,
    plan: &mut Plan,
    meta: impl Fn(&K) -> &Meta,
) -> Vec<&'a Arc<K>>
where
    Obj<T>: Kind,
{
    claim_some(view, owner, plan, &meta, |o| !selector.is_empty() && selector.matches(&meta(o).labels), |_| true)
}

/// As `claim`: `matches` says what belongs to the owner, and only `settled` objects are adopted or let go.
pub fn claim_some<'a, K: Kind + 'a, T>(
    view: &'a ObjectStore,
    owner: &'a Obj<T>,
    plan: &mut Plan,
    meta: impl Fn(&K) -> &Meta,
    matches: impl Fn(&K) -> bool,
    settled: impl Fn(&K) -> bool,
) -> Vec<&'a Arc<K>>
where
    Obj<T>: Kind,
{
    let mut held = Vec::new();
    let going = owner.meta.deleting.is_some();
    for object in view.controlled_by::<K>(&owner.meta.uid) {
        let m = meta(object);
        if m.namespace != owner.meta.namespace {
            continue;
        }
        if matches(object) {
            held.push(object);
        } else if !going && m.deleting.is_none() && settled(object) {
            plan.patch_exact(K::RESOURCE, m, None, references_without(m, &owner.meta.uid));
            plan.because("Release", format!("{} no longer matches the selector", m.name));
        }
    }
    if going {
        return held;
    }
    for object in view.loose::<K>(&owner.meta.namespace) {
        let m = meta(object);
        if m.deleting.is_none() && matches(object) && settled(object) {
            plan.patch_exact(K::RESOURCE, m, None, references_with(m, owner_reference(owner)));
            plan.because("Adopt", format!("{} matches the selector and has no controller", m.name));
            held.push(object);
        }
    }
    held
}

/// All owner references, as JSON.
pub fn references(meta: &Meta) -> Vec<Value> {
    let flag = |out: &mut Map<String, Value>, name: &str, on: bool| {
        if on {
            out.insert(name.into(), json!(true));
        }
    };
    let one = |o: &crate::view::OwnerRef| {
        let mut out = Map::new();
        for (k, v) in [("apiVersion", &o.api_version), ("kind", &o.kind), ("name", &o.name), ("uid", &o.uid)]
        {
            out.insert(k.into(), json!(v));
        }
        flag(&mut out, "controller", o.controller);
        flag(&mut out, "blockOwnerDeletion", o.block_owner_deletion);
        Value::Object(out)
    };
    meta.owners.iter().map(one).collect()
}

fn references_with(meta: &Meta, owner: Value) -> Value {
    let mut refs = references(meta);
    refs.push(owner);
    json!({"metadata": {"ownerReferences": refs}})
}

/// The patch that takes one owner away.
pub fn references_without(meta: &Meta, uid: &str) -> Value {
    let refs: Vec<Value> = references(meta).into_iter().filter(|r| r["uid"] != uid).collect();
    json!({"metadata": {"ownerReferences": if refs.is_empty() { Value::Null } else { json!(refs) }}})
}

/// The patch that takes one finalizer away.
pub fn finalizers_without(meta: &Meta, name: &str) -> Value {
    let left: Vec<&str> = meta.finalizers.iter().map(|f| &**f).filter(|f| *f != name).collect();
    json!({"metadata": {"finalizers": if left.is_empty() { Value::Null } else { json!(left) }}})
}

/// Keys of the objects of kind `K` that an event about a child concerns: its controller before and after; for a child
/// without one, all objects that would adopt it.
pub fn owners_of<K: Kind>(
    view: &ObjectStore,
    changed: &Changed,
    of: impl Fn(&K) -> (&Meta, Option<&Selector>),
) -> Vec<Key> {
    let mut keys = Vec::new();
    for meta in changed.metas() {
        if let Some(c) = meta.controller().filter(|c| &*c.kind == K::KIND) {
            keys.push(Key::new(K::RESOURCE, &meta.namespace, &c.name));
        }
    }
    if let Some(new) = changed.new.as_ref().map(|o| o.meta()).filter(|m| m.controller().is_none()) {
        for owner in view.list::<K>(&new.namespace) {
            let (meta, selector) = of(owner);
            if selector.is_some_and(|s| !s.is_empty() && s.matches(&new.labels)) {
                keys.push(Key::new(K::RESOURCE, &meta.namespace, &meta.name));
            }
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Name for the `n`th pod of a step that is not taken yet.
pub fn free_pod_name(view: &ObjectStore, namespace: &str, base: &str, seed: u64, n: &mut u64) -> String {
    loop {
        let name = crate::names::generated(base, seed, *n);
        *n += 1;
        if view.get::<Pod>(namespace, &name).is_none() {
            return name;
        }
    }
}
