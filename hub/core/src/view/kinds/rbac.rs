//! Roles and bindings.
//!
//! In: canonical JSON of rbac.authorization.k8s.io/v1. Out: rules and subjects.
//! Never: decides; see the room `rbac`.

use crate::view::{Selector, meta::or_default};
use serde::Deserialize;

/// One rule: resources or paths, and the verbs on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyRule {
    #[serde(deserialize_with = "or_default")]
    pub verbs: Box<[Box<str>]>,
    #[serde(deserialize_with = "or_default")]
    pub api_groups: Box<[Box<str>]>,
    #[serde(deserialize_with = "or_default")]
    pub resources: Box<[Box<str>]>,
    #[serde(deserialize_with = "or_default")]
    pub resource_names: Box<[Box<str>]>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "or_default")]
    pub non_resource_urls: Box<[Box<str>]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RoleData {
    #[serde(deserialize_with = "or_default")]
    pub rules: Box<[PolicyRule]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterRoleData {
    #[serde(deserialize_with = "or_default")]
    pub rules: Box<[PolicyRule]>,
    pub aggregation_rule: Option<AggregationRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AggregationRule {
    pub cluster_role_selectors: Box<[Selector]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Subject {
    pub kind: Box<str>,
    pub name: Box<str>,
    pub namespace: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RoleRef {
    pub kind: Box<str>,
    pub name: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoleBindingData {
    #[serde(deserialize_with = "or_default")]
    pub subjects: Box<[Subject]>,
    pub role_ref: RoleRef,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterRoleBindingData {
    #[serde(deserialize_with = "or_default")]
    pub subjects: Box<[Subject]>,
    pub role_ref: RoleRef,
}
