//! `scale`: the number of replicas, in one form for all kinds that have one.
//!
//! In: GET, PUT or PATCH of an autoscaling/v1 Scale. Out: the Scale. Never: touches anything but
//! `spec.replicas`.

use crate::api::{
    Reply, Target, decode,
    dispatch::{Call, Input},
    negotiate, object, reply,
    verbs::{
        ask, dry_run,
        patch::{Patch, check_options, server_side},
    },
    write::{
        self, Ask, Made, Written,
        form::{Form, Validation, conform},
    },
};
use limpet_objects::{field::FieldError, patch::Place, schema, status::Status};
use serde_json::{Value, json};

const FORM: Form<'_> =
    Form { api_version: "autoscaling/v1", kind: "Scale", definition: "io.k8s.api.autoscaling.v1.Scale" };

const APPLY: &str = "application/apply-patch+yaml";

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let record = call.api.store.get(&target.key()).ok_or_else(|| target.not_found())?;
    if call.info.verb == "get" {
        return Ok(reply::value(200, &scale_of(&target.parse(&record)?), call.wanted));
    }
    let validation = Validation::of(&call.query)?;
    let mut ask = ask(call, target)?;
    ask.dry_run = dry_run(call)?;
    let media = call.content_type();
    if call.info.verb == "patch" {
        if !negotiate::PATCHES.contains(&media.as_str()) {
            return Err(Status::unsupported_media_type(negotiate::PATCHES));
        }
        check_options(call, &media)?;
    }
    let bytes = input.read().await?;
    let written = if media == APPLY && call.info.verb == "patch" {
        let scale = decode::yaml(&bytes)?.value;
        apply(&mut ask, scale, call.query.flag("force")).await?
    } else if call.info.verb == "update" {
        let decoded = decode::object(&bytes, &media, FORM.kind)?;
        let mut scale = decoded.value;
        conform(&mut scale, FORM, decoded.duplicates, validation, &mut call.warnings)?;
        write::update(&mut ask, |ask, old| set(ask, old, &scale)).await?
    } else {
        let patch = Patch::parse(&media, bytes.bytes.clone())?;
        let place = Place::of(schema::table(), FORM.definition);
        write::update(&mut ask, |ask, old| {
            let mut scale = patch.apply(&scale_of(old), place)?;
            conform(&mut scale, FORM, Vec::new(), validation, &mut Vec::new())?;
            set(ask, old, &scale)
        })
        .await?
    };
    let value = serde_json::from_slice(&written.bytes).map_err(|e| Status::internal(e.to_string()))?;
    Ok(reply::value(200, &scale_of(&value), call.wanted))
}

/// An applied Scale is an applied object of the parent's kind with this one field.
async fn apply(ask: &mut Ask, mut scale: Value, force: bool) -> Result<Written, Status> {
    conform(&mut scale, FORM, Vec::new(), Validation::Ignore, &mut Vec::new())?;
    let name = object::name(&scale);
    if !name.is_empty() && name != ask.target.name {
        let words = format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            ask.target.name
        );
        return Err(Status::bad_request(words));
    }
    let mut applied = json!({
        "apiVersion": ask.target.resource.api_version(), "kind": ask.target.resource.kind,
        "metadata": {"name": ask.target.name, "namespace": ask.target.namespace}, "spec": {},
    });
    for field in ["uid", "resourceVersion"] {
        if let Some(value) = scale["metadata"].get(field) {
            applied["metadata"][field] = value.clone();
        }
    }
    if let Some(replicas) = scale["spec"].get("replicas") {
        applied["spec"]["replicas"] = replicas.clone();
    }
    write::update(ask, |ask, old| {
        let made = server_side(ask, Some(old), &applied, force)?;
        check(ask, made.object["spec"]["replicas"].as_i64().unwrap_or(0))?;
        Ok(made)
    })
    .await
}

fn check(ask: &Ask, replicas: i64) -> Result<(), Status> {
    if replicas >= 0 {
        return Ok(());
    }
    let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
    Err(Status::invalid("autoscaling", "Scale", &ask.target.name, &[error]))
}

fn set(ask: &mut Ask, old: &Value, scale: &Value) -> Result<Made, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    check(ask, replicas)?;
    let uid = object::uid(scale);
    if !uid.is_empty() && uid != object::uid(old) {
        return Err(ask.target.conflict_because(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(old)
        )));
    }
    let mut new = old.clone();
    new["spec"]["replicas"] = json!(replicas);
    object::set_meta(&mut new, "resourceVersion", object::resource_version(scale).into());
    Ok(Made::from(new))
}

fn scale_of(object: &Value) -> Value {
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {},
        "spec": {"replicas": replicas},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            scale["metadata"][field] = value.clone();
        }
    }
    let selector = selector_text(&object["spec"]["selector"]);
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

/// A metav1.LabelSelector (or a plain map, for ReplicationControllers) as the text of a query.
fn selector_text(selector: &Value) -> String {
    let labels = selector
        .get("matchLabels")
        .or_else(|| selector.get("matchExpressions").is_none().then_some(selector));
    let labels = labels.and_then(Value::as_object);
    let mut terms: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    for term in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = term["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> = object::strings(&term["values"]).collect();
        values.sort_unstable();
        let values = values.join(",");
        match term["operator"].as_str() {
            Some("In") => terms.push(format!("{key} in ({values})")),
            Some("NotIn") => terms.push(format!("{key} notin ({values})")),
            Some("Exists") => terms.push(key.to_owned()),
            Some("DoesNotExist") => terms.push(format!("!{key}")),
            _ => {}
        }
    }
    terms.sort();
    terms.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_as_text() {
        for (selector, expect) in [
            (json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2"),
            (json!({"a": "1"}), "a=1"),
            (
                json!({"matchExpressions": [{"key": "x", "operator": "In", "values": ["b", "a"]}]}),
                "x in (a,b)",
            ),
            (json!(null), ""),
        ] {
            assert_eq!(selector_text(&selector), expect);
        }
    }
}
