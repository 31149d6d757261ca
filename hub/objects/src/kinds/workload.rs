//! What the kinds with a pod template share: defaulting of the template, selector rules, columns.
//!
//! In: workloads as JSON. Out: defaults, field errors and cells. Never: knows one kind.

use serde_json::{Value, json};

use super::cells;
use super::fill::{present, text};
use super::pod::{defaults, spec};
use super::rules::{self, Errors, join, not_negative};
use crate::field::FieldError;
use crate::metadata;

/// Pod defaults of `spec.template`.
pub fn default_template(workload_spec: &mut Value) {
    if let Some(spec) = present(workload_spec, "template").and_then(|template| present(template, "spec")) {
        defaults::pod_spec(spec);
    }
}

/// `spec.selector` and `spec.template` of a Deployment, ReplicaSet, DaemonSet or StatefulSet. `kind` in
/// lower case words.
pub fn validate(workload_spec: &Value, kind: &str) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (selector, template) = (&workload_spec["selector"], &workload_spec["template"]);
    if selector.is_null() {
        // A DaemonSet only hears that nothing matches.
        if kind != "daemonset" {
            errors.push(FieldError::required("spec.selector", ""));
        }
    } else {
        rules::label_selector(selector, "spec.selector", &mut errors);
        if rules::selector_is_empty(selector) {
            let words = format!("empty selector is invalid for {kind}");
            errors.push(FieldError::invalid("spec.selector", selector.clone(), words));
        }
    }
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(workload_spec, field, "spec", &mut errors);
    }
    if template.is_null() {
        errors.push(FieldError::required("spec.template", ""));
        return errors;
    }
    let labels = &template["metadata"]["labels"];
    let empty = !selector.is_null() && rules::selector_is_empty(selector);
    if selector.is_null() || (!empty && !rules::selector_matches(selector, labels)) {
        let shown = if labels.is_null() { json!({}) } else { labels.clone() };
        let words = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", shown, words));
    }
    if kind == "statefulset" {
        // Its pods have more volumes than the template names: each pod is judged when it is made, and the set told.
        errors.extend(metadata::labels(labels, "spec.template.labels"));
        errors.extend(metadata::annotations(&template["metadata"]["annotations"], "spec.template.annotations"));
    } else {
        errors.extend(spec::validate_template(template, "spec.template"));
    }
    restarts_always(template, kind, &mut errors);
    errors
}

/// What only pods may have that nobody makes anew.
pub(super) fn restarts_always(template: &Value, kind: &str, errors: &mut Errors) {
    let policy = text(&template["spec"], "restartPolicy");
    if policy != "Always" && !policy.is_empty() {
        errors.push(FieldError::not_supported("spec.template.spec.restartPolicy", policy, &["Always"]));
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let kind = match kind {
            // A Deployment's template is judged as a ReplicaSet's.
            "deployment" => "ReplicaSet",
            "daemonset" => "DaemonSet",
            "statefulset" => "StatefulSet",
            other => other,
        };
        let words = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden("spec.template.spec.activeDeadlineSeconds", words));
    }
}

/// The selector must stay what it was.
pub fn selector_immutable(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    rules::immutable(&new["spec"], &old["spec"], "selector", "spec", &mut errors);
    errors
}

/// Counts of a workload's status that must not be negative.
pub fn status_counts(object: &Value, fields: &[&str]) -> Vec<FieldError> {
    let mut errors = Errors::new();
    for field in fields {
        not_negative(&object["status"], field, "status", &mut errors);
    }
    errors
}

/// `status.collisionCount` never goes back.
pub fn collisions(new: &Value, old: &Value, errors: &mut Errors) {
    let count = |o: &Value| o["status"]["collisionCount"].as_i64();
    if count(old).is_some_and(|before| count(new).is_none_or(|now| now < before)) {
        errors.push(FieldError::invalid("status.collisionCount", count(new).unwrap_or(0), "cannot be decremented"));
    }
}

/// Containers, images and selector: the wide columns of most workloads.
pub fn wide_cells(object: &Value) -> [Value; 3] {
    let [names, images] = cells::containers(&object["spec"]["template"]["spec"]);
    [names, images, json!(cells::selector(&object["spec"]["selector"]))]
}

/// A rolling update's surge and unavailability: counts or percentages, not both zero.
pub fn rolling_update(rolling: &Value, path: &str, errors: &mut Errors) {
    for field in ["maxUnavailable", "maxSurge"] {
        rules::count_or_percent(rolling, field, path, errors);
    }
    if rules::percent(&rolling["maxUnavailable"]) > 100 {
        let words = "must not be greater than 100%";
        errors.push(FieldError::invalid(
            join(path, "maxUnavailable"),
            rolling["maxUnavailable"].clone(),
            words,
        ));
    }
}
