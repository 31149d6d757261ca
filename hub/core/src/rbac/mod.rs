//! Who may do what.
//!
//! In: who asks for what, and the roles and bindings in the view. Out: a decision with its reason.
//! Never: denies by rule; what nobody allows is not allowed.

use crate::{ObjectStore, view::PolicyRule};
use serde_json::Value;

/// A request, as authorizers see it. Groups include `system:authenticated` and the like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    /// get, list, watch, create, update, patch, delete, deletecollection, or the HTTP method in lower case for paths.
    pub verb: &'a str,
    pub api_group: &'a str,
    pub resource: &'a str,
    /// Empty: none.
    pub subresource: &'a str,
    /// Empty: cluster-scoped, or all namespaces.
    pub namespace: &'a str,
    /// Empty: none (list, create, ...).
    pub name: &'a str,
    /// Set for requests that are not about a resource.
    pub path: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: String },
    NoOpinion { reason: String },
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }
}

/// Node authorizer, then RBAC.
pub fn authorize(view: &ObjectStore, asked: &Attributes<'_>) -> Decision {
    let _ = (view, asked);
    Decision::NoOpinion { reason: String::new() }
}

/// All rules that hold for a user in a namespace, for SelfSubjectRulesReview.
pub fn rules_for(view: &ObjectStore, user: &str, groups: &[String], namespace: &str) -> Vec<PolicyRule> {
    let _ = (view, user, groups, namespace);
    vec![]
}

/// Escalation check: rules of `wanted` that the user does not hold in `namespace` (empty: cluster-wide). Empty means
/// that the role may be written or bound.
pub fn missing_rules(
    view: &ObjectStore,
    user: &str,
    groups: &[String],
    namespace: &str,
    wanted: &[PolicyRule],
) -> Vec<PolicyRule> {
    let _ = (view, user, groups, namespace);
    wanted.to_vec()
}

/// The roles and bindings that every cluster has, as (resource, object); the shell creates those that are missing.
pub fn defaults() -> Vec<(&'static str, Value)> {
    vec![]
}
