//! Discovery of what other servers offer, in the hub's own documents.
//!
//! In: their APIResourceLists, the hub's documents. Out: the same with their groups. Never: lets a server that is away hide
//! that its group exists: it is there without resources (`Stale`).

use super::{Aggregate, Remote};
use serde_json::{Value, json};
use std::sync::Arc;

/// Remote servers by group, the versions in their order; groups that the document has already are left alone.
fn groups(aggregate: &Aggregate, has: impl Fn(&str) -> bool) -> Vec<(String, Vec<Arc<Remote>>)> {
    let mut groups: Vec<(String, Vec<Arc<Remote>>)> = Vec::new();
    for remote in aggregate.remotes().values().filter(|r| !has(&r.group)) {
        match groups.iter_mut().find(|(name, _)| *name == remote.group) {
            Some((_, versions)) => versions.push(Arc::clone(remote)),
            None => groups.push((remote.group.clone(), vec![Arc::clone(remote)])),
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by(|a, b| b.priority.1.cmp(&a.priority.1).then_with(|| a.version.cmp(&b.version)));
    }
    groups.sort_by_key(|(_, versions)| std::cmp::Reverse(versions.iter().map(|v| v.priority.0).max()));
    groups
}

/// An APIGroup.
fn described(name: &str, versions: &[Arc<Remote>]) -> Value {
    let entry = |r: &Arc<Remote>| json!({"groupVersion": format!("{name}/{}", r.version), "version": r.version});
    let versions: Vec<Value> = versions.iter().map(entry).collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

/// `/apis/<group>`.
pub fn group(aggregate: &Aggregate, name: &str) -> Option<Value> {
    let (_, versions) = groups(aggregate, |group| group != name).into_iter().next()?;
    let mut value = described(name, &versions);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

/// `/apis`, plain.
pub fn add_to_groups(aggregate: &Aggregate, document: &mut Value) {
    let Some(list) = document["groups"].as_array_mut() else { return };
    let own: Vec<String> = list.iter().filter_map(|g| g["name"].as_str().map(String::from)).collect();
    list.extend(groups(aggregate, |name| own.iter().any(|o| o == name)).iter().map(|(name, all)| described(name, all)));
}

/// `/apis` in one document.
pub fn add_to_aggregated(aggregate: &Aggregate, document: &mut Value) {
    let Some(list) = document["items"].as_array_mut() else { return };
    let own: Vec<String> = list.iter().filter_map(|g| g["metadata"]["name"].as_str().map(String::from)).collect();
    for (name, versions) in groups(aggregate, |name| own.iter().any(|o| o == name)) {
        let version = |r: &Arc<Remote>| {
            let freshness = if r.available { "Current" } else { "Stale" };
            json!({"version": r.version, "resources": resources(r), "freshness": freshness})
        };
        let versions: Vec<Value> = versions.iter().map(version).collect();
        list.push(json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions}));
    }
}

/// `/openapi/v3`: the document itself comes from the other server.
pub fn add_to_openapi(aggregate: &Aggregate, document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for remote in aggregate.remotes().values().filter(|r| r.available) {
        let path = format!("apis/{}/{}", remote.group, remote.version);
        let url = format!("/openapi/v3/{path}");
        paths.entry(path).or_insert_with(|| json!({"serverRelativeURL": url}));
    }
}

/// An APIResourceList as the entries of the newer form.
fn resources(remote: &Remote) -> Vec<Value> {
    let all = remote.resources["resources"].as_array().filter(|_| remote.available);
    let all = all.map(Vec::as_slice).unwrap_or_default();
    let kind = |r: &Value| {
        let text = |field: &str, own: &str| r[field].as_str().filter(|t| !t.is_empty()).unwrap_or(own).to_owned();
        json!({"group": text("group", &remote.group), "version": text("version", &remote.version), "kind": r["kind"]})
    };
    let mut entries: Vec<Value> = Vec::new();
    for resource in all.iter().filter(|r| r["name"].as_str().is_some_and(|n| !n.contains('/'))) {
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut entry = json!({"resource": resource["name"], "responseKind": kind(resource), "scope": scope,
            "singularResource": resource["singularName"], "verbs": resource["verbs"]});
        for field in ["shortNames", "categories"] {
            if resource[field].is_array() {
                entry[field] = resource[field].clone();
            }
        }
        entries.push(entry);
    }
    for sub in all {
        let Some((of, name)) = sub["name"].as_str().and_then(|n| n.split_once('/')) else { continue };
        // The metrics APIs offer `<resource>/<metric>` without the resource itself.
        let at = entries.iter().position(|e| e["resource"] == of).unwrap_or_else(|| {
            let scope = if sub["namespaced"] == true { "Namespaced" } else { "Cluster" };
            entries.push(json!({"resource": of, "scope": scope, "singularResource": "", "verbs": []}));
            entries.len() - 1
        });
        let one = json!({"subresource": name, "responseKind": kind(sub), "verbs": sub["verbs"]});
        match entries[at]["subresources"].as_array_mut() {
            Some(list) => list.push(one),
            None => entries[at]["subresources"] = json!([one]),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(group: &str, version: &str, available: bool) -> ((String, String), Arc<Remote>) {
        let resources = json!({"resources": [
            {"name": "flowers", "singularName": "flower", "namespaced": true, "kind": "Flower", "verbs": ["get"],
                "shortNames": ["fl"]},
            {"name": "flowers/status", "singularName": "", "namespaced": true, "kind": "Flower", "verbs": ["get"]},
            {"name": "pods/requests", "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"]}]});
        let remote = Remote { group: group.into(), version: version.into(), available, resources, ..Remote::default() };
        ((group.into(), version.into()), Arc::new(remote))
    }

    #[test]
    fn other_groups_are_beside_the_own_ones() {
        let aggregate = Aggregate::default();
        aggregate.set_remotes([remote("a.io", "v1", true), remote("b.io", "v1", false), remote("apps", "v9", true)].into());
        let mut plain = json!({"groups": [{"name": "apps"}]});
        add_to_groups(&aggregate, &mut plain);
        let names: Vec<&Value> = plain["groups"].as_array().unwrap().iter().map(|g| &g["name"]).collect();
        assert_eq!(names, ["apps", "a.io", "b.io"]);
        assert_eq!(group(&aggregate, "a.io").unwrap()["preferredVersion"]["groupVersion"], "a.io/v1");
        assert!(group(&aggregate, "c.io").is_none());
        let mut one = json!({"items": [{"metadata": {"name": "apps"}}]});
        add_to_aggregated(&aggregate, &mut one);
        let versions = |at: usize| one["items"][at]["versions"][0].clone();
        assert_eq!((&versions(1)["freshness"], &versions(2)["freshness"]), (&json!("Current"), &json!("Stale")));
        assert_eq!(versions(2)["resources"], json!([]));
        let resources = versions(1)["resources"].clone();
        assert_eq!(resources[0]["responseKind"], json!({"group": "a.io", "version": "v1", "kind": "Flower"}));
        assert_eq!(resources[0]["subresources"][0]["subresource"], "status");
        let metric = &resources[1]["subresources"][0]["subresource"];
        assert_eq!((&resources[1]["resource"], metric), (&json!("pods"), &json!("requests")));
        let mut openapi = json!({"paths": {}});
        add_to_openapi(&aggregate, &mut openapi);
        assert_eq!(openapi["paths"].as_object().unwrap().len(), 2);
    }
}
