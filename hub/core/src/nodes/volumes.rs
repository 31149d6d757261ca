//! The volumes that a node must know: those of its pods' claims, and those whose directory it is to remove.
//!
//! In: the view; a node's word that a directory is gone. Out: volumes; the change that lets a volume go.
//! Never: has a directory removed whose volume is in use, is to be retained, or was not made by us.

use super::status::Effect;
use crate::{
    Change, ObjectStore,
    control::local_volume,
    view::{Kind, PersistentVolume, PersistentVolumeClaim, Pod},
};
use limpet_protocol::PodGone;
use serde_json::{Value, json};
use std::sync::Arc;

/// The volume that a claim is bound to, when both say so.
pub fn of_claim<'a>(view: &'a ObjectStore, namespace: &str, name: &str) -> Option<&'a Arc<PersistentVolume>> {
    let claim = view.get::<PersistentVolumeClaim>(namespace, name)?;
    let volume = view.get::<PersistentVolume>("", &claim.spec.volume_name)?;
    let theirs = volume.spec.claim_ref.as_ref()?;
    (*theirs.namespace == *namespace && *theirs.name == *name && *theirs.uid == *claim.meta.uid).then_some(volume)
}

/// Whether a pod's volumes name the claim, which for an ephemeral volume has the pod's name in its own.
pub fn uses(pod: &Pod, claim: &str) -> bool {
    crate::schedule::claims_of(pod).iter().any(|c| **c == *claim)
}

/// Volumes whose directory `node` is to remove.
pub fn to_remove<'a>(view: &'a ObjectStore, node: &str) -> impl Iterator<Item = &'a Arc<PersistentVolume>> {
    view.all::<PersistentVolume>().filter(move |v| local_volume::is_to_be_removed(v) && local_volume::node_of(v) == Some(node))
}

/// The same by name.
pub fn removed_one<'a>(view: &'a ObjectStore, name: &str) -> Option<&'a Arc<PersistentVolume>> {
    view.get::<PersistentVolume>("", name).filter(|v| local_volume::is_to_be_removed(v))
}

/// A node says that the directory of a volume is gone, durably: nothing holds the object back any more.
pub fn directory_gone(view: &ObjectStore, node: &str, gone: &PodGone) -> Effect {
    let ours = |v: &&Arc<PersistentVolume>| *v.meta.uid == *gone.uid && local_volume::node_of(v) == Some(node);
    let Some(volume) = removed_one(view, &gone.name).filter(ours) else { return Effect::Nothing };
    let left: Vec<&str> = volume.meta.finalizers.iter().map(|f| &**f).filter(|f| *f != local_volume::FINALIZER).collect();
    Effect::Write(vec![Change::Patch {
        resource: PersistentVolume::RESOURCE.into(),
        namespace: String::new(),
        name: gone.name.clone(),
        uid: gone.uid.clone(),
        resource_version: Some(volume.meta.resource_version),
        subresource: None,
        merge: json!({"metadata": {"finalizers": if left.is_empty() { Value::Null } else { json!(left) }}}),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::desired;
    use limpet_protocol::{ItemKey, ItemKind};

    fn put(view: &mut ObjectStore, revision: u64, resource: &str, object: Value) -> crate::Changed {
        let at = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (ns, name) = (at("/metadata/namespace"), at("/metadata/name"));
        view.apply(revision, resource, &ns, &name, Some(object.to_string().into_bytes().into()))
    }

    fn volume(deleting: bool, finalizers: &[&str], policy: &str) -> Value {
        let mut object = json!({"metadata": {"name": "pvc-1", "uid": "u", "resourceVersion": "5", "finalizers": finalizers,
                "annotations": {"pv.kubernetes.io/provisioned-by": "limpet.dev/local",
                    "volume.kubernetes.io/selected-node": "n1"}},
            "spec": {"hostPath": {"path": "/v/pvc-1_a_c"}, "persistentVolumeReclaimPolicy": policy}});
        if deleting {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        object
    }

    #[test]
    fn a_released_volume_travels_to_its_node_until_the_node_says_that_it_is_gone() {
        let mut view = ObjectStore::new();
        let key = ItemKey::new(ItemKind::Claim, "", "pvc-1");
        let (protected, ours) = ("kubernetes.io/pv-protection", local_volume::FINALIZER);
        let gone = PodGone { uid: "u".into(), namespace: String::new(), name: "pvc-1".into(), version: 1 };
        for (n, still) in [
            volume(false, &[ours], "Delete"),
            volume(true, &[protected, ours], "Delete"),
            volume(true, &[ours], "Retain"),
            volume(true, &["other"], "Delete"),
        ]
        .into_iter()
        .enumerate()
        {
            put(&mut view, n as u64 + 1, "/persistentvolumes", still.clone());
            assert!(!desired::wanted(&view, "n1").items.contains_key(&key), "{still}");
            assert_eq!(desired::body(&view, &key), None);
            assert_eq!(directory_gone(&view, "n1", &gone), Effect::Nothing);
        }
        let changed = put(&mut view, 9, "/persistentvolumes", volume(true, &[ours, "other"], "Delete"));
        assert!(desired::nodes_for(&view, &changed).contains("n1"));
        assert!(desired::wanted(&view, "n1").items.contains_key(&key));
        assert!(!desired::wanted(&view, "n2").items.contains_key(&key));
        let told: Value = serde_json::from_slice(&desired::body(&view, &key).unwrap()).unwrap();
        assert_eq!(told["spec"]["hostPath"]["path"], "/v/pvc-1_a_c");
        assert_eq!(directory_gone(&view, "n2", &gone), Effect::Nothing, "another node's word");
        let another = PodGone { uid: "x".into(), ..gone.clone() };
        assert_eq!(directory_gone(&view, "n1", &another), Effect::Nothing, "another volume of that name");
        let Effect::Write(changes) = directory_gone(&view, "n1", &gone) else { panic!() };
        let Change::Patch { merge, .. } = &changes[0] else { panic!() };
        assert_eq!(*merge, json!({"metadata": {"finalizers": ["other"]}}));
    }
}
