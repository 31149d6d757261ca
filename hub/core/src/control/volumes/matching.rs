//! Which volume fits a claim.
//!
//! In: a claim and the volumes that nobody has. Out: the smallest that fits. Never: a volume that is reserved for another.

use super::mode;
use crate::{
    ObjectStore,
    view::{ClaimRef, Node, PersistentVolume, PersistentVolumeClaim},
};
use std::sync::Arc;

/// Whether a volume names this claim, with or without its uid.
pub fn refers(reference: &ClaimRef, claim: &PersistentVolumeClaim) -> bool {
    reference.namespace == claim.meta.namespace
        && reference.name == claim.meta.name
        && (reference.uid.is_empty() || reference.uid == claim.meta.uid)
}

/// The volume that was reserved for the claim, else the smallest free one that fits, on `node` where that is decided.
pub fn find<'a>(
    view: &'a ObjectStore,
    claim: &PersistentVolumeClaim,
    node: Option<&Node>,
    reserved_only: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let all = || view.all::<PersistentVolume>().filter(|v| v.meta.deleting.is_none());
    let reserved = all().find(|v| v.spec.claim_ref.as_ref().is_some_and(|r| refers(r, claim)) && is_enough(v, claim));
    if reserved.is_some() || reserved_only {
        return reserved;
    }
    let free = all().filter(|v| v.spec.claim_ref.is_none() && ["Available", "Pending", ""].contains(&&*v.status.phase));
    let fitting = free.filter(|v| fits(v, claim) && node.is_none_or(|n| reaches(v, n)));
    fitting.min_by_key(|v| (v.spec.capacity.get("storage"), v.meta.name.clone()))
}

fn is_enough(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.access_modes.iter().all(|m| volume.spec.access_modes.contains(m));
    let size = volume.spec.capacity.get("storage") >= claim.spec.resources.requests.get("storage");
    modes && size && mode(&volume.spec.volume_mode) == mode(&claim.spec.volume_mode)
}

fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let class = claim.spec.storage_class_name.as_deref().unwrap_or("");
    let chosen = claim.spec.selector.as_ref().is_none_or(|s| s.matches(&volume.meta.labels));
    *volume.spec.storage_class_name == *class && chosen && is_enough(volume, claim)
}

/// Whether a volume can be used on a node.
pub fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let required = volume.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    required.is_none_or(|terms| terms.matches(&node.meta.name, &node.meta.labels))
}
