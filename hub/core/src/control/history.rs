//! Revisions of DaemonSets and StatefulSets, for `kubectl rollout history` and `undo`.
//!
//! In: an owner with its template. Out: the ControllerRevision of the template (to create, or one of the past to raise),
//! and old ones to delete. A revision's data is a strategic merge patch that brings the template back.
//! Never: two revisions with the same content.

use super::common::owner_reference;
use crate::{
    ObjectStore, Plan, names,
    view::{ControllerRevision, DaemonSet, Kind, Labels, Pod, StatefulSet},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

pub const HASH_LABEL: &str = "controller-revision-hash";
const HISTORY_DEFAULT: i32 = 10;

/// Whose revisions these are.
pub struct Owner<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    reference: Value,
    digest: [u8; 32],
    collisions: Option<i32>,
    labels: &'a Labels,
    data: Value,
}

impl<'a> Owner<'a> {
    pub fn daemon_set(ds: &'a DaemonSet, template: &Value) -> Owner<'a> {
        Owner {
            namespace: &ds.meta.namespace,
            name: &ds.meta.name,
            uid: &ds.meta.uid,
            reference: owner_reference(ds),
            digest: ds.spec.template.digest,
            collisions: ds.status.collision_count,
            labels: &ds.spec.template.labels,
            data: patch(template),
        }
    }

    pub fn stateful_set(set: &'a StatefulSet, template: &Value) -> Owner<'a> {
        Owner {
            namespace: &set.meta.namespace,
            name: &set.meta.name,
            uid: &set.meta.uid,
            reference: owner_reference(set),
            digest: set.spec.template.digest,
            collisions: set.status.collision_count,
            labels: &set.spec.template.labels,
            data: patch(template),
        }
    }
}

fn patch(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The revision of the current template.
pub struct Current {
    pub name: String,
    pub hash: String,
    /// `status.collisionCount` as it is to be.
    pub collisions: Option<i32>,
}

fn all<'a>(view: &'a ObjectStore, owner: &Owner<'a>) -> Vec<&'a Arc<ControllerRevision>> {
    let mut all: Vec<_> = view.controlled_by::<ControllerRevision>(owner.uid).collect();
    all.sort_by_key(|r| (r.revision, r.meta.name.clone()));
    all
}

/// Finds or plans the revision of the current template. `None`: the name is taken by something else; the plan is left to
/// be tried again when that is gone.
pub fn current(view: &ObjectStore, owner: &Owner<'_>, plan: &mut Plan) -> Option<Current> {
    let all = all(view, owner);
    let newest = all.last().map_or(0, |r| r.revision);
    let mut data = owner.data.clone();
    crate::canonical::strip_nulls(&mut data);
    let same = |r: &&&Arc<ControllerRevision>| r.field("/data") == data;
    if let Some(found) = all.iter().rfind(same) {
        if found.revision < newest {
            plan.patch(ControllerRevision::RESOURCE, &found.meta, None, json!({"revision": newest + 1}));
        }
        let hash = found.meta.labels.get(HASH_LABEL).unwrap_or_default().to_owned();
        return Some(Current { name: found.meta.name.to_string(), hash, collisions: owner.collisions });
    }
    let mut collisions = owner.collisions;
    for _ in 0..16 {
        let hash = names::template_hash(&owner.digest, collisions);
        let name = format!("{}-{hash}", owner.name);
        if view.get::<ControllerRevision>(owner.namespace, &name).is_some() {
            collisions = Some(collisions.unwrap_or(0) + 1);
            continue;
        }
        let mut labels = owner.labels.to_value();
        labels[HASH_LABEL] = json!(hash);
        let revision = json!({
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"name": name, "namespace": owner.namespace, "labels": labels,
                "ownerReferences": [owner.reference]},
            "data": data,
            "revision": newest + 1,
        });
        plan.create(ControllerRevision::RESOURCE, owner.namespace, revision);
        return Some(Current { name, hash, collisions });
    }
    None
}

/// The template of a revision, by its name; null when it is gone.
pub fn template(view: &ObjectStore, namespace: &str, name: &str) -> Value {
    let revision = view.get::<ControllerRevision>(namespace, name);
    let mut template = revision.map(|r| r.field("/data/spec/template")).unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    template
}

/// Deletes the oldest revisions beyond the limit that no pod has and that are not the newest.
pub fn clean_up(
    view: &ObjectStore,
    owner: &Owner<'_>,
    limit: Option<i32>,
    pods: &[&Arc<Pod>],
    plan: &mut Plan,
) {
    let limit = limit.unwrap_or(HISTORY_DEFAULT).max(0) as usize;
    let used: BTreeSet<&str> = pods.iter().filter_map(|p| p.meta.labels.get(HASH_LABEL)).collect();
    let all = all(view, owner);
    let Some((_, older)) = all.split_last() else { return };
    let is_used = |r: &Arc<ControllerRevision>| {
        used.contains(r.meta.labels.get(HASH_LABEL).unwrap_or_default()) || used.contains(&*r.meta.name)
    };
    let idle: Vec<_> = older.iter().filter(|r| !is_used(r) && r.meta.deleting.is_none()).collect();
    for revision in idle.iter().take(idle.len().saturating_sub(limit)) {
        plan.delete(ControllerRevision::RESOURCE, &revision.meta);
    }
}
