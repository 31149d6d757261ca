//! Priority: the number behind a pod's priority class.
//!
//! In: new pods. Out: `spec.priority`, `spec.preemptionPolicy`, `spec.priorityClassName`. Never: a number
//! that the user chose.

use super::Review;
use crate::api::object;
use limpet_objects::status::Status;
use serde_json::{Value, json};

const CLASSES: &str = "scheduling.k8s.io/priorityclasses";

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    let name = review.object["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = if name.is_empty() {
        default_class(review)
    } else {
        let found = review.stored(CLASSES, "", &name);
        Some(found.ok_or_else(|| review.forbidden(&format!("no PriorityClass with name {name} was found")))?)
    };
    let number = class.as_ref().and_then(|c| c["value"].as_i64()).unwrap_or(0);
    let policy =
        class.as_ref().and_then(|c| c["preemptionPolicy"].as_str()).unwrap_or("PreemptLowerPriority");
    let spec = &review.object["spec"];
    if let Some(own) = spec["priority"].as_i64().filter(|own| *own != number) {
        return Err(review.forbidden(&format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
             computed {number} from the given PriorityClass name"
        )));
    }
    if let Some(own) = spec["preemptionPolicy"].as_str().filter(|own| *own != policy) {
        return Err(review.forbidden(&format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    let class_name = class.as_ref().map(|c| object::name(c).to_owned());
    let policy = policy.to_owned();
    if let Some(spec) = object::map(review.object, "spec") {
        spec.insert("priority".into(), json!(number));
        spec.insert("preemptionPolicy".into(), json!(policy));
        if let Some(name) = class_name {
            spec.insert("priorityClassName".into(), json!(name));
        }
    }
    Ok(())
}

/// The class that is marked as the default; of several, the one with the smallest value.
fn default_class(review: &Review<'_>) -> Option<Value> {
    let classes = review.api.store.list(CLASSES, None).records;
    let parsed = classes.iter().filter_map(|r| serde_json::from_slice::<Value>(&r.bytes).ok());
    parsed.filter(|c| c["globalDefault"] == true).min_by_key(|c| c["value"].as_i64().unwrap_or(0))
}
