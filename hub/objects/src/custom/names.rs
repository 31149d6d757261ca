//! The names of custom resources: who has which, and what a definition's status says about it.
//!
//! In: a CustomResourceDefinition, the others, the built-in resources. Out: its status: accepted names and the
//! conditions NamesAccepted and Established. A name belongs to whoever had it first.
//! Never: takes a name from a definition that holds it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::condition;
use crate::registry::Registry;
use crate::time;

const APPROVED: &str = "api-approved.kubernetes.io";

/// The names that others hold in one group.
#[derive(Debug, Default)]
pub struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// Names of the built-in resources of a group and those that other definitions hold.
    pub fn of<'a>(
        group: &str,
        own: &str,
        builtin: &Registry,
        others: impl Iterator<Item = &'a Value>,
    ) -> Self {
        let mut taken = Self::default();
        for resource in builtin
            .resources()
            .iter()
            .filter(|r| r.group == group && r.custom.is_none())
        {
            taken
                .resources
                .extend([resource.plural.clone(), resource.singular.clone()]);
            taken.resources.extend(resource.short_names.iter().cloned());
            taken
                .kinds
                .extend([resource.kind.clone(), resource.list_kind.clone()]);
        }
        let others = others
            .filter(|other| other["spec"]["group"] == group && other["metadata"]["name"] != own);
        for names in others.map(|other| &other["status"]["acceptedNames"]) {
            taken
                .resources
                .extend(["plural", "singular"].iter().filter_map(|f| text(names, f)));
            taken.resources.extend(texts(&names["shortNames"]));
            taken
                .kinds
                .extend(["kind", "listKind"].iter().filter_map(|f| text(names, f)));
        }
        taken
    }
}

fn text(names: &Value, field: &str) -> Option<String> {
    names[field]
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|t| t.as_str().map(str::to_owned))
        .collect()
}

/// The status that a definition gets: names, conditions, stored versions.
pub fn status(definition: &Value, taken: &Taken, now: Timestamp) -> Value {
    let wanted = &definition["spec"]["names"];
    let mut status = definition["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let (accepted, refused) = accept(wanted, &status["acceptedNames"], taken);
    status["acceptedNames"] = accepted;
    let named = refused.is_none();
    let (reason, message) = refused.unwrap_or(("NoConflicts", "no conflicts found".to_owned()));
    set(&mut status, "NamesAccepted", named, reason, &message, now);
    let was = condition(definition, "Established");
    if named || was {
        let words = "the initial names have been accepted";
        set(
            &mut status,
            "Established",
            true,
            "InitialNamesAccepted",
            words,
            now,
        );
    } else {
        set(
            &mut status,
            "Established",
            false,
            "NotAccepted",
            "not all names are accepted",
            now,
        );
    }
    approval(definition, &mut status, now);
    let stored = super::storage_version(definition);
    let mut versions = texts(&status["storedVersions"]);
    if !stored.is_empty() && !versions.iter().any(|version| version == stored) {
        versions.push(stored.to_owned());
    }
    status["storedVersions"] = json!(versions);
    status
}

/// Sets a condition; the time changes with the status only.
pub fn set(status: &mut Value, type_: &str, on: bool, reason: &str, message: &str, now: Timestamp) {
    let word = if on { "True" } else { "False" };
    let mut all = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut new = json!({"type": type_, "status": word, "reason": reason, "message": message,
        "lastTransitionTime": time::rfc3339(now)});
    match all.iter_mut().find(|c| c["type"] == type_) {
        Some(old) => {
            if old["status"] == word && old["lastTransitionTime"].is_string() {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => all.push(new),
    }
    status["conditions"] = Value::Array(all);
}

/// Groups of Kubernetes itself need a word of approval; the condition says what was found.
fn approval(definition: &Value, status: &mut Value, now: Timestamp) {
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let Some(word) = definition["metadata"]["annotations"][APPROVED].as_str() else {
        return;
    };
    if !is_protected(group) {
        return;
    }
    let (on, reason, message) = if word.starts_with("unapproved") {
        (
            false,
            "UnapprovedAnnotation",
            format!("not approved: {word:?}"),
        )
    } else if word.starts_with("http://") || word.starts_with("https://") {
        (true, "ApprovedAnnotation", format!("approved in {word}"))
    } else {
        let words = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        (false, "InvalidAnnotation", words)
    };
    set(
        status,
        "KubernetesAPIApprovalPolicyConformant",
        on,
        reason,
        &message,
        now,
    );
}

/// Whether a group is Kubernetes' own.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| {
        group == *own
            || group
                .strip_suffix(own)
                .is_some_and(|before| before.ends_with('.'))
    })
}

/// The names that can be had, and what is wrong with the others. What is refused stays as it was accepted.
fn accept(
    wanted: &Value,
    before: &Value,
    taken: &Taken,
) -> (Value, Option<(&'static str, String)>) {
    let mut accepted = if before.is_object() {
        before.clone()
    } else {
        json!({"plural": "", "kind": ""})
    };
    let mut refused = None;
    let resource_fields = [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
    ];
    for (field, reason) in resource_fields {
        let name = text(wanted, field).unwrap_or_default();
        if taken.resources.contains(&name) {
            refused.get_or_insert((reason, format!("{name:?} is already in use")));
        } else {
            accepted[field] = json!(name);
        }
    }
    let short = texts(&wanted["shortNames"]);
    let clashes: Vec<String> = short
        .iter()
        .filter(|n| taken.resources.contains(*n))
        .map(|n| format!("{n:?} is already in use"))
        .collect();
    match clashes.as_slice() {
        [] if short.is_empty() => {
            accepted
                .as_object_mut()
                .map(|fields| fields.remove("shortNames"));
        }
        [] => accepted["shortNames"] = json!(short),
        [one] => _ = refused.get_or_insert(("ShortNamesConflict", one.clone())),
        many => _ = refused.get_or_insert(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        let name = text(wanted, field).unwrap_or_default();
        if taken.kinds.contains(&name) {
            refused.get_or_insert((reason, format!("{name:?} is already in use")));
        } else {
            accepted[field] = json!(name);
        }
    }
    match wanted
        .get("categories")
        .filter(|list| list.as_array().is_some_and(|l| !l.is_empty()))
    {
        Some(categories) => accepted["categories"] = categories.clone(),
        None => {
            _ = accepted
                .as_object_mut()
                .map(|fields| fields.remove("categories"))
        }
    }
    (accepted, refused)
}

/// Definitions of a group, by name, in the order in which they came: earlier ones keep their names.
pub fn in_order<'a>(definitions: impl Iterator<Item = &'a Value>) -> Vec<&'a Value> {
    let mut sorted: BTreeMap<(String, String), &Value> = BTreeMap::new();
    for definition in definitions {
        let field = |name: &str| {
            definition["metadata"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        sorted.insert((field("creationTimestamp"), field("name")), definition);
    }
    sorted.into_values().collect()
}
