//! RBAC escalation: nobody gives away rights that they do not have.
//!
//! In: writes of roles and bindings. Out: 403, unless the user holds the rules or may `escalate` or `bind`.
//! Source: the Kubernetes page "Using RBAC Authorization". Never: concerns `system:masters`.

use super::{Operation, Review};
use crate::{
    api::object,
    auth::{Asked, user::MASTERS},
};
use limpet_hub_core::{
    rbac,
    view::{PolicyRule, RoleRef},
};
use limpet_objects::status::Status;
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    if review.resource.group != GROUP || review.user.in_group(MASTERS) {
        return Ok(());
    }
    let unchanged = |field: &str| review.old.is_some_and(|old| old.get(field) == review.object.get(field));
    match review.resource.plural.as_str() {
        "roles" | "clusterroles" => {
            // A label alone may give rights away: it may add a role to one that aggregates.
            if review.old.is_some_and(|old| only_for_deletion(old, review.object))
                || may(review, "escalate", &review.resource.plural, review.name)
            {
                return Ok(());
            }
            refuse(review, rules(review.object))?;
            // It gathers whatever there is now and later.
            let gathers = |role: &Value| role["aggregationRule"].is_object();
            if gathers(review.object) || review.old.is_some_and(gathers) {
                let told = review.forbidden("must have cluster-admin privileges to use an aggregationRule");
                return refuse(review, everything()).map_err(|_| told);
            }
            Ok(())
        }
        _ if review.operation == Operation::Update && unchanged("roleRef") && unchanged("subjects") => Ok(()),
        _ => {
            let role = &review.object["roleRef"];
            let name = role["name"].as_str().unwrap_or_default();
            let (plural, namespace) = match role["kind"].as_str() {
                Some("Role") => ("roles", review.namespace),
                _ => ("clusterroles", ""),
            };
            if may(review, "bind", plural, name) {
                return Ok(());
            }
            let found = review.stored(&format!("{GROUP}/{plural}"), namespace, name);
            let found = found.ok_or_else(|| Status::not_found(GROUP, plural, name))?;
            let mut wanted = rules(&found);
            // What it gathers may not stand in it yet.
            if let Ok(view) = review.api.authorizer.view().read() {
                wanted.extend(rbac::rules_of(&view, namespace, &reference(role)));
            }
            refuse(review, wanted)
        }
    }
}

/// Whether nothing changed but what the garbage collector needs to let the object go.
fn only_for_deletion(old: &Value, new: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
        }
        object
    };
    rest(old) == rest(new)
}

fn everything() -> Vec<PolicyRule> {
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
    serde_json::from_value(all).unwrap_or_default()
}

fn reference(role: &Value) -> RoleRef {
    serde_json::from_value(role.clone()).unwrap_or_default()
}

fn may(review: &Review<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let namespace = review.namespace;
    let asked = Asked { verb, group: GROUP, resource, namespace, name, ..Asked::default() };
    review.api.authorizer.decide(review.user, &asked).is_allowed()
}

fn rules(role: &Value) -> Vec<PolicyRule> {
    serde_json::from_value(role["rules"].clone()).unwrap_or_default()
}

fn refuse(review: &Review<'_>, wanted: Vec<PolicyRule>) -> Result<(), Status> {
    let view = review.api.authorizer.view().read();
    let view = view.map_err(|_| Status::internal("the hub's view is not available"))?;
    let missing =
        rbac::missing_rules(&view, &review.user.name, &review.user.groups, review.namespace, &wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = missing.iter().map(|rule| format!("{rule:?}")).collect();
    let name = if review.name.is_empty() { object::name(review.object) } else { review.name };
    Err(Status::forbidden(
        GROUP,
        &review.resource.plural,
        name,
        &format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            review.user.name,
            review.user.groups,
            lines.join("\n")
        ),
    ))
}
