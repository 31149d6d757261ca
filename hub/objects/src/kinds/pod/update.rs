//! What may change in a pod once it exists (`ValidatePodUpdate` and its subresources).
//!
//! In: the new and the stored pod. Out: the new one with forbidden parts put back, or field errors.
//! Never: lets a subresource touch what is not its own.

use serde_json::{Value, json};

use super::spec::{self, For};
use super::whole;
use crate::field::FieldError;
use crate::kinds::fill::{copy, each, list, text};
use crate::kinds::rules::Errors;

const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Each subresource brings only its own fields; the rest is as stored.
pub fn prepare(new: &mut Value, old: &Value, subresource: &str) {
    match subresource {
        "ephemeralcontainers" => {
            let added = new["spec"]["ephemeralContainers"].clone();
            restore(new, old);
            if !added.is_null() {
                new["spec"]["ephemeralContainers"] = added;
            }
        }
        "resize" => {
            let wanted = new["spec"].clone();
            restore(new, old);
            for field in ["containers", "initContainers"] {
                for container in each(&mut new["spec"], field) {
                    let found = list(&wanted, field).iter().find(|one| one["name"] == container["name"]);
                    if let Some(found) = found {
                        copy(container, found, "resources");
                    }
                }
            }
            copy(&mut new["spec"], &wanted, "resources");
        }
        _ => {}
    }
}

fn restore(new: &mut Value, old: &Value) {
    let metadata = new["metadata"].clone();
    *new = old.clone();
    new["metadata"]["resourceVersion"] = metadata["resourceVersion"].clone();
    new["metadata"]["managedFields"] = metadata["managedFields"].clone();
    if new["metadata"]["managedFields"].is_null()
        && let Some(fields) = new["metadata"].as_object_mut()
    {
        fields.remove("managedFields");
    }
}

pub fn validate(new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
    match subresource {
        "status" => status(new, old),
        "ephemeralcontainers" => ephemeral(new, old),
        "resize" => resize(new, old),
        "binding" => Vec::new(),
        _ => main(new, old),
    }
}

fn status(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    if new["spec"]["nodeName"] != old["spec"]["nodeName"] {
        errors.push(FieldError::forbidden("status.nodeName", "may not be changed directly"));
    }
    errors
}

/// The rules of a spec, but for those of `spec.resources` that the stored pod breaks as well: hubs of before did not have them,
/// and what is there must still be labelled and let go.
fn rules(new: &Value, old: &Value) -> Errors {
    let (mut errors, mut known) = (spec::validate(&new["spec"], "spec", For::Pod), Errors::new());
    whole::validate(&old["spec"], "spec", &mut known);
    errors.retain(|error| !known.contains(error));
    errors
}

fn ephemeral(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = rules(new, old);
    let (new, old) = (list(&new["spec"], "ephemeralContainers"), list(&old["spec"], "ephemeralContainers"));
    for container in old {
        match new.iter().find(|one| one["name"] == container["name"]) {
            None => {
                let words = format!(
                    "existing ephemeral containers {:?} may not be removed\n",
                    text(container, "name")
                );
                errors.push(FieldError::forbidden("spec.ephemeralContainers", words));
            }
            Some(found) if found != container => {
                let words = format!(
                    "existing ephemeral containers {:?} may not be changed\n",
                    text(container, "name")
                );
                errors.push(FieldError::forbidden("spec.ephemeralContainers", words));
            }
            Some(_) => {}
        }
    }
    errors
}

/// `ValidatePodResize`: sizes of cpu and memory may change, within the pod's class.
fn resize(new: &Value, old: &Value) -> Vec<FieldError> {
    if !old["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return vec![FieldError::forbidden("spec", "static pods cannot be resized")];
    }
    let mut errors = spec::validate(&new["spec"], "spec", For::Pod);
    if super::qos::qos_class(&new["spec"]) != super::qos::qos_class(&old["spec"]) {
        let words = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", json!(super::qos::qos_class(&new["spec"])), words));
    }
    for side in ["limits", "requests"] {
        let (new, old) = (&new["spec"]["resources"][side], &old["spec"]["resources"][side]);
        sizes(new, old, &format!("spec.resources.{side}"), side, &mut errors);
    }
    for field in ["containers", "initContainers"] {
        for (at, (after, before)) in list(&new["spec"], field).iter().zip(list(&old["spec"], field)).enumerate() {
            let path = format!("spec.{field}[{at}].resources");
            let sidecar = field == "containers" || before["restartPolicy"] == "Always";
            if !sidecar && after["resources"] != before["resources"] {
                let words = "resources for non-sidecar init containers are immutable";
                errors.push(FieldError::forbidden(path.clone(), words));
            }
            for side in ["limits", "requests"] {
                let (new, old) = (&after["resources"][side], &before["resources"][side]);
                sizes(new, old, &format!("{path}.{side}"), side, &mut errors);
            }
        }
    }
    errors
}

fn sizes(new: &Value, old: &Value, path: &str, side: &str, errors: &mut Errors) {
    let empty = serde_json::Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let names: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    for name in names {
        match (new.get(name), old.get(name)) {
            (None, Some(_)) => {
                errors.push(FieldError::forbidden(format!("{path}.{name}"), format!("resource {side} cannot be removed")));
            }
            (after, before) if after != before && !matches!(name.as_str(), "cpu" | "memory") => {
                errors.push(FieldError::forbidden(format!("{path}.{name}"), "only cpu and memory resources are mutable"));
            }
            _ => {}
        }
    }
}

fn main(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = rules(new, old);
    let mut old = old["spec"].clone();
    // As the new one: a pod of an older hub has no requests of its own yet.
    whole::default(&mut old);
    let (new, old) = (&new["spec"], &old);
    let mut munged = new.clone();
    for field in ["containers", "initContainers"] {
        if list(new, field).len() != list(old, field).len() {
            let words = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(format!("spec.{field}"), words));
            return errors;
        }
        for (container, before) in each(&mut munged, field).zip(list(old, field)) {
            copy(container, before, "image");
        }
    }
    deadline(new, old, &mut errors);
    copy(&mut munged, old, "activeDeadlineSeconds");
    if old["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0)
        && new["terminationGracePeriodSeconds"] == 1
    {
        copy(&mut munged, old, "terminationGracePeriodSeconds");
    }
    if tolerations_only_grow(new, old) {
        copy(&mut munged, old, "tolerations");
    }
    if gates_only_shrink(new, old) {
        copy(&mut munged, old, "schedulingGates");
    }
    if &munged != old {
        let words = format!("{RULE}\nchanged: {}", differences(old, &munged).join(", "));
        errors.push(FieldError::forbidden("spec", words));
    }
    errors
}

fn deadline(new: &Value, old: &Value, errors: &mut Errors) {
    let (after, before) = (&new["activeDeadlineSeconds"], &old["activeDeadlineSeconds"]);
    if let Some(before) = before.as_i64() {
        match after.as_i64() {
            None => {
                let words = format!("must not update from a positive integer to nil value: {before}");
                errors.push(FieldError::invalid("spec.activeDeadlineSeconds", Value::Null, words));
            }
            Some(after) if after > before => {
                let words = format!("must be less than or equal to previous value: {before}");
                errors.push(FieldError::invalid("spec.activeDeadlineSeconds", json!(after), words));
            }
            Some(_) => {}
        }
    }
}

/// New tolerations may come; old ones may only change their seconds.
fn tolerations_only_grow(new: &Value, old: &Value) -> bool {
    let bare = |toleration: &Value| {
        let mut toleration = toleration.clone();
        _ = crate::kinds::fill::remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let after: Vec<Value> = list(new, "tolerations").iter().map(bare).collect();
    list(old, "tolerations").iter().all(|before| after.contains(&bare(before)))
}

fn gates_only_shrink(new: &Value, old: &Value) -> bool {
    let before = list(old, "schedulingGates");
    list(new, "schedulingGates").iter().all(|gate| before.contains(gate))
}

/// Names of the fields that differ, for the reader of the error.
fn differences(old: &Value, new: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut fields: Vec<String> = old
        .keys()
        .chain(new.keys())
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|n| format!("spec.{n}"))
        .collect();
    fields.sort();
    fields.dedup();
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::pod::defaults;

    fn pod() -> Value {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {
            "containers": [{"name": "a", "image": "b:1"}], "tolerations": [{"key": "x", "operator": "Exists"}]}});
        defaults::pod(&mut pod);
        pod
    }

    #[test]
    fn images_and_more_tolerations_may_change() {
        let old = pod();
        let mut new = pod();
        new["spec"]["containers"][0]["image"] = json!("b:2");
        new["spec"]["tolerations"] = json!([{"key": "x", "operator": "Exists", "tolerationSeconds": 5,
            "effect": "NoExecute"}, {"key": "x", "operator": "Exists"}]);
        new["spec"]["activeDeadlineSeconds"] = json!(9);
        assert_eq!(validate(&new, &old, ""), []);
    }

    #[test]
    fn nothing_else_may_change() {
        let old = pod();
        let mut new = pod();
        new["spec"]["containers"][0]["command"] = json!(["x"]);
        new["spec"]["tolerations"] = json!([]);
        let errors = validate(&new, &old, "");
        assert_eq!(errors.len(), 1);
        let text = errors[0].to_string();
        assert!(text.starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*]"
        ));
        assert!(text.ends_with("changed: spec.containers, spec.tolerations"), "{text}");
        let mut new = pod();
        new["spec"]["containers"] = json!([]);
        assert!(
            validate(&new, &old, "").iter().any(|e| e.to_string()
                == "spec.containers: Forbidden: pod updates may not add or remove containers")
        );
    }

    #[test]
    fn a_resize_keeps_the_class_and_touches_cpu_and_memory_only() {
        let sized = |resources: Value| {
            let mut pod = pod();
            pod["spec"]["containers"][0]["resources"] = resources;
            pod
        };
        let old = sized(json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "2"}}));
        for (resources, want) in [
            (json!({"requests": {"cpu": "2", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "3"}}), None),
            (json!({"requests": {"cpu": "2", "ephemeral-storage": "1Gi"}}), Some("resource limits cannot be removed")),
            (
                json!({"requests": {"cpu": "1", "ephemeral-storage": "2Gi"}, "limits": {"cpu": "2"}}),
                Some("only cpu and memory resources are mutable"),
            ),
            (json!({}), Some("Pod QOS Class may not change as a result of resizing")),
        ] {
            let mut new = sized(resources.clone());
            new["spec"]["nodeName"] = json!("sneaky");
            prepare(&mut new, &old, "resize");
            assert!(new["spec"]["nodeName"].is_null());
            let text: Vec<String> = validate(&new, &old, "resize").iter().map(ToString::to_string).collect();
            match want {
                None => assert!(text.is_empty(), "{text:?}"),
                Some(words) => assert!(text.iter().any(|t| t.contains(words)), "{resources}: {text:?}"),
            }
        }
    }

    #[test]
    fn what_lies_on_the_board_is_resized_there() {
        let mut old = pod();
        old["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        let text = validate(&old, &old, "resize")[0].to_string();
        assert_eq!(text, "spec: Forbidden: static pods cannot be resized");
    }

    #[test]
    fn a_pod_as_a_whole_may_be_resized_within_its_class() {
        let whole = |resources: Value| {
            let mut pod = json!({"metadata": {"name": "a"}, "spec": {"resources": resources, "containers":
                [{"name": "a", "image": "b:1", "resources": {"requests": {"memory": "32Mi"}}}]}});
            defaults::pod(&mut pod);
            pod
        };
        let old = whole(json!({"limits": {"memory": "64Mi"}, "requests": {"memory": "48Mi"}}));
        for (resources, want) in [
            (json!({"limits": {"memory": "128Mi"}, "requests": {"memory": "48Mi"}}), ""),
            (json!({"limits": {"memory": "64Mi", "cpu": "1"}, "requests": {"memory": "48Mi"}}), ""),
            (json!({"requests": {"memory": "48Mi"}}), "spec.resources.limits.memory: Forbidden: resource limits cannot be"),
            (json!({}), "Pod QOS Class may not change|resource limits cannot be removed"),
            (json!({"limits": {"memory": "64Mi", "hugepages-2Mi": "2Mi"}, "requests": {"memory": "48Mi"}}), "only cpu and"),
            (json!({"limits": {"memory": "32Mi"}, "requests": {"memory": "48Mi"}}), "less than or equal to memory limit of 32Mi"),
            (json!({"limits": {"memory": "64Mi"}, "requests": {"memory": "16Mi"}}), "aggregate container requests of 32Mi"),
        ] {
            let mut new = whole(resources.clone());
            prepare(&mut new, &old, "resize");
            let text: Vec<String> = validate(&new, &old, "resize").iter().map(ToString::to_string).collect();
            let found = want.split('|').any(|words| text.iter().any(|t| t.contains(words)));
            assert_eq!((text.is_empty(), found), (want.is_empty(), !want.is_empty()), "{resources}: {text:?}");
        }
    }

    #[test]
    fn what_an_older_hub_let_in_may_still_be_labelled() {
        let mut old = pod();
        old["spec"]["resources"] = json!({"limits": {"memory": "64Mi"}});
        old["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "32Mi"}});
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"a": "b"});
        defaults::pod(&mut new);
        assert_eq!(new["spec"]["resources"]["requests"], json!({"memory": "32Mi"}));
        assert_eq!(validate(&new, &old, ""), []);
        let more = validate(&new, &old, "resize").iter().any(|e| e.to_string().contains("pod limits of 64Mi"));
        assert!(more, "a resize has to mend it");
    }

    #[test]
    fn ephemeral_containers_only_come() {
        let old = pod();
        let mut new = pod();
        new["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "busybox"}]);
        new["spec"]["nodeName"] = json!("sneaky");
        prepare(&mut new, &old, "ephemeralcontainers");
        assert!(new["spec"]["nodeName"].is_null());
        assert_eq!(validate(&new, &old, "ephemeralcontainers"), []);
        assert_eq!(validate(&old, &new, "ephemeralcontainers").len(), 1);
    }
}
