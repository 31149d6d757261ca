//! What a pod asks for as a whole (`spec.resources`, KEP-2837): what is filled in, and how it must agree with its containers.
//!
//! In: a pod's spec. Out: the same with requests of the pod, or field errors (`defaultPodRequests`, `validatePodResources`).
//! Never: touches a pod that asks for nothing as a whole.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::containers;
use crate::field::FieldError;
use crate::kinds::fill::{child, list, map, present, set_absent};
use crate::kinds::rules::{Errors, join};
use crate::quantity::Quantity;

const HUGE: &str = "hugepages-";

/// What a pod may name for itself; everything else is its containers' alone.
fn supported(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE)
}

/// Whether the pod asks for cpu or memory as a whole: then that decides its class.
pub fn is_set(spec: &Value) -> bool {
    let named = |side: &str| map(&spec["resources"], side).keys().any(|name| matches!(name.as_str(), "cpu" | "memory"));
    named("limits") || named("requests")
}

/// What all containers that run at the same time name together: the containers with all sidecars, or an init container with
/// the sidecars before it.
fn together(spec: &Value, side: &str) -> BTreeMap<String, Quantity> {
    let own = |container: &Value| -> Vec<(String, Quantity)> {
        let named = map(&container["resources"], side).iter();
        named.filter_map(|(name, value)| Some((name.clone(), Quantity::from_json(value).ok()?))).collect()
    };
    let add = |sum: &mut BTreeMap<String, Quantity>, more: Vec<(String, Quantity)>| {
        for (name, amount) in more {
            sum.entry(name).and_modify(|sum| *sum = sum.plus(amount)).or_insert(amount);
        }
    };
    let (mut sidecars, mut most) = (BTreeMap::new(), BTreeMap::<String, Quantity>::new());
    for container in list(spec, "initContainers") {
        let mut with = sidecars.clone();
        add(&mut with, own(container));
        for (name, amount) in &with {
            most.entry(name.clone()).and_modify(|most| *most = (*most).max(*amount)).or_insert(*amount);
        }
        if container["restartPolicy"] == "Always" {
            sidecars = with;
        }
    }
    let mut sum = sidecars;
    for container in list(spec, "containers") {
        add(&mut sum, own(container));
    }
    for (name, amount) in most {
        sum.entry(name).and_modify(|sum| *sum = (*sum).max(amount)).or_insert(amount);
    }
    sum
}

/// A pod that limits itself asks for what its containers ask for, or for its limits where they ask for nothing.
pub fn default(spec: &mut Value) {
    if map(&spec["resources"], "limits").is_empty() && map(&spec["resources"], "requests").is_empty() {
        return;
    }
    let mut pages = together(spec, "limits");
    pages.retain(|name, _| name.starts_with(HUGE));
    let asked = together(spec, "requests");
    let Some(resources) = present(spec, "resources") else { return };
    for (name, amount) in pages {
        if let Some(limits) = child(resources, "limits") {
            set_absent(limits, &name, amount.to_string());
        }
    }
    let limits = map(resources, "limits").clone();
    if limits.is_empty() {
        return;
    }
    let Some(requests) = child(resources, "requests") else { return };
    for (name, amount) in asked.iter().filter(|(name, _)| supported(name) && !name.starts_with(HUGE)) {
        set_absent(requests, name, amount.to_string());
    }
    for (name, limit) in limits.into_iter().filter(|(name, _)| supported(name)) {
        set_absent(requests, &name, limit);
    }
}

pub fn validate(spec: &Value, path: &str, errors: &mut Errors) {
    let (resources, at) = (&spec["resources"], join(path, "resources"));
    if !resources.is_object() {
        return;
    }
    if spec["os"]["name"] == "windows" {
        errors.push(FieldError::forbidden(at, "may not be set for a windows pod"));
        return;
    }
    if !list(resources, "claims").is_empty() {
        let words = "claims may not be set for resources at pod-level";
        errors.push(FieldError::forbidden(join(&at, "claims"), words));
    }
    let mut strange = BTreeSet::new();
    for side in ["limits", "requests"] {
        for name in map(resources, side).keys().filter(|name| !supported(name)) {
            let choices = ["cpu", HUGE, "memory"];
            errors.push(FieldError::not_supported(format!("{at}.{side}[{name}]"), name.as_str(), &choices));
            strange.insert(name.as_str());
        }
    }
    if strange.is_empty() {
        containers::resources(resources, &at, errors);
        agreement(spec, &at, errors);
    }
}

/// No container and not all of them together may have more than the pod.
fn agreement(spec: &Value, at: &str, errors: &mut Errors) {
    let amount = |side: &str, name: &str| {
        map(&spec["resources"], side).get(name).and_then(|value| Some((value, Quantity::from_json(value).ok()?)))
    };
    for (name, sum) in together(spec, "requests") {
        if let Some((value, _)) = amount("requests", &name).filter(|(_, own)| sum > *own) {
            let words = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(format!("{at}.requests[{name}]"), value.clone(), words));
        }
    }
    for (name, sum) in together(spec, "limits").into_iter().filter(|(name, _)| name.starts_with(HUGE)) {
        if let Some((value, _)) = amount("limits", &name).filter(|(_, own)| sum > *own) {
            let words = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.push(FieldError::invalid(format!("{at}.limits[{name}]"), value.clone(), words));
        }
    }
    for (index, container) in list(spec, "containers").iter().enumerate() {
        for (name, value) in map(&container["resources"], "limits") {
            let (Some((whole, own)), Ok(limit)) = (amount("limits", name), Quantity::from_json(value)) else { continue };
            if limit > own {
                let words = format!("must be less than or equal to pod limits of {}", whole.as_str().unwrap_or_default());
                // Upstream makes this path of the pod's resources.
                let path = format!("{at}.containers[{index}].resources.limits[{name}]");
                errors.push(FieldError::invalid(path, value.clone(), words));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(resources: Value, containers: &[Value]) -> Value {
        let containers: Vec<Value> =
            containers.iter().enumerate().map(|(n, r)| json!({"name": format!("c{n}"), "resources": r})).collect();
        json!({"resources": resources, "containers": containers})
    }

    #[test]
    fn a_limited_pod_asks_for_something() {
        let cases = [
            // As the limit where no container asks, as the containers where some do.
            (json!({"limits": {"cpu": "2", "memory": "1Gi"}}), vec![], json!({"cpu": "2", "memory": "1Gi"})),
            (
                json!({"limits": {"cpu": "2", "memory": "1Gi"}}),
                vec![json!({"requests": {"cpu": "100m"}}), json!({"requests": {"cpu": "200m"}})],
                json!({"cpu": "300m", "memory": "1Gi"}),
            ),
            (json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}), vec![], json!({"cpu": "1"})),
            (json!({"requests": {"cpu": "1"}}), vec![json!({"requests": {"memory": "1Mi"}})], json!({"cpu": "1"})),
        ];
        for (resources, containers, want) in cases {
            let mut spec = spec(resources, &containers);
            default(&mut spec);
            assert_eq!(spec["resources"]["requests"], want, "{spec}");
        }
        let mut pages = spec(json!({"limits": {"memory": "64Mi"}}), &[json!({"limits": {"hugepages-2Mi": "4Mi"}})]);
        default(&mut pages);
        assert_eq!(pages["resources"]["requests"], json!({"memory": "64Mi", "hugepages-2Mi": "4Mi"}));
        let mut none = spec(json!({}), &[json!({"limits": {"cpu": "1"}})]);
        default(&mut none);
        assert_eq!(none["resources"], json!({}));
    }

    #[test]
    fn a_pod_has_room_for_its_containers() {
        let two = [json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}), json!({"requests": {"cpu": "1"}})];
        let cases = [
            (json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}), vec![]),
            (
                json!({"requests": {"cpu": "1500m"}, "limits": {"cpu": "1500m"}}),
                vec![
                    "spec.resources.requests[cpu]: Invalid value: \"1500m\": must be greater than or equal to aggregate \
                     container requests of 2",
                    "spec.resources.containers[0].resources.limits[cpu]: Invalid value: \"2\": must be less than or equal \
                     to pod limits of 1500m",
                ],
            ),
            (
                json!({"requests": {"cpu": "4"}, "limits": {"cpu": "3"}}),
                vec!["spec.resources.requests: Invalid value: \"4\": must be less than or equal to cpu limit of 3"],
            ),
            (
                json!({"limits": {"ephemeral-storage": "1Gi"}}),
                vec![
                    "spec.resources.limits[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported \
                     values: \"cpu\", \"hugepages-\", \"memory\"",
                ],
            ),
            (json!({"claims": [{"name": "x"}]}), vec!["spec.resources.claims: Forbidden: claims may not be set for resources at pod-level"]),
        ];
        for (resources, want) in cases {
            let mut errors = Errors::new();
            validate(&spec(resources, &two), "spec", &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
        }
    }
}
