//! Discovery documents: what a client learns about the API before its first request.
//!
//! In: the registry. Out: JSON documents of /api, /apis and /apis/<group>/<version>, plain and
//! aggregated.
//! Never: caches, negotiates (the server chooses the document by the Accept header).

use serde_json::{Map, Value, json};

use crate::registry::{Group, Registry};
use crate::resource::{Resource, Subresource, api_version};

/// `/api`, plain.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`, plain.
pub fn api_group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = named_groups(registry).map(group_value).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub fn api_group(registry: &Registry, name: &str) -> Option<Value> {
    let mut value = named_groups(registry).find(|group| group.name == name).map(group_value)?;
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

fn named_groups(registry: &Registry) -> impl Iterator<Item = &Group> {
    registry.groups().iter().filter(|group| !group.name.is_empty())
}

fn group_value(group: &Group) -> Value {
    let entry =
        |version: &String| json!({"groupVersion": api_version(&group.name, version), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(entry).collect();
    json!({"name": group.name, "preferredVersion": versions.first(), "versions": versions})
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub fn api_resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for resource in registry.of_version(group, version) {
        resources.push(resource_value(resource));
        resources.extend(resource.subresources.iter().map(|sub| subresource_value(resource, sub)));
    }
    if resources.is_empty() {
        return None;
    }
    let mut value = json!({
        "kind": "APIResourceList",
        "groupVersion": api_version(group, version),
        "resources": resources,
    });
    if !group.is_empty() {
        value["apiVersion"] = json!("v1");
    }
    Some(value)
}

fn resource_value(resource: &Resource) -> Value {
    let mut value = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    add_aliases(&mut value, resource);
    value
}

fn add_aliases(value: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
}

fn subresource_value(resource: &Resource, sub: &Subresource) -> Value {
    let mut value = json!({
        "name": format!("{}/{}", resource.plural, sub.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": sub.kind,
        "verbs": sub.verbs,
    });
    if (sub.group.as_str(), sub.version.as_str()) != (resource.group.as_str(), resource.version.as_str()) {
        value["group"] = json!(sub.group);
        value["version"] = json!(sub.version);
    }
    value
}

/// Which endpoint an aggregated document is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// `/api`: the core group.
    Core,
    /// `/apis`: all other groups.
    Groups,
}

/// `application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList`.
pub fn aggregated_v2(registry: &Registry, root: Root) -> Value {
    aggregated(registry, root, "v2")
}

/// The same document under its older name, for older clients.
pub fn aggregated_v2beta1(registry: &Registry, root: Root) -> Value {
    aggregated(registry, root, "v2beta1")
}

fn aggregated(registry: &Registry, root: Root, version: &str) -> Value {
    let wanted = |group: &&Group| group.name.is_empty() == (root == Root::Core);
    let items: Vec<Value> = 
        registry.groups().iter().filter(wanted).map(|group| discovered_group(registry, group)).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn discovered_group(registry: &Registry, group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> =
                registry.of_version(&group.name, version).map(|resource| discovered_resource(resource)).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let mut metadata = Map::new();
    if !group.name.is_empty() {
        metadata.insert("name".into(), json!(group.name));
    }
    metadata.insert("creationTimestamp".into(), Value::Null);
    json!({"metadata": metadata, "versions": versions})
}

fn discovered_resource(resource: &Resource) -> Value {
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    add_aliases(&mut value, resource);
    if !resource.subresources.is_empty() {
        let subresources = resource.subresources.iter().map(|sub| {
            json!({
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                "verbs": sub.verbs,
            })
        });
        value["subresources"] = subresources.collect();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::registry;

    #[test]
    fn plain_documents() {
        let groups = api_group_list(registry());
        assert_eq!(groups["kind"], "APIGroupList");
        assert!(groups["groups"].as_array().unwrap().iter().all(|group| group["name"] != ""));
        let apps = api_group(registry(), "apps").unwrap();
        assert_eq!(apps["preferredVersion"], json!({"groupVersion": "apps/v1", "version": "v1"}));
        assert!(api_group(registry(), "nope").is_none());
        let core = api_resource_list(registry(), "", "v1").unwrap();
        assert_eq!(core["groupVersion"], "v1");
        let list = core["resources"].as_array().unwrap();
        let find = |name: &str| list.iter().find(|entry| entry["name"] == name).unwrap();
        assert_eq!(find("pods")["shortNames"], json!(["po"]));
        assert_eq!(find("pods/eviction")["group"], "policy");
        assert!(find("pods/log").get("group").is_none());
        assert!(api_resource_list(registry(), "apps", "v2").is_none());
    }

    #[test]
    fn aggregated_documents() {
        let core = aggregated_v2(registry(), Root::Core);
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        let groups = aggregated_v2beta1(registry(), Root::Groups);
        assert_eq!(groups["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        let apps = groups["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["metadata"]["name"] == "apps")
            .unwrap();
        let resources = apps["versions"][0]["resources"].as_array().unwrap();
        let deployments = resources.iter().find(|entry| entry["resource"] == "deployments").unwrap();
        assert_eq!(deployments["scope"], "Namespaced");
        let scale =
            deployments["subresources"].as_array().unwrap().iter().find(|sub| sub["subresource"] == "scale");
        assert_eq!(scale.unwrap()["responseKind"]["group"], "autoscaling");
    }
}
