//! Roles and their bindings (rbac.authorization.k8s.io/v1).
//!
//! In: the four kinds as JSON. Out: defaults, rules and table rows. Never: decides who may do what (see
//! the authorizer).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::{each, list, present, set, text};
use super::rules::{Errors, join, required};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{names, table};

const GROUP: &str = "rbac.authorization.k8s.io";

#[derive(Debug, Clone, Copy)]
pub struct Role;

impl Behaviour for Role {
    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        rules(object, true)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct ClusterRole;

impl Behaviour for ClusterRole {
    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = rules(object, false);
        let aggregation = &object["aggregationRule"];
        if aggregation.is_object() && list(aggregation, "clusterRoleSelectors").is_empty() {
            let words = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.push(FieldError::required("aggregationRule.clusterRoleSelectors", words));
        }
        errors
    }
}

fn rules(object: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Errors::new();
    for (at, rule) in list(object, "rules").iter().enumerate() {
        let path = format!("rules[{at}]");
        if list(rule, "verbs").is_empty() {
            errors.push(FieldError::required(join(&path, "verbs"), "verbs must contain at least one value"));
        }
        let urls = list(rule, "nonResourceURLs");
        let resources = list(rule, "resources");
        if !urls.is_empty() {
            if namespaced {
                let words = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(join(&path, "nonResourceURLs"), json!(urls), words));
            }
            if !list(rule, "apiGroups").is_empty()
                || !resources.is_empty()
                || !list(rule, "resourceNames").is_empty()
            {
                let words = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(join(&path, "nonResourceURLs"), json!(urls), words));
            }
            continue;
        }
        if list(rule, "apiGroups").is_empty() {
            let words = "resource rules must supply at least one api group";
            errors.push(FieldError::required(join(&path, "apiGroups"), words));
        }
        if resources.is_empty() {
            let words = "resource rules must supply at least one resource";
            errors.push(FieldError::required(join(&path, "resources"), words));
        }
    }
    errors
}

/// RoleBinding and ClusterRoleBinding.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub namespaced: bool,
}

impl Behaviour for Binding {
    fn default(&self, object: &mut Value) {
        if let Some(role) = present(object, "roleRef") {
            set(role, "apiGroup", GROUP);
        }
        for subject in each(object, "subjects") {
            if matches!(text(subject, "kind"), "User" | "Group") {
                set(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let role = &object["roleRef"];
        if role["apiGroup"] != GROUP {
            errors.push(FieldError::not_supported("roleRef.apiGroup", text(role, "apiGroup"), &[GROUP]));
        }
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&text(role, "kind")) {
            errors.push(FieldError::not_supported("roleRef.kind", text(role, "kind"), kinds));
        }
        if let Some(name) = required(role, "name", "roleRef", &mut errors) {
            for wrong in names::path_segment(name) {
                errors.push(FieldError::invalid("roleRef.name", name, wrong));
            }
        }
        for (at, subject) in list(object, "subjects").iter().enumerate() {
            self.subject(subject, &format!("subjects[{at}]"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        if new["roleRef"] != old["roleRef"] {
            errors.push(FieldError::invalid("roleRef", new["roleRef"].clone(), "cannot change roleRef"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Role"),
                Column::AGE,
                Column::text("Users").wide(),
                Column::text("Groups").wide(),
                Column::text("ServiceAccounts").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let role = &object["roleRef"];
        let of = |kind: &str| -> Vec<&Value> {
            list(object, "subjects").iter().filter(|subject| subject["kind"] == kind).collect()
        };
        let names =
            |kind: &str| of(kind).iter().map(|subject| text(subject, "name")).collect::<Vec<_>>().join(", ");
        let accounts: Vec<String> = of("ServiceAccount")
            .iter()
            .map(|subject| match text(subject, "namespace") {
                "" => text(subject, "name").to_owned(),
                namespace => format!("{namespace}/{}", text(subject, "name")),
            })
            .collect();
        vec![
            name(object),
            json!(format!("{}/{}", text(role, "kind"), text(role, "name"))),
            table::age(object, now),
            json!(names("User")),
            json!(names("Group")),
            json!(accounts.join(", ")),
        ]
    }
}

impl Binding {
    fn subject(&self, subject: &Value, path: &str, errors: &mut Errors) {
        _ = required(subject, "name", path, errors);
        let group = text(subject, "apiGroup");
        match text(subject, "kind") {
            "ServiceAccount" => {
                if !group.is_empty() {
                    errors.push(FieldError::not_supported(join(path, "apiGroup"), group, &[""]));
                }
                if !self.namespaced {
                    _ = required(subject, "namespace", path, errors);
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    errors.push(FieldError::not_supported(join(path, "apiGroup"), group, &[GROUP]));
                }
            }
            kind => {
                let kinds = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(join(path, "kind"), kind, &kinds));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings() {
        let mut object = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "jane"},
                {"kind": "ServiceAccount", "name": "sa", "namespace": "d"}]});
        let binding = Binding { namespaced: false };
        binding.default(&mut object);
        assert_eq!(binding.validate_create(&object), []);
        let row = binding.row(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["b", "ClusterRole/view", "<unknown>", "jane", "", "d/sa"]));
        let mut new = object.clone();
        new["roleRef"]["name"] = json!("admin");
        let errors = binding.validate_update(&new, &object, "");
        assert!(errors[0].to_string().ends_with("cannot change roleRef"));
    }

    #[test]
    fn role_rules() {
        let role = json!({"rules": [{"verbs": []}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
        let texts: Vec<String> = Role.validate_create(&role).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
                "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to \
                 non-resource URLs",
            ]
        );
    }
}
