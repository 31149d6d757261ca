//! PodSecurity: pods must keep to the level that their namespace's labels name.
//!
//! In: new and changed pods, templates of workloads, labels of namespaces. Out: a 403 with everything that a pod violates;
//! warnings for templates and for pods that run already.
//! Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/.
//! Never: changes an object, or looks at what an update left as it was.

use super::{Operation, Review};
use limpet_hub_core::pod_security::{self, LevelVersion, Mode, Policy, check_labels, evaluate};
use limpet_objects::status::Status;
use serde_json::Value;
use std::collections::BTreeMap;

/// Pods of a namespace that are looked at when its labels change, as upstream bounds it.
const PODS_MAX: usize = 3000;

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    match review.resource.storage.as_str() {
        "/namespaces" => namespace(review),
        "/pods" => pod(review),
        storage => {
            if let Some(path) = template_of(storage) {
                template(review, path);
            }
            Ok(())
        }
    }
}

fn policy(review: &Review<'_>) -> Policy {
    let namespace = review.stored("/namespaces", "", review.namespace).unwrap_or_default();
    Policy::of(&namespace["metadata"]["labels"])
}

fn pod(review: &mut Review<'_>) -> Result<(), Status> {
    let looked_at = match (review.operation, review.subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "" | "ephemeralcontainers" | "resize") => {
            review.old.is_none_or(|old| counts(old) != counts(review.object))
        }
        _ => false,
    };
    let policy = policy(review);
    if !looked_at || policy.is_privileged() {
        return Ok(());
    }
    let violations = evaluate(policy.enforce, review.object);
    if !violations.is_empty() {
        let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, pod_security::sentence(&violations));
        return Err(review.forbidden(&why));
    }
    warn(review, policy.warn, &review.object.clone());
    Ok(())
}

/// What of a pod the checks look at, but for images, which may change freely.
fn counts(pod: &Value) -> (Value, BTreeMap<String, Value>) {
    let mut spec = pod["spec"].clone();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
                container.remove("resources");
            }
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        for field in ["tolerations", "activeDeadlineSeconds", "nodeName", "schedulingGates", "nodeSelector", "affinity"]
        {
            spec.remove(field);
        }
    }
    let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    let profiles = annotations.filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"));
    (spec, profiles.map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn warn(review: &mut Review<'_>, at: LevelVersion, pod: &Value) {
    let violations = evaluate(at, pod);
    if !violations.is_empty() {
        let text = pod_security::sentence(&violations);
        review.warnings.push(format!("would violate PodSecurity \"{at}\": {text}"));
    }
}

/// Where a workload keeps its pods' template.
fn template_of(storage: &str) -> Option<&'static str> {
    match storage {
        "apps/deployments"
        | "apps/replicasets"
        | "apps/statefulsets"
        | "apps/daemonsets"
        | "batch/jobs"
        | "/replicationcontrollers" => Some("/spec/template"),
        "batch/cronjobs" => Some("/spec/jobTemplate/spec/template"),
        "/podtemplates" => Some("/template"),
        _ => None,
    }
}

fn template(review: &mut Review<'_>, path: &str) {
    if !review.subresource.is_empty() {
        return;
    }
    let Some(template) = review.object.pointer(path).cloned() else { return };
    if review.old.and_then(|old| old.pointer(path)) == Some(&template) {
        return;
    }
    let at = policy(review).warn;
    warn(review, at, &template);
}

fn namespace(review: &mut Review<'_>) -> Result<(), Status> {
    if !review.subresource.is_empty() {
        return Ok(());
    }
    let nothing = Value::Null;
    let labels = &review.object["metadata"]["labels"];
    let old = review.old.map_or(&nothing, |old| &old["metadata"]["labels"]);
    let wrong = check_labels(labels, old);
    if !wrong.is_empty() {
        return Err(Status::invalid("", "Namespace", review.name, &wrong));
    }
    let (now, before) = (Policy::of(labels).of_mode(Mode::Enforce), Policy::of(old).of_mode(Mode::Enforce));
    if review.operation == Operation::Update && now != before {
        let found = violators(review, now);
        review.warnings.extend(found);
    }
    Ok(())
}

/// Running pods that a stricter level would not have let in, pods with the same faults in one line.
fn violators(review: &Review<'_>, at: LevelVersion) -> Vec<String> {
    let pods = review.api.store.list_from("/pods", Some(review.name), None, PODS_MAX).records;
    let mut by_fault: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in pods.iter().filter_map(|r| serde_json::from_slice::<Value>(&r.bytes).ok()) {
        let violations = evaluate(at, &pod);
        if !violations.is_empty() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            by_fault.entry(pod_security::reasons(&violations)).or_default().push(name);
        }
    }
    if by_fault.is_empty() {
        return Vec::new();
    }
    let head =
        format!("existing pods in namespace {:?} violate the new PodSecurity enforce level \"{at}\"", review.name);
    let mut lines: Vec<String> = by_fault
        .into_iter()
        .map(|(fault, mut names)| {
            names.sort();
            match names.len() {
                1 => format!("{}: {fault}", names[0]),
                2 => format!("{} (and 1 other pod): {fault}", names[0]),
                n => format!("{} (and {} other pods): {fault}", names[0], n - 1),
            }
        })
        .collect();
    lines.sort();
    lines.insert(0, head);
    lines
}
