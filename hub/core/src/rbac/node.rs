//! What a node's own certificate opens.
//!
//! In: a node's request and the view. Out: yes, when it is about the node itself or about what its own pods name.
//! Behaviour: kubernetes.io/docs/reference/access-authn-authz/node, narrower: our agents do not list objects.
//! Never: another node's pods, secrets or lease.

use super::Attributes;
use crate::{
    ObjectStore,
    view::{Pod, PodRef},
};

const READ: [&str; 3] = ["get", "list", "watch"];

/// The node's name, when user and groups are those of a node.
pub(super) fn node_of<'a>(user: &'a str, groups: &[String]) -> Option<&'a str> {
    let name = user.strip_prefix("system:node:").filter(|n| !n.is_empty())?;
    groups.iter().any(|g| g == "system:nodes").then_some(name)
}

pub(super) fn allows(view: &ObjectStore, node: &str, asked: &Attributes<'_>) -> bool {
    if let Some(path) = asked.path {
        // Images of the hub's registry; `get` covers HEAD.
        return asked.verb == "get" && (path == "/v2" || path.starts_with("/v2/"));
    }
    let one = !asked.name.is_empty();
    match (asked.api_group, asked.resource) {
        // A node must not take its own taints away or give itself labels: of itself it writes the status only.
        ("", "nodes") if asked.subresource == "status" => {
            asked.name == node && ["update", "patch"].contains(&asked.verb)
        }
        ("", "nodes") => asked.name == node && asked.verb == "get" && asked.subresource.is_empty(),
        ("", "pods") if one && asked.subresource.is_empty() => {
            asked.verb == "get"
                && view.pod(asked.namespace, asked.name).is_some_and(|p| p.node.as_deref() == Some(node))
        }
        ("", "configmaps") if one => asked.verb == "get" && own_pod(view, node, asked, PodRef::ConfigMap),
        ("", "secrets") if one => asked.verb == "get" && own_pod(view, node, asked, PodRef::Secret),
        ("", "persistentvolumeclaims") if one => {
            asked.verb == "get" && own_pod(view, node, asked, PodRef::Claim)
        }
        ("", "services") | ("discovery.k8s.io", "endpointslices") => READ.contains(&asked.verb),
        ("" | "events.k8s.io", "events") => asked.verb == "create",
        ("coordination.k8s.io", "leases") => {
            asked.namespace == "kube-node-lease"
                && asked.name == node
                && ["get", "update", "patch"].contains(&asked.verb)
        }
        _ => false,
    }
}

/// Whether a pod bound to the node names the object.
fn own_pod(
    view: &ObjectStore,
    node: &str,
    asked: &Attributes<'_>,
    reference: fn(Box<str>) -> PodRef,
) -> bool {
    let wanted = reference(asked.name.into());
    let names = |pod: &Pod| &*pod.meta.namespace == asked.namespace && pod.spec.refs.contains(&wanted);
    asked.subresource.is_empty() && view.pods_on(node).any(|pod| !pod.assumed && names(pod))
}
