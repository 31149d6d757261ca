//! Devices that drivers offer and claims ask for (resource.k8s.io/v1).
//!
//! In: canonical JSON. Out: what is offered, asked for and allocated. Source:
//! https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
//! Never: the drivers' own configuration; whoever writes an allocation copies it from the bytes.

use super::{NodeSelectorTerms, Taint, Toleration};
use crate::view::meta::or_default;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceClaimData {
    #[serde(deserialize_with = "or_default")]
    pub spec: DeviceClaimSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: DeviceClaimStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeviceClaimSpec {
    #[serde(deserialize_with = "or_default")]
    pub devices: DeviceClaim,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeviceClaim {
    #[serde(deserialize_with = "or_default")]
    pub requests: Box<[DeviceRequest]>,
    #[serde(deserialize_with = "or_default")]
    pub constraints: Box<[DeviceConstraint]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    pub name: Box<str>,
    pub exactly: Option<ExactDevices>,
    #[serde(rename = "firstAvailable", deserialize_with = "or_default")]
    pub first_available: Box<[ExactDevices]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExactDevices {
    /// Among the alternatives of a request.
    pub name: Box<str>,
    pub device_class_name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub allocation_mode: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub count: i64,
    #[serde(deserialize_with = "or_default")]
    pub admin_access: bool,
    #[serde(deserialize_with = "or_default")]
    pub selectors: Box<[DeviceSelector]>,
    #[serde(deserialize_with = "or_default")]
    pub tolerations: Box<[Toleration]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeviceSelector {
    #[serde(deserialize_with = "or_default")]
    pub cel: CelSelector,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CelSelector {
    pub expression: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceConstraint {
    /// None: all requests.
    #[serde(deserialize_with = "or_default")]
    pub requests: Box<[Box<str>]>,
    pub match_attribute: Option<Box<str>>,
    pub distinct_attribute: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceClaimStatus {
    pub allocation: Option<DeviceAllocation>,
    #[serde(deserialize_with = "or_default")]
    pub reserved_for: Box<[Consumer]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceAllocation {
    pub node_selector: Option<NodeSelectorTerms>,
    #[serde(deserialize_with = "or_default")]
    pub devices: AllocatedDevices,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllocatedDevices {
    #[serde(deserialize_with = "or_default")]
    pub results: Box<[AllocatedDevice]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AllocatedDevice {
    pub driver: Box<str>,
    pub pool: Box<str>,
    pub device: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub admin_access: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Consumer {
    pub uid: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeviceClassData {
    #[serde(deserialize_with = "or_default")]
    pub spec: DeviceClassSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeviceClassSpec {
    #[serde(deserialize_with = "or_default")]
    pub selectors: Box<[DeviceSelector]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceSliceData {
    #[serde(deserialize_with = "or_default")]
    pub spec: SliceSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceSpec {
    pub driver: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub pool: DevicePool,
    #[serde(flatten)]
    pub place: DevicePlace,
    #[serde(deserialize_with = "or_default")]
    pub per_device_node_selection: bool,
    #[serde(deserialize_with = "or_default")]
    pub devices: Box<[Device]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DevicePool {
    pub name: Box<str>,
    pub generation: i64,
    pub resource_slice_count: i64,
}

/// Where devices can be used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DevicePlace {
    pub node_name: Option<Box<str>>,
    pub node_selector: Option<NodeSelectorTerms>,
    #[serde(deserialize_with = "or_default")]
    pub all_nodes: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    pub name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub attributes: BTreeMap<Box<str>, Attribute>,
    #[serde(deserialize_with = "or_default")]
    pub capacity: BTreeMap<Box<str>, Capacity>,
    #[serde(flatten)]
    pub place: DevicePlace,
    #[serde(deserialize_with = "or_default")]
    pub taints: Box<[Taint]>,
    /// How many counters that are shared with other devices it takes from.
    #[serde(rename = "consumesCounters", deserialize_with = "how_many")]
    pub shared_counters: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Attribute {
    pub int: Option<i64>,
    pub bool: Option<bool>,
    pub string: Option<Box<str>>,
    pub version: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Capacity {
    pub value: Box<str>,
}

fn how_many<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    Ok(Option::<Vec<IgnoredAny>>::deserialize(d)?.map_or(0, |v| v.len()))
}
