//! What the server says about itself: versions, groups, resources, in the old form and in the aggregated one.
//!
//! In: the hub of `live`. Out: fails when the documents contradict each other.
//! Source: "Discovery", "AggregatedDiscovery", "server version" of the conformance suite.

use crate::live::Client;
use serde_json::Value;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

#[test]
fn the_version_is_a_version() {
    let mut c = Client::new("documents");
    let version = c.got("/version");
    assert_eq!(version["major"], "1");
    let minor = version["minor"].as_str().unwrap();
    assert!(minor.trim_end_matches('+').parse::<u32>().is_ok_and(|minor| minor >= 36), "{version}");
    for field in ["gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"] {
        assert!(version[field].is_string(), "{field}: {version}");
    }
}

#[test]
fn every_group_has_a_preferred_version_that_it_serves() {
    let mut c = Client::new("documents");
    let groups = c.got("/apis")["groups"].as_array().cloned().unwrap();
    for group in &groups {
        let name = group["name"].as_str().unwrap();
        // Of another test, which may remove it meanwhile.
        if name.ends_with(".example.com") {
            continue;
        }
        assert_eq!(c.got(&format!("/apis/{name}"))["preferredVersion"], group["preferredVersion"]);
        let versions = group["versions"].as_array().unwrap();
        assert!(versions.contains(&group["preferredVersion"]), "{group}");
        for version in versions {
            let of = version["groupVersion"].as_str().unwrap();
            let list = c.got(&format!("/apis/{of}"));
            assert_eq!((&list["kind"], &list["groupVersion"]), (&Value::from("APIResourceList"), &version["groupVersion"]));
            assert!(list["resources"].as_array().is_some_and(|all| !all.is_empty()), "{of}");
        }
    }
}

/// The aggregated documents say the same as the single ones.
#[test]
fn one_document_for_everything() {
    let mut c = Client::new("documents");
    for root in ["/api", "/apis"] {
        let (code, bytes, _) = c.raw("GET", root, &[("Accept", AGGREGATED)], Vec::new());
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((code, &document["kind"]), (200, &Value::from("APIGroupDiscoveryList")));
        assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
        for group in document["items"].as_array().unwrap() {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            for version in group["versions"].as_array().unwrap() {
                assert_eq!(version["freshness"], "Current", "{name}");
                let of = version["version"].as_str().unwrap();
                let path = if name.is_empty() { format!("/api/{of}") } else { format!("/apis/{name}/{of}") };
                // A definition of another test may have gone meanwhile.
                let (code, list) = c.get(&path);
                if code == 200 && !name.ends_with(".example.com") {
                    same(version, &list, &path);
                }
            }
        }
    }
    let (_, bytes, _) = c.raw("GET", "/apis", &[("Accept", AGGREGATED)], Vec::new());
    assert!(!bytes.is_empty());
    // Who does not know it gets the old one.
    let both = format!("{AGGREGATED},application/json");
    let (_, bytes, _) = c.raw("GET", "/apis", &[("Accept", "application/json")], Vec::new());
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap()["kind"], "APIGroupList");
    let (_, bytes, _) = c.raw("GET", "/apis", &[("Accept", &both)], Vec::new());
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap()["kind"], "APIGroupDiscoveryList");
}

fn same(version: &Value, list: &Value, path: &str) {
    let mut said = Vec::new();
    for resource in version["resources"].as_array().unwrap() {
        let plural = resource["resource"].as_str().unwrap();
        let namespaced = resource["scope"] == "Namespaced";
        said.push((plural.to_owned(), namespaced, resource["responseKind"]["kind"].clone(), verbs(resource)));
        for sub in resource["subresources"].as_array().into_iter().flatten() {
            let name = format!("{plural}/{}", sub["subresource"].as_str().unwrap());
            said.push((name, namespaced, sub["responseKind"]["kind"].clone(), verbs(sub)));
        }
    }
    let mut listed: Vec<_> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["name"].as_str().unwrap().to_owned(), r["namespaced"] == true, r["kind"].clone(), verbs(r)))
        .collect();
    said.sort_by(|a, b| a.0.cmp(&b.0));
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(said, listed, "{path}");
}

fn verbs(of: &Value) -> Vec<String> {
    let mut verbs: Vec<String> = of["verbs"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect();
    verbs.sort();
    verbs
}
