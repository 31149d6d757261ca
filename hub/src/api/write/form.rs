//! Brings a decoded object into the form of its kind, or says what is wrong with it.
//!
//! In: a value, hostile; the name of its definition; how strict to be. Out: the value without unknown fields
//! and nulls, warnings, or a 400 in the words of Go's decoder. Never: judges values beyond their JSON type.

use crate::api::{Target, query::Query};
use limpet_objects::{custom::prune, field::FieldError, schema, status::Status, strict};
use serde_json::Value;

/// `fieldValidation` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Validation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl Validation {
    pub fn of(query: &Query) -> Result<Validation, Status> {
        match query.text("fieldValidation") {
            None | Some("Warn") => Ok(Validation::Warn),
            Some("Ignore") => Ok(Validation::Ignore),
            Some("Strict") => Ok(Validation::Strict),
            Some(other) => {
                let error =
                    FieldError::not_supported("fieldValidation", other, &["Ignore", "Strict", "Warn"]);
                Err(Status::invalid("meta.k8s.io", "CreateOptions", "", &[error]))
            }
        }
    }
}

/// Which kind is expected, and by which definition.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub definition: &'a str,
}

/// Checks the kind, the types, and the fields. `duplicates` were found while decoding.
pub fn conform(
    value: &mut Value,
    form: Form<'_>,
    duplicates: Vec<String>,
    validation: Validation,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    check_kind(value, form)?;
    let Some(definition) = schema::table().get(form.definition) else { return Ok(()) };
    if let Some(first) = schema::check(value, definition).first() {
        return Err(broken(form, first));
    }
    let unknown = schema::prune(value, definition);
    report(form, unknown, duplicates, validation, warnings)
}

/// `conform` for objects of a target itself, built-in or custom.
pub fn conform_target(
    value: &mut Value,
    target: &Target,
    duplicates: Vec<String>,
    validation: Validation,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let resource = &target.resource;
    let api_version = resource.api_version();
    let form = Form { api_version: &api_version, kind: &resource.kind, definition: &resource.schema };
    let Some(custom) = &resource.custom else { return conform(value, form, duplicates, validation, warnings) };
    check_kind(value, form)?;
    let definition = schema::table().get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    if let Some(wrong) = definition.and_then(|d| schema::check(&value["metadata"], d).into_iter().next()) {
        return Err(broken(form, &wrong));
    }
    let unknown = prune::prune(value, &custom.schema, true);
    report(form, unknown, duplicates, validation, warnings)
}

fn broken(form: Form<'_>, why: &str) -> Status {
    let (_, version) = limpet_objects::resource::split_api_version(form.api_version);
    Status::bad_request(format!(
        "{} in version {version:?} cannot be handled as a {}: {why}",
        form.kind, form.kind
    ))
}

/// Unknown and duplicate fields are ignored, told or refused.
fn report(
    form: Form<'_>,
    unknown: Vec<String>,
    duplicates: Vec<String>,
    validation: Validation,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let mut findings = duplicates;
    findings.extend(unknown.into_iter().map(|path| format!("unknown field {path:?}")));
    if findings.is_empty() || validation == Validation::Ignore {
        return Ok(());
    }
    if validation == Validation::Strict {
        findings.truncate(strict::STRICT_ERRORS_MAX);
        return Err(broken(form, &strict::strict_message(&findings)));
    }
    warnings.extend(findings);
    Ok(())
}

fn check_kind(value: &mut Value, form: Form<'_>) -> Result<(), Status> {
    let Some(fields) = value.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): it is not a JSON object",
            form.kind
        )));
    };
    let text = |field: &str| match fields.get(field) {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => None,
    };
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): apiVersion and kind must be strings",
            form.kind
        )));
    };
    if !api_version.is_empty() && api_version != form.api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            form.api_version
        )));
    }
    if !kind.is_empty() && kind != form.kind {
        let (_, version) = limpet_objects::resource::split_api_version(form.api_version);
        return Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: converting ({kind}) to ({}): unknown conversion",
            form.kind, form.kind
        )));
    }
    fields.insert("apiVersion".into(), form.api_version.into());
    fields.insert("kind".into(), form.kind.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FORM: Form<'_> =
        Form { api_version: "apps/v1", kind: "Deployment", definition: "io.k8s.api.apps.v1.Deployment" };

    fn check(mut value: Value, validation: Validation) -> Result<Vec<String>, String> {
        let mut warnings = Vec::new();
        conform(&mut value, FORM, Vec::new(), validation, &mut warnings)
            .map(|()| warnings)
            .map_err(|s| s.message)
    }

    #[test]
    fn strictness() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"foo": 1}});
        assert_eq!(check(object.clone(), Validation::Ignore), Ok(vec![]));
        assert_eq!(
            check(object.clone(), Validation::Warn),
            Ok(vec!["unknown field \"spec.foo\"".to_owned()])
        );
        assert_eq!(
            check(object, Validation::Strict).unwrap_err(),
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
             unknown field \"spec.foo\""
        );
    }

    #[test]
    fn other_kinds_are_refused() {
        for (object, expect) in [
            (json!([]), "must be of type Deployment"),
            (json!({"apiVersion": 1}), "must be strings"),
            (json!({"apiVersion": "apps/v1beta1"}), "does not match the expected API version (apps/v1)"),
            (json!({"kind": "Pod"}), "Pod in version \"v1\" cannot be handled as a Deployment"),
            (json!({"spec": {"replicas": "x"}}), "cannot unmarshal string"),
        ] {
            let message = check(object, Validation::Warn).unwrap_err();
            assert!(message.contains(expect), "{message}");
        }
    }
}
