//! Disruption budgets, and claims on devices.
//!
//! In: canonical JSON. Out: what eviction, preemption and placement read. Never: expressions of selectors on devices.

use super::NodeSelectorTerms;
use crate::view::{Selector, meta::or_default};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodDisruptionBudgetData {
    #[serde(deserialize_with = "or_default")]
    pub spec: BudgetSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: BudgetStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BudgetSpec {
    pub min_available: super::IntOrString,
    pub max_unavailable: super::IntOrString,
    /// Missing: no pod; empty: every pod of the namespace.
    pub selector: Option<Selector>,
    #[serde(deserialize_with = "or_default")]
    pub unhealthy_pod_eviction_policy: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BudgetStatus {
    pub disruptions_allowed: i64,
    pub current_healthy: i64,
    pub desired_healthy: i64,
    pub expected_pods: i64,
    pub observed_generation: i64,
    /// Pods whose eviction was granted, with the time.
    #[serde(deserialize_with = "or_default")]
    pub disrupted_pods: BTreeMap<Box<str>, Option<crate::Timestamp>>,
}

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
    pub device_class_name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub allocation_mode: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub count: i64,
    /// How many expressions choose among the devices.
    #[serde(rename = "selectors", deserialize_with = "how_many")]
    pub expressions: usize,
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
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Consumer {
    pub uid: Box<str>,
}

fn how_many<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    Ok(Option::<Vec<IgnoredAny>>::deserialize(d)?.map_or(0, |v| v.len()))
}
