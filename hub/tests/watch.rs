//! Watches against the real server: order, selections, bookmarks, forms, the end of the window.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": label}}})
}

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.into(), name.into())
}

#[test]
fn every_change_comes_once_and_in_order() {
    let c = Cluster::start();
    c.json("POST", MAPS, map("a", "1"));
    let mut all = c.watch(&format!("{MAPS}?watch=1"), JSON);
    assert_eq!(all.next_name(), pair("ADDED", "a"));
    c.json("POST", MAPS, map("b", "1"));
    c.json("PUT", &format!("{MAPS}/b"), map("b", "2"));
    let from = c.get(MAPS).1["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    c.raw("DELETE", &format!("{MAPS}/b"), &[], b"");
    let mut versions = Vec::new();
    for expect in ["ADDED", "MODIFIED", "DELETED"] {
        let (kind, object) = all.next();
        assert_eq!((kind.as_str(), &object["metadata"]["name"]), (expect, &json!("b")));
        versions.push(object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap());
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    // From a revision on: only what came after it.
    let mut late = c.watch(&format!("{MAPS}?watch=1&resourceVersion={from}"), JSON);
    assert_eq!(late.next_name(), pair("DELETED", "b"));
}

#[test]
fn a_right_to_one_object_opens_no_other() {
    let c = Cluster::start();
    for name in ["mine", "others"] {
        c.json("POST", MAPS, map(name, "1"));
    }
    let role = json!({"metadata": {"name": "mine"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"],
        "resourceNames": ["mine"], "verbs": ["get", "list", "watch"]}]});
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    assert_eq!(c.json("POST", &format!("{roles}/roles"), role).0, 201);
    let binding = json!({"metadata": {"name": "mine"}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "mine"}});
    assert_eq!(c.json("POST", &format!("{roles}/rolebindings"), binding).0, 201);
    let ancient = "/api/v1/watch/namespaces/default/configmaps/mine";
    let one = "fieldSelector=metadata.name%3Dmine";
    for (path, code) in [
        (format!("{MAPS}/mine?watch=1&timeoutSeconds=1"), 200),
        (format!("{ancient}?timeoutSeconds=1"), 200),
        (format!("{MAPS}?watch=1&timeoutSeconds=1&{one}"), 200),
        (format!("{MAPS}?{one}"), 200),
        (format!("{MAPS}?watch=1&timeoutSeconds=1"), 403),
        (MAPS.to_owned(), 403),
        (format!("{MAPS}/others"), 403),
    ] {
        let (got, body) = c.raw("GET", &path, &[("Impersonate-User", "jane")], b"");
        let body = String::from_utf8_lossy(&body);
        assert_eq!((got, body.contains("\"others\"") && got == 200), (code, false), "{path}: {body}");
        assert!(code != 200 || body.contains("mine"), "{path}: {body}");
    }
}

#[test]
fn a_selection_is_entered_and_left() {
    let c = Cluster::start();
    let mut watch = c.watch(&format!("{MAPS}?watch=1&labelSelector=l%3Dyes&resourceVersion=0"), JSON);
    c.json("POST", MAPS, map("a", "no"));
    c.json("PUT", &format!("{MAPS}/a"), map("a", "yes"));
    let (kind, entered) = watch.next();
    assert_eq!(kind, "ADDED");
    c.json("PUT", &format!("{MAPS}/a"), map("a", "no"));
    let (kind, left) = watch.next();
    assert_eq!((kind.as_str(), &left["metadata"]["labels"]["l"]), ("DELETED", &json!("yes")));
    let version = |v: &Value| v["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(version(&left) > version(&entered));
    c.raw("DELETE", &format!("{MAPS}/a"), &[], b"");
    c.json("POST", MAPS, map("b", "yes"));
    // The deletion of what was not selected is not seen.
    assert_eq!(watch.next_name(), pair("ADDED", "b"));
}

#[test]
fn initial_events_end_with_a_bookmark() {
    let c = Cluster::start();
    c.json("POST", MAPS, map("a", "1"));
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    // The hub's own controllers write meanwhile.
    let version = |v: &Value| v["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    let before = version(&c.get(MAPS).1);
    let mut watch = c.watch(&format!("{MAPS}?{query}"), JSON);
    assert_eq!(watch.next_name(), pair("ADDED", "a"));
    let (kind, mark) = watch.next();
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(mark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let after = version(&c.get(MAPS).1);
    assert!((before..=after).contains(&version(&mark)), "{before} {mark} {after}");
    c.json("POST", MAPS, map("b", "1"));
    assert_eq!(watch.next_name(), pair("ADDED", "b"));
}

#[test]
fn tables_are_watched_as_tables() {
    let c = Cluster::start();
    c.json("POST", MAPS, map("a", "1"));
    let mut watch = c.watch(&format!("{MAPS}?watch=1"), "application/json;as=Table;v=v1;g=meta.k8s.io");
    let (_, first) = watch.next();
    assert_eq!((&first["kind"], &first["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert!(first["columnDefinitions"].is_array());
    c.json("POST", MAPS, map("b", "1"));
    let (_, second) = watch.next();
    assert_eq!((&second["rows"][0]["cells"][0], &second["columnDefinitions"]), (&json!("b"), &Value::Null));
    assert_eq!(second["rows"][0]["object"]["metadata"]["name"], "b");
}

#[test]
fn what_left_the_window_is_gone() {
    let options = limpet_store::Options { window_events: 4, ..limpet_store::Options::default() };
    let c = Cluster::with(options);
    let from = c.get(MAPS).1["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let first = c.get(&format!("{MAPS}?limit=1")).1;
    assert!(first["metadata"].get("continue").is_none());
    for n in 0..10 {
        c.json("POST", MAPS, map(&format!("m{n}"), "1"));
    }
    let (kind, status) = c.watch(&format!("{MAPS}?watch=1&resourceVersion={from}"), JSON).next();
    assert_eq!(
        (kind.as_str(), &status["code"], &status["reason"]),
        ("ERROR", &json!(410), &json!("Expired"))
    );
    // A token from before the window gets a 410 with a token that goes on.
    let page = c.get(&format!("{MAPS}?limit=2")).1;
    for n in 10..20 {
        c.json("POST", MAPS, map(&format!("m{n}"), "1"));
    }
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (code, status) = c.get(&format!("{MAPS}?limit=50&continue={token}"));
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    let fresh = status["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = c.get(&format!("{MAPS}?limit=50&continue={fresh}"));
    assert_eq!((code, rest["items"].as_array().unwrap().len()), (200, 18));
}

#[test]
fn the_future_is_not_watched() {
    let c = Cluster::start();
    let (code, status) = c.get(&format!("{MAPS}?watch=1&resourceVersion=99999"));
    assert_eq!((code, &status["details"]["causes"][0]["reason"]), (504, &json!("ResourceVersionTooLarge")));
}
