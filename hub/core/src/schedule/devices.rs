//! Claims on devices (dynamic resource allocation).
//!
//! In: a pod's ResourceClaims. Out: reasons against all nodes or one; the reservation that goes before the binding.
//! Semantics: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
//! Never: allocates a device: a claim must have been allocated by whoever knows the devices.

use super::reason::{Plugin, Reason};
use crate::{
    Change, ObjectStore,
    view::{Kind, Node, Pod, ResourceClaim},
};
use serde_json::json;
use std::sync::Arc;

/// As upstream.
const CONSUMERS_MAX: usize = 256;

#[derive(Debug, Default)]
pub struct DeviceRules {
    claims: Vec<Arc<ResourceClaim>>,
}

impl DeviceRules {
    pub fn gather(view: &ObjectStore, pod: &Pod) -> Result<DeviceRules, Reason> {
        let mut rules = DeviceRules::default();
        let hopeless = |text: String| Reason::hopeless(Plugin::DynamicResources, text);
        for (own_name, named) in &pod.spec.device_claims {
            let made = || pod.status.device_claims.iter().find(|c| c.0 == *own_name).map(|c| &c.1);
            let Some(name) = named.as_ref().or_else(made) else {
                return Err(hopeless(format!("waiting for dynamic resource controller to create the resourceclaim for \
                                             pod claim \"{own_name}\"")));
            };
            let Some(claim) = view.get::<ResourceClaim>(&pod.meta.namespace, name) else {
                return Err(hopeless(format!("resourceclaim.resource.k8s.io \"{name}\" not found")));
            };
            if claim.meta.deleting.is_some() {
                return Err(hopeless(format!("resourceclaim must not be used, \"{name}\" is being deleted")));
            }
            let users = &claim.status.reserved_for;
            if users.len() >= CONSUMERS_MAX && !users.iter().any(|c| c.uid == pod.meta.uid) {
                return Err(hopeless(format!("resourceclaim in use: \"{name}\"")));
            }
            rules.claims.push(Arc::clone(claim));
        }
        Ok(rules)
    }

    pub fn against(&self, node: &Node) -> Option<Reason> {
        for claim in &self.claims {
            let Some(allocation) = &claim.status.allocation else {
                return Some(Reason::hopeless(Plugin::DynamicResources, "cannot allocate all claims"));
            };
            let terms = allocation.node_selector.as_ref();
            if terms.is_some_and(|t| !t.matches(&node.meta.name, &node.meta.labels)) {
                return Some(Reason::hopeless(Plugin::DynamicResources, "resourceclaim not available on the node"));
            }
        }
        None
    }

    /// The pod's name on each of its claims, written before it is bound.
    pub fn reservations(&self, pod: &Pod) -> Vec<Change> {
        let missing = |c: &&Arc<ResourceClaim>| !c.status.reserved_for.iter().any(|u| u.uid == pod.meta.uid);
        let patch = |claim: &Arc<ResourceClaim>| {
            let mut users = claim.field("/status/reservedFor").as_array().cloned().unwrap_or_default();
            users.push(json!({"resource": "pods", "name": pod.meta.name, "uid": pod.meta.uid}));
            Change::Patch {
                resource: ResourceClaim::RESOURCE.into(),
                namespace: claim.meta.namespace.to_string(),
                name: claim.meta.name.to_string(),
                uid: claim.meta.uid.to_string(),
                resource_version: Some(claim.meta.resource_version),
                subresource: Some("status"),
                merge: json!({"status": {"reservedFor": users}}),
            }
        };
        self.claims.iter().filter(missing).map(patch).collect()
    }
}
