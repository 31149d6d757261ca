//! The way of a write, the same for all kinds: default, prepare, validate.
//!
//! In: decoded objects and the circumstances of the request. Out: the object as it is stored, or a
//! Status that says no.
//! Never: stores, authorizes, or admits (admission comes between `default` and `create`/`update`).

use serde_json::{Value, json};

use crate::behaviour::Ctx;
use crate::field::FieldError;
use crate::metadata;
use crate::resource::Resource;
use crate::schema;
use crate::status::Status;

/// Top-level fields that are not the object's "spec" for generation and status updates.
const OUTSIDE_SPEC: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// Values of a wrong type would confuse everything after this.
fn check_types(resource: &Resource, object: &Value) -> Result<(), Status> {
    if resource.custom.is_some() {
        return check_custom(resource, object);
    }
    let wrong = schema::table().get(&resource.schema).map(|definition| schema::check(object, definition));
    match wrong.unwrap_or_default().first() {
        None => Ok(()),
        Some(wrong) => {
            let (kind, version) = (&resource.kind, &resource.version);
            let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {wrong}");
            Err(Status::bad_request(message))
        }
    }
}

/// Custom resources are judged by their own schema; here only what every object has.
fn check_custom(resource: &Resource, object: &Value) -> Result<(), Status> {
    let definition = schema::table().get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let wrong = match (&object["metadata"], definition) {
        _ if !object.is_object() => Some("it is not an object".to_owned()),
        (Value::Null, _) | (_, None) => None,
        (metadata, Some(definition)) => schema::check(metadata, definition).into_iter().next(),
    };
    match wrong {
        None => Ok(()),
        Some(wrong) => {
            let (kind, version) = (&resource.kind, &resource.version);
            let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {wrong}");
            Err(Status::bad_request(message))
        }
    }
}

/// Fills in defaults; call it on every object of checked types, before admission.
pub fn default(resource: &Resource, object: &mut Value) {
    if !object.is_object() {
        return;
    }
    object["apiVersion"] = json!(resource.api_version());
    object["kind"] = json!(resource.kind);
    _ = metadata::of(object);
    let definition = schema::table().get(&resource.schema).filter(|_| resource.custom.is_none());
    // Defaults go into structs that are always there; a scalar that is missing is told from one that is zero.
    if let Some(definition) = definition {
        schema::fill(object, definition, schema::Zeros::Structs);
    }
    resource.behaviour.default(object);
    if let Some(definition) = definition {
        schema::fill(object, definition, schema::Zeros::All);
    }
}

/// Makes a decoded object ready to be stored as a new one. `namespace` is that of the request's path.
pub fn create(
    resource: &Resource,
    object: &mut Value,
    namespace: Option<&str>,
    ctx: &Ctx<'_>,
) -> Result<(), Status> {
    check_types(resource, object)?;
    check_namespace(object, namespace)?;
    metadata::fill_new(object, namespace, ctx);
    if resource.has_status
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    if resource.has_generation
        && let Some(metadata) = metadata::of(object)
    {
        metadata.insert("generation".into(), json!(1));
    }
    resource.behaviour.prepare_create(object, ctx);
    default(resource, object);
    let mut errors = metadata::validate(object, resource);
    errors.extend(resource.behaviour.validate_create(object));
    refuse(resource, object, errors)
}

fn check_namespace(object: &Value, namespace: Option<&str>) -> Result<(), Status> {
    match (metadata::text(object, "namespace"), namespace) {
        ("", _) => Ok(()),
        (own, Some(path)) if own == path => Ok(()),
        (_, None) => Ok(()),
        _ => Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// Makes a decoded object ready to replace `old`. `subresource` is empty for the object itself.
pub fn update(
    resource: &Resource,
    new: &mut Value,
    old: &Value,
    subresource: &str,
    ctx: &Ctx<'_>,
) -> Result<(), Status> {
    check_types(resource, new)?;
    check_uid(resource, new, old)?;
    metadata::carry_over(new, old);
    if let (Some(metadata), Some(namespace)) = (metadata::of(new), old["metadata"].get("namespace")) {
        metadata.entry("namespace").or_insert_with(|| namespace.clone());
    }
    if subresource == "status" {
        keep_spec(resource, new, old);
    } else if resource.has_status && subresource != "approval" {
        keep(new, old, "status");
    }
    resource.behaviour.prepare_update(new, old, subresource, ctx);
    default(resource, new);
    if resource.has_generation && spec_differs(resource, new, old) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        if let Some(metadata) = metadata::of(new) {
            metadata.insert("generation".into(), json!(generation));
        }
    }
    let mut errors = metadata::validate_update(new, old);
    errors.extend(resource.behaviour.validate_update(new, old, subresource));
    refuse(resource, new, errors)
}

fn check_uid(resource: &Resource, new: &Value, old: &Value) -> Result<(), Status> {
    let (asked, stored) = (metadata::text(new, "uid"), metadata::text(old, "uid"));
    if asked.is_empty() || asked == stored {
        return Ok(());
    }
    let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {stored}");
    Err(Status::conflict_because(&resource.group, &resource.plural, metadata::text(old, "name"), &why))
}

/// A status update changes nothing but the status (and what of metadata the server allows).
fn keep_spec(resource: &Resource, new: &mut Value, old: &Value) {
    let Some(fields) = new.as_object_mut() else { return };
    fields.retain(|name, _| OUTSIDE_SPEC.contains(&name.as_str()));
    for (name, value) in old.as_object().into_iter().flatten() {
        if !OUTSIDE_SPEC.contains(&name.as_str()) {
            fields.insert(name.clone(), value.clone());
        }
    }
    // Agents and controllers of other groups may label what they report about.
    let fixed: &[&str] =
        if resource.group == "apps" { &["labels", "ownerReferences"] } else { &["ownerReferences"] };
    for field in fixed {
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            match old["metadata"].get(*field) {
                Some(value) => _ = metadata.insert((*field).into(), value.clone()),
                None => _ = metadata.remove(*field),
            }
        }
    }
}

/// The field is as it was, whatever the client sent.
pub fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(fields) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => _ = fields.insert(field.to_owned(), value.clone()),
        None => _ = fields.remove(field),
    }
}

fn spec_differs(resource: &Resource, new: &Value, old: &Value) -> bool {
    // Without a subresource for it the status is a field like others.
    let counts = |name: &str| name == "status" && !resource.has_status;
    let outside = |name: &String| OUTSIDE_SPEC.contains(&name.as_str()) && !counts(name);
    let names = [new, old].into_iter().filter_map(Value::as_object).flat_map(|fields| fields.keys());
    names.filter(|name| !outside(name)).any(|name| new.get(name) != old.get(name))
}

fn refuse(resource: &Resource, object: &Value, errors: Vec<FieldError>) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&resource.group, &resource.kind, metadata::text(object, "name"), &errors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::registry;

    fn ctx() -> Ctx<'static> {
        Ctx { now: jiff::Timestamp::UNIX_EPOCH, user: "jane", groups: &[], uid: "u-1", suffix: "bcdfg" }
    }

    #[test]
    fn a_new_object_gets_its_metadata() {
        let secrets = registry().by_path("", "v1", "configmaps").unwrap();
        let mut object = json!({"metadata": {"generateName": "a-", "uid": "mine",
            "deletionTimestamp": "1970-01-01T00:00:09Z"}});
        create(secrets, &mut object, Some("default"), &ctx()).unwrap();
        assert_eq!(
            object["metadata"],
            json!({"generateName": "a-", "name": "a-bcdfg", "namespace": "default", "uid": "u-1",
                "creationTimestamp": "1970-01-01T00:00:00Z"})
        );
        assert_eq!((&object["apiVersion"], &object["kind"]), (&json!("v1"), &json!("ConfigMap")));
    }

    #[test]
    fn metadata_errors_speak_kubernetes() {
        let maps = registry().by_path("", "v1", "configmaps").unwrap();
        let mut object = json!({"metadata": {"name": "A"}});
        let status = create(maps, &mut object, Some("default"), &ctx()).unwrap_err();
        assert_eq!(
            status.message,
            "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\": a lowercase RFC 1123 \
             subdomain must \
             consist of lower case alphanumeric characters, '-' or '.', and must start and end with an \
             alphanumeric \
             character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        );
        let mut object = json!({"metadata": {"name": "a", "namespace": "other"}});
        assert_eq!(create(maps, &mut object, Some("default"), &ctx()).unwrap_err().code, 400);
    }

    #[test]
    fn spec_changes_count_and_status_stays_apart() {
        let pdbs = registry().by_path("policy", "v1", "poddisruptionbudgets").unwrap();
        let old = json!({"metadata": {"name": "a", "namespace": "d", "uid": "u", "generation": 4},
            "spec": {"minAvailable": 1}, "status": {"expectedPods": 1}});
        let mut new =
            json!({"metadata": {"name": "a"}, "spec": {"minAvailable": 2}, "status": {"expectedPods": 9}});
        update(pdbs, &mut new, &old, "", &ctx()).unwrap();
        assert_eq!(new["metadata"]["generation"], 5);
        let zeros = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 1});
        assert_eq!(new["status"], zeros, "the old one's, as it is written");
        let mut new =
            json!({"metadata": {"name": "a", "ownerReferences": [{}]}, "status": {"expectedPods": 9}});
        update(pdbs, &mut new, &old, "status", &ctx()).unwrap();
        assert_eq!((&new["spec"], &new["metadata"]["generation"]), (&old["spec"], &json!(4)));
        assert_eq!(new["status"]["expectedPods"], 9);
        assert!(new["metadata"].get("ownerReferences").is_none());
    }

    #[test]
    fn wrong_types_never_reach_a_kind() {
        let pods = registry().by_path("", "v1", "pods").unwrap();
        for body in
            [json!({"metadata": {"name": "a"}, "spec": {"containers": 1}}), json!({"spec": []}), json!([])]
        {
            let old = json!({"metadata": {"name": "a"}});
            assert_eq!(create(pods, &mut body.clone(), Some("d"), &ctx()).unwrap_err().code, 400, "{body}");
            assert_eq!(update(pods, &mut body.clone(), &old, "", &ctx()).unwrap_err().code, 400, "{body}");
        }
    }

    #[test]
    fn another_uid_is_a_conflict() {
        let maps = registry().by_path("", "v1", "configmaps").unwrap();
        let old = json!({"metadata": {"name": "a", "namespace": "d", "uid": "u"}});
        let mut new = json!({"metadata": {"name": "a", "namespace": "d", "uid": "v"}});
        assert_eq!(update(maps, &mut new, &old, "", &ctx()).unwrap_err().code, 409);
    }
}
