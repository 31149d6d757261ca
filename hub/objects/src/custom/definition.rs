//! Validation of CustomResourceDefinitions, in the words of apiextensions-apiserver.
//!
//! In: a definition as JSON, at an update also as it was. Out: field errors.
//! Never: looks at other definitions (see `names`), or compiles rules (see `rules`).

use serde_json::{Value, json};

use super::jsonpath::Path;
use super::{condition, names, rules, shape};
use crate::field::FieldError;
use crate::kinds::fill::{list, text};
use crate::kinds::rules::{Errors, IMMUTABLE};
use crate::metadata;
use crate::names as words;

/// Bytes of all printer columns and selectable fields are bounded by the body; their number is too.
const SELECTABLE_MAX: usize = 8;
const APPROVED: &str = "api-approved.kubernetes.io";
const VERSIONS_MAX: usize = 64;

pub fn validate(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let mut errors = Errors::new();
    let own = metadata::text(definition, "name");
    let wanted = format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"));
    if own != wanted {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", own, why));
    }
    group(spec, &mut errors);
    protected(definition, old, &mut errors);
    scope(spec, &mut errors);
    versions(spec, old, &mut errors);
    columns(
        &spec["additionalPrinterColumns"],
        "spec.additionalPrinterColumns",
        &mut errors,
    );
    own_names(&spec["names"], "spec.names", &mut errors);
    conversion(spec, &mut errors);
    if spec["preserveUnknownFields"] == true {
        let why = "must be false in order to use defaults in the schema";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
    if let Some(old) = old {
        immutable(definition, old, &mut errors);
    }
    errors
}

/// Stored versions are what migrations write through the status.
pub fn validate_status(definition: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    stored_versions(definition, &mut errors);
    errors
}

fn group(spec: &Value, errors: &mut Errors) {
    let group = text(spec, "group");
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
        return;
    }
    let wrong = words::dns_subdomain(group);
    if !wrong.is_empty() {
        errors.push(FieldError::invalid("spec.group", group, wrong.join(",")));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid(
            "spec.group",
            group,
            "should be a domain with at least one dot",
        ));
    }
}

/// Groups of Kubernetes itself are not for everybody.
fn protected(definition: &Value, old: Option<&Value>, errors: &mut Errors) {
    let group = text(&definition["spec"], "group");
    let word = |object: &Value| {
        object["metadata"]["annotations"][APPROVED]
            .as_str()
            .map(str::to_owned)
    };
    if !names::is_protected(group) || old.is_some_and(|old| word(old) == word(definition)) {
        return;
    }
    let path = format!("metadata.annotations[{APPROVED}]");
    match word(definition) {
        Some(word)
            if word.starts_with("unapproved")
                || word.starts_with("http://")
                || word.starts_with("https://") => {}
        None => {
            let why = format!(
                "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
            );
            errors.push(FieldError::required(path, why));
        }
        Some(word) => {
            let why = format!(
                "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
            );
            errors.push(FieldError::invalid(path, word, why));
        }
    }
}

fn scope(spec: &Value, errors: &mut Errors) {
    match text(spec, "scope") {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(FieldError::not_supported(
            "spec.scope",
            other,
            &["Cluster", "Namespaced"],
        )),
    }
}

fn versions(spec: &Value, old: Option<&Value>, errors: &mut Errors) {
    let versions = list(spec, "versions");
    if versions.len() > VERSIONS_MAX {
        errors.push(FieldError::too_many(
            "spec.versions",
            versions.len(),
            VERSIONS_MAX,
        ));
        return;
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut unique = true;
    for (at, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{at}]");
        let name = text(version, "name");
        unique &= seen.insert(name);
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            for wrong in words::dns1035_label(name) {
                errors.push(FieldError::invalid(format!("{path}.name"), name, wrong));
            }
        }
        let before = old.and_then(|old| {
            list(&old["spec"], "versions")
                .iter()
                .find(|other| other["name"] == version["name"])
        });
        one_version(version, before, &path, errors);
    }
    if !unique {
        let why = "must contain unique version names";
        errors.push(FieldError::invalid(
            "spec.versions",
            json!(shown(versions)),
            why,
        ));
    }
    if versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(
            "spec.versions",
            json!(shown(versions)),
            why,
        ));
    }
}

/// Versions without their schemas, which would fill screens.
fn shown(versions: &[Value]) -> Vec<Value> {
    let short = |version: &Value| json!({"name": version["name"], "served": version["served"], "storage": version["storage"]});
    versions.iter().map(short).collect()
}

fn one_version(version: &Value, before: Option<&Value>, path: &str, errors: &mut Errors) {
    let deprecated = version["deprecated"] == true;
    if let Some(warning) = version["deprecationWarning"].as_str() {
        let at = format!("{path}.deprecationWarning");
        if !deprecated {
            let why = "can only be set for deprecated versions";
            errors.push(FieldError::invalid(at.as_str(), warning, why));
        }
        if warning.len() > 256 {
            errors.push(FieldError::too_long(at.as_str(), 256));
        }
        if warning.chars().any(char::is_control) {
            errors.push(FieldError::invalid(
                at,
                warning,
                "must only contain printable UTF-8 characters; non-printable characters found",
            ));
        }
    }
    let schema = &version["schema"]["openAPIV3Schema"];
    let at = format!("{path}.schema.openAPIV3Schema");
    if !schema.is_object() {
        errors.push(FieldError::required(at, "schemas are required"));
    } else if before.is_none_or(|before| before["schema"] != version["schema"]) {
        let wrong = shape::check(schema, &at);
        // Rules are only understood on a sound schema.
        if wrong.is_empty() {
            errors.extend(rules::compile(schema, &super::Structural::read(schema), &at).1);
        }
        errors.extend(wrong);
    }
    columns(
        &version["additionalPrinterColumns"],
        &format!("{path}.additionalPrinterColumns"),
        errors,
    );
    scale(
        &version["subresources"]["scale"],
        &format!("{path}.subresources.scale"),
        errors,
    );
    selectable(version, path, errors);
}

fn columns(columns: &Value, path: &str, errors: &mut Errors) {
    for (at, column) in columns.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{at}]");
        if text(column, "name").is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        let types = ["boolean", "date", "integer", "number", "string"];
        match text(column, "type") {
            "" => errors.push(FieldError::required(
                format!("{path}.type"),
                format!("must be one of {}", types.join(",")),
            )),
            word if !types.contains(&word) => {
                let why = format!("must be one of {}", types.join(","));
                errors.push(FieldError::invalid(format!("{path}.type"), word, why));
            }
            _ => {}
        }
        let formats = [
            "int32",
            "int64",
            "float",
            "double",
            "byte",
            "date",
            "date-time",
            "password",
        ];
        let format = text(column, "format");
        if !format.is_empty() && !formats.contains(&format) {
            let why = format!("must be one of {}", formats.join(","));
            errors.push(FieldError::invalid(format!("{path}.format"), format, why));
        }
        match text(column, "jsonPath") {
            "" => errors.push(FieldError::required(format!("{path}.jsonPath"), "")),
            json_path => simple_path(json_path, &format!("{path}.jsonPath"), errors),
        }
    }
}

fn simple_path(json_path: &str, path: &str, errors: &mut Errors) {
    if Path::parse(json_path).is_none() {
        errors.push(FieldError::invalid(
            path,
            json_path,
            "is an invalid path: unexpected syntax",
        ));
    } else if !json_path.starts_with('.') {
        errors.push(FieldError::invalid(
            path,
            json_path,
            "must be a simple json path starting with .",
        ));
    }
}

fn scale(scale: &Value, path: &str, errors: &mut Errors) {
    if !scale.is_object() {
        return;
    }
    let places = [
        ("specReplicasPath", ".spec."),
        ("statusReplicasPath", ".status."),
        ("labelSelectorPath", ""),
    ];
    for (field, below) in places {
        let value = text(scale, field);
        let path = format!("{path}.{field}");
        if value.is_empty() {
            if !below.is_empty() {
                errors.push(FieldError::required(path, ""));
            }
            continue;
        }
        match Path::parse(value)
            .filter(|parsed| parsed.fields().is_some() && value.starts_with('.'))
        {
            None => {
                let why = "must be a simple json path without array notation, starting with .";
                errors.push(FieldError::invalid(path, value, why));
            }
            Some(_) if !below.is_empty() && !value.starts_with(below) => {
                let why = format!(
                    "should be a json path under {}",
                    below.trim_end_matches('.')
                );
                errors.push(FieldError::invalid(path, value, why));
            }
            Some(_)
                if below.is_empty()
                    && !value.starts_with(".spec.")
                    && !value.starts_with(".status.") =>
            {
                errors.push(FieldError::invalid(
                    path,
                    value,
                    "should be a json path under either .spec or .status",
                ));
            }
            Some(_) => {}
        }
    }
}

fn selectable(version: &Value, path: &str, errors: &mut Errors) {
    let fields = list(version, "selectableFields");
    let at = format!("{path}.selectableFields");
    if fields.len() > SELECTABLE_MAX {
        errors.push(FieldError::too_many(
            at.as_str(),
            fields.len(),
            SELECTABLE_MAX,
        ));
    }
    let schema = super::Structural::read(&version["schema"]["openAPIV3Schema"]);
    let mut seen = std::collections::BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let place = format!("{at}[{index}].jsonPath");
        let json_path = text(field, "jsonPath");
        if json_path.is_empty() {
            errors.push(FieldError::required(place, ""));
            continue;
        }
        if !seen.insert(json_path) {
            errors.push(FieldError::duplicate(place.as_str(), json_path));
        }
        let parsed = Path::parse(json_path).filter(|_| json_path.starts_with('.'));
        let Some(names) = parsed.as_ref().and_then(Path::fields) else {
            errors.push(FieldError::invalid(
                place,
                json_path,
                "is an invalid path: must be a simple json path",
            ));
            continue;
        };
        if names.first() == Some(&"metadata") {
            errors.push(FieldError::invalid(
                place,
                json_path,
                "must not point to fields in metadata",
            ));
            continue;
        }
        match schema.at(names.iter().copied()) {
            None => {
                let why = "is an invalid path: does not refer to a valid field";
                errors.push(FieldError::invalid(place, json_path, why));
            }
            Some(found) if matches!(found.kind.word(), "string" | "boolean" | "integer") => {}
            Some(_) => {
                let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                           formats are allowed.";
                errors.push(FieldError::invalid(place, json_path, why));
            }
        }
    }
}

fn own_names(names: &Value, path: &str, errors: &mut Errors) {
    let labels = [("plural", true), ("singular", false)];
    for (field, needed) in labels {
        let value = text(names, field);
        if value.is_empty() {
            if needed {
                errors.push(FieldError::required(format!("{path}.{field}"), ""));
            }
            continue;
        }
        let wrong = words::dns1035_label(value);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(
                format!("{path}.{field}"),
                value,
                wrong.join(","),
            ));
        }
    }
    for field in ["kind", "listKind"] {
        let value = text(names, field);
        if value.is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), ""));
            continue;
        }
        let wrong = words::dns1035_label(&value.to_lowercase());
        if !wrong.is_empty() {
            let why = format!(
                "may have mixed case, but should otherwise match: {}",
                wrong.join(",")
            );
            errors.push(FieldError::invalid(format!("{path}.{field}"), value, why));
        }
    }
    for field in ["shortNames", "categories"] {
        for (at, name) in list(names, field).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let wrong = words::dns1035_label(name);
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(
                    format!("{path}.{field}[{at}]"),
                    name,
                    wrong.join(","),
                ));
            }
        }
    }
    let kind = text(names, "kind");
    if !kind.is_empty() && kind == text(names, "listKind") {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(format!("{path}.listKind"), kind, why));
    }
}

fn conversion(spec: &Value, errors: &mut Errors) {
    let conversion = &spec["conversion"];
    let path = "spec.conversion";
    match text(conversion, "strategy") {
        "None" if conversion["webhook"].is_object() => {
            let why = "should not be set when strategy is not set to Webhook";
            errors.push(FieldError::forbidden(format!("{path}.webhook"), why));
        }
        "" | "None" => {}
        "Webhook" => {
            let webhook = &conversion["webhook"];
            if !webhook["clientConfig"].is_object() {
                let why = "required when strategy is set to Webhook";
                errors.push(FieldError::required(
                    format!("{path}.webhook.clientConfig"),
                    why,
                ));
            } else {
                let at = format!("{path}.webhook.clientConfig");
                errors.extend(client_config(&webhook["clientConfig"], &at));
            }
            let versions = list(webhook, "conversionReviewVersions");
            if versions.is_empty() {
                errors.push(FieldError::required(
                    format!("{path}.webhook.conversionReviewVersions"),
                    "",
                ));
            } else if !versions
                .iter()
                .any(|version| version == "v1" || version == "v1beta1")
            {
                let why = "must include at least one of v1, v1beta1";
                let at = format!("{path}.webhook.conversionReviewVersions");
                errors.push(FieldError::invalid(at, json!(versions), why));
            }
        }
        other => {
            errors.push(FieldError::not_supported(
                format!("{path}.strategy"),
                other,
                &["None", "Webhook"],
            ));
        }
    }
}

/// How a webhook is reached: either by URL or by Service.
pub fn client_config(config: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Errors::new();
    match (config["url"].as_str(), config["service"].is_object()) {
        (None, false) | (Some(_), true) => {
            let why = "exactly one of url or service is required";
            errors.push(FieldError::required(path, why));
        }
        (Some(url), false) => errors.extend(webhook_url(url, &format!("{path}.url"))),
        (None, true) => {
            let service = &config["service"];
            for (field, what) in [
                ("name", "service name is required"),
                ("namespace", "service namespace is required"),
            ] {
                if text(service, field).is_empty() {
                    errors.push(FieldError::required(
                        format!("{path}.service.{field}"),
                        what,
                    ));
                }
            }
            let port = service["port"].as_i64().unwrap_or(443);
            for wrong in words::port_number(port) {
                errors.push(FieldError::invalid(
                    format!("{path}.service.port"),
                    port,
                    format!("port is not valid: {wrong}"),
                ));
            }
            if text(service, "path")
                .chars()
                .next()
                .is_some_and(|first| first != '/')
            {
                let why = "must start with a '/'";
                errors.push(FieldError::invalid(
                    format!("{path}.service.path"),
                    text(service, "path"),
                    why,
                ));
            }
        }
    }
    errors
}

fn webhook_url(url: &str, path: &str) -> Vec<FieldError> {
    const FORM: &str = "; desired format: https://host[/path]";
    let mut errors = Errors::new();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        errors.push(FieldError::invalid(
            path,
            scheme,
            format!("'https' is the only allowed URL scheme{FORM}"),
        ));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        errors.push(FieldError::invalid(
            path,
            host,
            format!("host must be specified{FORM}"),
        ));
    }
    if let Some((user, _)) = host.rsplit_once('@') {
        let why = "user information is not permitted in the URL";
        errors.push(FieldError::invalid(
            path,
            user.split(':').next().unwrap_or_default(),
            why,
        ));
    }
    if rest.contains('#') {
        let fragment = rest.split_once('#').map_or("", |(_, fragment)| fragment);
        errors.push(FieldError::invalid(
            path,
            fragment,
            "fragments are not permitted in the URL",
        ));
    }
    if rest.contains('?') {
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        errors.push(FieldError::invalid(
            path,
            query,
            "query parameters are not permitted in the URL",
        ));
    }
    errors
}

fn immutable(definition: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (&definition["spec"], &old["spec"]);
    for field in ["group"] {
        if spec[field] != before[field] {
            errors.push(FieldError::invalid(
                format!("spec.{field}"),
                spec[field].clone(),
                IMMUTABLE,
            ));
        }
    }
    if condition(old, "Established") {
        if spec["scope"] != before["scope"] {
            errors.push(FieldError::invalid(
                "spec.scope",
                spec["scope"].clone(),
                IMMUTABLE,
            ));
        }
        for field in ["kind", "plural"] {
            if spec["names"][field] != before["names"][field] {
                let at = format!("spec.names.{field}");
                errors.push(FieldError::invalid(
                    at,
                    spec["names"][field].clone(),
                    IMMUTABLE,
                ));
            }
        }
    }
    stored_versions(definition, errors);
}

fn stored_versions(definition: &Value, errors: &mut Errors) {
    let names: Vec<&str> = list(&definition["spec"], "versions")
        .iter()
        .map(|version| text(version, "name"))
        .collect();
    for (at, stored) in list(&definition["status"], "storedVersions")
        .iter()
        .enumerate()
    {
        let stored = stored.as_str().unwrap_or_default();
        if !names.contains(&stored) {
            let why = format!(
                "missing from spec.versions; {stored} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {stored} and removes {stored} from status.storedVersions"
            );
            errors.push(FieldError::invalid(
                format!("status.storedVersions[{at}]"),
                stored,
                why,
            ));
        }
    }
}
