//! Revisions of DaemonSets and StatefulSets, for `kubectl rollout history` and `undo`.
//!
//! In: an owner with its template. Out: the ControllerRevision of the template (to create, or one of the past to raise),
//! revisions to adopt, to merge, and old ones to delete. A revision's data is a strategic merge patch that brings the
//! template back.
//! Never: a revision made whose content is there already.

use super::common::{claim, owner_reference};
use crate::{
    ObjectStore, Plan, canonical, names,
    view::{ControllerRevision, DaemonSet, Kind, Obj, Pod, Selector, StatefulSet, Template, pick::pick},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// On pods, and on the revisions of DaemonSets.
pub const HASH_LABEL: &str = "controller-revision-hash";
/// On the revisions of StatefulSets, whose pods bear the revision's whole name.
const SET_HASH_LABEL: &str = "controller.kubernetes.io/hash";
const HISTORY_DEFAULT: i32 = 10;

/// Whose revisions these are, and those that it has.
pub struct Owner<'a> {
    namespace: &'a str,
    name: &'a str,
    reference: Box<dyn Fn() -> Value + 'a>,
    /// Its bytes: what a revision is made of is read when one is made.
    raw: &'a [u8],
    template: &'a Template,
    collisions: Option<i32>,
    limit: Option<i32>,
    /// DaemonSets merge equal revisions, StatefulSets take the newest of them.
    merges: bool,
    /// By revision.
    all: Vec<&'a Arc<ControllerRevision>>,
}

impl<'a> Owner<'a> {
    /// Adopts revisions that nobody controls and that the selector matches: those of an owner that was deleted and whose
    /// pods stayed.
    pub fn daemon_set(view: &'a ObjectStore, ds: &'a DaemonSet, selector: &Selector, plan: &mut Plan) -> Owner<'a> {
        let mut owner = Owner::of(view, ds, &ds.spec.template, selector, plan);
        owner.collisions = ds.status.collision_count;
        owner.limit = ds.spec.revision_history_limit;
        owner.merges = true;
        owner
    }

    /// As `daemon_set`.
    pub fn stateful_set(
        view: &'a ObjectStore,
        set: &'a StatefulSet,
        selector: &Selector,
        plan: &mut Plan,
    ) -> Owner<'a> {
        let mut owner = Owner::of(view, set, &set.spec.template, selector, plan);
        owner.collisions = set.status.collision_count;
        owner.limit = set.spec.revision_history_limit;
        owner
    }

    fn of<T>(
        view: &'a ObjectStore,
        owner: &'a Obj<T>,
        template: &'a Template,
        selector: &Selector,
        plan: &mut Plan,
    ) -> Owner<'a>
    where
        Obj<T>: Kind,
    {
        let mut all = claim::<ControllerRevision, _>(view, owner, selector, plan, |r| &r.meta);
        all.sort_by_key(|r| (r.revision, r.meta.created_at(), r.meta.name.clone()));
        Owner {
            namespace: &owner.meta.namespace,
            name: &owner.meta.name,
            reference: Box::new(|| owner_reference(owner)),
            raw: &owner.raw,
            template,
            collisions: None,
            limit: None,
            merges: false,
            all,
        }
    }

    fn hash_label(&self) -> &'static str {
        if self.merges { HASH_LABEL } else { SET_HASH_LABEL }
    }

    /// What a revision of the template holds.
    fn data(&self) -> Value {
        let mut data = patch(pick(self.raw, "/spec/template"));
        canonical::strip_nulls(&mut data);
        data
    }

    fn holds(&self, revision: &ControllerRevision) -> bool {
        let wanted = self.template.as_revision.get(|| canonical::sha256(&self.data()));
        revision.digest.get(|| canonical::sha256(&revision.field("/data"))) == wanted
    }

    pub fn has(&self, revision: &str) -> bool {
        self.all.iter().any(|r| *r.meta.name == *revision)
    }
}

fn patch(mut template: Value) -> Value {
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The revision of the current template.
pub struct Current {
    pub name: String,
    /// `controller-revision-hash` of a DaemonSet's pods.
    pub hash: String,
    /// `status.collisionCount` as it is to be.
    pub collisions: Option<i32>,
}

/// What a revision is called on pods. One that has no label of its own (an old one) goes by its name.
fn hash_of<'r>(revision: &'r ControllerRevision, label: &str) -> &'r str {
    revision.meta.labels.get(label).unwrap_or(&revision.meta.name)
}

/// Finds or plans the revision of the current template. `None`: the name is taken by something else; the plan is left to
/// be tried again when that is gone.
pub fn current(view: &ObjectStore, owner: &Owner<'_>, pods: &[&Arc<Pod>], plan: &mut Plan) -> Option<Current> {
    let label = owner.hash_label();
    let equal: Vec<_> = owner.all.iter().filter(|r| owner.holds(r)).copied().collect();
    let other = |r: &&&Arc<ControllerRevision>| !owner.merges || !equal.iter().any(|e| e.meta.name == r.meta.name);
    let newest = owner.all.iter().filter(other).map(|r| r.revision).max().unwrap_or(0);
    if let Some((found, doubles)) = equal.split_last() {
        let mut change = json!({});
        if found.revision < newest + i64::from(owner.merges) {
            change["revision"] = json!(newest + 1);
        }
        let hash = hash_of(found, label).to_owned();
        if owner.merges {
            if !found.meta.labels.contains_key(label) {
                change["metadata"] = json!({"labels": {label: hash}});
            }
            merge(doubles, &hash, pods, plan);
        }
        if change != json!({}) {
            plan.patch(ControllerRevision::RESOURCE, &found.meta, None, change);
        }
        return Some(Current { name: found.meta.name.to_string(), hash, collisions: owner.collisions });
    }
    let mut collisions = owner.collisions;
    for _ in 0..16 {
        let hash = names::template_hash(&owner.template.digest, collisions);
        let name = format!("{}-{hash}", owner.name);
        if view.get::<ControllerRevision>(owner.namespace, &name).is_some() {
            collisions = Some(collisions.unwrap_or(0) + 1);
            continue;
        }
        let mut labels = owner.template.labels.to_value();
        labels[label] = json!(hash);
        let revision = json!({
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"name": name, "namespace": owner.namespace, "labels": labels,
                "annotations": pick(owner.raw, "/metadata/annotations"), "ownerReferences": [(owner.reference)()]},
            "data": owner.data(),
            "revision": newest + 1,
        });
        plan.create(ControllerRevision::RESOURCE, owner.namespace, revision);
        return Some(Current { name, hash, collisions });
    }
    None
}

/// Pods of equal revisions get the hash of the one that is kept; the others go when no pod bears theirs any more.
fn merge(doubles: &[&Arc<ControllerRevision>], hash: &str, pods: &[&Arc<Pod>], plan: &mut Plan) {
    for double in doubles.iter().filter(|d| d.meta.deleting.is_none()) {
        let theirs = hash_of(double, HASH_LABEL);
        let bear = |p: &&&Arc<Pod>| theirs != hash && p.meta.labels.get(HASH_LABEL) == Some(theirs);
        for pod in pods.iter().filter(bear) {
            plan.patch(Pod::RESOURCE, &pod.meta, None, json!({"metadata": {"labels": {HASH_LABEL: hash}}}));
        }
        plan.because("Merge", format!("revision {} says what another says", double.meta.name));
        plan.delete(ControllerRevision::RESOURCE, &double.meta);
    }
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

/// Deletes the oldest revisions beyond the limit that no pod has and that are not in `kept` (names). Those of a DaemonSet
/// that pods have count against the limit, those of a StatefulSet do not.
pub fn clean_up(owner: &Owner<'_>, pods: &[&Arc<Pod>], kept: &[&str], plan: &mut Plan) {
    let limit = owner.limit.unwrap_or(HISTORY_DEFAULT).max(0) as usize;
    let used: BTreeSet<&str> = pods.iter().filter_map(|p| p.meta.labels.get(HASH_LABEL)).collect();
    let is_used = |r: &ControllerRevision| match owner.merges {
        true => used.contains(hash_of(r, HASH_LABEL)),
        false => used.contains(&*r.meta.name),
    };
    let old = || owner.all.iter().filter(|r| !kept.contains(&&*r.meta.name) && r.meta.deleting.is_none());
    let idle = || old().filter(|r| !is_used(r));
    let counted = if owner.merges { old().count() } else { idle().count() };
    for revision in idle().take(counted.saturating_sub(limit)) {
        plan.delete(ControllerRevision::RESOURCE, &revision.meta);
    }
}
