//! Fields that nobody knows, and fields that come twice: refused, told or dropped, as the client asks.
//!
//! In: the hub of `live`; Deployments and custom resources with and without a schema. Out: fails on other words.
//! Source: the "FieldValidation" tests of the conformance suite.

use crate::{definitions, live::{APPLY, Client}};

const JSON: &str = "application/json";

fn deployment(name: &str, more: &str, meta: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{{meta}"name":"{name}","labels":{{"app":"w"}}}},
        "spec":{{{more}"replicas":0,"selector":{{"matchLabels":{{"app":"w"}}}},"template":{{"metadata":{{"labels":{{"app":"w"}}}},
        "spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}}}}}"#
    )
}

/// The code, the Status' message or "", the warnings.
fn send(c: &mut Client, method: &str, path: &str, form: &str, body: &str) -> (u16, String, Vec<String>) {
    let (code, bytes, warnings) = c.raw(method, path, &[("Content-Type", form)], body.as_bytes().to_vec());
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    (code, value["message"].as_str().unwrap_or_default().to_owned(), warnings)
}

#[test]
fn of_typed_objects() {
    let mut c = Client::new("fields");
    let path = c.at("apps/v1", "deployments");
    let body = deployment("bad", r#""unknown1":"x","unknownDupe":1,"unknownDupe":2,"paused":true,"paused":true,"#, "");
    let (code, message, _) = send(&mut c, "POST", &format!("{path}?fieldValidation=Strict"), JSON, &body);
    assert_eq!(code, 400, "{message}");
    for words in [r#"unknown field "spec.unknown1""#, r#"duplicate field "spec.unknownDupe""#,
        r#"unknown field "spec.unknownDupe""#,
        r#"duplicate field "spec.paused""#]
    {
        assert!(message.contains(words), "{words}: {message}");
    }
    let (code, _, warnings) = send(&mut c, "POST", &format!("{path}?fieldValidation=Warn"), JSON, &body);
    assert_eq!((code, warnings.len()), (201, 4), "{warnings:?}");
    let (code, _, warnings) = send(&mut c, "POST", &format!("{path}?fieldValidation=Ignore"), JSON, &body.replace("bad",
        "ignored"));
    assert_eq!((code, warnings.len()), (201, 0), "{warnings:?}");
    let meta = deployment("meta", "", r#""unknownMeta":"x","#);
    let (code, message, _) = send(&mut c, "POST", &format!("{path}?fieldValidation=Strict"), JSON, &meta);
    assert!(code == 400 && message.contains(r#"unknown field "metadata.unknownMeta""#), "{message}");
    let (code, message, _) = send(&mut c, "POST", &format!("{path}?fieldValidation=Sometimes"), JSON, &meta);
    assert_eq!(code, 422, "{message}");
    // Patches and applies as well.
    let patch = r#"{"metadata":{"unknownMeta":"x"},"spec":{"unknown1":"x","paused":true,"paused":false}}"#;
    for form in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        let (code, message, _) = send(&mut c, "PATCH", &format!("{path}/bad?fieldValidation=Strict"), form, patch);
        assert!(matches!(code, 400 | 422) && message.contains(r#"unknown field "spec.unknown1""#), "{form}: {code} {message}");
    }
    let applied = body.replace("bad", "applied");
    let (code, message, _) =
        send(&mut c, "PATCH", &format!("{path}/applied?fieldManager=m&fieldValidation=Strict"), APPLY, &applied);
    assert!(matches!(code, 400 | 422 | 500), "{code} {message}");
}

#[test]
fn of_custom_objects() {
    let mut c = Client::new("fields");
    let strict = definitions::define(&mut c, "strict", definitions::schema());
    let open = definitions::define(&mut c, "open", serde_json::json!({"type": "object",
        "x-kubernetes-preserve-unknown-fields": true}));
    let object = |kind: &definitions::Defined, name: &str, spec: &str, meta: &str| {
        format!(r#"{{"apiVersion":"{}","kind":"{}","metadata":{{{meta}"name":"{name}"}},"spec":{spec}}}"#, kind.api_version,
            kind.kind)
    };
    let path = c.at(&strict.api_version, &strict.plural);
    let good = object(&strict, "good", r#"{"foo":"foo1","cronSpec":"* * * * */5"}"#, "");
    assert_eq!(send(&mut c, "POST", &format!("{path}?fieldValidation=Strict"), JSON, &good).0, 201);
    let bad = object(&strict, "bad", r#"{"foo":"a","foo":"b","extra":1,"cronSpec":"* * * * */5"}"#, r#""unknownMeta":"x","#);
    let (code, message, _) = send(&mut c, "POST", &format!("{path}?fieldValidation=Strict"), JSON, &bad);
    assert_eq!(code, 400, "{message}");
    for words in [r#"unknown field "metadata.unknownMeta""#, r#"unknown field "spec.extra""#, r#"duplicate field "spec.foo""#] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let (code, _, warnings) = send(&mut c, "POST", &path, JSON, &bad);
    assert_eq!((code, warnings.len()), (201, 3), "{warnings:?}");
    let applied = object(&strict, "applied", r#"{"foo":"a","extra":1}"#, "");
    let (code, message, _) =
        send(&mut c, "PATCH", &format!("{path}/applied?fieldManager=m&fieldValidation=Strict"), APPLY, &applied);
    assert!(code != 200 && code != 201 && message.contains("extra"), "{code} {message}");
    // Where everything is kept, only what comes twice is wrong.
    let path = c.at(&open.api_version, &open.plural);
    let any = object(&open, "any", r#"{"extra":{"deep":1}}"#, "");
    assert_eq!(send(&mut c, "POST", &format!("{path}?fieldValidation=Strict"), JSON, &any).0, 201);
    assert_eq!(c.got(&format!("{path}/any"))["spec"]["extra"]["deep"], 1);
    let twice = object(&open, "twice", r#"{"extra":1,"extra":2}"#, "");
    let (code, message, _) = send(&mut c, "POST", &format!("{path}?fieldValidation=Strict"), JSON, &twice);
    assert!(code == 400 && message.contains(r#"duplicate field "spec.extra""#), "{message}");
}
