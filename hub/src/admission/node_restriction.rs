//! NodeRestriction: a node writes only what is its own.
//!
//! In: writes by `system:node:<name>` in the group `system:nodes`. Out: 403 for everything else.
//! Never: concerns anybody but nodes. (Limpet's nodes speak over their link; this door is for foreign ones.)

use super::{Operation, Review};
use crate::api::object;
use limpet_objects::status::Status;

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    let Some(node) = review.user.node() else { return Ok(()) };
    let node = node.to_owned();
    let own_name = review.name == node || (review.name.is_empty() && object::name(review.object) == node);
    let bound = review.old.unwrap_or(review.object)["spec"]["nodeName"] == node.as_str();
    match review.resource.storage.as_str() {
        "/nodes" if own_name => Ok(()),
        "/nodes" => {
            let verb = match review.operation {
                Operation::Create => "create",
                _ => "modify",
            };
            Err(review.forbidden(&format!("node {node:?} is not allowed to {verb} node {:?}", review.name)))
        }
        "/pods" if review.operation == Operation::Create && review.subresource != "eviction" => {
            Err(review.forbidden(
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node can only create mirror pods",
            ))
        }
        "/pods" if bound => Ok(()),
        "/pods" => Err(review.forbidden(&format!(
            "node {node:?} can only update or delete pods with spec.nodeName set to itself"
        ))),
        "coordination.k8s.io/leases" if own_name && review.namespace == "kube-node-lease" => Ok(()),
        "coordination.k8s.io/leases" => {
            Err(review.forbidden("can only access node lease with the same name as the requesting node"))
        }
        _ => Ok(()),
    }
}
