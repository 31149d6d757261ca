//! Makes volumes that are a directory of a board, and lets them grow.
//!
//! In: a claim of a class with our provisioner and the node that was chosen for it. Out: a PersistentVolume that only that
//! node can use. The directory itself is made by the board when the first pod mounts it.
//! Never: promises a size that anybody enforces: the board's disk is shared.

use super::{
    LOCAL, PROVISIONED_BY, SELECTED_NODE,
    claim::{NAME, reference, say_once},
    class_of,
    local::FINALIZER,
    matching::reaches,
    mode,
};
use crate::{
    EventType, ObjectStore, Plan, Regarding,
    view::{Kind, Node, PersistentVolume, PersistentVolumeClaim, StorageClass},
};
use serde_json::{Value, json};
use std::sync::Arc;

const ROOT_DEFAULT: &str = "/var/lib/limpet/volumes";
const HOSTNAME: &str = "kubernetes.io/hostname";

pub fn local(
    view: &ObjectStore,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: Option<&Arc<Node>>,
    plan: &mut Plan,
) {
    if let Some(why) = impossible(claim) {
        return say_once(claim, "ProvisioningFailed", &why, plan);
    }
    let Some(root) = root(class) else {
        let why = format!("parameter \"path\" of StorageClass {} must be an absolute path without \"..\"", class.meta.name);
        return say_once(claim, "ProvisioningFailed", &why, plan);
    };
    // An immediate class has no consumer to ask: the node with the fewest volumes is as good as any.
    let Some(node) = node.or_else(|| emptiest(view, class)) else {
        return say_once(claim, "ProvisioningFailed", "there is no node that the class allows", plan);
    };
    let name = format!("pvc-{}", claim.meta.uid);
    if view.get::<PersistentVolume>("", &name).is_some() {
        return plan.because("Provisioned", format!("{name} is there and is not (any more) for this claim"));
    }
    let path = format!("{root}/{name}_{}_{}", claim.meta.namespace, claim.meta.name);
    let volume = volume(claim, class, node, &name, &path);
    plan.create(PersistentVolume::RESOURCE, "", volume);
    let message = format!("Successfully provisioned volume {name}");
    plan.event(Regarding::of(claim), EventType::Normal, "ProvisioningSucceeded", message, NAME);
}

fn impossible(claim: &PersistentVolumeClaim) -> Option<String> {
    if mode(&claim.spec.volume_mode) == "Block" {
        return Some("volumes of a board's own disk are directories; volumeMode Block cannot be provisioned".into());
    }
    let many = claim.spec.access_modes.iter().find(|m| ["ReadWriteMany", "ReadOnlyMany"].contains(&&***m));
    many.map(|m| format!("volumes of a board's own disk are used by pods of that board only; {m} cannot be provisioned"))
}

/// The directory under which a class makes its volumes.
fn root(class: &StorageClass) -> Option<String> {
    let given = class.field("/parameters/path");
    let path = given.as_str().unwrap_or(ROOT_DEFAULT).trim_end_matches('/');
    let plain = path.starts_with('/') && path.split('/').skip(1).all(|p| !p.is_empty() && p != "." && p != "..");
    (plain && path.len() <= 1024).then(|| path.to_owned())
}

fn emptiest<'a>(view: &'a ObjectStore, class: &StorageClass) -> Option<&'a Arc<Node>> {
    let volumes = |n: &Node| view.all::<PersistentVolume>().filter(|v| v.spec.node_affinity.is_some() && reaches(v, n)).count();
    let allowed = |n: &&Arc<Node>| {
        let terms = &class.allowed_topologies;
        let fits = |t: &crate::view::TopologyTerm| {
            let mut labels = t.match_label_expressions.iter();
            labels.all(|e| n.meta.labels.get(&e.key).is_some_and(|v| e.values.iter().any(|x| &**x == v)))
        };
        terms.is_empty() || terms.iter().any(fits)
    };
    let nodes = view.all::<Node>().filter(|n| n.meta.deleting.is_none() && !n.spec.unschedulable && n.status.ready());
    nodes.filter(allowed).min_by_key(|n| (volumes(n), n.meta.name.clone()))
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node, name: &str, path: &str) -> Value {
    let term = match node.meta.labels.get(HOSTNAME) {
        Some(host) => json!({"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [host]}]}),
        None => json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node.meta.name]}]}),
    };
    let policy = if class.reclaim_policy.is_empty() { "Delete" } else { &*class.reclaim_policy };
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "finalizers": ["kubernetes.io/pv-protection", FINALIZER], "annotations": {
            PROVISIONED_BY: LOCAL, SELECTED_NODE: node.meta.name}},
        "spec": {
            "capacity": {"storage": claim.field("/spec/resources/requests/storage")},
            "accessModes": claim.spec.access_modes,
            "claimRef": reference(claim),
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": class.meta.name,
            "volumeMode": "Filesystem",
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    })
}

/// A directory grows by saying so.
pub fn expand(view: &ObjectStore, claim: &PersistentVolumeClaim, volume: &PersistentVolume, plan: &mut Plan) {
    let allowed = class_of(view, claim).is_some_and(|c| c.allow_volume_expansion);
    let ours = volume.meta.annotations.get(PROVISIONED_BY) == Some(LOCAL);
    if !allowed || !ours {
        return plan.because("NotExpanded", "the volume's class or driver does not let it grow");
    }
    let size = claim.field("/spec/resources/requests/storage");
    plan.patch(PersistentVolume::RESOURCE, &volume.meta, None, json!({"spec": {"capacity": {"storage": size}}}));
    let message = format!("volume {} is now {}", volume.meta.name, size.as_str().unwrap_or_default());
    plan.event(Regarding::of(claim), EventType::Normal, "VolumeResizeSuccessful", message, NAME);
}
