//! The project's own kinds: NodePool and FleetRollout.
//!
//! In: canonical JSON. Out: what placement, absence and rollouts read. Never: the change that a rollout brings (it is
//! read from the bytes when it is applied).

use super::{Condition, IntOrString};
use crate::{
    Timestamp,
    view::{Labels, Selector, meta::or_default},
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodePoolData {
    #[serde(deserialize_with = "or_default")]
    pub spec: NodePoolSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodePoolSpec {
    pub selector: Option<Selector>,
    #[serde(deserialize_with = "or_default")]
    pub offline: OfflineWords,
    #[serde(deserialize_with = "or_default")]
    pub labels: Labels,
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Value>,
    /// As it was written; `limpet_objects::kinds::link_for_board` reads it.
    pub link: Value,
}

/// What one place (a pod, a node, a pool) says about absence; the next place is asked for what it leaves open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OfflineWords {
    pub lost_after: Option<Box<str>>,
    pub replace: Option<bool>,
    pub reconcile: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FleetRolloutData {
    #[serde(deserialize_with = "or_default")]
    pub spec: RolloutSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: RolloutStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RolloutSpec {
    #[serde(deserialize_with = "or_default")]
    pub target: RolloutTarget,
    #[serde(deserialize_with = "or_default")]
    pub waves: Vec<Wave>,
    #[serde(deserialize_with = "or_default")]
    pub budget: RolloutBudget,
    #[serde(deserialize_with = "or_default")]
    pub success: Success,
    #[serde(deserialize_with = "or_default")]
    pub windows: Vec<Window>,
    #[serde(deserialize_with = "or_default")]
    pub paused: bool,
    #[serde(deserialize_with = "or_default")]
    pub on_failure: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RolloutTarget {
    pub kind: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub name: Box<str>,
    pub selector: Option<Selector>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Wave {
    #[serde(deserialize_with = "or_default")]
    pub name: Box<str>,
    pub selector: Option<Selector>,
    #[serde(deserialize_with = "or_default")]
    pub percent: i64,
    #[serde(deserialize_with = "or_default")]
    pub soak: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RolloutBudget {
    #[serde(deserialize_with = "or_default")]
    pub group_by: Box<str>,
    pub max_unavailable: IntOrString,
    #[serde(deserialize_with = "or_default")]
    pub max_concurrent: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Success {
    #[serde(deserialize_with = "or_default")]
    pub deadline: Box<str>,
    pub max_failed: IntOrString,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Window {
    pub start: Box<str>,
    pub end: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub days: Vec<Box<str>>,
    #[serde(deserialize_with = "or_default")]
    pub time_zone: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RolloutStatus {
    pub observed_generation: i64,
    #[serde(deserialize_with = "or_default")]
    pub phase: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub message: Box<str>,
    pub wave_index: usize,
    pub wave_reached_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    #[serde(deserialize_with = "or_default")]
    pub previous_revision: Box<str>,
    /// The revision that goes through the fleet.
    #[serde(deserialize_with = "or_default")]
    pub revision: Box<str>,
    /// Why it goes back or has failed.
    #[serde(deserialize_with = "or_default")]
    pub failure: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<Condition>,
}
