//! Rules for where a pod may run: tolerations, affinity, spreading, gates.
//!
//! In: a defaulted spec and its path. Out: field errors. Never: looks at nodes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::field::FieldError;
use crate::kinds::fill::{list, text};
use crate::kinds::rules::{Errors, join};
use crate::names;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn validate(spec: &Value, path: &str, errors: &mut Errors) {
    affinity(&spec["affinity"], &join(path, "affinity"), errors);
    gates(spec, path, errors);
    spread(spec, path, errors);
    tolerations(list(spec, "tolerations"), &join(path, "tolerations"), errors);
    if spec["schedulingGroup"].is_object() {
        let words = "pods are placed one by one here: there are no groups of pods (the API server of 1.36 drops this field)";
        errors.push(FieldError::forbidden(join(path, "schedulingGroup"), words));
    }
}

fn gates(spec: &Value, path: &str, errors: &mut Errors) {
    for (at, gate) in list(spec, "readinessGates").iter().enumerate() {
        let kind = text(gate, "conditionType");
        let path = format!("{path}.readinessGates[{at}].conditionType");
        errors.extend(names::qualified_name(kind).into_iter().map(|words| FieldError::invalid(path.as_str(), kind, words)));
    }
    let mut seen = BTreeSet::new();
    for (at, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let (name, path) = (text(gate, "name"), format!("{path}.schedulingGates[{at}]"));
        errors.extend(names::qualified_name(name).into_iter().map(|words| FieldError::invalid(path.as_str(), name, words)));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
}

/// Rules for tolerations, also of classes and device requests.
pub fn tolerations(tolerations: &[Value], path: &str, errors: &mut Errors) {
    for (at, toleration) in tolerations.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let (key, value) = (text(toleration, "key"), text(toleration, "value"));
        let (operator, effect) = (text(toleration, "operator"), text(toleration, "effect"));
        if !key.is_empty() {
            for wrong in names::qualified_name(key) {
                errors.push(FieldError::invalid(join(&path, "key"), key, wrong));
            }
        }
        if key.is_empty() && operator != "Exists" {
            let words =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(join(&path, "operator"), operator, words));
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            let words = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(join(&path, "effect"), effect, words));
        }
        match operator {
            "" | "Equal" => {
                for wrong in names::label_value(value) {
                    errors.push(FieldError::invalid(join(&path, "operator"), value, wrong));
                }
            }
            "Exists" if !value.is_empty() => {
                let words = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(join(&path, "operator"), value, words));
            }
            "Exists" => {}
            other => {
                errors.push(FieldError::not_supported(join(&path, "operator"), other, &["Equal", "Exists"]));
            }
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.push(FieldError::not_supported(join(&path, "effect"), effect, &EFFECTS));
        }
    }
}

fn affinity(affinity: &Value, path: &str, errors: &mut Errors) {
    let node = &affinity["nodeAffinity"];
    let node_path = join(path, "nodeAffinity");
    let required = &node["requiredDuringSchedulingIgnoredDuringExecution"];
    if required.is_object() {
        node_selector(required, &join(&node_path, "requiredDuringSchedulingIgnoredDuringExecution"), errors);
    }
    for (at, choice) in list(node, "preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
        let path = format!("{node_path}.preferredDuringSchedulingIgnoredDuringExecution[{at}]");
        weight(choice, &path, errors);
        node_term(&choice["preference"], &join(&path, "preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = join(path, kind);
        for (at, term) in
            list(&affinity[kind], "requiredDuringSchedulingIgnoredDuringExecution").iter().enumerate()
        {
            pod_term(term, &format!("{path}.requiredDuringSchedulingIgnoredDuringExecution[{at}]"), errors);
        }
        for (at, choice) in
            list(&affinity[kind], "preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate()
        {
            let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{at}]");
            weight(choice, &path, errors);
            pod_term(&choice["podAffinityTerm"], &join(&path, "podAffinityTerm"), errors);
        }
    }
}

/// A NodeSelector, also of a PersistentVolume.
pub fn node_selector(selector: &Value, path: &str, errors: &mut Errors) {
    let (terms, path) = (list(selector, "nodeSelectorTerms"), join(path, "nodeSelectorTerms"));
    if terms.is_empty() {
        errors.push(FieldError::required(path.as_str(), "must have at least one node selector term"));
    }
    for (at, term) in terms.iter().enumerate() {
        node_term(term, &format!("{path}[{at}]"), errors);
    }
}

fn weight(choice: &Value, path: &str, errors: &mut Errors) {
    let weight = choice["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(join(path, "weight"), weight, "must be in the range 1-100"));
    }
}

fn node_term(term: &Value, path: &str, errors: &mut Errors) {
    node_fields(term, path, errors);
    const OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
    for (at, requirement) in list(term, "matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{at}]");
        let values = list(requirement, "values").len();
        match text(requirement, "operator") {
            "In" | "NotIn" if values == 0 => {
                let words = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(join(&path, "values"), words));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let words = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(join(&path, "values"), words));
            }
            "Gt" | "Lt" if values != 1 => {
                let words = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(join(&path, "values"), words));
            }
            operator if OPERATORS.contains(&operator) => {}
            other => {
                let words = "not a valid selector operator";
                errors.push(FieldError::invalid(join(&path, "operator"), other, words));
            }
        }
        let key = text(requirement, "key");
        for wrong in names::qualified_name(key) {
            errors.push(FieldError::invalid(join(&path, "key"), key, wrong));
        }
    }
}

/// `matchFields` knows one field, of one value.
fn node_fields(term: &Value, path: &str, errors: &mut Errors) {
    for (at, requirement) in list(term, "matchFields").iter().enumerate() {
        let path = format!("{path}.matchFields[{at}]");
        match text(requirement, "operator") {
            "In" | "NotIn" if list(requirement, "values").len() != 1 => {
                let words = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(FieldError::required(join(&path, "values"), words));
            }
            "In" | "NotIn" => {}
            other => {
                let words = "not a valid selector operator";
                errors.push(FieldError::invalid(join(&path, "operator"), other, words));
            }
        }
        let key = text(requirement, "key");
        if key != "metadata.name" {
            errors.push(FieldError::invalid(join(&path, "key"), key, "not a valid field selector key"));
        }
    }
}

fn pod_term(term: &Value, path: &str, errors: &mut Errors) {
    for selector in ["labelSelector", "namespaceSelector"] {
        crate::kinds::rules::label_selector(&term[selector], &join(path, selector), errors);
    }
    for namespace in list(term, "namespaces").iter().filter_map(Value::as_str) {
        let wrong = names::dns_label(namespace).into_iter();
        errors.extend(wrong.map(|words| FieldError::invalid(join(path, "namespace"), namespace, words)));
    }
    keys_of_labels(term, path, errors);
    match text(term, "topologyKey") {
        "" => errors.push(FieldError::required(join(path, "topologyKey"), "can not be empty")),
        key => {
            for wrong in names::qualified_name(key) {
                errors.push(FieldError::invalid(join(path, "topologyKey"), key, wrong));
            }
        }
    }
}

/// `matchLabelKeys` adds to a selector, and needs one.
fn keys_of_labels(term: &Value, path: &str, errors: &mut Errors) {
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = list(term, field);
        if !keys.is_empty() && !term["labelSelector"].is_object() {
            errors.push(FieldError::forbidden(join(path, field), "must not be specified when labelSelector is not set"));
        }
        for (at, key) in keys.iter().enumerate() {
            let (key, at) = (key.as_str().unwrap_or_default(), format!("{}[{at}]", join(path, field)));
            errors.extend(names::qualified_name(key).into_iter().map(|words| FieldError::invalid(at.as_str(), key, words)));
            if field == "matchLabelKeys" && list(term, "mismatchLabelKeys").iter().any(|other| other == key) {
                errors.push(FieldError::invalid(at, key, "exists in both matchLabelKeys and mismatchLabelKeys"));
            }
        }
    }
}

fn spread(spec: &Value, path: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{at}]");
        let skew = constraint["maxSkew"].as_i64().unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(join(&path, "maxSkew"), skew, "must be greater than zero"));
        }
        let (key, action) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        match key {
            "" => errors.push(FieldError::required(join(&path, "topologyKey"), "can not be empty")),
            key => {
                let wrong = names::qualified_name(key).into_iter();
                errors.extend(wrong.map(|words| FieldError::invalid(join(&path, "topologyKey"), key, words)));
            }
        }
        let choices = ["DoNotSchedule", "ScheduleAnyway"];
        if !choices.contains(&action) {
            errors.push(FieldError::not_supported(join(&path, "whenUnsatisfiable"), action, &choices));
        }
        if !seen.insert((key, action)) {
            let at = join(&path, "{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(at, format!("{{{key}, {action}}}")));
        }
        domains(constraint, action, &path, errors);
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            crate::kinds::rules::one_of(constraint, field, &path, &["Honor", "Ignore"], errors);
        }
        keys_of_labels(constraint, &path, errors);
        let selector = join(&path, "labelSelector");
        crate::kinds::rules::label_selector(&constraint["labelSelector"], &selector, errors);
    }
}

fn domains(constraint: &Value, action: &str, path: &str, errors: &mut Errors) {
    let Some(number) = constraint["minDomains"].as_i64() else { return };
    let path = join(path, "minDomains");
    if number <= 0 {
        errors.push(FieldError::invalid(path.as_str(), number, "must be greater than zero"));
    }
    if action != "DoNotSchedule" {
        let words = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.push(FieldError::invalid(path, number, words));
    }
}
