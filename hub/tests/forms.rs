//! The forms of answers: protobuf, gzip, Tables and partial metadata, for people; single, in lists and in watches.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use std::io::Read;
use support::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"a": "b"}, "annotations": {"x": "y"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i",
                "resources": {"limits": {"memory": "1Gi"}}, "ports": [{"containerPort": 80}]}]}}}})
}

/// The head of a protobuf answer: its version and kind.
fn type_meta(bytes: &[u8]) -> (String, String) {
    assert_eq!(&bytes[..5], b"k8s\0\x0a", "no envelope: {:?}", &bytes[..bytes.len().min(20)]);
    let text = |at: usize| {
        let length = usize::from(bytes[at]);
        (String::from_utf8(bytes[at + 1..at + 1 + length].to_vec()).unwrap(), at + 1 + length)
    };
    let (version, next) = text(7);
    (version, text(next + 1).0)
}

#[test]
fn protobuf_goes_out_and_comes_back_unchanged() {
    let c = Cluster::start();
    let accept = |path: &str| c.raw("GET", path, &[("Accept", PROTOBUF)], b"");
    c.json("POST", DEPLOYMENTS, deployment("d"));
    let path = format!("{DEPLOYMENTS}/d");
    let (_, before) = c.get(&path);
    let (code, bytes) = accept(&path);
    assert_eq!((code, type_meta(&bytes)), (200, ("apps/v1".into(), "Deployment".into())));
    // A write that changes nothing does not count: what came back is what went out.
    let (code, again) = c.raw("PUT", &path, &[("Content-Type", PROTOBUF), ("Accept", PROTOBUF)], &bytes);
    assert_eq!((code, again == bytes), (200, true));
    assert_eq!(c.get(&path).1["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);

    let (_, list) = accept(DEPLOYMENTS);
    assert_eq!(type_meta(&list).1, "DeploymentList");
    let inner = bytes.windows(4).position(|w| w == b"\x0a\x01d\x12").unwrap();
    let piece = &bytes[inner..inner + 60];
    assert!(list.windows(60).any(|w| w == piece), "the list holds the same bytes as the single object");
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, metadata) = c.raw("GET", DEPLOYMENTS, &[("Accept", partial)], b"");
    assert_eq!(type_meta(&metadata), ("meta.k8s.io/v1".into(), "PartialObjectMetadataList".into()));
    assert!(metadata.len() < list.len());
    let (code, failure) = accept(&format!("{DEPLOYMENTS}/nothing"));
    assert_eq!((code, type_meta(&failure).1.as_str()), (404, "Status"));
    let scale = accept(&format!("{path}/scale")).1;
    assert_eq!(type_meta(&scale), ("autoscaling/v1".into(), "Scale".into()));
    // Events are stored as core events and served in both groups.
    assert_eq!(type_meta(&accept("/apis/events.k8s.io/v1/events").1).1, "EventList");
}

#[test]
fn what_cannot_be_had_is_said() {
    let c = Cluster::start();
    let accept = |path: &str, accept: &str| c.raw("GET", path, &[("Accept", accept)], b"");
    let (code, body) = accept(MAPS, "image/png");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, &body["reason"]), (406, &json!("NotAcceptable")));
    assert!(body["message"].as_str().unwrap().contains(PROTOBUF), "{body}");
    let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
    assert_eq!(accept(MAPS, table).0, 406);
    assert_eq!(accept(&format!("{MAPS}?watch=1&timeoutSeconds=1"), "application/yaml").0, 406);
    let post = |form: &str, body: &[u8]| c.raw("POST", MAPS, &[("Content-Type", form)], body).0;
    assert_eq!(post("application/xml", b"<a/>"), 415);
    assert_eq!(post(PROTOBUF, b"{}"), 400);
    assert_eq!(post(PROTOBUF, b"k8s\0\x0a\xff\xff\xff\xff\xff\xff"), 400);
}

#[test]
fn people_get_lines_and_long_answers_are_compressed() {
    let c = Cluster::start();
    c.json("POST", MAPS, json!({"metadata": {"name": "a"}, "data": {"long": "x".repeat(200_000)}}));
    let pretty = c.raw("GET", MAPS, &[("User-Agent", "curl/8.0")], b"").1;
    assert!(pretty.starts_with(b"{\n  \""));
    let plain = c.raw("GET", &format!("{MAPS}?pretty=false"), &[], b"").1;
    assert!(plain.starts_with(b"{\"kind\":\"ConfigMapList\""));
    for form in ["application/json", PROTOBUF] {
        let headers = [("Accept-Encoding", "gzip"), ("Accept", form), ("User-Agent", "go")];
        // A controller may write between two answers: equal ones are wanted on both sides.
        let (plain, zipped) = (0..20)
            .find_map(|_| {
                let plain = c.raw("GET", MAPS, &headers[1..], b"").1;
                let zipped = c.raw("GET", MAPS, &headers, b"").1;
                (plain == c.raw("GET", MAPS, &headers[1..], b"").1).then_some((plain, zipped))
            })
            .expect("a quiet moment");
        let mut unzipped = Vec::new();
        flate2::read::GzDecoder::new(&zipped[..]).read_to_end(&mut unzipped).unwrap();
        assert!(unzipped == plain && zipped.len() < plain.len() / 2, "{form}");
    }
}

#[test]
fn tables_and_partial_metadata_in_both_versions() {
    let c = Cluster::start();
    c.json("POST", MAPS, json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "data": {"k": "v"}}));
    for version in ["v1", "v1beta1"] {
        let table = format!("application/json;as=Table;g=meta.k8s.io;v={version}");
        let partial = format!("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v={version}");
        let api_version = json!(format!("meta.k8s.io/{version}"));
        let ask = |path: &str, accept: &str| -> Value {
            serde_json::from_slice(&c.raw("GET", path, &[("Accept", accept)], b"").1).unwrap()
        };
        let one = ask(&format!("{MAPS}/a?includeObject=Object"), &table);
        assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("Table"), &api_version));
        assert_eq!((&one["rows"][0]["cells"][0], &one["rows"][0]["cells"][1]), (&json!("a"), &json!(1)));
        assert_eq!(one["rows"][0]["object"]["data"]["k"], "v");
        assert_eq!(ask(MAPS, &table)["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(ask(&format!("{MAPS}?includeObject=None"), &table)["rows"][0].get("object"), None);
        let one = ask(&format!("{MAPS}/a"), &partial);
        assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("PartialObjectMetadata"), &api_version));
        assert_eq!((&one["metadata"]["labels"]["l"], one.get("data")), (&json!("1"), None));
        let (kind, object) = c.watch(&format!("{MAPS}?watch=1"), &partial).next();
        assert_eq!((kind.as_str(), &object["kind"]), ("ADDED", &json!("PartialObjectMetadata")));
        let mut rows = c.watch(&format!("{MAPS}?watch=1"), &table);
        assert_eq!(rows.next().1["columnDefinitions"][0]["name"], "Name");
        c.json("POST", MAPS, json!({"metadata": {"name": format!("b-{version}")}}));
        // Only the first event carries the columns.
        let (_, second) = rows.next();
        let (_, third) = if version == "v1" { (String::new(), second.clone()) } else { rows.next() };
        assert_eq!(third["columnDefinitions"], Value::Null);
    }
}

#[test]
fn watches_in_protobuf_are_frames_with_a_length() {
    let c = Cluster::start();
    c.json("POST", MAPS, json!({"metadata": {"name": "a"}}));
    let path = format!("{MAPS}?watch=1&timeoutSeconds=2&allowWatchBookmarks=true");
    let (code, mut bytes) = c.raw("GET", &path, &[("Accept", PROTOBUF)], b"");
    assert_eq!(code, 200);
    let mut kinds = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        let rest = bytes.split_off(4 + length);
        let event = &bytes[4..];
        assert_eq!(event[0], 0x0a);
        let kind_end = 2 + usize::from(event[1]);
        kinds.push(String::from_utf8(event[2..kind_end].to_vec()).unwrap());
        let object = event.windows(4).position(|w| w == b"k8s\0").unwrap();
        assert_eq!(type_meta(&event[object..]), ("v1".into(), "ConfigMap".into()));
        bytes = rest;
    }
    assert_eq!(kinds, ["ADDED", "BOOKMARK"]);
}

#[test]
fn all_pages_show_the_state_of_the_first() {
    let c = Cluster::start();
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["a", "b", "c", "d", "e"] {
        c.json("POST", secrets, json!({"metadata": {"name": name}}));
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, first) = c.get(&format!("{secrets}?limit=2"));
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a".into(), "b".into()], &json!(3)));
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    c.raw("DELETE", &format!("{secrets}/d"), &[], b"");
    c.json("POST", secrets, json!({"metadata": {"name": "bb"}}));
    c.json("PUT", &format!("{secrets}/e"), json!({"metadata": {"name": "e", "labels": {"new": "1"}}}));
    let (_, second) = c.get(&format!("{secrets}?continue={token}"));
    assert_eq!(names(&second), ["c", "d", "e"]);
    assert_eq!(second["metadata"]["resourceVersion"], revision);
    assert!(second["items"][2]["metadata"].get("labels").is_none(), "an object of the first page's revision");
    let (_, exact) = c.get(&format!("{secrets}?resourceVersion={revision}&resourceVersionMatch=Exact"));
    assert_eq!(names(&exact), ["a", "b", "c", "d", "e"]);
    let (_, newer) = c.get(&format!("{secrets}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan"));
    assert_eq!(names(&newer), ["a", "b", "bb", "c", "e"]);
    assert_eq!(c.get(&format!("{secrets}?continue={token}&resourceVersion={revision}")).0, 400);
    let (code, future) = c.get(&format!("{secrets}?resourceVersion=999999"));
    assert_eq!((code, &future["details"]["causes"][0]["reason"]), (504, &json!("ResourceVersionTooLarge")));
    // A watch without the initial state begins behind it.
    let only_news = "watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    let path = format!("{secrets}?{only_news}&timeoutSeconds=3");
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| c.raw("GET", &path, &[], b"").1);
        // When it is open nobody can say: there is news until it ends.
        for at in 0.. {
            c.json("POST", secrets, json!({"metadata": {"name": format!("z{at}")}}));
            if watching.is_finished() {
                break;
            }
        }
        let text = String::from_utf8(watching.join().unwrap()).unwrap();
        assert!(text.contains("\"name\":\"z") && !text.contains("\"name\":\"a\""), "{text}");
    });
}

#[test]
fn an_expired_token_comes_with_a_fresh_one() {
    let c = Cluster::with(limpet_store::Options { window_events: 4, ..Default::default() });
    for name in ["a", "b", "c"] {
        c.json("POST", MAPS, json!({"metadata": {"name": name}}));
    }
    let (_, first) = c.get(&format!("{MAPS}?limit=1"));
    let token = first["metadata"]["continue"].as_str().unwrap();
    for at in 0..6 {
        c.json("PUT", &format!("{MAPS}/a"), json!({"metadata": {"name": "a"}, "data": {"n": at.to_string()}}));
    }
    let (code, status) = c.get(&format!("{MAPS}?limit=1&continue={token}"));
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    let fresh = status["metadata"]["continue"].as_str().unwrap();
    let (code, second) = c.get(&format!("{MAPS}?limit=1&continue={fresh}"));
    assert_eq!((code, &second["items"][0]["metadata"]["name"]), (200, &json!("b")));
}
