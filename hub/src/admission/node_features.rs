//! NodeDeclaredFeatures: a change of a running pod that its node does not know how to make (KEP-5328).
//!
//! In: resizes of pods that are bound. Out: 403 in upstream's words where the node's agent is too old for it.
//! Never: about pods without a node: there the scheduler decides.

use super::{Operation, Review};
use limpet_objects::status::Status;

/// `spec.resources` of a pod that runs: agents before it would not look.
const WHOLE_PODS: &str = "InPlacePodLevelResourcesVerticalScaling";

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    let resizes = review.operation == Operation::Update && review.resource.storage == "/pods" && review.subresource == "resize";
    let Some(old) = review.old.filter(|_| resizes) else { return Ok(()) };
    let Some(name) = old["spec"]["nodeName"].as_str().filter(|name| !name.is_empty()) else { return Ok(()) };
    if review.object["spec"]["resources"] == old["spec"]["resources"] {
        return Ok(());
    }
    let node = review.stored("/nodes", "", name).unwrap_or_default();
    let declared = node["status"]["declaredFeatures"].as_array().into_iter().flatten();
    if declared.into_iter().any(|feature| feature == WHOLE_PODS) {
        return Ok(());
    }
    Err(review.forbidden(&format!("pod update requires features {WHOLE_PODS} which are not available on node {name:?}")))
}
