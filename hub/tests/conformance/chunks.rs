//! Lists in chunks, and lists as tables.
//!
//! In: the hub of `live`. Out: fails on an object that is missing, doubled or in no chunk.
//! Source: "Servers with support for API chunking" and "… for Table transformation" of the conformance suite.

use crate::live::{Client, names};
use serde_json::{Value, json};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

#[test]
fn every_object_is_in_one_chunk() {
    let mut c = Client::new("chunks");
    let templates = c.at("v1", "podtemplates");
    let count = 40;
    for at in 0..count {
        let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        c.made(&templates, json!({"metadata": {"name": format!("template-{at:04}")}, "template": template}));
    }
    for limit in [1, 7, 13, 39, 40, 41] {
        let (mut all, mut token, mut revision) = (Vec::new(), String::new(), None);
        loop {
            let page = c.got(&format!("{templates}?limit={limit}&continue={token}"));
            let meta = &page["metadata"];
            let of = meta["resourceVersion"].clone();
            assert_eq!(*revision.get_or_insert(of.clone()), of, "one version for all chunks");
            let here = names(&page);
            assert!(here.len() <= limit);
            all.extend(here);
            token = meta["continue"].as_str().unwrap_or_default().to_owned();
            match token.is_empty() {
                true => break assert!(meta["remainingItemCount"].is_null(), "{meta}"),
                false => assert_eq!(meta["remainingItemCount"], count - all.len()),
            }
        }
        assert_eq!(all, (0..count).map(|at| format!("template-{at:04}")).collect::<Vec<_>>(), "limit {limit}");
    }
    // A selection says nothing about what remains.
    let page = c.got(&format!("{templates}?limit=2&fieldSelector=metadata.name%21%3Dtemplate-0000"));
    assert_eq!((names(&page).len(), &page["metadata"]["remainingItemCount"]), (2, &Value::Null));
    for wrong in ["continue=nonsense", "limit=x"] {
        let (code, status) = c.get(&format!("{templates}?{wrong}"));
        assert!(matches!(code, 400 | 422), "{wrong}: {status}");
    }
}

#[test]
fn tables_have_columns_and_chunks() {
    let mut c = Client::new("chunks");
    let templates = c.at("v1", "podtemplates");
    for at in 0..5 {
        let template = json!({"spec": {"containers": [{"name": "c", "image": format!("i:{at}")}]}});
        c.made(&templates, json!({"metadata": {"name": format!("t{at}")}, "template": template}));
    }
    let mut ask = |path: &str, accept: &str| {
        let (code, bytes, _) = c.raw("GET", path, &[("Accept", accept)], Vec::new());
        (code, serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
    };
    let (_, table) = ask(&format!("{templates}?limit=2"), TABLE);
    assert_eq!((&table["kind"], table["rows"].as_array().unwrap().len()), (&json!("Table"), 2));
    let columns: Vec<&Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(columns, ["Name", "Containers", "Images", "Pod Labels"]);
    assert_eq!(table["rows"][0]["cells"][0], "t0");
    assert_eq!(table["metadata"]["remainingItemCount"], 3);
    let token = table["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = ask(&format!("{templates}?continue={token}"), TABLE);
    assert_eq!((rest["rows"].as_array().unwrap().len(), &rest["rows"][2]["cells"][0]), (3, &json!("t4")));
    // A kind that has no table of its own still has one; nobody makes a table of a review, or in protobuf.
    let (code, status) = ask(&templates, "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io");
    assert_eq!((code, &status["reason"]), (406, &json!("NotAcceptable")));
    let review = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/"}}}).to_string().into_bytes();
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, _, _) = c.raw("POST", path, &[("Accept", TABLE), ("Content-Type", "application/json")], review);
    assert_eq!(code, 406, "a backend that has no metadata makes no table");
}
