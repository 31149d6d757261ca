//! What strangers and broken clients send: refused with the right code, bounded, and without harm to others.
#![allow(clippy::unwrap_used)]

#[path = "support/http.rs"]
mod http_client;
#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::Ordering,
};
use support::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn heads_are_bounded() {
    let c = Cluster::start();
    let long = "a".repeat(20_000);
    let huge = "a".repeat(80_000);
    let many = "x=1&".repeat(100);
    for (path, header, codes) in [
        (format!("/api/v1/pods?labelSelector={long}"), "a: b".to_owned(), &[414][..]),
        (format!("/api/v1/pods?{many}"), "a: b".to_owned(), &[400]),
        ("/api/v1/pods".to_owned(), format!("x-large: {huge}"), &[431, 0]),
        ("/api/v1/namespaces/..%2f..%2fx/pods".to_owned(), "a: b".to_owned(), &[400]),
        ("/api/v1/namespaces/%00/pods".to_owned(), "a: b".to_owned(), &[400]),
        ("/api/v1/namespaces/%zz/pods".to_owned(), "a: b".to_owned(), &[400]),
    ] {
        let (name, value) = header.split_once(": ").unwrap();
        let (code, _) = c.raw("GET", &path, &[(name, value)], b"");
        assert!(codes.contains(&code), "{code} for {}", &path[..path.len().min(60)]);
    }
    assert_eq!(c.get("/api/v1/pods").0, 200);
}

#[test]
fn bombs_are_refused() {
    let c = Cluster::start();
    let post = |form: &str, body: &[u8]| c.raw("POST", MAPS, &[("Content-Type", form)], body).0;
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(",")));
    }
    assert_eq!(post("application/yaml", bomb.as_bytes()), 400);
    assert_eq!(post("application/yaml", "[".repeat(100_000).as_bytes()), 400);
    assert_eq!(post("application/json", "[".repeat(100_000).as_bytes()), 400);
    assert_eq!(post("application/vnd.kubernetes.protobuf", b"k8s\0\x0a\xff\xff\xff\xff\x0f"), 400);
    assert_eq!(post("application/vnd.kubernetes.protobuf", b"not"), 400);
    let wide: Vec<Value> =
        (0..20_000).map(|n| json!({"op": "add", "path": format!("/data/{n}"), "value": "x"})).collect();
    c.json("POST", MAPS, json!({"metadata": {"name": "a"}, "data": {}}));
    let patch =
        |form: &str, body: &[u8]| c.raw("PATCH", &format!("{MAPS}/a"), &[("Content-Type", form)], body).0;
    assert_eq!(patch("application/json-patch+json", Value::Array(wide).to_string().as_bytes()), 413);
    let doubling: Vec<Value> =
        (0..60).map(|_| json!({"op": "copy", "from": "/data", "path": "/data/x"})).collect();
    assert!(matches!(
        patch("application/json-patch+json", Value::Array(doubling).to_string().as_bytes()),
        400..=422
    ));
    assert_eq!(c.get(&format!("{MAPS}/a")).1["data"], json!({}));
}

#[test]
fn an_object_over_a_megabyte_of_data_is_refused_and_others_go_on() {
    let c = Cluster::start();
    let large = json!({"metadata": {"name": "a"}, "data": {"x": "y".repeat(1_200_000)}});
    let (code, status) = c.json("POST", MAPS, large);
    assert_eq!(code, 422, "{status}");
    let notes = json!({"metadata": {"name": "a", "annotations": {"x": "y".repeat(300_000)}}});
    assert_eq!(c.json("POST", MAPS, notes).0, 422);
    assert_eq!(c.get(MAPS).1["items"], json!([]));
}

#[test]
fn strangers_on_the_socket_disturb_nobody() {
    let c = Cluster::start();
    let address = c.url.trim_start_matches("https://");
    // Silence, and what is no TLS.
    let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut plain = TcpStream::connect(address).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    assert_eq!(c.get("/readyz").0, 200);
    drop(silent);
}

#[test]
fn a_foreign_certificate_opens_nothing() {
    let (c, other) = (Cluster::start(), Cluster::start());
    let output = std::process::Command::new("curl")
        .args(["-sS", "--cacert"])
        .arg(c.dir.path().join("pki/ca.crt"))
        .arg("--cert")
        .arg(other.dir.path().join("pki/admin.crt"))
        .arg("--key")
        .arg(other.dir.path().join("pki/admin.key"))
        .arg(format!("{}/api", c.url))
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn a_node_reaches_only_what_is_its_own() {
    let c = Cluster::start();
    for name in ["mine", "other"] {
        c.kubectl(&["create", "secret", "generic", name, "--from-literal=a=b"]).ok();
        c.kubectl_in(
            &["create", "-f", "-"],
            &format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n"),
        )
        .ok();
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {name}\n  containers:\n  \
             - {{name: c, image: i, envFrom: [{{secretRef: {{name: {name}}}}}]}}\n"
        );
        c.kubectl_in(&["create", "-f", "-"], &pod).ok();
    }
    let revision = c.api.store.revision();
    while c.api.authorizer.view().read().unwrap().revision() < revision {
        std::thread::yield_now();
    }
    let node = c.kubeconfig_of("system:node:mine", &["system:nodes"]);
    let as_node = |arguments: &[&str]| c.kubectl_as(&node, arguments, "");
    as_node(&["get", "secret", "mine"]).ok();
    as_node(&["get", "pod", "mine"]).ok();
    for arguments in [
        &["get", "secret", "other"][..],
        &["get", "secrets"],
        &["delete", "pod", "other", "--grace-period=0", "--wait=false"],
        &["label", "node", "other", "a=b"],
        &["delete", "node", "other"],
        &["create", "configmap", "x"],
        &["get", "--raw", "/metrics"],
        &["get", "--raw", "/limpet/v1/tokens"],
    ] {
        let words = as_node(arguments).fails();
        assert!(words.contains("orbidden"), "{arguments:?}: {words}");
    }
}

#[test]
fn stopping_ends_watches_and_lets_requests_finish() {
    let c = Cluster::start();
    let mut watch = c.watch(&format!("{MAPS}?watch=1"), "application/json");
    c.json("POST", MAPS, json!({"metadata": {"name": "a"}}));
    assert_eq!(watch.next_name().1, "a");
    c.stop();
    assert!(watch.ended());
}

/// CVE-2023-44487: requests that are taken back as soon as they are made.
#[test]
fn rapid_resets_harm_nobody() {
    let c = Cluster::start();
    c.runtime.block_on(async {
        let (tls, host) = http_client::connect(c.dir.path(), &c.url, "h2").await;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..5000 {
            // The server may end such a connection.
            if sender.ready().await.is_err() {
                break;
            }
            let request = Request::get(format!("https://{host}/api/v1/pods")).body(Empty::<Bytes>::new()).unwrap();
            drop(sender.send_request(request));
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(c.get("/api/v1/pods").0, 200);
    // Nothing of it is left.
    while c.api.metrics.in_flight.load(Ordering::Relaxed) != 0 {
        std::thread::yield_now();
    }
}
