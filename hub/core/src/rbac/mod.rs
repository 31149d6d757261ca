//! Who may do what.
//!
//! In: who asks for what, and the roles and bindings in the view. Out: a decision with its reason.
//! Semantics: kubernetes.io/docs/reference/access-authn-authz/rbac and …/node.
//! Never: denies by rule; what nobody allows is not allowed.

mod defaults;
mod namespaced;
mod node;
mod rules;

pub use defaults::defaults;

use crate::{
    ObjectStore,
    view::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
};

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
    /// Nobody else is asked.
    Deny { reason: String },
    NoOpinion { reason: String },
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }
}

/// The group that may do everything, so that a cluster without roles can be mended.
const MASTERS: &str = "system:masters";

/// The operators' group, then the node authorizer, then RBAC.
pub fn authorize(view: &ObjectStore, asked: &Attributes<'_>) -> Decision {
    if asked.groups.iter().any(|g| g == MASTERS) {
        return Decision::Allow { reason: String::new() };
    }
    match node(view, asked) {
        Decision::NoOpinion { reason } => match roles(view, asked) {
            Decision::NoOpinion { .. } => Decision::NoOpinion { reason },
            decision => decision,
        },
        decision => decision,
    }
}

/// The node authorizer alone.
pub fn node(view: &ObjectStore, asked: &Attributes<'_>) -> Decision {
    match node::node_of(asked.user, asked.groups) {
        None => Decision::NoOpinion { reason: String::new() },
        Some(node) if node::allows(view, node, asked) => Decision::Allow { reason: String::new() },
        Some(node) => Decision::NoOpinion { reason: format!("node {node:?} may only reach its own objects") },
    }
}

/// RBAC alone.
pub fn roles(view: &ObjectStore, asked: &Attributes<'_>) -> Decision {
    for grant in grants(view, asked.user, asked.groups, asked.namespace) {
        if grant.rules.iter().any(|rule| rules::allows(rule, asked)) {
            return Decision::Allow { reason: grant.reason(asked.user) };
        }
    }
    Decision::NoOpinion { reason: String::new() }
}

/// All rules that hold for a user in a namespace, for SelfSubjectRulesReview.
pub fn rules_for(view: &ObjectStore, user: &str, groups: &[String], namespace: &str) -> Vec<PolicyRule> {
    let mut found: Vec<PolicyRule> = Vec::new();
    if groups.iter().any(|g| g == MASTERS) {
        found.extend(rules::everything());
    }
    for grant in grants(view, user, groups, namespace) {
        for rule in grant.rules {
            if !found.contains(rule) {
                found.push(rule.clone());
            }
        }
    }
    found
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
    let held = rules_for(view, user, groups, namespace);
    let single = wanted.iter().flat_map(rules::break_down);
    single.filter(|one| !held.iter().any(|rule| rules::covers(rule, one))).collect()
}

/// The rules of a role or cluster role, as a binding's reference finds them; aggregated ones included.
pub fn rules_of(view: &ObjectStore, namespace: &str, role: &RoleRef) -> Vec<PolicyRule> {
    resolve(view, namespace, role).into_iter().cloned().collect()
}

/// One binding that applies to the asking user.
struct Grant<'a> {
    binding: String,
    role: &'a RoleRef,
    rules: Vec<&'a PolicyRule>,
}

impl Grant<'_> {
    fn reason(&self, user: &str) -> String {
        let Grant { binding, role, .. } = self;
        format!("RBAC: allowed by {binding} of {} {:?} to {user:?}", role.kind, &*role.name)
    }
}

/// Cluster-wide bindings first, then those of the namespace.
fn grants<'a>(
    view: &'a ObjectStore,
    user: &'a str,
    groups: &'a [String],
    namespace: &'a str,
) -> impl Iterator<Item = Grant<'a>> {
    let cluster =
        view.all::<ClusterRoleBinding>().filter(move |b| applies(&b.subjects, "", user, groups)).map(|b| {
            let binding = format!("ClusterRoleBinding {:?}", &*b.meta.name);
            Grant { binding, role: &b.role_ref, rules: resolve(view, "", &b.role_ref) }
        });
    let local = (!namespace.is_empty()).then(|| view.list::<RoleBinding>(namespace)).into_iter().flatten();
    let local = local.filter(move |b| applies(&b.subjects, namespace, user, groups)).map(move |b| {
        let binding = format!("RoleBinding \"{}/{}\"", b.meta.name, namespace);
        Grant { binding, role: &b.role_ref, rules: resolve(view, namespace, &b.role_ref) }
    });
    cluster.chain(local)
}

fn resolve<'a>(view: &'a ObjectStore, namespace: &str, role: &RoleRef) -> Vec<&'a PolicyRule> {
    if &*role.kind == "Role" {
        return view.get::<Role>(namespace, &role.name).into_iter().flat_map(|r| r.rules.iter()).collect();
    }
    let Some(found) = view.get::<ClusterRole>("", &role.name) else { return Vec::new() };
    let mut all: Vec<&PolicyRule> = found.rules.iter().collect();
    if let Some(aggregation) = &found.aggregation_rule {
        let matching = view.all::<ClusterRole>().filter(|other| {
            other.meta.name != found.meta.name
                && aggregation.cluster_role_selectors.iter().any(|s| s.matches(&other.meta.labels))
        });
        all.extend(matching.flat_map(|other| other.rules.iter()));
    }
    all
}

fn applies(subjects: &[Subject], namespace: &str, user: &str, groups: &[String]) -> bool {
    subjects.iter().any(|subject| match &*subject.kind {
        "User" => &*subject.name == user,
        "Group" => groups.iter().any(|g| **g == *subject.name),
        "ServiceAccount" => {
            let home = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
            let mut parts = user.strip_prefix("system:serviceaccount:").unwrap_or_default().splitn(2, ':');
            !home.is_empty() && parts.next() == Some(home) && parts.next() == Some(&subject.name)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests;
