//! PersistentVolumes and their claims: binding, provisioning on a board's own disk, expansion, protection, reclaiming.
//!
//! In: claims, volumes, classes, pods. Out: which volume belongs to which claim, volumes made for claims, and what becomes
//! of them afterwards.
//! Semantics: https://kubernetes.io/docs/concepts/storage/persistent-volumes/
//! Never: gives one volume to two claims, or forgets data that is to be retained.

mod claim;
mod ephemeral;
pub mod local;
mod matching;
mod protect;
mod provision;
mod volume;

pub use claim::ClaimController;
pub use ephemeral::EphemeralVolumes;
pub use protect::{ClaimProtection, VolumeProtection};
pub use volume::VolumeController;

use crate::{
    ObjectStore,
    view::{PersistentVolumeClaim, Pod, PodRef, StorageClass},
};
use std::sync::Arc;

const BOUND_BY: &str = "pv.kubernetes.io/bound-by-controller";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The provisioner of volumes that are a directory of a board.
pub const LOCAL: &str = "limpet.dev/local";

/// Name of the claim that an ephemeral volume of a pod gets.
fn ephemeral_claim(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", pod.meta.name)
}

fn uses(pod: &Pod, claim: &str) -> bool {
    pod.spec.refs.iter().any(|r| matches!(r, PodRef::Claim(name) if &**name == claim))
        || pod.spec.ephemeral_volumes.iter().any(|v| ephemeral_claim(pod, v) == claim)
}

fn class_of<'a>(view: &'a ObjectStore, claim: &PersistentVolumeClaim) -> Option<&'a Arc<StorageClass>> {
    view.get::<StorageClass>("", claim.spec.storage_class_name.as_deref().filter(|n| !n.is_empty())?)
}

/// The newest of the classes that say that they are the default.
fn default_class(view: &ObjectStore) -> Option<&Arc<StorageClass>> {
    let defaults = view.all::<StorageClass>().filter(|c| c.meta.annotations.get(DEFAULT_CLASS) == Some("true"));
    defaults.max_by_key(|c| (c.meta.created_at(), std::cmp::Reverse(c.meta.name.clone())))
}

/// An empty mode means the default.
fn mode(mode: &str) -> &str {
    if mode.is_empty() { "Filesystem" } else { mode }
}

#[cfg(test)]
mod tests;
