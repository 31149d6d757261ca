//! What an event could cure, so that only pods whose reason may be gone are tried again.
//!
//! In: one change of the view. Out: the plugins whose objections it may remove.
//! Never: a cure too few: a pod that waits for an event that is not listed would wait for minutes.

use super::reason::{Plugin, Plugins};
use crate::{
    Changed,
    view::{
        CSINode, DeviceClass, Kind, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceClaim,
        ResourceSlice, StorageClass,
    },
};

/// Everything but the pod's own gates.
fn any() -> Plugins {
    Plugin::ALL.into_iter().filter(|p| *p != Plugin::SchedulingGates).collect()
}

fn of(plugins: &[Plugin]) -> Plugins {
    plugins.iter().copied().collect()
}

pub fn cures(changed: &Changed) -> Plugins {
    match &*changed.key.resource {
        Node::RESOURCE => node(changed),
        Pod::RESOURCE => pod(changed),
        PersistentVolumeClaim::RESOURCE | PersistentVolume::RESOURCE => of(&[
            Plugin::VolumeBinding,
            Plugin::VolumeZone,
            Plugin::VolumeRestrictions,
            Plugin::NodeVolumeLimits,
        ]),
        StorageClass::RESOURCE => of(&[Plugin::VolumeBinding, Plugin::VolumeZone]),
        CSINode::RESOURCE => of(&[Plugin::NodeVolumeLimits, Plugin::VolumeBinding]),
        ResourceClaim::RESOURCE | ResourceSlice::RESOURCE => of(&[Plugin::DynamicResources]),
        // It may answer an extended resource, too.
        DeviceClass::RESOURCE => of(&[Plugin::DynamicResources, Plugin::NodeResourcesFit]),
        Namespace::RESOURCE => of(&[Plugin::InterPodAffinity]),
        _ => Plugins::NONE,
    }
}

fn node(changed: &Changed) -> Plugins {
    let Some(new) = changed.new_as::<Node>() else { return of(&[Plugin::PodTopologySpread]) };
    let Some(old) = changed.old_as::<Node>() else { return any() };
    let mut cures = Plugins::NONE;
    let mut add = |list: &[Plugin]| list.iter().for_each(|p| cures.insert(*p));
    if old.meta.labels != new.meta.labels {
        add(&[
            Plugin::NodeAffinity,
            Plugin::PodTopologySpread,
            Plugin::InterPodAffinity,
            Plugin::VolumeBinding,
            Plugin::VolumeZone,
            Plugin::DynamicResources,
        ]);
    }
    if old.spec.taints != new.spec.taints {
        add(&[Plugin::TaintToleration, Plugin::PodTopologySpread]);
    }
    if old.spec.unschedulable != new.spec.unschedulable {
        add(&[Plugin::NodeUnschedulable, Plugin::TaintToleration]);
    }
    if old.status.allocatable != new.status.allocatable {
        add(&[Plugin::NodeResourcesFit]);
    }
    if old.status.declared_features != new.status.declared_features {
        add(&[Plugin::NodeDeclaredFeatures]);
    }
    cures
}

/// A pod that went, or no longer has a claim to its place, makes room of every kind.
pub fn room() -> Plugins {
    of(&[
        Plugin::NodeResourcesFit,
        Plugin::NodePorts,
        Plugin::InterPodAffinity,
        Plugin::PodTopologySpread,
        Plugin::VolumeRestrictions,
        Plugin::NodeVolumeLimits,
    ])
}

/// Pods that are bound make room when they go, and company when they come.
fn pod(changed: &Changed) -> Plugins {
    let counted = |p: &&std::sync::Arc<Pod>| p.node.is_some() && !p.is_finished();
    let (old, new) = (changed.old_as::<Pod>().filter(counted), changed.new_as::<Pod>().filter(counted));
    match (old, new) {
        (None, None) => Plugins::NONE,
        (None, Some(_)) => of(&[Plugin::InterPodAffinity, Plugin::PodTopologySpread]),
        (Some(_), None) => room(),
        (Some(old), Some(new)) => {
            let mut cures = Plugins::NONE;
            if old.meta.labels != new.meta.labels || old.meta.deleting != new.meta.deleting {
                cures.insert(Plugin::InterPodAffinity);
                cures.insert(Plugin::PodTopologySpread);
            }
            if old.spec.requests != new.spec.requests {
                cures.insert(Plugin::NodeResourcesFit);
            }
            cures
        }
    }
}
