//! Affinity, taints, tolerations and spread constraints.
//!
//! In: JSON of a PodSpec or Node. Out: structs that can be matched. Never: defaults that upstream does not have.

use crate::view::{Labels, Selector, meta::or_default, selector::Requirement};
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Taint {
    pub key: Box<str>,
    pub value: Box<str>,
    pub effect: Box<str>,
    #[serde(rename = "timeAdded")]
    pub time_added: Option<crate::Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Toleration {
    #[serde(deserialize_with = "or_default")]
    pub key: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub operator: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub value: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub effect: Box<str>,
    pub toleration_seconds: Option<i64>,
}

impl Toleration {
    /// v1.Toleration.ToleratesTaint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if !self.effect.is_empty() && self.effect != taint.effect {
            return false;
        }
        if !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        match &*self.operator {
            "" | "Equal" => !self.key.is_empty() && self.value == taint.value,
            "Exists" => true,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Affinity {
    pub node_affinity: Option<NodeAffinity>,
    pub pod_affinity: Option<PodAffinity>,
    pub pod_anti_affinity: Option<PodAffinity>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelectorTerms>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution", deserialize_with = "or_default")]
    pub preferred: Box<[PreferredNode]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSelectorTerms {
    pub node_selector_terms: Box<[NodeTerm]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PreferredNode {
    pub weight: i64,
    pub preference: NodeTerm,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeTerm {
    #[serde(deserialize_with = "or_default")]
    pub match_expressions: Box<[Requirement]>,
    #[serde(deserialize_with = "or_default")]
    pub match_fields: Box<[Requirement]>,
}

impl NodeTerm {
    /// An empty term matches nothing.
    pub fn matches(&self, node_name: &str, labels: &Labels) -> bool {
        if self.match_expressions.is_empty() && self.match_fields.is_empty() {
            return false;
        }
        self.match_expressions.iter().all(|r| r.matches(labels.get(&r.key)))
            && self.match_fields.iter().all(|r| &*r.key == "metadata.name" && r.matches(Some(node_name)))
    }
}

impl NodeSelectorTerms {
    /// Terms are alternatives; no term matches nothing.
    pub fn matches(&self, node_name: &str, labels: &Labels) -> bool {
        self.node_selector_terms.iter().any(|t| t.matches(node_name, labels))
    }
}

/// podAffinity or podAntiAffinity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", deserialize_with = "or_default")]
    pub required: Box<[PodTerm]>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution", deserialize_with = "or_default")]
    pub preferred: Box<[PreferredPod]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PreferredPod {
    pub weight: i64,
    pub pod_affinity_term: PodTerm,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodTerm {
    /// Missing: matches no pod.
    pub label_selector: Option<Selector>,
    #[serde(deserialize_with = "or_default")]
    pub namespaces: Box<[Box<str>]>,
    pub namespace_selector: Option<Selector>,
    pub topology_key: Box<str>,
    #[serde(deserialize_with = "or_default")]
    pub match_label_keys: Box<[Box<str>]>,
    #[serde(deserialize_with = "or_default")]
    pub mismatch_label_keys: Box<[Box<str>]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SpreadConstraint {
    pub max_skew: i64,
    pub topology_key: Box<str>,
    pub when_unsatisfiable: Box<str>,
    pub label_selector: Option<Selector>,
    pub min_domains: Option<i64>,
    pub node_affinity_policy: Option<Box<str>>,
    pub node_taints_policy: Option<Box<str>>,
    #[serde(deserialize_with = "or_default")]
    pub match_label_keys: Box<[Box<str>]>,
}
