//! Nodes (v1).
//!
//! In: Nodes as JSON. Out: defaults, rules and the table row. Never: judges a node's health.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, condition, name};
use super::fill::{copy, list, map, present, text};
use super::rules::{Errors, join};
use crate::behaviour::{Behaviour, Column, Ctx};
use crate::field::FieldError;
use crate::{names, table};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

#[derive(Debug, Clone, Copy)]
pub struct Node;

impl Behaviour for Node {
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::warn::away_words(new, old)
    }

    fn default(&self, object: &mut Value) {
        if let Some(status) = present(object, "status")
            && status["allocatable"].is_null()
            && status["capacity"].is_object()
        {
            status["allocatable"] = status["capacity"].clone();
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, subresource: &str, _ctx: &Ctx<'_>) {
        // A node's agent may change labels and annotations together with the status.
        if subresource == "status" {
            copy(new, old, "spec");
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        taints(&object["spec"], &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return Vec::new();
        }
        let mut errors = self.validate_create(new);
        let fixed = |field: &str| {
            let before = &old["spec"][field];
            !before.is_null() && *before != "" && new["spec"][field] != *before
        };
        if fixed("providerID") {
            let words = "node updates may not change providerID except from \"\" to valid";
            errors.push(FieldError::forbidden("spec.providerID", words));
        }
        if fixed("podCIDR") || fixed("podCIDRs") {
            let words = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(FieldError::forbidden("spec.podCIDRs", words));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Status"),
                Column::text("Roles"),
                Column::AGE,
                Column::text("Version"),
                Column::text("Internal-IP").wide(),
                Column::text("External-IP").wide(),
                Column::text("OS-Image").wide(),
                Column::text("Kernel-Version").wide(),
                Column::text("Container-Runtime").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = &object["status"]["nodeInfo"];
        let known = |field: &str| match text(info, field) {
            "" => json!("<unknown>"),
            found => json!(found),
        };
        vec![
            name(object),
            json!(status_word(object, now)),
            json!(roles(object)),
            table::age(object, now),
            json!(text(info, "kubeletVersion")),
            json!(address(object, "InternalIP")),
            json!(address(object, "ExternalIP")),
            known("osImage"),
            known("kernelVersion"),
            known("containerRuntimeVersion"),
        ]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", (object["spec"]["unschedulable"] == true).to_string())]
    }
}

/// Rules of `spec.taints`, of nodes and of pools.
pub(super) fn taints(spec: &Value, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, taint) in list(spec, "taints").iter().enumerate() {
        let path = format!("spec.taints[{at}]");
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        for wrong in names::qualified_name(key) {
            errors.push(FieldError::invalid(join(&path, "key"), key, wrong));
        }
        for wrong in names::label_value(value) {
            errors.push(FieldError::invalid(join(&path, "value"), value, wrong));
        }
        if effect.is_empty() {
            errors.push(FieldError::required(join(&path, "effect"), ""));
        } else if !EFFECTS.contains(&effect) {
            errors.push(FieldError::not_supported(join(&path, "effect"), effect, &EFFECTS));
        }
        if !seen.insert((key, effect)) {
            let mut error = FieldError::duplicate(path, taint.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

/// Annotation of a node that is away: since when.
const OFFLINE_SINCE: &str = "limpet.dev/offline-since";

fn status_word(object: &Value, now: Timestamp) -> String {
    let mut words = vec![match condition(&object["status"], "Ready") {
        Some(ready) if ready["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    }];
    let since = text(&object["metadata"]["annotations"], OFFLINE_SINCE);
    if let Some(since) = crate::time::parse(since) {
        words.push(format!("Offline({})", table::human((now.as_second() - since.as_second()).max(0))));
    }
    if object["spec"]["unschedulable"] == true {
        words.push("SchedulingDisabled".to_owned());
    }
    words.join(",")
}

fn roles(object: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in map(&object["metadata"], "labels") {
        match (key.strip_prefix(ROLE_PREFIX), value.as_str()) {
            (Some(role), _) if !role.is_empty() => _ = roles.insert(role.to_owned()),
            (None, Some(role)) if key == ROLE_LABEL && !role.is_empty() => _ = roles.insert(role.to_owned()),
            _ => {}
        }
    }
    if roles.is_empty() { NONE.to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address<'a>(object: &'a Value, type_: &str) -> &'a str {
    let addresses = list(&object["status"], "addresses");
    addresses.iter().find(|entry| entry["type"] == type_).map_or(NONE, |entry| text(entry, "address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row() {
        let node = json!({"metadata": {"name": "pi", "labels": {"node-role.kubernetes.io/edge": "", "a": "b"},
            "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": {"unschedulable": true}, "status": {
            "conditions": [{"type": "Ready", "status": "Unknown"}], "nodeInfo": {"kubeletVersion": "v1.36.0"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}]}});
        assert_eq!(
            json!(Node.row(&node, Timestamp::UNIX_EPOCH)),
            json!([
                "pi",
                "NotReady,SchedulingDisabled",
                "edge",
                "0s",
                "v1.36.0",
                "10.0.0.2",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ])
        );
    }

    #[test]
    fn a_board_that_is_away_is_offline_since_then() {
        let mut node = json!({"metadata": {"name": "pi", "annotations": {"limpet.dev/offline-since": "1970-01-01T00:00:00Z"}},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        let status = |node: &Value, s| Node.row(node, Timestamp::from_second(s).unwrap_or_default())[1].clone();
        assert_eq!(status(&node, 3 * 3600), "NotReady,Offline(3h)");
        assert_eq!(status(&node, -50), "NotReady,Offline(0s)", "a clock that was set back");
        node["metadata"]["annotations"]["limpet.dev/offline-since"] = json!("banana");
        assert_eq!(status(&node, 0), "NotReady");
    }

    #[test]
    fn annotations_that_cannot_be_read_are_named_once() {
        let node = |words: &str| json!({"metadata": {"annotations": {"limpet.dev/lost-after": words}}});
        let said = Node.warnings(&node("banana"), Some(&node("5m")));
        assert!(said.len() == 1 && said[0].contains("\"banana\" cannot be read and counts as never"), "{said:?}");
        assert!(Node.warnings(&node("banana"), Some(&node("banana"))).is_empty(), "an agent's report is not about that");
        assert!(Node.warnings(&node("5m"), None).is_empty());
        let pod = json!({"spec": {"template": node("banana")}});
        let said = super::super::warn::workload(&pod, None, super::super::warn::own_template, "spec.template");
        assert!(said.iter().any(|w| w.starts_with("spec.template.metadata.annotations[limpet.dev/lost-after]")), "{said:?}");
    }

    #[test]
    fn taints() {
        let node = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"},
            {"key": "a", "effect": "NoSchedule"},
            {"key": "b", "effect": "Never"}, {"key": "c"}]}});
        let texts: Vec<String> = Node.validate_create(&node).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints \
                 must be unique by \
                 key and effect pair",
                "spec.taints[2].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \
                 \"PreferNoSchedule\", \"NoExecute\"",
                "spec.taints[3].effect: Required value",
            ]
        );
    }
}
