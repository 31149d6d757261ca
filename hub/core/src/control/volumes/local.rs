//! When the directory of a local volume goes, and what the object waits for.
//!
//! In: a volume that was provisioned on a board. Out: whether its board is to remove the directory, or has nothing to remove.
//! The finalizer keeps the object until the board says that the directory is gone, also when it is away for months.
//! Never: lets a board remove what is bound or to be retained.

use super::{LOCAL, PROVISIONED_BY, SELECTED_NODE};
use crate::{
    ObjectStore,
    view::{Node, PersistentVolume},
};

/// Held by volumes whose directory is on a board.
pub const FINALIZER: &str = "limpet.dev/volume-directory";
const PROTECTION: &str = "kubernetes.io/pv-protection";

/// The board that has the directory.
pub fn node_of(volume: &PersistentVolume) -> Option<&str> {
    let ours = volume.meta.annotations.get(PROVISIONED_BY) == Some(LOCAL);
    volume.meta.annotations.get(SELECTED_NODE).filter(|_| ours)
}

/// Deleted, not in use by a claim, and held back by nothing but its directory.
fn waits(volume: &PersistentVolume) -> bool {
    let meta = &volume.meta;
    meta.deleting.is_some() && meta.has_finalizer(FINALIZER) && !meta.has_finalizer(PROTECTION)
}

pub fn is_to_be_removed(volume: &PersistentVolume) -> bool {
    waits(volume) && node_of(volume).is_some() && volume.field("/spec/persistentVolumeReclaimPolicy") == "Delete"
}

/// Why a deleted volume needs to wait for no board.
pub fn may_go(view: &ObjectStore, volume: &PersistentVolume) -> Option<&'static str> {
    if !waits(volume) {
        return None;
    }
    if !is_to_be_removed(volume) {
        return Some("it is to be retained");
    }
    let there = node_of(volume).is_some_and(|n| view.get::<Node>("", n).is_some());
    (!there).then_some("its node was removed")
}
