//! The phase of one PersistentVolume, and what becomes of it when its claim is gone.
//!
//! In: a volume, its claim. Out: Available, Bound, Released, Failed; deletion of a volume that is to be deleted.
//! Never: gives a released volume to another claim: an administrator decides that.

use super::{BOUND_BY, LOCAL, PROVISIONED_BY, local, matching::refers};
use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    control::{Controller, common::{after, finalizers_without, set_status, time}},
    view::{Kind, Node, PersistentVolume, PersistentVolumeClaim},
};
use serde_json::json;
use std::sync::Arc;

const NAME: &str = "persistentvolume-controller";
/// Before a volume says that it waits for its board.
const WAITING_S: i64 = 30;

#[derive(Debug)]
pub struct VolumeController;

impl Controller for VolumeController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[PersistentVolume::RESOURCE, PersistentVolumeClaim::RESOURCE, Node::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<PersistentVolume>() {
            return vec![changed.key.clone()];
        }
        let key = |v: &Arc<PersistentVolume>| Key::new(PersistentVolume::RESOURCE, "", &v.meta.name);
        if changed.is::<Node>() {
            // Only a node that goes concerns a volume: nobody removes its directory any more.
            let gone = changed.new.is_none();
            let on = |v: &&Arc<PersistentVolume>| gone && local::node_of(v) == Some(&*changed.key.name);
            return view.all::<PersistentVolume>().filter(on).map(key).collect();
        }
        let names = |v: &&Arc<PersistentVolume>| {
            let claim = v.spec.claim_ref.as_ref();
            claim.is_some_and(|r| r.namespace == changed.key.namespace && r.name == changed.key.name)
        };
        view.all::<PersistentVolume>().filter(names).map(key).collect()
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(volume) = view.get::<PersistentVolume>("", &key.name) else { return plan };
        if let Some(why) = local::may_go(view, volume) {
            plan.because("DirectoryStays", format!("the directory of {} is not removed: {why}", key.name));
            let patch = finalizers_without(&volume.meta, local::FINALIZER);
            plan.patch_exact(PersistentVolume::RESOURCE, &volume.meta, None, patch);
            return plan;
        }
        if local::is_to_be_removed(volume) {
            waiting(volume, now, &mut plan);
            return plan;
        }
        let Some(reference) = volume.spec.claim_ref.as_ref().filter(|r| !r.uid.is_empty()) else {
            phase(volume, "Available", "", now, &mut plan);
            return plan;
        };
        let claim = view.get::<PersistentVolumeClaim>(&reference.namespace, &reference.name);
        match claim.filter(|c| refers(reference, c)) {
            Some(claim) if claim.spec.volume_name == volume.meta.name => phase(volume, "Bound", "", now, &mut plan),
            Some(claim) if claim.spec.volume_name.is_empty() => {
                phase(volume, if volume.status.phase.is_empty() { "Pending" } else { &volume.status.phase }, "", now, &mut plan);
            }
            Some(_) => unbind(volume, now, &mut plan),
            None => reclaim(volume, now, &mut plan),
        }
        plan.events_last()
    }
}

fn phase(volume: &PersistentVolume, phase: &str, message: &str, now: Timestamp, plan: &mut Plan) {
    if *volume.status.phase == *phase {
        return;
    }
    let mut status = json!({"phase": phase, "lastPhaseTransitionTime": time(now)});
    if !message.is_empty() {
        status["message"] = json!(message);
    }
    set_status(plan, volume, status);
}

/// The claim took another volume: this one is free again, or was made for nothing.
fn unbind(volume: &PersistentVolume, now: Timestamp, plan: &mut Plan) {
    if volume.meta.annotations.get(PROVISIONED_BY) == Some(LOCAL) {
        return reclaim(volume, now, plan);
    }
    if volume.meta.annotations.contains_key(BOUND_BY) {
        let patch = json!({"metadata": {"annotations": {BOUND_BY: null}}, "spec": {"claimRef": null}});
        return plan.patch_exact(PersistentVolume::RESOURCE, &volume.meta, None, patch);
    }
    plan.patch_exact(PersistentVolume::RESOURCE, &volume.meta, None, json!({"spec": {"claimRef": {"uid": null}}}));
}

/// A board that is there removes a directory within a second. When it takes longer, people want to know what is waited for.
fn waiting(volume: &PersistentVolume, now: Timestamp, plan: &mut Plan) {
    let Some(since) = volume.meta.deleting else { return };
    let say_at = after(since, WAITING_S);
    if now < say_at {
        return plan.wake_at(say_at);
    }
    let (node, path) = (local::node_of(volume).unwrap_or_default(), volume.field("/spec/hostPath/path"));
    let mut status = volume.field("/status");
    if !status.is_object() {
        status = json!({});
    }
    status["message"] = json!(format!(
        "waiting for node {node} to remove {path}; when the node is there, its agent's log says why it does not"
    ));
    set_status(plan, volume, status);
}

fn reclaim(volume: &PersistentVolume, now: Timestamp, plan: &mut Plan) {
    let policy = volume.field("/spec/persistentVolumeReclaimPolicy");
    if &*volume.status.phase == "Failed" && policy != "Delete" {
        return;
    }
    let ours = volume.meta.annotations.get(PROVISIONED_BY) == Some(LOCAL);
    match policy.as_str().unwrap_or("Retain") {
        "Delete" if ours => {
            phase(volume, "Released", "", now, plan);
            if &*volume.status.phase == "Released" && volume.meta.deleting.is_none() {
                plan.delete(PersistentVolume::RESOURCE, &volume.meta);
            }
        }
        // Whoever made it deletes it.
        "Delete" if volume.meta.annotations.contains_key(PROVISIONED_BY) => phase(volume, "Released", "", now, plan),
        "Delete" => fail(volume, "VolumeFailedDelete", "no deletable volume plugin matched: delete it by hand", now, plan),
        "Recycle" => fail(volume, "VolumeFailedRecycle", "recycling is not supported: use Delete or Retain", now, plan),
        _ => phase(volume, "Released", "", now, plan),
    }
}

fn fail(volume: &PersistentVolume, reason: &'static str, message: &str, now: Timestamp, plan: &mut Plan) {
    if &*volume.status.phase == "Failed" {
        return;
    }
    phase(volume, "Failed", message, now, plan);
    plan.event(Regarding::of(volume), EventType::Warning, reason, message, NAME);
}

