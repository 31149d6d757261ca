//! Puts what a claim stands for into the pod that a node gets: nodes know directories, not claims.
//!
//! In: a pod's JSON, the claims and volumes of the view. Out: the same pod with a directory of the node in place of each bound
//! claim. A claim that is not bound, or whose volume is no directory, stays as it is and the node says so.
//! Never: changes the pod that the API shows.

use crate::{
    ObjectStore,
    view::{PersistentVolume, PersistentVolumeClaim, Pod, PodRef},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Names of the claims that a pod uses.
pub fn of(pod: &Pod) -> impl Iterator<Item = String> {
    let named = pod.spec.refs.iter().filter_map(|r| match r {
        PodRef::Claim(name) => Some(name.to_string()),
        _ => None,
    });
    named.chain(pod.spec.ephemeral_volumes.iter().map(|v| format!("{}-{v}", pod.meta.name)))
}

/// The claim and its volume, once they are bound to each other.
fn bound<'a>(
    view: &'a ObjectStore,
    namespace: &str,
    name: &str,
) -> Option<(&'a Arc<PersistentVolumeClaim>, &'a Arc<PersistentVolume>)> {
    let claim = view.get::<PersistentVolumeClaim>(namespace, name)?;
    let volume = view.get::<PersistentVolume>("", &claim.spec.volume_name)?;
    let theirs = volume.spec.claim_ref.as_ref().is_some_and(|r| r.uid == claim.meta.uid);
    (theirs && &*claim.status.phase == "Bound").then_some((claim, volume))
}

/// The newest version among a pod and everything that its claims stand for.
pub fn generation(view: &ObjectStore, pod: &Pod) -> u64 {
    let parts = of(pod).filter_map(|name| bound(view, &pod.meta.namespace, &name));
    let newest = parts.map(|(c, v)| c.meta.resource_version.max(v.meta.resource_version)).max();
    newest.unwrap_or(0).max(pod.meta.resource_version)
}

/// Replaces bound claims in the JSON of a pod.
pub fn resolve(view: &ObjectStore, pod: &Pod, value: &mut Value) {
    let Some(volumes) = value.pointer_mut("/spec/volumes").and_then(Value::as_array_mut) else { return };
    let mut read_only = Vec::new();
    for volume in volumes {
        let name = volume["name"].as_str().unwrap_or_default().to_owned();
        let claim = match volume["persistentVolumeClaim"]["claimName"].as_str() {
            Some(claim) => claim.to_owned(),
            None if volume["ephemeral"].is_object() => format!("{}-{name}", pod.meta.name),
            None => continue,
        };
        let Some((_, bound)) = bound(view, &pod.meta.namespace, &claim) else { continue };
        let Some(directory) = directory(&bound.field("/spec")) else { continue };
        if volume["persistentVolumeClaim"]["readOnly"] == true {
            read_only.push(name.clone());
        }
        *volume = json!({"name": name, "hostPath": directory});
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let containers = value["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        let mounts = containers.filter_map(|c| c.get_mut("volumeMounts")?.as_array_mut()).flatten();
        for mount in mounts.filter(|m| read_only.iter().any(|n| m["name"] == n.as_str())) {
            mount["readOnly"] = json!(true);
        }
    }
}

fn directory(spec: &Value) -> Option<Value> {
    if spec["hostPath"].is_object() {
        return Some(spec["hostPath"].clone());
    }
    let path = spec["local"]["path"].as_str()?;
    Some(json!({"path": path, "type": "Directory"}))
}
