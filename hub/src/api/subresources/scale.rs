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
        return Ok(reply::value(200, &scale_of(target, &target.parse(&record)?)?, call.wanted));
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
            let mut scale = patch.apply(&scale_of(&ask.target, old)?, place)?;
            conform(&mut scale, FORM, Vec::new(), validation, &mut Vec::new())?;
            set(ask, old, &scale)
        })
        .await?
    };
    let value = serde_json::from_slice(&written.bytes).map_err(|e| Status::internal(e.to_string()))?;
    Ok(reply::value(200, &scale_of(target, &value)?, call.wanted))
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
    let path = Paths::of(&ask.target).spec;
    put(&mut new, &path, json!(replicas));
    object::set_meta(&mut new, "resourceVersion", object::resource_version(scale).into());
    Ok(Made::from(new))
}

/// Where a kind keeps its replicas.
struct Paths {
    spec: Vec<String>,
    status: Vec<String>,
    selector: Option<Vec<String>>,
}

impl Paths {
    fn of(target: &Target) -> Paths {
        let owned = |path: [&str; 2]| path.map(str::to_owned).to_vec();
        match target.resource.custom.as_ref().and_then(|custom| custom.scale.clone()) {
            Some(scale) => Paths { spec: scale.spec, status: scale.status, selector: scale.selector },
            None => Paths {
                spec: owned(["spec", "replicas"]),
                status: owned(["status", "replicas"]),
                selector: Some(owned(["spec", "selector"])),
            },
        }
    }
}

fn at<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |value, name| &value[name.as_str()])
}

/// Puts a value at a path; fields on the way that are missing are made.
fn put(object: &mut Value, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *object = value;
        return;
    };
    if object.is_null() {
        *object = json!({});
    }
    if let Some(fields) = object.as_object_mut() {
        put(fields.entry(first.as_str()).or_insert(Value::Null), rest, value);
    }
}

fn scale_of(target: &Target, object: &Value) -> Result<Value, Status> {
    let paths = Paths::of(target);
    let custom = target.resource.custom.is_some();
    if custom && at(object, &paths.spec).as_i64().is_none() {
        let why = format!("the spec replicas field {:?} does not exist", format!(".{}", paths.spec.join(".")));
        return Err(Status::internal(why));
    }
    let replicas = at(object, &paths.spec).as_i64().unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {},
        "spec": {"replicas": replicas},
        "status": {"replicas": at(object, &paths.status).as_i64().unwrap_or(0)},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            scale["metadata"][field] = value.clone();
        }
    }
    let selector = paths.selector.map(|path| at(object, &path)).unwrap_or(&Value::Null);
    // A custom resource has the text itself.
    let selector = match selector.as_str() {
        Some(text) if custom => text.to_owned(),
        _ => selector_text(selector),
    };
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    Ok(scale)
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
