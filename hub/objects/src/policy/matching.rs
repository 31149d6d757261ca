//! Which requests a webhook or a policy is about.
//!
//! In: rules and selectors of a configuration, the attributes of a request. Out: whether they meet, and in which
//! version. Source: the Kubernetes pages "Dynamic Admission Control" and "Validating Admission Policy".
//! Never: about its own kinds: nobody can lock the door to the configuration that locked it.

use std::sync::Arc;

use serde_json::Value;

use crate::registry::Registry;
use crate::resource::Resource;
use crate::select::LabelSelector;

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub operation: &'a str,
    pub resource: &'a Resource,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Null where there is none.
    pub object: &'a Value,
    pub old: &'a Value,
    /// The namespace's object; null for what is in none.
    pub namespace_object: &'a Value,
}

/// Kinds that configure admission itself.
pub fn is_exempt(resource: &Resource) -> bool {
    resource.group == "admissionregistration.k8s.io"
        || matches!(
            resource.group.as_str(),
            "authentication.k8s.io" | "authorization.k8s.io"
        ) && !resource.is_persistent()
}

/// Whether one rule meets a request for `resource` (which may be another version of the request's own).
pub fn rule(rule: &Value, attributes: &Attributes<'_>, resource: &Resource) -> bool {
    let has = |field: &str, wanted: &str| {
        rule[field]
            .as_array()
            .into_iter()
            .flatten()
            .any(|value| value == "*" || value == wanted)
    };
    let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
    let scope = match rule["scope"].as_str() {
        Some("Cluster") => attributes.namespace.is_empty() || attributes.resource.storage == "/namespaces",
        Some("Namespaced") => {
            !attributes.namespace.is_empty() && attributes.resource.storage != "/namespaces"
        }
        _ => true,
    };
    has("apiGroups", &resource.group)
        && has("apiVersions", &resource.version)
        && has("operations", attributes.operation)
        && scope
        && names.is_none_or(|names| names.iter().any(|name| name == attributes.name))
        && rule["resources"].as_array().into_iter().flatten().any(|entry| {
            let entry = entry.as_str().unwrap_or_default();
            let (plural, subresource) = entry.split_once('/').unwrap_or((entry, ""));
            let plural_fits = plural == "*" || plural == resource.plural;
            let all = entry == "*/*";
            all || plural_fits
                && (subresource == attributes.subresource
                    || subresource == "*" && !attributes.subresource.is_empty())
        })
}

/// The resource in whose version a webhook or policy wants the request; nothing when it is not about it.
pub fn rules(
    list: &Value,
    policy: &str,
    attributes: &Attributes<'_>,
    registry: &Registry,
) -> Option<Arc<Resource>> {
    let own = registry.by_path(
        &attributes.resource.group,
        &attributes.resource.version,
        &attributes.resource.plural,
    )?;
    let list = list.as_array()?;
    if list.iter().any(|one| rule(one, attributes, own)) {
        return Some(Arc::clone(own));
    }
    if policy == "Exact" {
        return None;
    }
    let others = registry.resources().iter().filter(|other| {
        other.storage == own.storage && (other.version != own.version || other.group != own.group)
    });
    others
        .into_iter()
        .find(|other| list.iter().any(|one| rule(one, attributes, other)))
        .cloned()
}

/// An empty selector meets everything.
fn selects(selector: &Value, object: &Value) -> bool {
    let empty = selector.as_object().is_none_or(|fields| fields.is_empty());
    empty || LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches(object))
}

pub fn namespace_selector(selector: &Value, attributes: &Attributes<'_>) -> bool {
    // A namespace counts as being in itself.
    let object = match attributes.resource.storage.as_str() {
        "/namespaces" if attributes.subresource.is_empty() => {
            if attributes.object.is_null() {
                attributes.old
            } else {
                attributes.object
            }
        }
        _ if attributes.namespace.is_empty() => return true,
        _ => attributes.namespace_object,
    };
    selects(selector, object)
}

pub fn object_selector(selector: &Value, attributes: &Attributes<'_>) -> bool {
    let empty = selector.as_object().is_none_or(|fields| fields.is_empty());
    empty
        || (attributes.object.is_object() && selects(selector, attributes.object))
        || (attributes.old.is_object() && selects(selector, attributes.old))
}

/// `matchConstraints` or `matchResources` of policies and bindings. Without rules of its own, a binding is about
/// whatever its policy is about.
pub fn constraints(
    constraints: &Value,
    attributes: &Attributes<'_>,
    registry: &Registry,
    rules_needed: bool,
) -> Option<Arc<Resource>> {
    let own = registry.by_path(
        &attributes.resource.group,
        &attributes.resource.version,
        &attributes.resource.plural,
    )?;
    if !namespace_selector(&constraints["namespaceSelector"], attributes)
        || !object_selector(&constraints["objectSelector"], attributes)
    {
        return None;
    }
    let policy = constraints["matchPolicy"].as_str().unwrap_or("Equivalent");
    if rules(&constraints["excludeResourceRules"], policy, attributes, registry).is_some() {
        return None;
    }
    let list = &constraints["resourceRules"];
    if list.as_array().is_none_or(Vec::is_empty) {
        return (!rules_needed).then(|| Arc::clone(own));
    }
    rules(list, policy, attributes, registry)
}
