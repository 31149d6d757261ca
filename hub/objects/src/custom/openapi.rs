//! What OpenAPI documents say about custom resources.
//!
//! In: a resource with its published schema. Out: its definition, with short references
//! (`{"$ref": "io.k8s…"}`). Never: publishes what a version of OpenAPI cannot say.

use serde_json::{Map, Value, json};

use super::formats;
use super::structural::DEPTH_MAX;
use crate::resource::Resource;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
     convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this \
     from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The definition of a custom resource.
pub fn definition(resource: &Resource, version_2: bool) -> Option<Value> {
    let custom = resource.custom.as_ref()?;
    let mut schema = custom.published.clone();
    if schema["x-kubernetes-preserve-unknown-fields"] == true && version_2 {
        schema = json!({"description": schema["description"], "type": "object",
            "x-kubernetes-preserve-unknown-fields": true});
    } else {
        tidy(&mut schema, version_2, 0);
        resource_fields(&mut schema);
    }
    schema["x-kubernetes-group-version-kind"] =
        json!([{"group": resource.group, "version": resource.version, "kind": resource.kind}]);
    if schema["description"].is_null() {
        schema.as_object_mut()?.remove("description");
    }
    Some(schema)
}

/// apiVersion, kind and metadata are the same everywhere.
fn resource_fields(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    let properties = fields.entry("properties").or_insert_with(|| json!({}));
    properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
    properties["kind"] = json!({"type": "string", "description": KIND});
    properties["metadata"] = json!({"$ref": OBJECT_META, "description": METADATA});
}

fn tidy(schema: &mut Value, version_2: bool, depth: usize) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    if depth > DEPTH_MAX {
        fields.clear();
        return;
    }
    if fields
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|f| !keeps_format(f))
    {
        fields.remove("format");
    }
    if version_2 {
        shorten(fields);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(below) = fields.get_mut(name) {
            tidy(below, version_2, depth + 1);
        }
    }
    for below in fields
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        tidy(below.1, version_2, depth + 1);
    }
    if fields.get("x-kubernetes-embedded-resource") == Some(&json!(true)) && !version_2 {
        resource_fields(schema);
    }
}

fn keeps_format(format: &str) -> bool {
    formats::KNOWN.contains(&format)
        || matches!(
            format,
            "int32" | "int64" | "float" | "double" | "k8s-short-name" | "k8s-long-name"
        )
}

/// Version 2 knows neither alternatives nor null; clients would refuse what the server takes.
fn shorten(fields: &mut Map<String, Value>) {
    for name in [
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "default",
        "x-kubernetes-validations",
    ] {
        fields.remove(name);
    }
    let on = |fields: &Map<String, Value>, name: &str| fields.get(name) == Some(&json!(true));
    if fields.remove("nullable") == Some(json!(true)) {
        for name in [
            "type",
            "items",
            "properties",
            "additionalProperties",
            "enum",
            "format",
        ] {
            fields.remove(name);
        }
    }
    if on(fields, "x-kubernetes-preserve-unknown-fields") {
        for name in ["items", "properties", "type", "additionalProperties"] {
            fields.remove(name);
        }
    }
    if on(fields, "x-kubernetes-int-or-string") {
        fields.remove("type");
    }
}
