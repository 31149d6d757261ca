//! Devices that drivers offer and claims ask for (resource.k8s.io/v1).
//!
//! In: canonical JSON. Out: what is offered, asked for and allocated. Source:
//! https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
//! Never: the drivers' own configuration; whoever writes an allocation copies it from the bytes.

use super::{NodeSelectorTerms, Taint, Toleration};
use crate::view::meta::or_default;
use serde::Deserialize;
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
    #[serde(deserialize_with = "or_default")]
    pub capacity: CapacityWish,
}

/// Amounts as quantities, by the name of the capacity.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CapacityWish {
    #[serde(deserialize_with = "or_default")]
    pub requests: BTreeMap<Box<str>, Box<str>>,
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
    pub request: Box<str>,
    pub driver: Box<str>,
    pub pool: Box<str>,
    pub device: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub admin_access: bool,
    #[serde(deserialize_with = "or_default")]
    pub tolerations: Box<[Toleration]>,
    /// One of several allocations of the device.
    #[serde(rename = "shareID")]
    pub share_id: Option<Box<str>>,
    #[serde(deserialize_with = "or_default")]
    pub consumed_capacity: BTreeMap<Box<str>, Box<str>>,
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
#[serde(default, rename_all = "camelCase")]
pub struct DeviceClassSpec {
    /// Pods may ask for its devices as for this extended resource.
    pub extended_resource_name: Option<Box<str>>,
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
    #[serde(deserialize_with = "or_default")]
    pub shared_counters: Box<[CounterSet]>,
}

/// What the devices of a pool share: each takes its part of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CounterSet {
    pub name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub counters: BTreeMap<Box<str>, Counter>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Counter {
    pub value: Box<str>,
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
    /// What it takes from counters that it shares with other devices.
    #[serde(deserialize_with = "or_default")]
    pub consumes_counters: Box<[Consumption]>,
    /// Several requests may have it at once, each a part of its capacity.
    #[serde(deserialize_with = "or_default")]
    pub allow_multiple_allocations: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Consumption {
    pub counter_set: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub counters: BTreeMap<Box<str>, Counter>,
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
#[serde(default, rename_all = "camelCase")]
pub struct Capacity {
    pub value: Box<str>,
    pub request_policy: Option<RequestPolicy>,
}

/// Which parts of a capacity can be taken.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestPolicy {
    /// What is taken when nothing is asked for.
    pub default: Option<Box<str>>,
    #[serde(deserialize_with = "or_default")]
    pub valid_values: Box<[Box<str>]>,
    pub valid_range: Option<RequestRange>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RequestRange {
    pub min: Box<str>,
    pub max: Option<Box<str>>,
    pub step: Option<Box<str>>,
}
