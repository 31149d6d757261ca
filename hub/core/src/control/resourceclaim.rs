//! Makes the ResourceClaims of pods' claim templates, and lets go of devices that no pod uses any more.
//!
//! In: pods, claims. Out: claims owned by their pod and named in its status; `reservedFor` without pods that are over.
//! Semantics: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
//! Never: allocates a device (the scheduler and its driver do).

use super::{Controller, common::owner_reference};
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp, names,
    view::{Kind, Pod, ResourceClaim, ResourceClaimTemplate},
};
use serde_json::{Value, json};
use std::sync::Arc;

const NAME: &str = "resource_claim";
/// Keeps an allocated claim from vanishing under its users.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
const OF: &str = "resource.kubernetes.io/pod-claim-name";

#[derive(Debug)]
pub struct ResourceClaimController;

impl Controller for ResourceClaimController {
    fn name(&self) -> &'static str {
        "resourceclaim-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Pod::RESOURCE, ResourceClaim::RESOURCE, ResourceClaimTemplate::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let namespace = &*changed.key.namespace;
        let pod_key = |p: &Pod| Key::new(Pod::RESOURCE, namespace, &p.meta.name);
        let has = |p: &Pod| !p.spec.device_claims.is_empty() || p.status.extended_claim.is_some();
        if changed.is::<ResourceClaim>() {
            let mut keys = vec![changed.key.clone()];
            let owners = changed.metas().filter_map(|m| m.controller()).filter(|o| &*o.kind == Pod::KIND);
            keys.extend(owners.map(|o| Key::new(Pod::RESOURCE, namespace, &o.name)));
            if changed.new.is_none() {
                keys.extend(view.list::<Pod>(namespace).filter(|p| has(p)).map(|p| pod_key(p)));
            }
            return keys;
        }
        if changed.is::<ResourceClaimTemplate>() {
            return view.list::<Pod>(namespace).filter(|p| has(p)).map(|p| pod_key(p)).collect();
        }
        let both = [changed.old_as::<Pod>(), changed.new_as::<Pod>()];
        let Some(pod) = both.into_iter().flatten().find(|p| has(p)) else { return vec![] };
        let mut keys = vec![pod_key(pod)];
        if changed.new_as::<Pod>().is_none_or(|p| p.is_finished()) {
            let claims = view.list::<ResourceClaim>(namespace);
            let reserved = |c: &Arc<ResourceClaim>| c.status.reserved_for.iter().any(|r| r.uid == pod.meta.uid);
            let owned = |c: &Arc<ResourceClaim>| c.meta.controlled_by(&pod.meta.uid);
            let claims = claims.filter(|c| reserved(c) || owned(c));
            keys.extend(claims.map(|c| Key::new(ResourceClaim::RESOURCE, namespace, &c.meta.name)));
        }
        keys
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, seed: u64) -> Plan {
        let mut plan = Plan::default();
        if &*key.resource == Pod::RESOURCE {
            if let Some(pod) = view.pod(&key.namespace, &key.name).filter(|p| p.is_active()) {
                make(view, pod, seed, &mut plan);
            }
        } else if let Some(claim) = view.get::<ResourceClaim>(&key.namespace, &key.name) {
            release(view, claim, &mut plan);
        }
        plan.events_last()
    }

    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if let (Some(pod), Change::Create { .. }) = (view.pod(&key.namespace, &key.name), change) {
            let message = format!("PodResourceClaim: create ResourceClaim: {error}");
            plan.event(Regarding::of(&**pod), EventType::Warning, "FailedResourceClaimCreation", message, NAME);
        }
        plan
    }
}

fn make(view: &ObjectStore, pod: &Pod, seed: u64, plan: &mut Plan) {
    let wanted = pod.field("/spec/resourceClaims");
    let mut statuses: Vec<Value> = Vec::new();
    for entry in wanted.as_array().into_iter().flatten() {
        let name = entry["name"].as_str().unwrap_or_default();
        let Some(template) = entry["resourceClaimTemplateName"].as_str() else { continue };
        let mut own = view.controlled_by::<ResourceClaim>(&pod.meta.uid);
        if let Some(claim) = own.find(|c| c.meta.annotations.get(OF) == Some(name)) {
            statuses.push(json!({"name": name, "resourceClaimName": claim.meta.name}));
            continue;
        }
        let Some(template) = view.get::<ResourceClaimTemplate>(&pod.meta.namespace, template) else {
            plan.because("NoTemplate", format!("ResourceClaimTemplate {template} not found"));
            continue;
        };
        let base = format!("{}-{name}-", pod.meta.name);
        plan.create(ResourceClaim::RESOURCE, &pod.meta.namespace, claim(pod, template, name, &base, seed));
    }
    let known = pod.field("/status/resourceClaimStatuses");
    let known = known.as_array().cloned().unwrap_or_default();
    if plan.is_empty() && !statuses.is_empty() && known != statuses {
        plan.patch(Pod::RESOURCE, &pod.meta, Some("status"), json!({"status": {"resourceClaimStatuses": statuses}}));
    }
}

fn claim(pod: &Pod, template: &ResourceClaimTemplate, name: &str, base: &str, seed: u64) -> Value {
    let spec = template.field("/spec");
    let mut annotations = spec["metadata"]["annotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations[OF] = json!(name);
    let mut metadata = json!({"name": names::generated(base, seed, 0), "generateName": base,
        "namespace": pod.meta.namespace, "annotations": annotations, "ownerReferences": [owner_reference(pod)]});
    if spec["metadata"]["labels"].is_object() {
        metadata["labels"] = spec["metadata"]["labels"].clone();
    }
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": metadata, "spec": spec["spec"]})
}

/// Reservations of pods that are over, with the last of them the allocation, and what keeps the claim then.
fn release(view: &ObjectStore, claim: &ResourceClaim, plan: &mut Plan) {
    let pod_of = |uid: &str| {
        view.by_uid(uid).filter(|k| &*k.resource == Pod::RESOURCE).and_then(|k| view.pod(&k.namespace, &k.name))
    };
    let uses = |uid: &str| pod_of(uid).is_some_and(|p| !p.is_finished());
    let reserved = claim.field("/status/reservedFor").as_array().cloned().unwrap_or_default();
    let count = reserved.len();
    let kept = |r: &Value| r["resource"] != "pods" || uses(r["uid"].as_str().unwrap_or_default());
    let left: Vec<Value> = reserved.into_iter().filter(kept).collect();
    let unused = left.is_empty() && (count > 0 || claim.meta.deleting.is_some());
    if left.len() < count || (unused && claim.status.allocation.is_some()) {
        // The scheduler may reserve it at the same moment: then this is looked at again.
        let mut status = json!({"reservedFor": if left.is_empty() { Value::Null } else { json!(left) }});
        if left.is_empty() {
            status["allocation"] = Value::Null;
        }
        plan.patch_exact(ResourceClaim::RESOURCE, &claim.meta, Some("status"), json!({"status": status}));
    }
    let finalizers = claim.field("/metadata/finalizers").as_array().cloned().unwrap_or_default();
    if unused && finalizers.iter().any(|f| f == FINALIZER) {
        let others: Vec<&Value> = finalizers.iter().filter(|f| **f != FINALIZER).collect();
        plan.patch(ResourceClaim::RESOURCE, &claim.meta, None, json!({"metadata": {"finalizers": others}}));
    }
    let owner = claim.meta.controller().filter(|o| &*o.kind == Pod::KIND).and_then(|o| pod_of(&o.uid));
    if left.is_empty() && claim.meta.deleting.is_none() && owner.is_some_and(|p| p.is_finished()) {
        plan.delete(ResourceClaim::RESOURCE, &claim.meta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    const CLAIMS: &str = "resource.k8s.io/resourceclaims";

    #[test]
    fn a_template_becomes_a_claim_and_goes_with_its_pod() {
        let mut w = World::new();
        w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"resourceClaims": [
            {"name": "cam", "resourceClaimTemplateName": "t"}, {"name": "own", "resourceClaimName": "o"}]}}));
        w.settle();
        assert!(w.list(CLAIMS).is_empty(), "the template is not there yet");
        w.create("resource.k8s.io/resourceclaimtemplates", json!({"metadata": {"name": "t", "namespace": "a"}, "spec": {
            "metadata": {"labels": {"l": "1"}}, "spec": {"devices": {"requests": [{"name": "r"}]}}}}));
        w.settle();
        let claim = w.list(CLAIMS)[0].clone();
        let name = claim["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("p-cam-"));
        assert_eq!(claim["metadata"]["labels"]["l"], "1");
        assert_eq!(claim["spec"]["devices"]["requests"][0]["name"], "r");
        let status = &w.get("/pods", "a", "p")["status"]["resourceClaimStatuses"];
        assert_eq!(*status, json!([{"name": "cam", "resourceClaimName": name}]));
        w.delete("/pods", "a", "p");
        w.settle();
        assert!(w.list(CLAIMS).is_empty());
    }

    #[test]
    fn devices_are_let_go_when_their_pods_are_over() {
        let mut w = World::new();
        for name in ["p", "q"] {
            w.create("/pods", json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"resourceClaims": [
                {"name": "own", "resourceClaimName": "o"}]}}));
        }
        w.create(CLAIMS, json!({"metadata": {"name": "o", "namespace": "a"}, "spec": {}}));
        let uid = |w: &World, n: &str| w.get("/pods", "a", n)["metadata"]["uid"].clone();
        let reserve = |w: &World, n: &str| json!({"resource": "pods", "name": n, "uid": uid(w, n)});
        let status = json!({"allocation": {"devices": {}}, "reservedFor": [reserve(&w, "p"), reserve(&w, "q")]});
        w.patch(CLAIMS, "a", "o", json!({"status": status}));
        w.settle();
        w.patch("/pods", "a", "p", json!({"status": {"phase": "Succeeded"}}));
        w.settle();
        assert_eq!(w.get(CLAIMS, "a", "o")["status"]["reservedFor"].as_array().unwrap().len(), 1);
        w.delete("/pods", "a", "q");
        w.settle();
        let status = &w.get(CLAIMS, "a", "o")["status"];
        assert!(status["allocation"].is_null() && status["reservedFor"].is_null());
    }
}
