//! What works but should not be relied on, in upstream's words: `Warning` headers of a write.
//!
//! In: valid objects with pod specs. Out: sentences. Never: refuses anything.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fill::{list, map, text};
use crate::absence;
use crate::names;
use crate::quantity::Quantity;

/// Labels of nodes that have a successor.
const OLD_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];

/// Volumes that nobody should begin with.
const OLD_VOLUMES: [(&str, &str); 12] = [
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("awsElasticBlockStore", "deprecated in v1.17, non-functional in v1.27+"),
    ("cinder", "deprecated in v1.18, non-functional in v1.26+"),
    ("vsphereVolume", "deprecated in v1.19, non-functional in v1.30+"),
];

/// A workload's own name (it becomes part of host names), and its template when that changed.
pub fn workload(new: &Value, old: Option<&Value>, template: fn(&Value) -> &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() {
        warnings.extend(host_name(new, "Pod names and hostnames"));
    }
    if old.is_none_or(|old| template(old) != template(new)) {
        warnings.extend(pod(template(new), path));
    }
    warnings
}

/// The template of most workloads.
pub fn own_template(object: &Value) -> &Value {
    &object["spec"]["template"]
}

/// A name that is fine for the object but not for a host.
pub fn host_name(object: &Value, used_in: &str) -> Option<String> {
    let wrong = names::dns_label(text(&object["metadata"], "name"));
    let words = "which can result in surprising behavior; a DNS label is recommended";
    (!wrong.is_empty()).then(|| format!("metadata.name: this is used in {used_in}, {words}: [{}]", wrong.join(" ")))
}

/// Annotations about absence that cannot be read, of a pod or a node; of an old object only what is new.
pub fn away_words(new: &Value, old: Option<&Value>) -> Vec<String> {
    let word = |object: &'_ Value, key: &str| object["metadata"]["annotations"][key].as_str().map(String::from);
    let keys = [absence::LOST_AFTER, absence::REPLACE, absence::RECONCILE];
    let fresh = keys.map(|key| word(new, key).filter(|v| old.is_none_or(|old| word(old, key).as_ref() != Some(v))));
    absence::complaints(|key| fresh[keys.iter().position(|k| *k == key)?].as_deref())
}

/// A pod, or the template of one under `path` (empty for a pod).
pub fn pod(pod: &Value, path: &str) -> Vec<String> {
    let at = |rest: &str| if path.is_empty() { rest.to_owned() } else { format!("{path}.{rest}") };
    let mut warnings = away_words(pod, None);
    if !path.is_empty() {
        warnings.iter_mut().for_each(|w| *w = format!("{path}.{w}"));
    }
    let spec = &pod["spec"];
    for (key, why) in OLD_NODE_LABELS {
        if map(spec, "nodeSelector").contains_key(key) {
            warnings.push(format!("{}[{key}]: {why}", at("spec.nodeSelector")));
        }
    }
    for (index, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            warnings.push(format!("{}: invalid empty name \"\"", at(&format!("spec.imagePullSecrets[{index}].name"))));
        }
    }
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        for (kind, why) in OLD_VOLUMES.iter().filter(|(kind, _)| !volume[*kind].is_null()) {
            warnings.push(format!("{}: {why}", at(&format!("spec.volumes[{index}].{kind}"))));
        }
    }
    for field in ["initContainers", "containers"] {
        for (index, container) in list(spec, field).iter().enumerate() {
            one_container(container, &at(&format!("spec.{field}[{index}]")), &mut warnings);
        }
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        let place = at("spec.terminationGracePeriodSeconds");
        warnings.push(format!("{place}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings
}

fn one_container(container: &Value, path: &str, warnings: &mut Vec<String>) {
    let mut ports = BTreeMap::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        let key = |field: &str| port[field].to_string();
        let own = format!("{path}.ports[{index}]");
        let first = ports.entry((key("containerPort"), key("protocol"), key("hostPort"), key("hostIP")));
        match first {
            std::collections::btree_map::Entry::Vacant(free) => _ = free.insert(own),
            std::collections::btree_map::Entry::Occupied(first) => {
                warnings.push(format!("{own}: duplicate port definition with {}", first.get()));
            }
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, variable) in list(container, "env").iter().enumerate() {
        let name = text(variable, "name");
        if !seen.insert(name) {
            warnings.push(format!(
                "{path}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
    for kind in ["limits", "requests"] {
        for resource in ["memory", "ephemeral-storage"] {
            warnings.extend(fraction(&container["resources"][kind], resource, &format!("{path}.resources.{kind}")));
        }
    }
}

/// Bytes come whole.
pub fn fraction(amounts: &Value, resource: &str, path: &str) -> Option<String> {
    let text = amounts[resource].as_str()?;
    let amount: Quantity = text.parse().ok()?;
    let whole = Quantity::from_bytes(amount.value());
    (amount != whole).then(|| format!("{path}[{resource}]: fractional byte value {text:?} is invalid, must be an integer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods() {
        let object = json!({"metadata": {"name": "a.b"}, "spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"}, "terminationGracePeriodSeconds": -1,
            "volumes": [{"name": "v", "gitRepo": {}}, {"name": "w", "emptyDir": {}}],
            "containers": [{"env": [{"name": "A"}, {"name": "B"}, {"name": "A"}],
                "ports": [{"containerPort": 1}, {"containerPort": 1}, {"containerPort": 1, "protocol": "UDP"}],
                "resources": {"requests": {"memory": "100m", "cpu": "100m"}, "limits": {"memory": "1Gi"}}}]}});
        assert_eq!(
            pod(&object, ""),
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an \
                 integer",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
        assert!(host_name(&object, "x").unwrap().starts_with("metadata.name: this is used in x, which can"));
        assert_eq!(pod(&json!({"spec": {"containers": [{"name": "c"}]}}), "spec.template"), Vec::<String>::new());
    }
}
