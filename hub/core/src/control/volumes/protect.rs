//! Keeps claims that pods use, and volumes that claims have, until they are let go.
//!
//! In: one claim or volume, the pods. Out: its protection finalizer, there from the beginning and gone when it may go.
//! Never: holds a claim back for a pod that has ended or was never placed.

use super::{ephemeral_claim, uses};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    control::{Controller, common::finalizers_without},
    view::{Kind, Meta, PersistentVolume, PersistentVolumeClaim, Pod, PodRef},
};
use serde_json::json;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

fn add(resource: &str, meta: &Meta, name: &str, plan: &mut Plan) {
    let mut all: Vec<&str> = meta.finalizers.iter().map(|f| &**f).collect();
    all.push(name);
    plan.patch_exact(resource, meta, None, json!({"metadata": {"finalizers": all}}));
}

#[derive(Debug)]
pub struct ClaimProtection;

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[PersistentVolumeClaim::RESOURCE, Pod::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<PersistentVolumeClaim>() {
            return vec![changed.key.clone()];
        }
        // Only a pod that went or ended lets a claim go.
        if changed.new_as::<Pod>().is_some_and(|p| !p.is_finished() && p.node.is_some()) {
            return vec![];
        }
        let Some(pod) = changed.old_as::<Pod>().or(changed.new_as::<Pod>()) else { return vec![] };
        let named = pod.spec.refs.iter().filter_map(|r| match r {
            PodRef::Claim(name) => Some(name.to_string()),
            _ => None,
        });
        let own = pod.spec.ephemeral_volumes.iter().map(|v| ephemeral_claim(pod, v));
        let keys = named.chain(own).map(|n| Key::new(PersistentVolumeClaim::RESOURCE, &pod.meta.namespace, &n));
        keys.filter(|k| view.object(k).is_some()).collect()
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = view.get::<PersistentVolumeClaim>(&key.namespace, &key.name) else { return plan };
        let protected = claim.meta.has_finalizer(CLAIM);
        if claim.meta.deleting.is_none() {
            if !protected {
                add(PersistentVolumeClaim::RESOURCE, &claim.meta, CLAIM, &mut plan);
            }
            return plan;
        }
        let mut pods = view.list::<Pod>(&key.namespace).filter(|p| p.node.is_some() && !p.is_finished());
        if protected && !pods.any(|p| uses(p, &key.name)) {
            let patch = finalizers_without(&claim.meta, CLAIM);
            plan.patch_exact(PersistentVolumeClaim::RESOURCE, &claim.meta, None, patch);
        }
        plan
    }
}

#[derive(Debug)]
pub struct VolumeProtection;

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[PersistentVolume::RESOURCE]
    }

    fn keys_for(&self, _view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        vec![changed.key.clone()]
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(volume) = view.get::<PersistentVolume>("", &key.name) else { return plan };
        match (volume.meta.deleting.is_some(), volume.meta.has_finalizer(VOLUME)) {
            (false, false) => add(PersistentVolume::RESOURCE, &volume.meta, VOLUME, &mut plan),
            (true, true) if &*volume.status.phase != "Bound" => {
                let patch = finalizers_without(&volume.meta, VOLUME);
                plan.patch_exact(PersistentVolume::RESOURCE, &volume.meta, None, patch);
            }
            _ => {}
        }
        plan
    }
}
