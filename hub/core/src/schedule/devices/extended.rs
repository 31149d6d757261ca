//! Extended resources that a DeviceClass answers: the pod asks in the old way and gets a claim that the scheduler writes.
//!
//! In: a pod's limits, the classes. Out: requests for devices, the claim to be made, the pod's status that names it.
//! Semantics: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#extended-resource (KEP-5004)
//! Never: takes a device for a resource that the node itself has (a device plugin's).

use crate::{
    Change, ObjectStore,
    control::CLAIM_FINALIZER,
    names,
    view::{DeviceClass, Kind, Node, Pod, ResourceClaim},
};
use limpet_objects::quantity::Quantity;
use serde_json::{Value, json};
use std::sync::Arc;

const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";
/// A class answers to this name as well, whatever it says.
const PREFIX: &str = "deviceclass.resource.kubernetes.io/";

/// One container's wish.
#[derive(Clone, Debug)]
pub struct Wish {
    pub container: Box<str>,
    pub resource: Box<str>,
    /// Name of the request in the claim.
    pub request: String,
    pub class: Arc<DeviceClass>,
    pub count: i64,
}

/// Whether the scheduler wrote this claim.
pub fn is_one(claim: &ResourceClaim) -> bool {
    claim.meta.annotations.get(ANNOTATION) == Some("true")
}

/// The claim that was made for a pod before.
pub fn of_pod<'a>(view: &'a ObjectStore, pod: &'a Pod) -> Option<&'a Arc<ResourceClaim>> {
    view.controlled_by::<ResourceClaim>(&pod.meta.uid).find(|c| is_one(c) && c.meta.deleting.is_none())
}

/// The class that answers an extended resource; the newest, then the first by name, where several do.
fn class_of<'a>(view: &'a ObjectStore, resource: &str) -> Option<&'a Arc<DeviceClass>> {
    if let Some(name) = resource.strip_prefix(PREFIX) {
        return view.get::<DeviceClass>("", name);
    }
    let named = view.all::<DeviceClass>().filter(|c| c.spec.extended_resource_name.as_deref() == Some(resource));
    named.min_by(|a, b| (b.meta.created_at(), &a.meta.name).cmp(&(a.meta.created_at(), &b.meta.name)))
}

/// What a pod's containers want that classes answer, in the order of the containers and of the resources' names.
pub fn wishes(view: &ObjectStore, pod: &Pod) -> Vec<Wish> {
    let asked = pod.spec.requests.extended.iter().filter(|(_, n)| *n > 0);
    let classes: Vec<_> = asked.filter_map(|(r, _)| Some((&**r, class_of(view, r)?))).collect();
    let mut wishes = Vec::new();
    if classes.is_empty() {
        return wishes;
    }
    let lists = ["initContainers", "containers"].map(|list| pod.field(&format!("/spec/{list}")));
    let containers = lists.iter().flat_map(|l| l.as_array().into_iter().flatten());
    for (at, container) in containers.enumerate() {
        let amount = |resource: &str| {
            let of = |what: &str| Quantity::from_json(&container["resources"][what][resource]).ok();
            of("requests").or_else(|| of("limits")).map_or(0, |q| q.value())
        };
        let wanted = classes.iter().filter(|(resource, _)| amount(resource) > 0);
        wishes.extend(wanted.enumerate().map(|(no, (resource, class))| Wish {
            container: container["name"].as_str().unwrap_or_default().into(),
            resource: (*resource).into(),
            request: format!("container-{at}-request-{no}"),
            class: Arc::clone(class),
            count: amount(resource),
        }));
    }
    wishes
}

/// Whether the node has the resource itself.
pub fn has(node: &Node, resource: &str) -> bool {
    node.status.allocatable.get(resource) > 0
}

/// The claim with its allocation, and the pod's status that says which container gets what of it.
pub fn changes(pod: &Pod, wishes: &[&Wish], allocation: Value, seed: u64) -> Vec<Change> {
    let base = format!("{}-extended-resources-", pod.meta.name);
    let name = names::generated(&base, seed, 0);
    let request = |w: &&Wish| {
        json!({"name": w.request, "exactly": {"deviceClassName": w.class.meta.name, "allocationMode": "ExactCount",
            "count": w.count}})
    };
    let requests: Vec<Value> = wishes.iter().map(request).collect();
    let owner = json!({"apiVersion": Pod::API_VERSION, "kind": Pod::KIND, "name": pod.meta.name, "uid": pod.meta.uid,
        "controller": true, "blockOwnerDeletion": true});
    let namespace = pod.meta.namespace.to_string();
    let claim = json!({"apiVersion": ResourceClaim::API_VERSION, "kind": ResourceClaim::KIND,
        "metadata": {"name": name, "generateName": base, "namespace": namespace, "annotations": {ANNOTATION: "true"},
            "ownerReferences": [owner], "finalizers": [CLAIM_FINALIZER]},
        "spec": {"devices": {"requests": requests}}});
    let consumer = json!({"resource": "pods", "name": pod.meta.name, "uid": pod.meta.uid});
    let patch = |resource: &str, name: &str, uid: String, merge: Value| Change::Patch {
        resource: resource.into(),
        namespace: namespace.clone(),
        name: name.into(),
        uid,
        resource_version: None,
        subresource: Some("status"),
        merge: json!({"status": merge}),
    };
    let status = json!({"allocation": allocation, "reservedFor": [consumer]});
    vec![
        Change::Create { resource: ResourceClaim::RESOURCE.into(), namespace: namespace.clone(), object: claim },
        patch(ResourceClaim::RESOURCE, &name, String::new(), status),
        patch(Pod::RESOURCE, &pod.meta.name, pod.meta.uid.to_string(), told(&name, wishes)),
    ]
}

fn told(claim: &str, wishes: &[&Wish]) -> Value {
    let mapping = |w: &&Wish| json!({"containerName": w.container, "resourceName": w.resource, "requestName": w.request});
    let mappings: Vec<Value> = wishes.iter().map(mapping).collect();
    json!({"extendedResourceClaimStatus": {"resourceClaimName": claim, "requestMappings": mappings}})
}
