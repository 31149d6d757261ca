//! Definitions of custom resources: served, published, defaulted, judged by rules, selected, and gone again.
//!
//! In: the hub of `live`. Out: fails when a document or an object is not what the definition says.
//! Source: "CustomResourceDefinition resources", "CustomResourcePublishOpenAPI", "CustomResourceValidationRules",
//! "CustomResourceFieldSelectors" of the conformance suite.

use crate::live::{Client, MERGE, names, version};
use serde_json::{Value, json};

const ALL: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition that is served.
pub struct Defined {
    pub api_version: String,
    pub kind: String,
    pub plural: String,
    /// Path of the definition.
    pub path: String,
    /// Its name in the OpenAPI documents.
    pub model: String,
}

pub fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "description": "What is wanted.", "properties": {
            "foo": {"type": "string"}, "cronSpec": {"type": "string", "description": "When."},
            "ports": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer"}}}}}},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}}}})
}

fn definition(group: &str, word: &str, versions: Value) -> Value {
    let kind = format!("{}{}", word[..1].to_uppercase(), &word[1..]);
    json!({"metadata": {"name": format!("{word}s.{group}")}, "spec": {"group": group, "scope": "Namespaced",
        "names": {"plural": format!("{word}s"), "singular": word, "kind": kind, "listKind": format!("{kind}List")},
        "versions": versions}})
}

fn one(name: &str, schema: &Value) -> Value {
    json!({"name": name, "served": true, "storage": true, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema}})
}

fn group_of(c: &Client) -> String {
    format!("{}.example.com", c.namespace)
}

fn model(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

/// Made, established and found by discovery.
pub fn define(c: &mut Client, word: &str, schema: Value) -> Defined {
    let group = group_of(c);
    let object = definition(&group, word, json!([one("v1", &schema)]));
    let kind = object["spec"]["names"]["kind"].as_str().unwrap().to_owned();
    c.made(ALL, object);
    let path = format!("{ALL}/{word}s.{group}");
    c.until("it is established", |c| {
        let conditions = c.got(&path)["status"]["conditions"].clone();
        conditions.as_array().into_iter().flatten().any(|x| x["type"] == "Established" && x["status"] == "True")
    });
    Defined { api_version: format!("{group}/v1"), model: model(&group, "v1", &kind), kind, plural: format!("{word}s"), path }
}

fn object(of: &Defined, name: &str, spec: Value) -> Value {
    json!({"apiVersion": of.api_version, "kind": of.kind, "metadata": {"name": name}, "spec": spec})
}

/// The schema in the document of its group and version, and in the one document of all.
fn published(c: &mut Client, of: &Defined) -> (Value, Value) {
    let index = c.got("/openapi/v3")["paths"][format!("apis/{}", of.api_version)]["serverRelativeURL"].clone();
    let v3 = match index.as_str() {
        // It may go between the index and the document.
        Some(url) => c.get(url).1["components"]["schemas"][&of.model].clone(),
        None => Value::Null,
    };
    (v3, c.got("/openapi/v2")["definitions"][&of.model].clone())
}

#[test]
fn it_is_in_the_documents_of_discovery() {
    let mut c = Client::new("crd");
    for (path, field, name) in [("/apis", "groups", "apiextensions.k8s.io"),
        ("/apis/apiextensions.k8s.io/v1", "resources", "customresourcedefinitions")]
    {
        let found = c.got(path)[field].as_array().unwrap().iter().any(|x| x["name"] == name);
        assert!(found, "{name} in {path}");
    }
    let of = define(&mut c, "found", schema());
    let group = group_of(&c);
    assert!(c.got("/apis")["groups"].as_array().unwrap().iter().any(|g| g["name"] == group.as_str()));
    assert_eq!(c.got(&format!("/apis/{}", of.api_version))["resources"][0]["kind"], of.kind.as_str());
    c.delete(&of.path);
    c.gone(&of.path);
    assert_eq!(c.get(&format!("/apis/{}", of.api_version)).0, 404);
}

#[test]
fn definitions_are_listed_watched_and_their_status_patched() {
    let mut c = Client::new("crd");
    let group = group_of(&c);
    let from = version(&c.got(ALL));
    let mut watch = c.watch(&format!("{ALL}?watch=1&resourceVersion={from}&labelSelector=of%3D{group}"));
    for word in ["a", "b", "c"] {
        let mut object = definition(&group, word, json!([one("v1", &schema())]));
        object["metadata"]["labels"] = json!({"of": group});
        c.made(ALL, object);
    }
    let selected = format!("{ALL}?labelSelector=of%3D{group}");
    assert_eq!(names(&c.got(&selected)).len(), 3);
    let path = format!("{ALL}/as.{group}");
    let status = format!("{path}/status");
    assert_eq!(c.got(&status)["metadata"]["name"], format!("as.{group}"));
    let patched = c.patched(&status, MERGE, json!({"status": {"conditions": [{"type": "Odd", "status": "True",
        "reason": "E2E", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}));
    assert!(patched["status"]["conditions"].as_array().unwrap().iter().any(|x| x["type"] == "Odd"), "{patched}");
    c.changed(&status, |object| {
        let conditions = object["status"]["conditions"].as_array_mut().unwrap();
        conditions.push(json!({"type": "Put", "status": "True", "reason": "E2E", "message": "m"}));
    });
    c.patched(&path, MERGE, json!({"metadata": {"annotations": {"p": "q"}}}));
    let (code, _) = c.delete(&selected);
    assert_eq!(code, 200);
    c.until("none is left", |c| names(&c.got(&selected)).is_empty());
    let mut seen = Vec::new();
    while seen.iter().filter(|(kind, _)| kind == "DELETED").count() < 3 {
        seen.push(watch.next_name());
    }
    assert_eq!(seen.iter().filter(|(kind, _)| kind == "ADDED").count(), 3, "{seen:?}");
}

#[test]
fn defaults_hold_for_requests_and_for_what_is_stored() {
    let mut c = Client::new("crd");
    let of = define(&mut c, "filled", schema());
    let path = c.at(&of.api_version, &of.plural);
    c.made(&path, object(&of, "old", json!({"foo": "x"})));
    c.changed(&of.path, |definition| {
        let properties = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        properties["a"] = json!({"type": "string", "default": "A"});
        properties["deep"] = json!({"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 7}}});
    });
    c.until("what was stored is read with defaults", |c| c.got(&format!("{path}/old"))["spec"]["a"] == "A");
    assert_eq!(c.got(&format!("{path}/old"))["spec"]["deep"], json!({"n": 7}));
    let made = c.made(&path, object(&of, "new", json!({"a": "own"})));
    assert_eq!(made["spec"], json!({"a": "own", "deep": {"n": 7}}));
    c.changed(&of.path, |definition| {
        let properties = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        properties["b"] = json!({"type": "string", "default": "B"});
        properties["a"].as_object_mut().unwrap().remove("default");
    });
    c.until("the other default", |c| c.got(&format!("{path}/old"))["spec"]["b"] == "B");
    assert_eq!(c.got(&format!("{path}/old"))["spec"].get("a"), None, "it was never stored");
}

#[test]
fn schemas_are_published() {
    let mut c = Client::new("crd");
    let of = define(&mut c, "published", schema());
    let (v3, v2) = published(&mut c, &of);
    for (document, word) in [(&v3, "v3"), (&v2, "v2")] {
        let spec = &document["properties"]["spec"];
        assert_eq!((&spec["description"], &spec["properties"]["cronSpec"]["type"]), (&json!("What is wanted."),
            &json!("string")), "{word}");
        assert_eq!(document["x-kubernetes-group-version-kind"][0]["kind"], of.kind.as_str(), "{word}");
        assert!(document["properties"]["metadata"].is_object() && document["properties"]["apiVersion"].is_object(), "{word}");
    }
    // The schema is changed, the documents follow.
    c.changed(&of.path, |definition| {
        let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"]["description"] = json!("Other words.");
    });
    c.until("the new words", |c| published(c, &of).0["properties"]["spec"]["description"] == "Other words.");
    c.delete(&of.path);
    c.until("nothing is left of it", |c| published(c, &of) == (Value::Null, Value::Null));
}

#[test]
fn what_has_no_schema_or_keeps_everything_is_published_so() {
    let mut c = Client::new("crd");
    let root = define(&mut c, "root", json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let (v3, v2) = published(&mut c, &root);
    assert_eq!(v3["x-kubernetes-preserve-unknown-fields"], true, "{v3}");
    assert_eq!(v2["x-kubernetes-preserve-unknown-fields"], true, "clients must not drop what they do not know: {v2}");
    assert!(v2["properties"].get("spec").is_none(), "{v2}");
    let embedded = define(&mut c, "embedded", json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-preserve-unknown-fields": true, "description": "Anything."}}}));
    let (v3, v2) = published(&mut c, &embedded);
    for document in [&v3, &v2] {
        assert_eq!(document["properties"]["spec"]["description"], "Anything.");
        assert_eq!(document["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"], true, "{document}");
    }
    let path = c.at(&embedded.api_version, &embedded.plural);
    let any = json!({"any": {"thing": [1, "two"]}});
    assert_eq!(c.made(&path, object(&embedded, "e", any.clone()))["spec"], any);
}

#[test]
fn versions_of_one_definition_are_published_each() {
    let mut c = Client::new("crd");
    let group = group_of(&c);
    let mut second = one("v2", &schema());
    second["storage"] = json!(false);
    c.made(ALL, definition(&group, "many", json!([one("v1", &schema()), second])));
    let of = |version: &str| Defined { api_version: format!("{group}/{version}"), kind: "Many".into(), plural: "manys".into(),
        path: format!("{ALL}/manys.{group}"), model: model(&group, version, "Many") };
    for version in ["v1", "v2"] {
        c.until("both are published", |c| published(c, &of(version)).1.is_object());
    }
    c.changed(&of("v1").path, |definition| definition["spec"]["versions"][1]["name"] = json!("v3"));
    c.until("the new name", |c| published(c, &of("v3")).1.is_object());
    assert_eq!(published(&mut c, &of("v2")), (Value::Null, Value::Null), "the old name is gone");
    assert!(published(&mut c, &of("v1")).0.is_object());
    c.changed(&of("v1").path, |definition| definition["spec"]["versions"][1]["served"] = json!(false));
    c.until("it is not served any more", |c| published(c, &of("v3")) == (Value::Null, Value::Null));
    assert_eq!(c.get(&c.at(&format!("{group}/v3"), "manys")).0, 404);
}

#[test]
fn rules_judge_objects_and_their_changes() {
    let mut c = Client::new("crd");
    let rules = |rule: &str| json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-validations": [{"rule": rule}],
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}, "fixed": {"type": "string",
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "it stays"}]}}}}});
    let of = define(&mut c, "ruled", rules("has(self.x) && has(self.y) && self.x * self.y <= 42"));
    let path = c.at(&of.api_version, &of.plural);
    c.made(&path, object(&of, "good", json!({"x": 6, "y": 7, "fixed": "a"})));
    let (code, status) = c.post(&path, object(&of, "bad", json!({"x": 6, "y": 8})));
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
    assert!(status["message"].as_str().unwrap().contains("failed rule: "), "{status}");
    let (code, status) = c.ask("PATCH", &format!("{path}/good"), MERGE, &json!({"spec": {"fixed": "b"}}));
    assert!(code == 422 && status["message"].as_str().unwrap().contains("it stays"), "{status}");
    let group = group_of(&c);
    for (word, rule, says) in [
        ("unknown", "self.nothing == 1", "undefined field 'nothing'"),
        ("broken", "self.x == ", "Syntax error"),
    ] {
        let (code, status) = c.post(ALL, definition(&group, word, json!([one("v1", &rules(rule))])));
        assert!(code == 422 && status["message"].as_str().unwrap().contains(says), "{word}: {status}");
    }
    let costly = json!({"type": "object", "properties": {"spec": {"type": "array", "items": {"type": "array",
        "items": {"type": "string"}}, "x-kubernetes-validations": [{"rule":
            "self.all(a, a.all(b, self.all(c, c.all(d, b == d))))"}]}}});
    let (code, status) = c.post(ALL, definition(&group, "costly", json!([one("v1", &costly)])));
    assert!(code == 422 && status["message"].as_str().unwrap().contains("exceeds budget"), "{status}");
}

#[test]
fn fields_that_may_be_selected() {
    let mut c = Client::new("crd");
    let group = group_of(&c);
    let mut with = one("v1", &schema());
    with["selectableFields"] = json!([{"jsonPath": ".spec.foo"}]);
    c.made(ALL, definition(&group, "chosen", json!([with])));
    let path = c.at(&format!("{group}/v1"), "chosens");
    c.until("it is served", |c| c.get(&path).0 == 200);
    let api_version = format!("{group}/v1");
    let make = |name: &str, foo: &str| json!({"apiVersion": api_version, "kind": "Chosen", "metadata": {"name": name},
        "spec": {"foo": foo}});
    let mut watch = c.watch(&format!("{path}?watch=1&fieldSelector=spec.foo%3Dblue"));
    for (name, foo) in [("a", "red"), ("b", "blue"), ("c", "blue")] {
        c.made(&path, make(name, foo));
    }
    assert_eq!(names(&c.got(&format!("{path}?fieldSelector=spec.foo%3Dblue"))), ["b", "c"]);
    assert_eq!(names(&c.got(&format!("{path}?fieldSelector=spec.foo%21%3Dblue"))), ["a"]);
    assert_eq!((watch.next_name().1, watch.next_name().1), ("b".into(), "c".into()));
    c.patched(&format!("{path}/b"), MERGE, json!({"spec": {"foo": "red"}}));
    assert_eq!(watch.next_name(), ("DELETED".into(), "b".into()));
    assert_eq!(c.get(&format!("{path}?fieldSelector=spec.cronSpec%3Dx")).0, 400);
    assert_eq!(c.delete(&format!("{path}?fieldSelector=spec.foo%3Dred")).0, 200);
    assert_eq!(names(&c.got(&path)), ["c"]);
}
