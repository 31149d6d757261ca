//! Makes the claims of pods' ephemeral volumes.
//!
//! In: one pod. Out: a claim for each of its ephemeral volumes, owned by the pod and so gone with it.
//! Semantics: https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes
//! Never: takes a claim of the same name that belongs to somebody else.

use super::ephemeral_claim;
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    control::{Controller, common::owner_reference},
    view::{Kind, PersistentVolumeClaim, Pod},
};
use serde_json::{Value, json};

const NAME: &str = "ephemeral-volume-controller";

#[derive(Debug)]
pub struct EphemeralVolumes;

impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Pod::RESOURCE, PersistentVolumeClaim::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let key = |p: &Pod| Key::new(Pod::RESOURCE, &p.meta.namespace, &p.meta.name);
        let has = |p: &Pod| !p.spec.ephemeral_volumes.is_empty();
        if let Some(pod) = changed.new_as::<Pod>() {
            return if has(pod) { vec![key(pod)] } else { vec![] };
        }
        if !changed.is::<PersistentVolumeClaim>() || changed.new.is_some() {
            return vec![];
        }
        let own = |p: &&std::sync::Arc<Pod>| p.spec.ephemeral_volumes.iter().any(|v| ephemeral_claim(p, v) == *changed.key.name);
        view.list::<Pod>(&changed.key.namespace).filter(own).map(|p| key(p)).collect()
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = view.pod(&key.namespace, &key.name).filter(|p| p.is_active()) else { return plan };
        let volumes = pod.field("/spec/volumes");
        for volume in volumes.as_array().into_iter().flatten().filter(|v| v["ephemeral"].is_object()) {
            let name = ephemeral_claim(pod, volume["name"].as_str().unwrap_or_default());
            match view.get::<PersistentVolumeClaim>(&key.namespace, &name) {
                Some(claim) if !claim.meta.controlled_by(&pod.meta.uid) => {
                    plan.because("NameTaken", format!("PVC {key}/{name} was not created for pod {key} (pod is not owner)"));
                }
                Some(_) => {}
                None => plan.create(PersistentVolumeClaim::RESOURCE, &key.namespace, claim(pod, &name, volume)),
            }
        }
        plan
    }

    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if let (Some(pod), Change::Create { .. }) = (view.pod(&key.namespace, &key.name), change) {
            let message = format!("ephemeral volume: create PVC: {error}");
            plan.event(Regarding::of(&**pod), EventType::Warning, "FailedCreate", message, "ephemeral_volume");
        }
        plan
    }
}

fn claim(pod: &Pod, name: &str, volume: &Value) -> Value {
    let template = &volume["ephemeral"]["volumeClaimTemplate"];
    let mut out = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": pod.meta.namespace, "ownerReferences": [owner_reference(pod)]},
        "spec": template["spec"],
    });
    for field in ["labels", "annotations"] {
        if template["metadata"][field].is_object() {
            out["metadata"][field] = template["metadata"][field].clone();
        }
    }
    out
}
