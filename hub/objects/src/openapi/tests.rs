//! The documents as kubectl and client-go read them.

use serde_json::Value;

use super::*;
use crate::registry::registry;

fn document(path: &str) -> Value {
    serde_json::from_slice(&v3(registry(), path).unwrap()).unwrap()
}

/// All `$ref`s lead somewhere.
fn check_references(value: &Value, prefix: &str, definitions: &Map<String, Value>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let name = reference.strip_prefix(prefix).unwrap_or_else(|| panic!("{reference}"));
                assert!(definitions.contains_key(name), "{name}");
            }
            fields.values().for_each(|value| check_references(value, prefix, definitions));
        }
        Value::Array(items) => items.iter().for_each(|value| check_references(value, prefix, definitions)),
        _ => {}
    }
}

#[test]
fn the_index_names_every_group_and_version() {
    let index = v3_index(registry());
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert!(index["paths"]["api/v1"].is_object());
    for path in index["paths"].as_object().unwrap().keys() {
        let document = document(path);
        let definitions = document["components"]["schemas"].as_object().unwrap();
        check_references(&document, "#/components/schemas/", definitions);
    }
    assert!(v3(registry(), "apis/none/v1").is_none());
    assert!(v3(registry(), "version").is_none());
}

#[test]
fn kubectl_finds_what_it_looks_for() {
    let apps = document("apis/apps/v1");
    let item = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &item["patch"];
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let named = |name: &str| patch["parameters"].as_array().unwrap().iter().any(|one| one["name"] == name);
    assert!(named("fieldValidation") && named("dryRun"));
    assert_eq!(item["get"]["operationId"], "readAppsV1NamespacedDeployment");
    let scale = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
    assert_eq!(scale["get"]["x-kubernetes-group-version-kind"]["group"], "autoscaling");
    let deployment = &apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    let spec = &deployment["properties"]["spec"];
    assert_eq!(spec["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    assert!(spec["description"].as_str().is_some_and(|text| !text.is_empty()));
    let list = &apps["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentList"];
    assert_eq!(list["x-kubernetes-group-version-kind"][0]["kind"], "DeploymentList");
    let container = &apps["components"]["schemas"]["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(container["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    assert_eq!(
        apps["paths"]["/apis/apps/v1/deployments"]["get"]["operationId"],
        "listAppsV1DeploymentForAllNamespaces"
    );
}

#[test]
fn core_has_pods_and_their_streams() {
    let core = document("api/v1");
    assert!(core["paths"]["/api/v1/nodes/{name}"]["get"].is_object());
    let exec = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"];
    assert_eq!(exec["x-kubernetes-action"], "connect");
    assert_eq!(exec["x-kubernetes-group-version-kind"]["kind"], "PodExecOptions");
    let names: Vec<&Value> =
        core["paths"]["/api/v1/nodes"]["parameters"].as_array().unwrap().iter().collect();
    assert!(names.iter().all(|one| one["name"] != "name"));
    let status = &core["components"]["schemas"]["io.k8s.api.core.v1.PodStatus"]["properties"]["conditions"];
    assert_eq!(status["x-kubernetes-patch-merge-key"], "type");
}

#[test]
fn version_two_is_whole() {
    let json: Value = serde_json::from_slice(&v2_json(registry())).unwrap();
    let definitions = json["definitions"].as_object().unwrap();
    check_references(&json, "#/definitions/", definitions);
    assert_eq!(json["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"], "string");
    let patch = &json["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert!(
        patch["consumes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one == "application/strategic-merge-patch+json")
    );
}

/// Reads the top level of a protobuf message: field numbers and lengths.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut out = Vec::new();
    let varint = |bytes: &mut &[u8]| {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                return value;
            }
        }
    };
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let number = varint(&mut bytes);
        let length = if key & 7 == 2 { number as usize } else { 0 };
        let (value, rest) = bytes.split_at(length);
        out.push((key >> 3, value));
        bytes = rest;
    }
    out
}

#[test]
fn version_two_is_readable_protobuf() {
    let bytes = v2_protobuf(registry());
    let top = fields(&bytes);
    assert_eq!(top.iter().map(|(field, _)| *field).collect::<Vec<_>>(), [1, 2, 8, 9]);
    assert_eq!(top[0].1, b"2.0");
    let definitions = fields(top[3].1);
    let json: Value = serde_json::from_slice(&v2_json(registry())).unwrap();
    assert_eq!(definitions.len(), json["definitions"].as_object().unwrap().len());
    let pod = definitions
        .iter()
        .map(|(_, bytes)| fields(bytes))
        .find(|named| named[0].1 == b"io.k8s.api.core.v1.Pod")
        .unwrap();
    let schema = fields(pod[1].1);
    let extension = schema.iter().find(|(field, _)| *field == 31).map(|(_, bytes)| fields(bytes)).unwrap();
    assert_eq!(extension[0].1, b"x-kubernetes-group-version-kind");
    let yaml = fields(extension[1].1);
    assert_eq!(yaml[0], (2, br#"[{"group":"","kind":"Pod","version":"v1"}]"#.as_slice()));
}
