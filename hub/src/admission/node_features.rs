//! NodeDeclaredFeatures: a change of a running pod that its node does not know how to make (KEP-5328).
//!
//! In: resizes of pods that are bound. Out: 403 in upstream's words where the node does not declare what it takes.
//! Never: about pods without a node: there the scheduler decides.

use super::{Operation, Review};
use limpet_objects::{quantity::Quantity, status::Status};
use serde_json::Value;

/// CPU of a pod of class Guaranteed: a kubelet that gives such pods cores of their own may not know how to take them back.
const GUARANTEED_CPU: &str = "GuaranteedQoSPodCPUResize";
/// `spec.resources` of a pod that runs: agents before it would not look.
const WHOLE_PODS: &str = "InPlacePodLevelResourcesVerticalScaling";

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    let resizes = review.operation == Operation::Update && review.resource.storage == "/pods" && review.subresource == "resize";
    let Some(old) = review.old.filter(|_| resizes) else { return Ok(()) };
    let Some(name) = old["spec"]["nodeName"].as_str().filter(|name| !name.is_empty()) else { return Ok(()) };
    let mut asked = Vec::new();
    if old["status"]["qosClass"] == "Guaranteed" && other_cpu(old, review.object) {
        asked.push(GUARANTEED_CPU);
    }
    if review.object["spec"]["resources"] != old["spec"]["resources"] {
        asked.push(WHOLE_PODS);
    }
    if asked.is_empty() {
        return Ok(());
    }
    let Some(node) = review.stored("/nodes", "", name) else {
        return Err(review.forbidden(&format!("node {name:?} not found")));
    };
    let declared = node["status"]["declaredFeatures"].as_array().map_or(&[][..], Vec::as_slice);
    asked.retain(|feature| !declared.iter().any(|declared| declared == feature));
    if asked.is_empty() {
        return Ok(());
    }
    let asked = asked.join(", ");
    Err(review.forbidden(&format!("pod update requires features {asked} which are not available on node {name:?}")))
}

/// A container asks for more or less CPU than before.
fn other_cpu(old: &Value, new: &Value) -> bool {
    let asks = |pod: &Value, at: usize| {
        let value = &pod["spec"]["containers"][at]["resources"]["requests"]["cpu"];
        Quantity::from_json(value).map_or(0, |quantity| quantity.milli_value())
    };
    let containers = old["spec"]["containers"].as_array().map_or(0, Vec::len);
    (0..containers).any(|at| asks(old, at) != asks(new, at))
}
