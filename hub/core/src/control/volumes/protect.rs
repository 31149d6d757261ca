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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use serde_json::Value;

    /// What upstream's tests of the controller tell apart: who uses a claim that is being deleted.
    #[test]
    fn who_holds_a_claim_back() {
        let claim = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]);
        let other = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "x"}}, {"name": "e", "emptyDir": {}}]);
        let own = json!([{"name": "d", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
        // Volumes of the pod, whether it is on a node, its phase, its namespace; whether the claim stays.
        let cases: [(Value, bool, &str, &str, bool); 8] = [
            (claim.clone(), true, "Running", "a", true),
            (claim.clone(), true, "Pending", "a", true),
            (claim.clone(), false, "Pending", "a", false),
            (claim.clone(), true, "Succeeded", "a", false),
            (claim.clone(), true, "Failed", "a", false),
            (claim, true, "Running", "b", false),
            (other, true, "Running", "a", false),
            (own, true, "Running", "a", false),
        ];
        for (volumes, placed, phase, namespace, stays) in cases {
            let mut w = World::with_nodes(1);
            w.kubelet = false;
            let spec = json!({"volumeName": "v"});
            w.create("/persistentvolumeclaims", json!({"metadata": {"name": "c", "namespace": "a"}, "spec": spec}));
            // Nobody places it.
            let mut spec = json!({"schedulerName": "other", "volumes": volumes});
            if placed {
                spec["nodeName"] = json!("n0");
            }
            let metadata = json!({"name": "p", "namespace": namespace});
            w.create("/pods", json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}}));
            w.settle();
            assert_eq!(w.get("/persistentvolumeclaims", "a", "c")["metadata"]["finalizers"], json!([CLAIM]));
            w.delete("/persistentvolumeclaims", "a", "c");
            w.settle();
            let case = format!("{volumes} {placed} {phase} {namespace}");
            assert_eq!(w.exists("/persistentvolumeclaims", "a", "c"), stays, "{case}");
            w.delete_with(&Key::new(Pod::RESOURCE, namespace, "p"), Some(0), None);
            w.settle();
            assert!(!w.exists("/persistentvolumeclaims", "a", "c"), "{case}");
        }
    }

    #[test]
    fn others_finalizers_stay_and_a_bound_volume_too() {
        let mut w = World::new();
        let hold = "x.io/hold";
        w.create("/persistentvolumes", json!({"metadata": {"name": "v", "finalizers": [hold]},
            "spec": {"claimRef": {"namespace": "a", "name": "c"}, "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/x"}}}));
        w.create("/persistentvolumeclaims", json!({"metadata": {"name": "c", "namespace": "a"}, "spec": {
            "volumeName": "v", "storageClassName": "", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}));
        w.settle();
        let finalizers = |w: &World| w.get("/persistentvolumes", "", "v")["metadata"]["finalizers"].clone();
        assert_eq!(finalizers(&w), json!([hold, VOLUME]));
        w.delete("/persistentvolumes", "", "v");
        w.settle();
        assert_eq!(finalizers(&w), json!([hold, VOLUME]), "a claim has it");
        w.delete("/persistentvolumeclaims", "a", "c");
        w.settle();
        assert_eq!(finalizers(&w), json!([hold]));
        w.patch("/persistentvolumes", "", "v", json!({"metadata": {"finalizers": null}}));
        w.settle();
        assert!(!w.exists("/persistentvolumes", "", "v"));
    }
}
