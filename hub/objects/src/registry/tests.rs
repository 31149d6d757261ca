//! The registry finds what the schema table has, by every way in.

use super::*;
use crate::schema;

#[test]
fn every_schema_root_is_in_the_table() {
    for resource in registry().resources() {
        assert!(schema::table().get(&resource.schema).is_some(), "{}", resource.schema);
        for sub in &resource.subresources {
            if let Some(name) = &sub.schema {
                assert!(schema::table().get(name).is_some(), "{name}");
            }
        }
    }
}

#[test]
fn finds_by_path_kind_and_storage() {
    let deployments = registry().by_path("apps", "v1", "deployments").unwrap();
    assert_eq!(deployments.singular, "deployment");
    assert_eq!(deployments.list_kind, "DeploymentList");
    assert_eq!(deployments.subresource("scale").unwrap().group, "autoscaling");
    assert_eq!(registry().by_kind("v1", "Pod").unwrap().storage, "/pods");
    assert_eq!(registry().by_storage("apps/deployments").unwrap().kind, "Deployment");
    assert!(registry().by_path("apps", "v1", "pods").is_none());
}

#[test]
fn events_and_autoscalers_are_stored_once() {
    let events = registry().by_path("events.k8s.io", "v1", "events").unwrap();
    assert_eq!((events.storage.as_str(), events.is_stored_form()), ("/events", false));
    let scalers = registry().by_path("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    assert_eq!(
        (scalers.storage.as_str(), scalers.is_stored_form()),
        ("autoscaling/horizontalpodautoscalers", false)
    );
    assert_eq!(registry().by_storage("/events").unwrap().version, "v1");
}

#[test]
fn groups_start_with_core_and_prefer_the_newest() {
    let groups = registry().groups();
    assert_eq!(groups[0].name, "");
    let autoscaling = groups.iter().find(|group| group.name == "autoscaling").unwrap();
    assert_eq!(autoscaling.versions, ["v2", "v1"]);
}

#[test]
fn tables_have_a_cell_for_each_column() {
    for resource in registry().resources().iter().filter(|resource| resource.is_persistent()) {
        let object =
            serde_json::json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        let row = resource.behaviour.row(&object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row.len(), resource.behaviour.columns().len(), "{resource:?}");
    }
}

/// One line as in `resources-1.36.txt`.
fn line(name: &str, entry: &serde_json::Value) -> String {
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    let list = |field: &str| -> Vec<&str> {
        entry[field].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect()
    };
    let place = match text("version") {
        "" => String::new(),
        version => format!("@{}", crate::resource::api_version(text("group"), version)),
    };
    let letter = |verb: &&str| if *verb == "deletecollection" { 'D' } else { verb.chars().next().unwrap_or(' ') };
    let verbs: String = list("verbs").iter().map(letter).collect();
    let scope = if entry["namespaced"] == true { "n" } else { "-" };
    let mut line = format!("{name} {}{place} {scope} {verbs}", text("kind"));
    for (field, word) in [("shortNames", "short"), ("categories", "in")] {
        if !list(field).is_empty() {
            line.push_str(&format!(" {word}={}", list(field).join(",")));
        }
    }
    line
}

#[test]
fn discovery_tells_of_every_resource_of_upstreams() {
    let mut groups = std::collections::BTreeMap::<&str, Vec<&str>>::new();
    let mut group = "";
    for text in include_str!("resources-1.36.txt").lines().filter(|line| !line.starts_with('#')) {
        match text.strip_prefix("= ") {
            Some(name) => group = name,
            None => groups.entry(group).or_default().push(text),
        }
    }
    assert_eq!(groups.len(), 22);
    for (api_version, expect) in groups {
        let (group, version) = split_api_version(api_version);
        let served = crate::discovery::api_resource_list(super::registry(), group, version).unwrap();
        let entries = served["resources"].as_array().unwrap();
        let mut lines: Vec<String> =
            entries.iter().map(|entry| line(entry["name"].as_str().unwrap(), entry)).collect();
        lines.sort();
        assert_eq!(lines, expect, "{api_version}");
    }
}
