//! The downward API: what a pod may learn about itself.
//!
//! In: a field path or a resource name. Out: its text.
//! Source: Kubernetes "Downward API", available fields; resource values are rounded up to the divisor.

use super::{EnvFiles, HostFacts};
use crate::api::{Container, Pod, ResourceFieldRef, Words};

/// What plans are made from, besides the desired set.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub pod: &'a Pod,
    pub host: &'a HostFacts,
    /// The pod's addresses; the host's when it uses the host's network.
    pub pod_ips: &'a [String],
    /// Only for containers: files that their variables are in.
    pub env_files: &'a EnvFiles,
}

/// Value of a `fieldRef`. `None` for a path that is not supported.
pub fn field_value(context: &Context<'_>, path: &str) -> Option<String> {
    let (meta, spec) = (&context.pod.metadata, &context.pod.spec);
    let first = |ips: &[String]| ips.first().cloned().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return None,
        };
        return Some(map.get(key).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => context.host.node_name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.clone(),
        "status.hostIP" => first(&context.host.ips),
        "status.hostIPs" => context.host.ips.join(","),
        "status.podIP" => first(context.pod_ips),
        "status.podIPs" => context.pod_ips.join(","),
        _ => return None,
    })
}

/// `key="escaped value"` a line, in order of keys.
fn lines(map: &Words) -> String {
    let quote = |v: &str| serde_json::to_string(v).unwrap_or_default();
    map.iter().map(|(k, v)| format!("{k}={}\n", quote(v))).collect::<String>().trim_end().to_string()
}

/// Value of a `resourceFieldRef` for `container` (the one named in the reference, found by the caller). Where it has no limit
/// (nought is none), the pod as a whole may have one, and the node has what it can give away.
pub fn resource_value(
    (pod, host): (&Pod, &HostFacts),
    container: &Container,
    wanted: &ResourceFieldRef,
) -> Option<String> {
    let (side, name) = wanted.resource.split_once('.')?;
    let cpu = name == "cpu";
    let number = |q: &crate::api::Quantity| if cpu { q.milli() } else { q.value() };
    let limit = container.resources.limits.get(name).and_then(number);
    let of_node = || match name {
        "cpu" => Some(host.allocatable_cpu_milli),
        "memory" => Some(host.allocatable_memory_bytes),
        "ephemeral-storage" => Some(host.allocatable_storage_bytes),
        _ => None,
    };
    let of_pod = || pod.spec.resources.limits.get(name).and_then(number).filter(|n| *n > 0);
    let have = match side {
        "limits" => match limit.filter(|n| *n > 0) {
            Some(limit) => limit,
            None => of_node().map_or(0, |all| of_pod().unwrap_or(all)),
        },
        "requests" => container.resources.requests.get(name).and_then(number).or(limit).unwrap_or(0),
        _ => return None,
    };
    let divisor = match &wanted.divisor {
        Some(q) => number(q).filter(|d| *d > 0),
        None => None,
    };
    let divisor = divisor.unwrap_or(if cpu { 1000 } else { 1 });
    Some((have.div_euclid(divisor) + i64::from(have.rem_euclid(divisor) != 0)).to_string())
}

/// The container that a resource reference means.
pub fn container_named<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    pod.spec.all_containers().find(|c| c.name == name)
}
