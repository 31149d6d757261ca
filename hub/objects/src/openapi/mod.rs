//! OpenAPI documents, version 3 (one for each group and version) and version 2 (one for all).
//!
//! In: the schema table's data, its descriptions and the registry. Out: bytes, built anew on each call:
//! callers cache them.
//! Never: keeps documents or descriptions in memory.

mod paths;
mod proto;
mod schemas;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::registry::Registry;
use crate::resource::{Resource, api_version};
use crate::schema;
use paths::Operations;
use schemas::{Form, Schemas};

/// What `info.version` says.
const VERSION: &str = "v1.36.0";
const TITLE: &str = "Kubernetes";

/// `/openapi/v3`: where the documents are. The hash lets clients cache them for ever.
pub fn v3_index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for group in registry.groups() {
        for version in &group.versions {
            let path = group_path(&group.name, version);
            let url = format!("/openapi/v3/{path}?hash={}", hash(registry, &path));
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// Changes when a document changes. `path` is that of a document of version 3, or empty for all of them.
pub fn hash(registry: &Registry, path: &str) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    let mut custom = false;
    for resource in registry.resources() {
        if let Some(own) = &resource.custom
            && (path.is_empty() || group_path(&resource.group, &resource.version) == path)
        {
            own.fingerprint.hash(&mut hasher);
            custom = true;
        }
    }
    match custom {
        true => format!("{}{:016x}", schema::fingerprint(), hasher.finish()),
        false => schema::fingerprint().to_owned(),
    }
}

/// `/openapi/v3/<path>`: `path` is `api/v1` or `apis/apps/v1`.
pub fn v3(registry: &Registry, path: &str) -> Option<Vec<u8>> {
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", (*version).to_owned()),
        ["apis", group, version] => (*group, (*version).to_owned()),
        _ => return None,
    };
    v3_group(registry, group, &version)
}

/// The document of one group and version (`""`, `v1`).
pub fn v3_group(registry: &Registry, group: &str, version: &str) -> Option<Vec<u8>> {
    let resources: Vec<Arc<Resource>> = registry.of_version(group, version).cloned().collect();
    if resources.is_empty() {
        return None;
    }
    let info = json!({"title": TITLE, "version": VERSION});
    let mut out = format!("{{\"openapi\":\"3.0.0\",\"info\":{info},\"paths\":{{").into_bytes();
    join(&mut out, paths_of(Form::V3, &resources));
    out.extend_from_slice(b"},\"components\":{\"schemas\":{");
    join(&mut out, definitions_of(Form::V3, &resources));
    let security = json!({"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}});
    out.extend_from_slice(format!("}},\"securitySchemes\":{security}}}}}").as_bytes());
    Some(out)
}

/// `/openapi/v2` as JSON.
pub fn v2_json(registry: &Registry) -> Vec<u8> {
    let all = registry.resources();
    let info = json!({"title": TITLE, "version": VERSION});
    let mut out = format!("{{\"swagger\":\"2.0\",\"info\":{info},\"paths\":{{").into_bytes();
    join(&mut out, paths_of(Form::V2, all));
    out.extend_from_slice(b"},\"definitions\":{");
    join(&mut out, definitions_of(Form::V2, all));
    let security = json!({"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}});
    out.extend_from_slice(format!("}},\"securityDefinitions\":{security}}}").as_bytes());
    out
}

/// `/openapi/v2` as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
pub fn v2_protobuf(registry: &Registry) -> Vec<u8> {
    let all = registry.resources();
    proto::document(TITLE, VERSION, paths_of(Form::V2, all), definitions_of(Form::V2, all))
}

/// Entries of a JSON object. One at a time, so that a whole document never exists as a tree.
fn join(out: &mut Vec<u8>, entries: impl Iterator<Item = (String, Value)>) {
    for (at, (name, value)) in entries.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("{}:{value}", Value::String(name)).as_bytes());
    }
}

fn paths_of(form: Form, resources: &[Arc<Resource>]) -> impl Iterator<Item = (String, Value)> {
    let operations = Operations::new(form);
    resources.iter().flat_map(move |resource| {
        let mut paths = Map::new();
        operations.add(resource, &mut paths);
        paths
    })
}

fn definitions_of(form: Form, resources: &[Arc<Resource>]) -> impl Iterator<Item = (String, Value)> + use<> {
    let schemas = Schemas::open(form, resources);
    let names = schemas.closure(&roots(resources));
    names.into_iter().map(move |name| {
        let value = schemas.render(&name);
        (name, value)
    })
}

/// Definitions that the paths of these resources name.
fn roots(resources: &[Arc<Resource>]) -> Vec<String> {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
    let mut roots: Vec<String> =
        ["DeleteOptions", "Status", "Patch", "WatchEvent", "APIResourceList", "ListMeta"]
            .iter()
            .map(|name| format!("{META}{name}"))
            .collect();
    for resource in resources {
        roots.push(resource.schema.clone());
        if resource.allows("list") {
            roots.push(schemas::list_name(resource));
        }
        roots.extend(resource.subresources.iter().filter_map(|sub| sub.schema.clone()));
    }
    roots
}

/// `api/v1`, `apis/apps/v1`.
fn group_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{}", api_version(group, version)) }
}

#[cfg(test)]
mod tests;
