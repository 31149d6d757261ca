//! RuntimeClass: what a pod's runtime costs, and where there is one.
//!
//! In: new pods with `spec.runtimeClassName`. Out: `spec.overhead`, node selector and tolerations of the class; 403 where
//! they contradict the pod's own. Never: an overhead that no class has.

use super::Review;
use crate::api::object;
use limpet_objects::{quantity::Quantity, status::Status};
use serde_json::{Map, Value};

const CLASSES: &str = "node.k8s.io/runtimeclasses";

pub(super) fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    let name = review.object["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
    let class = match name.is_empty() {
        true => Value::Null,
        false => {
            let found = review.stored(CLASSES, "", &name);
            found.ok_or_else(|| review.forbidden(&format!("pod rejected: RuntimeClass \"{name}\" not found")))?
        }
    };
    apply(review.object, &class).map_err(|why| review.forbidden(&why))
}

fn apply(pod: &mut Value, class: &Value) -> Result<(), String> {
    let fixed = class["overhead"].is_object().then(|| class["overhead"]["podFixed"].clone());
    let own = pod["spec"]["overhead"].as_object().filter(|own| !own.is_empty());
    match (&fixed, own) {
        (Some(fixed), Some(own)) if !same_amounts(fixed, own) => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        (None, Some(_)) => {
            return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into());
        }
        _ => {}
    }
    let Some(spec) = object::map(pod, "spec") else { return Ok(()) };
    if let Some(fixed) = fixed.filter(Value::is_object) {
        spec.insert("overhead".into(), fixed);
    }
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let place = spec.entry("nodeSelector").or_insert_with(|| Value::Object(Map::new()));
        let (wanted, own) = (value.as_str().unwrap_or_default(), place[key].as_str());
        if let Some(own) = own.filter(|own| *own != wanted) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        if let Some(selector) = place.as_object_mut() {
            selector.insert(key.clone(), value.clone());
        }
    }
    let more = class["scheduling"]["tolerations"].as_array().cloned().unwrap_or_default();
    if more.is_empty() {
        return Ok(());
    }
    if let Some(list) = object::list(spec, "tolerations") {
        let new: Vec<Value> = more.into_iter().filter(|toleration| !list.contains(toleration)).collect();
        list.extend(new);
    }
    Ok(())
}

fn same_amounts(fixed: &Value, own: &Map<String, Value>) -> bool {
    let Some(fixed) = fixed.as_object() else { return own.is_empty() };
    let amount = |value: &Value| Quantity::from_json(value).ok().map(|q| (q.value(), q.milli_value()));
    let same = |(name, value): (&String, &Value)| own.get(name).is_some_and(|own| amount(own) == amount(value));
    fixed.len() == own.len() && fixed.iter().all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_says_what_it_costs_and_where_it_runs() {
        let class = json!({"handler": "crun", "overhead": {"podFixed": {"memory": "16Mi", "cpu": "10m"}},
            "scheduling": {"nodeSelector": {"runtime": "crun"}, "tolerations": [{"key": "a", "operator": "Exists"}]}});
        let mut pod = json!({"spec": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "a", "operator": "Exists"}]}});
        apply(&mut pod, &class).unwrap();
        assert_eq!(pod["spec"], json!({"overhead": {"memory": "16Mi", "cpu": "10m"},
            "nodeSelector": {"disk": "ssd", "runtime": "crun"}, "tolerations": [{"key": "a", "operator": "Exists"}]}));
        apply(&mut pod, &class).unwrap();
        for (spec, class, words) in [
            (json!({"overhead": {"cpu": "1"}}), json!({}), "without corresponding RuntimeClass"),
            (json!({"overhead": {"cpu": "1"}}), Value::Null, "without corresponding RuntimeClass"),
            (json!({"overhead": {"cpu": "1", "memory": "16Mi"}}), class.clone(), "doesn't match"),
            (json!({"nodeSelector": {"runtime": "x"}}), class.clone(),
                "conflict: runtimeClass.scheduling.nodeSelector[runtime] = crun; pod.spec.nodeSelector[runtime] = x"),
        ] {
            let why = apply(&mut json!({"spec": spec}), &class).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        let equal = json!({"overhead": {"cpu": "0.01", "memory": "16384Ki"}});
        assert_eq!(apply(&mut json!({"spec": equal}), &class), Ok(()));
    }
}
