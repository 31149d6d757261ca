//! Volumes and their classes, as the scheduler and the volume controllers read them.
//!
//! In: canonical JSON. Out: where a volume can be used, how a class binds, what a node can attach.
//! Never: sources of volumes beyond the driver's name.

use super::{NodeSelectorTerms, Requests};
use crate::view::{Selector, meta::or_default};
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PersistentVolumeData {
    #[serde(deserialize_with = "or_default")]
    pub spec: VolumeSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: VolumeStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeSpec {
    pub capacity: Requests,
    #[serde(deserialize_with = "or_default")]
    pub access_modes: Box<[Box<str>]>,
    #[serde(deserialize_with = "or_default")]
    pub storage_class_name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub volume_mode: Box<str>,
    pub claim_ref: Option<ClaimRef>,
    pub node_affinity: Option<VolumeAffinity>,
    pub csi: Option<CsiSource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClaimRef {
    pub namespace: Box<str>,
    pub name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub uid: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VolumeAffinity {
    pub required: Option<NodeSelectorTerms>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CsiSource {
    pub driver: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VolumeStatus {
    #[serde(deserialize_with = "or_default")]
    pub phase: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StorageClassData {
    pub provisioner: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub volume_binding_mode: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub reclaim_policy: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub allow_volume_expansion: bool,
    #[serde(deserialize_with = "or_default")]
    pub allowed_topologies: Box<[TopologyTerm]>,
}

impl StorageClassData {
    pub fn waits_for_consumer(&self) -> bool {
        &*self.volume_binding_mode == "WaitForFirstConsumer"
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopologyTerm {
    #[serde(deserialize_with = "or_default")]
    pub match_label_expressions: Box<[TopologyRequirement]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TopologyRequirement {
    pub key: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub values: Box<[Box<str>]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CsiNodeData {
    #[serde(deserialize_with = "or_default")]
    pub spec: CsiNodeSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CsiNodeSpec {
    #[serde(deserialize_with = "or_default")]
    pub drivers: Box<[CsiDriverOnNode]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CsiDriverOnNode {
    pub name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub allocatable: CsiLimit,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CsiLimit {
    /// Missing: no limit.
    pub count: Option<i64>,
}

/// The parts of a claim's spec that placement reads.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSpec {
    #[serde(deserialize_with = "or_default")]
    pub volume_name: Box<str>,
    /// Missing: the default class; empty: none.
    pub storage_class_name: Option<Box<str>>,
    #[serde(deserialize_with = "or_default")]
    pub access_modes: Box<[Box<str>]>,
    #[serde(deserialize_with = "or_default")]
    pub volume_mode: Box<str>,
    pub selector: Option<Selector>,
    #[serde(deserialize_with = "or_default")]
    pub resources: ClaimResources,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClaimResources {
    pub requests: Requests,
}
