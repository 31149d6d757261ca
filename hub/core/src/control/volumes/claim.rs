//! Finds or makes the volume of one PersistentVolumeClaim.
//!
//! In: a claim, the volumes, its class. Out: both bound to each other, step by step, or an Event that says what it waits for.
//! Never: changes a claim that is bound, but for its size.

use super::{
    BIND_COMPLETED, BOUND_BY, LOCAL, PROVISIONER, SELECTED_NODE, class_of, default_class,
    matching::{find, refers},
    provision,
};
use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    control::{Controller, common::set_status},
    view::{Kind, PersistentVolume, PersistentVolumeClaim, StorageClass},
};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) const NAME: &str = "persistentvolume-controller";

#[derive(Debug)]
pub struct ClaimController;

impl Controller for ClaimController {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[PersistentVolumeClaim::RESOURCE, PersistentVolume::RESOURCE, StorageClass::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<PersistentVolumeClaim>() {
            return vec![changed.key.clone()];
        }
        let key = |c: &Arc<PersistentVolumeClaim>| Key::new(PersistentVolumeClaim::RESOURCE, &c.meta.namespace, &c.meta.name);
        let (old, new) = (changed.old_as::<PersistentVolume>(), changed.new_as::<PersistentVolume>());
        let volumes: Vec<_> = [old, new].into_iter().flatten().collect();
        let named = |c: &&Arc<PersistentVolumeClaim>| {
            *c.spec.volume_name == *changed.key.name
                || volumes.iter().any(|v| v.spec.claim_ref.as_ref().is_some_and(|r| refers(r, c)))
        };
        let waits = |c: &&Arc<PersistentVolumeClaim>| c.spec.volume_name.is_empty();
        view.all::<PersistentVolumeClaim>().filter(|c| named(c) || waits(c)).map(key).collect()
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = view.get::<PersistentVolumeClaim>(&key.namespace, &key.name) else { return plan };
        if claim.meta.deleting.is_some() && claim.spec.volume_name.is_empty() {
            return plan;
        }
        if claim.spec.volume_name.is_empty() {
            look(view, claim, &mut plan);
        } else {
            keep(view, claim, &mut plan);
        }
        plan.events_last()
    }
}

/// A claim without a volume.
fn look(view: &ObjectStore, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if claim.spec.storage_class_name.is_none()
        && let Some(class) = default_class(view)
    {
        let patch = json!({"spec": {"storageClassName": class.meta.name}});
        return plan.patch(PersistentVolumeClaim::RESOURCE, &claim.meta, None, patch);
    }
    let class = class_of(view, claim);
    let selected = claim.meta.annotations.get(SELECTED_NODE);
    let node = selected.and_then(|n| view.node(n));
    let delayed = class.is_some_and(|c| c.waits_for_consumer()) && node.is_none();
    if let Some(volume) = find(view, claim, node.map(|n| &**n), delayed) {
        return bind(claim, volume, plan);
    }
    pending(claim, plan);
    if delayed {
        let message = "waiting for first consumer to be created before binding";
        return say_once(claim, "WaitForFirstConsumer", message, plan);
    }
    match class {
        Some(class) if &*class.provisioner == LOCAL => provision::local(view, claim, class, node, plan),
        Some(class) if &*class.provisioner == "kubernetes.io/no-provisioner" => {
            let none = "no persistent volumes available for this claim and its class makes none";
            say_once(claim, "FailedBinding", none, plan);
        }
        Some(class) => hand_over(claim, class, plan),
        None => {
            let none = "no persistent volumes available for this claim and no storage class is set";
            let missing = claim.spec.storage_class_name.as_deref().filter(|n| !n.is_empty());
            match missing {
                Some(name) => {
                    let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
                    say_once(claim, "ProvisioningFailed", &message, plan);
                }
                None => say_once(claim, "FailedBinding", none, plan),
            }
        }
    }
}

/// Leaves it to a provisioner that runs somewhere else.
fn hand_over(claim: &PersistentVolumeClaim, class: &StorageClass, plan: &mut Plan) {
    let name = &*class.provisioner;
    if claim.meta.annotations.get(PROVISIONER) != Some(name) {
        let patch = json!({"metadata": {"annotations": {PROVISIONER: name}}});
        plan.patch(PersistentVolumeClaim::RESOURCE, &claim.meta, None, patch);
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{name}' or manually by the system \
             administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
             registered."
        );
        plan.event(Regarding::of(claim), EventType::Normal, "ExternalProvisioning", message, NAME);
    }
}

fn pending(claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if claim.status.phase.is_empty() {
        set_status(plan, claim, json!({"phase": "Pending"}));
    }
}

/// An Event, once for each state: it is remembered in an annotation, so that a claim that waits is quiet.
pub(super) fn say_once(claim: &PersistentVolumeClaim, reason: &'static str, message: &str, plan: &mut Plan) {
    const SAID: &str = "limpet.dev/volume-waits";
    plan.because(reason, message);
    let text = format!("{reason}: {message}");
    if claim.meta.annotations.get(SAID) == Some(&text) {
        return;
    }
    plan.patch(PersistentVolumeClaim::RESOURCE, &claim.meta, None, json!({"metadata": {"annotations": {SAID: text}}}));
    let type_ = if reason.contains("Failed") { EventType::Warning } else { EventType::Normal };
    plan.event(Regarding::of(claim), type_, reason, message, NAME);
}

/// Both ends, the volume's first: whoever dies between the two finds the volume reserved.
fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume, plan: &mut Plan) {
    let reserved = volume.spec.claim_ref.as_ref();
    if reserved.is_none_or(|r| r.uid.is_empty()) {
        let mut patch = json!({"spec": {"claimRef": reference(claim)}});
        if reserved.is_none() {
            patch["metadata"] = json!({"annotations": {BOUND_BY: "yes"}});
        }
        return plan.patch_exact(PersistentVolume::RESOURCE, &volume.meta, None, patch);
    }
    let annotations = json!({BIND_COMPLETED: "yes", BOUND_BY: "yes", "limpet.dev/volume-waits": null});
    let patch = json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": volume.meta.name}});
    plan.patch(PersistentVolumeClaim::RESOURCE, &claim.meta, None, patch);
}

pub(super) fn reference(claim: &PersistentVolumeClaim) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.meta.namespace,
        "name": claim.meta.name, "uid": claim.meta.uid})
}

/// A claim that names its volume.
fn keep(view: &ObjectStore, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let was_bound = claim.meta.annotations.contains_key(BIND_COMPLETED);
    let Some(volume) = view.get::<PersistentVolume>("", &claim.spec.volume_name) else {
        if was_bound && &*claim.status.phase != "Lost" {
            let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            plan.event(Regarding::of(claim), EventType::Warning, "ClaimLost", message, NAME);
            lost(claim, plan);
        } else if !was_bound {
            pending(claim, plan);
        }
        return;
    };
    match &volume.spec.claim_ref {
        None => bind(claim, volume, plan),
        Some(r) if refers(r, claim) && r.uid.is_empty() => bind(claim, volume, plan),
        Some(r) if refers(r, claim) => complete(view, claim, volume, was_bound, plan),
        Some(_) if was_bound && &*claim.status.phase != "Lost" => {
            let message = "Two claims are bound to the same volume, this one is bound incorrectly";
            plan.event(Regarding::of(claim), EventType::Warning, "ClaimMisbound", message, NAME);
            lost(claim, plan);
        }
        Some(_) => pending(claim, plan),
    }
}

fn lost(claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let mut status = claim.field("/status");
    status["phase"] = json!("Lost");
    set_status(plan, claim, status);
}

fn complete(
    view: &ObjectStore,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    was_bound: bool,
    plan: &mut Plan,
) {
    if !was_bound {
        let annotations = json!({"metadata": {"annotations": {BIND_COMPLETED: "yes", "limpet.dev/volume-waits": null}}});
        plan.patch(PersistentVolumeClaim::RESOURCE, &claim.meta, None, annotations);
    }
    let (asked, has) = (claim.spec.resources.requests.get("storage"), volume.spec.capacity.get("storage"));
    if asked > has && claim.meta.deleting.is_none() {
        provision::expand(view, claim, volume, plan);
    }
    let spec = volume.field("/spec");
    let mut status = claim.field("/status");
    if !status.is_object() {
        status = json!({});
    }
    status["phase"] = json!("Bound");
    status["accessModes"] = spec["accessModes"].clone();
    status["capacity"] = spec["capacity"].clone();
    set_status(plan, claim, status);
}
