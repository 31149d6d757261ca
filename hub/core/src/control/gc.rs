//! Decides which objects go because their owners went.
//!
//! In: any object with owners, or one that is deleted in the foreground or with its dependents orphaned. Out: deletes,
//! and owner references and finalizers to take away.
//! Semantics: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
//! An owner is who the reference names in full: one of another kind, name or namespace than it says does not count.
//! Never: takes a dependent while one of its owners is there to stay, or one without a namespace that says it is owned by
//! something in a namespace.

use super::{
    Controller,
    common::{finalizers_without, references_without},
};
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Propagation, Regarding, Timestamp, limits,
    view::{Meta, OwnerRef},
};
use limpet_objects::registry::registry;
use serde_json::Value;

const NAME: &str = "garbage-collector-controller";
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

#[derive(Debug)]
pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &["*"]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let old = changed.old.as_ref().map(|o| o.meta());
        let new = changed.new.as_ref().map(|o| o.meta());
        let mut keys = Vec::new();
        if let Some(new) = new
            && concerns(old, new)
        {
            keys.push(changed.key.clone());
        }
        if let Some(old) = old
            && new.is_none_or(|n| n.uid != old.uid || n.owners != old.owners)
        {
            if new.is_none_or(|n| n.uid != old.uid) {
                keys.extend(view.owned_by(&old.uid).cloned());
            }
            let owners = old.owners.iter().filter_map(|o| view.by_uid(&o.uid));
            keys.extend(owners.filter(|k| meta(view, k).is_some_and(|m| m.deleting.is_some())).cloned());
        }
        if let (Some(old), Some(new)) = (old, new)
            && !old.has_finalizer(FOREGROUND)
            && new.has_finalizer(FOREGROUND)
        {
            keys.extend(view.owned_by(&new.uid).cloned());
        }
        keys
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(meta) = meta(view, key) else { return plan };
        if meta.deleting.is_none() {
            attempt(view, key, meta, &mut plan);
        } else if meta.has_finalizer(ORPHAN) {
            orphan(view, key, meta, &mut plan);
        } else if meta.has_finalizer(FOREGROUND) {
            foreground(view, key, meta, &mut plan);
        }
        plan
    }
}

/// Whether the object itself is to be looked at: its owners are new, or its deletion began.
fn concerns(old: Option<&Meta>, new: &Meta) -> bool {
    let same = old.is_some_and(|o| {
        o.uid == new.uid
            && o.owners == new.owners
            && o.finalizers == new.finalizers
            && o.deleting.is_some() == new.deleting.is_some()
    });
    !same && (!new.owners.is_empty() || new.deleting.is_some())
}

fn meta<'a>(view: &'a ObjectStore, key: &Key) -> Option<&'a Meta> {
    view.object(key).map(|o| o.meta())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// There, and to stay.
    Solid,
    /// Waits for this dependent to go.
    Waiting,
    Gone,
}

fn owner(view: &ObjectStore, dependent: &Key, reference: &OwnerRef) -> Owner {
    let found = view.by_uid(&reference.uid).filter(|k| is_meant(k, dependent, reference));
    match found.and_then(|k| meta(view, k)) {
        None => Owner::Gone,
        Some(m) if m.deleting.is_some() && m.has_finalizer(FOREGROUND) => Owner::Waiting,
        Some(_) => Owner::Solid,
    }
}

/// Whether the object with the uid of a reference is what the reference says. Kinds that are not built in are not compared.
fn is_meant(found: &Key, dependent: &Key, reference: &OwnerRef) -> bool {
    let near = found.namespace.is_empty() || found.namespace == dependent.namespace;
    let kind = registry().by_kind(&reference.api_version, &reference.kind);
    near && found.name == reference.name && kind.is_none_or(|k| k.storage == *found.resource)
}

/// An owner in a namespace in which the dependent is not.
fn is_out_of_reach(view: &ObjectStore, dependent: &Key, reference: &OwnerRef) -> bool {
    let found = view.by_uid(&reference.uid);
    found.is_some_and(|k| !k.namespace.is_empty() && k.namespace != dependent.namespace)
}

/// Whether something without a namespace says that it belongs to something in one. What is not there is judged by its kind.
fn is_lifted(view: &ObjectStore, dependent: &Key, reference: &OwnerRef) -> bool {
    let by_kind = || registry().by_kind(&reference.api_version, &reference.kind).is_some_and(|k| k.namespaced);
    dependent.namespace.is_empty() && view.by_uid(&reference.uid).map_or_else(by_kind, |k| !k.namespace.is_empty())
}

/// Events are about built-in kinds only: of others the view knows no kind.
fn tell_of_strangers(view: &ObjectStore, key: &Key, meta: &Meta, plan: &mut Plan) {
    let Some(resource) = registry().by_storage(&key.resource) else { return };
    for o in meta.owners.iter().filter(|o| is_out_of_reach(view, key, o)) {
        let namespace = &key.namespace;
        let regarding = Regarding {
            api_version: resource.api_version(),
            kind: resource.kind.clone(),
            namespace: namespace.to_string(),
            name: key.name.to_string(),
            uid: meta.uid.to_string(),
            resource_version: meta.resource_version,
        };
        let message = format!(
            "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace {namespace:?}",
            o.api_version, o.kind, o.name, o.uid
        );
        plan.event(regarding, EventType::Warning, "OwnerRefInvalidNamespace", message, NAME);
    }
}

fn attempt(view: &ObjectStore, key: &Key, meta: &Meta, plan: &mut Plan) {
    if meta.owners.is_empty() {
        return;
    }
    tell_of_strangers(view, key, meta, plan);
    if meta.owners.iter().any(|o| is_lifted(view, key, o)) {
        return plan.because("NotCollected", format!("{key} has no namespace, and an owner in one"));
    }
    let states: Vec<Owner> = meta.owners.iter().map(|o| owner(view, key, o)).collect();
    if states.contains(&Owner::Solid) {
        if states.iter().any(|s| *s != Owner::Solid) {
            plan.patch_exact(&key.resource, meta, None, keep_solid(meta, &states));
        }
        return;
    }
    let blocks_others = view.owned_by(&meta.uid).next().is_some();
    if states.contains(&Owner::Waiting) && waits_in_a_circle(view, meta) {
        plan.because("Circle", format!("{key} owns what it waits for"));
        plan.patch_exact(&key.resource, meta, None, unblocked(meta));
    }
    let propagation = match states.contains(&Owner::Waiting) && blocks_others {
        true => Propagation::Foreground,
        false if meta.has_finalizer(ORPHAN) => Propagation::Orphan,
        false if meta.has_finalizer(FOREGROUND) => Propagation::Foreground,
        false => Propagation::Background,
    };
    plan.because("OwnersGone", format!("no owner of {key} is left"));
    plan.delete_with(&key.resource, meta, None, Some(propagation));
}

/// Whether something that this object owns is being deleted in the foreground: owners in a circle would wait for each
/// other for ever.
fn waits_in_a_circle(view: &ObjectStore, of: &Meta) -> bool {
    let blocking = of.owners.iter().any(|o| o.block_owner_deletion);
    let mut owned = view.owned_by(&of.uid).filter_map(|k| meta(view, k));
    blocking && owned.any(|m| m.deleting.is_some() && m.has_finalizer(FOREGROUND))
}

/// The owner references, none of which holds its owner back any more.
fn unblocked(meta: &Meta) -> Value {
    let mut left = references_without(meta, "");
    for reference in left["metadata"]["ownerReferences"].as_array_mut().into_iter().flatten() {
        reference["blockOwnerDeletion"] = Value::Bool(false);
    }
    left
}

/// The owner references without those that are gone or going.
fn keep_solid(meta: &Meta, states: &[Owner]) -> Value {
    let going = meta.owners.iter().zip(states).filter(|(_, s)| **s != Owner::Solid).map(|(o, _)| &*o.uid);
    let going: Vec<&str> = going.collect();
    let mut left = references_without(meta, "");
    if let Some(list) = left["metadata"]["ownerReferences"].as_array_mut() {
        list.retain(|r| !going.contains(&r["uid"].as_str().unwrap_or_default()));
    }
    left
}

fn orphan(view: &ObjectStore, key: &Key, owner: &Meta, plan: &mut Plan) {
    for dependent in view.owned_by(&owner.uid).take(limits::DELETES_PER_STEP_MAX) {
        if let Some(m) = meta(view, dependent) {
            plan.patch_exact(&dependent.resource, m, None, references_without(m, &owner.uid));
        }
    }
    if plan.is_empty() {
        plan.patch_exact(&key.resource, owner, None, finalizers_without(owner, ORPHAN));
    }
}

fn foreground(view: &ObjectStore, key: &Key, going: &Meta, plan: &mut Plan) {
    let mut blocked = false;
    for dependent in view.owned_by(&going.uid) {
        let Some(m) = meta(view, dependent) else { continue };
        if owner_blocks(view, dependent, m, going) {
            blocked = true;
            if m.deleting.is_none() && plan.changes.len() < limits::DELETES_PER_STEP_MAX {
                attempt(view, dependent, m, plan);
            }
        }
    }
    if !blocked {
        plan.push(Change::Patch {
            resource: key.resource.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: going.uid.to_string(),
            resource_version: Some(going.resource_version),
            subresource: None,
            merge: finalizers_without(going, FOREGROUND),
        });
    }
}

fn owner_blocks(view: &ObjectStore, dependent: &Key, m: &Meta, going: &Meta) -> bool {
    let holds = |o: &&OwnerRef| o.uid == going.uid && o.block_owner_deletion;
    m.owners.iter().filter(holds).any(|o| owner(view, dependent, o) == Owner::Waiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn chain() -> World {
        let mut w = World::with_nodes(1);
        w.create(
            "apps/deployments",
            json!({"metadata": {"name": "web", "namespace": "a"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}},
                "template": {"metadata": {"labels": {"app": "x"}}, "spec": {}}}}),
        );
        w.settle();
        w
    }

    fn count(w: &World) -> (usize, usize, usize) {
        (w.list("apps/deployments").len(), w.list("apps/replicasets").len(), w.list("/pods").len())
    }

    #[test]
    fn everything_below_goes_in_the_background() {
        let mut w = chain();
        w.delete("apps/deployments", "a", "web");
        assert_eq!(count(&w), (0, 1, 2));
        w.settle();
        assert_eq!(count(&w), (0, 0, 0));
    }

    #[test]
    fn in_the_foreground_the_owner_goes_last() {
        let mut w = chain();
        w.kubelet = false;
        w.delete_with(&Key::new("apps/deployments", "a", "web"), None, Some(Propagation::Foreground));
        w.settle();
        assert_eq!(count(&w), (1, 1, 2), "pods are still ending");
        w.kubelet = true;
        w.settle();
        assert_eq!(count(&w), (0, 0, 0));
    }

    #[test]
    fn orphans_stay_and_lose_their_owner() {
        let mut w = chain();
        w.delete_with(&Key::new("apps/deployments", "a", "web"), None, Some(Propagation::Orphan));
        w.settle();
        assert_eq!(count(&w), (0, 1, 2));
        assert!(w.list("apps/replicasets")[0]["metadata"]["ownerReferences"].is_null());
    }

    #[test]
    fn one_owner_is_enough_to_stay() {
        let mut w = World::new();
        let uid = |w: &World, n: &str| w.get("/configmaps", "a", n)["metadata"]["uid"].clone();
        for name in ["o1", "o2"] {
            w.create("/configmaps", json!({"metadata": {"name": name, "namespace": "a"}}));
        }
        let refer = |uid: Value, name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
        let owners = json!([refer(uid(&w, "o1"), "o1"), refer(uid(&w, "o2"), "o2")]);
        w.create(
            "x.io/things",
            json!({"metadata": {"name": "t", "namespace": "a", "ownerReferences": owners}}),
        );
        w.settle();
        w.delete("/configmaps", "a", "o1");
        w.settle();
        let left = &w.get("x.io/things", "a", "t")["metadata"]["ownerReferences"];
        assert_eq!(left.as_array().unwrap().len(), 1);
        w.delete("/configmaps", "a", "o2");
        w.settle();
        assert!(!w.exists("x.io/things", "a", "t"));
        // An owner in another namespace does not count.
        w.create("/configmaps", json!({"metadata": {"name": "o", "namespace": "b"}}));
        let far = w.get("/configmaps", "b", "o")["metadata"]["uid"].clone();
        let owners = json!([refer(far, "o")]);
        w.create(
            "x.io/things",
            json!({"metadata": {"name": "t", "namespace": "a", "ownerReferences": owners}}),
        );
        w.settle();
        assert!(!w.exists("x.io/things", "a", "t"));
    }

    #[test]
    fn owners_in_a_circle_do_not_wait_for_each_other() {
        for way in [Propagation::Background, Propagation::Foreground] {
            let mut w = World::new();
            for name in ["x", "y", "z"] {
                w.create("/configmaps", json!({"metadata": {"name": name, "namespace": "a"}}));
            }
            for (name, owner) in [("x", "y"), ("y", "z"), ("z", "x")] {
                let uid = w.get("/configmaps", "a", owner)["metadata"]["uid"].clone();
                let refs = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid,
                    "controller": true, "blockOwnerDeletion": true}]);
                w.patch("/configmaps", "a", name, json!({"metadata": {"ownerReferences": refs}}));
            }
            w.settle();
            assert_eq!(w.list("/configmaps").len(), 3, "nobody is gone, so nobody goes");
            w.delete_with(&Key::new("/configmaps", "a", "x"), None, Some(way));
            w.settle();
            assert!(w.list("/configmaps").is_empty(), "{way:?}");
        }
    }

    fn configmap(name: &str, namespace: &str, owners: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": namespace, "ownerReferences": owners}})
    }

    fn of(w: &World, resource: &str, namespace: &str, name: &str) -> Value {
        w.get(resource, namespace, name)["metadata"]["uid"].clone()
    }

    #[test]
    fn an_owner_is_who_is_named_in_full() {
        let mut w = World::new();
        w.create("/configmaps", configmap("o", "a", Value::Null));
        let uid = of(&w, "/configmaps", "a", "o");
        let rows = [
            ("right", "v1", "ConfigMap", "o", true),
            ("another-name", "v1", "ConfigMap", "x", false),
            ("another-kind", "v1", "Secret", "o", false),
            ("another-group", "apps/v1", "Deployment", "o", false),
        ];
        for (name, version, kind, owner, stays) in rows {
            let owners = json!([{"apiVersion": version, "kind": kind, "name": owner, "uid": uid}]);
            w.create("/configmaps", configmap(name, "a", owners));
            w.settle();
            assert_eq!(w.exists("/configmaps", "a", name), stays, "{name}");
        }
    }

    #[test]
    fn owners_in_other_namespaces_are_told_of() {
        let mut w = World::new();
        let told = |w: &World| -> Vec<(String, String)> {
            let about = w.events.iter().filter(|e| e.2 == "OwnerRefInvalidNamespace");
            let all: BTreeSet<_> = about.map(|e| (e.1.clone(), e.3.clone())).collect();
            all.into_iter().collect()
        };
        w.create("/configmaps", configmap("o", "b", Value::Null));
        let uid = of(&w, "/configmaps", "b", "o");
        let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": uid}]);
        w.create("/configmaps", configmap("d", "a", owners.clone()));
        w.settle();
        assert!(!w.exists("/configmaps", "a", "d"));
        let uid = uid.as_str().unwrap();
        let message = format!("ownerRef [v1/ConfigMap, namespace: a, name: o, uid: {uid}] does not exist in namespace \"a\"");
        assert_eq!(told(&w), [("d".to_owned(), message)]);
        // What has no namespace cannot belong to something in one: it is left alone, and told of.
        w.create("/persistentvolumes", json!({"metadata": {"name": "v", "ownerReferences": owners}, "spec": {}}));
        w.settle();
        assert!(w.exists("/persistentvolumes", "", "v"));
        assert_eq!(told(&w)[1].0, "v");
        w.delete("/configmaps", "b", "o");
        w.settle();
        assert!(w.exists("/persistentvolumes", "", "v"));
        // One in no namespace may own whatever it likes.
        let uid = of(&w, "/persistentvolumes", "", "v");
        let owners = json!([{"apiVersion": "v1", "kind": "PersistentVolume", "name": "v", "uid": uid}]);
        w.create("/configmaps", configmap("e", "a", owners));
        w.settle();
        assert!(w.exists("/configmaps", "a", "e") && told(&w).len() == 2);
        w.delete("/persistentvolumes", "", "v");
        w.settle();
        assert!(!w.exists("/configmaps", "a", "e"));
    }
}
