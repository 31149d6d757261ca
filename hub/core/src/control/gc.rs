//! Decides which objects go because their owners went.
//!
//! In: any object with owners, or one that is deleted in the foreground or with its dependents orphaned. Out: deletes,
//! and owner references and finalizers to take away.
//! Semantics: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
//! Never: takes a dependent while one of its owners is there to stay.

use super::{
    Controller,
    common::{finalizers_without, references_without},
};
use crate::{
    Change, Changed, Key, ObjectStore, Plan, Propagation, Timestamp, limits,
    view::{Meta, OwnerRef},
};
use serde_json::Value;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

#[derive(Debug)]
pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
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
    let found =
        view.by_uid(&reference.uid).filter(|k| k.namespace.is_empty() || k.namespace == dependent.namespace);
    match found.and_then(|k| meta(view, k)) {
        None => Owner::Gone,
        Some(m) if m.deleting.is_some() && m.has_finalizer(FOREGROUND) => Owner::Waiting,
        Some(_) => Owner::Solid,
    }
}

fn attempt(view: &ObjectStore, key: &Key, meta: &Meta, plan: &mut Plan) {
    if meta.owners.is_empty() {
        return;
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
        let refer = |uid: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": uid});
        let owners = json!([refer(uid(&w, "o1")), refer(uid(&w, "o2"))]);
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
        let owners = json!([refer(far)]);
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
}
