//! Gives aggregated ClusterRoles the rules of the roles that they are made of.
//!
//! In: one ClusterRole with an aggregation rule, all others. Out: its rules, when they are others.
//! Semantics: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles
//! Never: takes a role's own rules into it, or one rule twice.

use super::Controller;
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    view::{ClusterRole, Kind},
};
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug)]
pub struct ClusterRoleAggregation;

impl Controller for ClusterRoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[ClusterRole::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let aggregated = |r: &&Arc<ClusterRole>| {
            let selectors = r.aggregation_rule.iter().flat_map(|a| &a.cluster_role_selectors);
            let mut touched = selectors.flat_map(|s| changed.metas().map(|m| s.matches(&m.labels)));
            r.aggregation_rule.is_some() && (*r.meta.name == *changed.key.name || touched.any(|t| t))
        };
        let key = |r: &Arc<ClusterRole>| Key::new(ClusterRole::RESOURCE, "", &r.meta.name);
        view.all::<ClusterRole>().filter(aggregated).map(key).collect()
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(role) = view.get::<ClusterRole>("", &key.name).filter(|r| r.meta.deleting.is_none()) else {
            return plan;
        };
        let Some(rule) = &role.aggregation_rule else { return plan };
        let mut rules: Vec<Value> = Vec::new();
        // Selector by selector, roles by name, as upstream: the order is seen.
        for selector in &rule.cluster_role_selectors {
            let others = view.all::<ClusterRole>().filter(|o| o.meta.name != role.meta.name);
            for other in others.filter(|o| selector.matches(&o.meta.labels)) {
                for rule in other.field("/rules").as_array().into_iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        if role.field("/rules").as_array().is_none_or(|old| *old != rules) {
            plan.because("Aggregated", format!("{} rules", rules.len()));
            plan.patch(ClusterRole::RESOURCE, &role.meta, None, json!({"rules": rules}));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    const ROLES: &str = "rbac.authorization.k8s.io/clusterroles";

    fn rule(resource: &str) -> Value {
        json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]})
    }

    #[test]
    fn rules_follow_the_parts_and_chains_work() {
        let mut w = World::new();
        let sum = |name: &str, of: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {of: "true"}}]}, "rules": []});
        w.create(ROLES, sum("all", "to-all", json!({})));
        w.create(ROLES, sum("some", "to-some", json!({"to-all": "true"})));
        w.create(ROLES, json!({"metadata": {"name": "one", "labels": {"to-some": "true"}}, "rules": [rule("pods")]}));
        w.create(ROLES, json!({"metadata": {"name": "two", "labels": {"to-all": "true"}},
            "rules": [rule("pods"), rule("nodes")]}));
        w.settle();
        assert_eq!(w.get(ROLES, "", "some")["rules"], json!([rule("pods")]));
        assert_eq!(w.get(ROLES, "", "all")["rules"], json!([rule("pods"), rule("nodes")]));
        // The second selector's come second, and what both choose comes once.
        w.create(ROLES, json!({"metadata": {"name": "both"}, "rules": [], "aggregationRule": {"clusterRoleSelectors": [
            {"matchLabels": {"to-all": "true"}, "matchExpressions": [{"key": "to-some", "operator": "DoesNotExist"}]},
            {"matchLabels": {"to-some": "true"}}, {"matchLabels": {"to-all": "true"}}]}}));
        w.settle();
        assert_eq!(w.get(ROLES, "", "both")["rules"], json!([rule("pods"), rule("nodes")]));
        w.patch(ROLES, "", "all", json!({"rules": [rule("secrets")]}));
        w.patch(ROLES, "", "one", json!({"metadata": {"labels": {"to-some": null}}}));
        w.delete(ROLES, "", "two");
        w.settle();
        assert_eq!(w.get(ROLES, "", "some")["rules"], json!([]));
        assert_eq!(w.get(ROLES, "", "all")["rules"], json!([]));
    }
}
