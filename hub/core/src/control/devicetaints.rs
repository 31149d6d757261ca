//! Removes pods whose claims hold a device with a NoExecute taint that they do not tolerate.
//!
//! In: one pod, its claims, the slices with their devices. Out: its deletion, at once or when the toleration's time is over.
//! Semantics: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#device-taints-and-tolerations
//! Never: removes a pod for a device that it only asks for.

use super::{Controller, common::after, podgc::disrupted};
use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    nodes::devices::claims_of,
    view::{AllocatedDevice, Kind, Pod, ResourceClaim, ResourceSlice, Taint},
};
use std::sync::Arc;

const NAME: &str = "device-taint-eviction-controller";

#[derive(Debug)]
pub struct DeviceTaintEviction;

impl Controller for DeviceTaintEviction {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[ResourceSlice::RESOURCE, ResourceClaim::RESOURCE, Pod::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let users = |claim: &ResourceClaim| -> Vec<Key> {
            let uids = claim.status.reserved_for.iter();
            uids.filter_map(|c| view.by_uid(&c.uid)).filter(|k| &*k.resource == Pod::RESOURCE).cloned().collect()
        };
        if let Some(slice) = changed.new_as::<ResourceSlice>() {
            if slice.spec.devices.iter().flat_map(|d| &d.taints).all(|t| !evicts(t)) {
                return vec![];
            }
            let of_pool = |r: &AllocatedDevice| r.driver == slice.spec.driver && r.pool == slice.spec.pool.name;
            let holds = |c: &&Arc<ResourceClaim>| results(c).any(of_pool);
            return view.all::<ResourceClaim>().filter(holds).flat_map(|c| users(c)).collect();
        }
        if let Some(claim) = changed.new_as::<ResourceClaim>() {
            return if claim.status.allocation.is_some() { users(claim) } else { vec![] };
        }
        let with_claims = changed.new_as::<Pod>().is_some_and(|p| claims_of(p).next().is_some());
        if with_claims { vec![changed.key.clone()] } else { vec![] }
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = view.pod(&key.namespace, &key.name).filter(|p| p.is_active()) else { return plan };
        let claims = claims_of(pod).filter_map(|name| view.get::<ResourceClaim>(&key.namespace, name));
        let held = claims.filter(|c| c.status.reserved_for.iter().any(|r| r.uid == pod.meta.uid));
        let due = held.flat_map(|c| results(c)).filter_map(|r| due(view, r, now)).min();
        match due {
            Some(at) if at > now => plan.wake_at(at),
            Some(_) => evict(pod, now, &mut plan),
            None => {}
        }
        plan
    }
}

fn evicts(taint: &Taint) -> bool {
    &*taint.effect == "NoExecute"
}

fn results(claim: &ResourceClaim) -> impl Iterator<Item = &AllocatedDevice> {
    claim.status.allocation.iter().flat_map(|a| &a.devices.results)
}

/// Until when the device's taints are tolerated; `None`: for ever, or there are none.
fn due(view: &ObjectStore, held: &AllocatedDevice, now: Timestamp) -> Option<Timestamp> {
    let of_pool = |s: &&Arc<ResourceSlice>| s.spec.driver == held.driver && s.spec.pool.name == held.pool;
    let newest = view.all::<ResourceSlice>().filter(of_pool).map(|s| s.spec.pool.generation).max()?;
    let slices = view.all::<ResourceSlice>().filter(of_pool).filter(|s| s.spec.pool.generation == newest);
    let devices = slices.flat_map(|s| s.spec.devices.iter().map(move |d| (s, d))).filter(|(_, d)| d.name == held.device);
    let ends = devices.flat_map(|(slice, d)| d.taints.iter().map(move |t| (slice, t))).filter(|(_, t)| evicts(t));
    ends.filter_map(|(slice, taint)| {
        let mut fitting = held.tolerations.iter().filter(|t| t.tolerates(taint)).peekable();
        if fitting.peek().is_none() {
            return Some(now);
        }
        let since = taint.time_added.unwrap_or_else(|| slice.meta.created_at());
        fitting.filter_map(|t| t.toleration_seconds).min().map(|seconds| after(since, seconds.max(0)))
    })
    .min()
}

fn evict(pod: &Pod, now: Timestamp, plan: &mut Plan) {
    let why = "Device Taint manager: deleting due to NoExecute taint";
    plan.event(Regarding::of(pod), EventType::Normal, "DeviceTaintManagerEviction", "Marking for deletion", NAME);
    let patch = disrupted(pod, "DeletionByDeviceTaintManager", why, None, now);
    plan.patch_exact(Pod::RESOURCE, &pod.meta, Some("status"), patch);
    plan.delete(Pod::RESOURCE, &pod.meta);
}

#[cfg(test)]
mod tests {
    use crate::world::World;
    use serde_json::{Value, json};

    const SLICES: &str = "resource.k8s.io/resourceslices";

    #[test]
    fn taints_of_devices_decide_who_stays_and_how_long() {
        let mut w = World::with_nodes(1);
        let device = |name: &str, taints: Value| json!({"name": name, "taints": taints});
        let devices =
            |taints: Value| json!([device("d0", taints.clone()), device("d1", taints.clone()), device("d2", taints)]);
        w.create("resource.k8s.io/deviceclasses", json!({"metadata": {"name": "any"}, "spec": {}}));
        w.create(SLICES, json!({"metadata": {"name": "s"}, "spec": {"driver": "x.example.org", "nodeName": "n0",
            "pool": {"name": "n0", "generation": 1, "resourceSliceCount": 1}, "devices": devices(json!([]))}}));
        let tolerate = |s: Value| json!([{"key": "hot", "operator": "Exists", "tolerationSeconds": s}]);
        for (name, tolerations) in [("none", json!([])), ("short", tolerate(json!(60))), ("ever", tolerate(Value::Null))] {
            let mut exactly = json!({"deviceClassName": "any", "allocationMode": "ExactCount", "count": 1});
            exactly["tolerations"] = tolerations;
            w.create("resource.k8s.io/resourceclaims", json!({"metadata": {"name": name, "namespace": "a"},
                "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}}));
            w.create("/pods", json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"containers": [{"name": "c"}],
                "resourceClaims": [{"name": "d", "resourceClaimName": name}]}}));
        }
        w.settle();
        let taint = |effect: &str, at: Value| json!([{"key": "hot", "effect": effect, "timeAdded": at}]);
        w.patch(SLICES, "", "s", json!({"spec": {"devices": devices(taint("NoSchedule", Value::Null))}}));
        w.settle();
        assert_eq!(w.list("/pods").len(), 3, "who has it keeps it");
        let now = json!(crate::view::conditions::rfc3339(w.now));
        w.patch(SLICES, "", "s", json!({"spec": {"devices": devices(taint("NoExecute", now))}}));
        w.settle();
        assert!(!w.exists("/pods", "a", "none") && w.exists("/pods", "a", "short"));
        assert!(w.events.iter().any(|e| e.1 == "none" && e.2 == "DeviceTaintManagerEviction"));
        w.pass(61);
        assert!(!w.exists("/pods", "a", "short"));
        w.pass(100_000);
        assert!(w.exists("/pods", "a", "ever"));
    }
}
