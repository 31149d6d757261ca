//! Disruption budgets.
//!
//! In: canonical JSON. Out: what eviction and preemption read. Never: decides whether an eviction is granted.

use crate::view::{Selector, meta::or_default};
use serde::Deserialize;
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
