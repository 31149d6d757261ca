//! The audit log on a real API server: what is in the file, what arrives at a webhook.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use limpet_hub::{audit::AuditOptions, guard::GuardOptions};
use limpet_store::Options;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};
use support::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn write(dir: &Path, name: &str, value: &Value) -> Option<std::path::PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, value.to_string()).unwrap();
    Some(path)
}

fn recorded(rules: Value) -> Cluster {
    Cluster::guarded(Options::default(), |dir| GuardOptions {
        audit: AuditOptions {
            policy_file: write(dir, "policy.yaml", &json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1",
                "omitStages": ["RequestReceived"], "rules": rules})),
            log_path: Some(dir.join("audit.log")),
            ..AuditOptions::default()
        },
        ..GuardOptions::default()
    })
}

/// Everything that is in the log now.
fn events(c: &Cluster) -> Vec<Value> {
    c.runtime.block_on(c.api.guard.end());
    let text = std::fs::read_to_string(c.dir.path().join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn levels_and_fields() {
    let c = recorded(json!([
        {"level": "None", "verbs": ["list"]},
        {"level": "RequestResponse", "resources": [{"resources": ["configmaps"]}], "omitManagedFields": true},
        {"level": "Request", "resources": [{"resources": ["secrets"]}]},
        {"level": "Metadata"},
    ]));
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    c.raw("POST", MAPS, &[("Content-Type", "application/json"), ("Audit-ID", "mine"), ("X-Forwarded-For", "192.0.2.7")],
        map.to_string().as_bytes());
    c.get(MAPS);
    c.json("POST", "/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}}));
    c.raw("PATCH", &format!("{MAPS}/a"), &[("Content-Type", "application/json-patch+json")],
        br#"[{"op":"add","path":"/data/x","value":"y"}]"#);
    c.raw("GET", "/api/v1/namespaces/default/pods/no", &[("Impersonate-User", "ann")], b"");
    c.get("/api/v1/namespaces/default/pods/no");
    let all = events(&c);
    assert_eq!(all.len(), 5, "{all:#?}");
    let created = &all[0];
    for (field, expect) in [
        ("auditID", json!("mine")),
        ("level", json!("RequestResponse")),
        ("stage", json!("ResponseComplete")),
        ("verb", json!("create")),
        ("requestURI", json!(MAPS)),
        ("sourceIPs", json!(["192.0.2.7", "127.0.0.1"])),
        ("objectRef", json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"})),
        ("responseStatus", json!({"metadata": {}, "code": 201})),
        ("requestObject", map),
    ] {
        assert_eq!(created[field], expect, "{field}");
    }
    assert_eq!(created["user"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert!(created["userAgent"].as_str().unwrap().starts_with("curl/"));
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    let object = &created["responseObject"];
    assert_eq!((&object["data"]["k"], &object["metadata"]["managedFields"]), (&json!("v"), &Value::Null));
    assert!(object["metadata"]["uid"].is_string());
    let time = created["requestReceivedTimestamp"].as_str().unwrap();
    assert_eq!((time.len(), &time[19..20], &time[26..]), (27, ".", "Z"), "{time}");
    let secret = &all[1];
    assert_eq!((&secret["level"], &secret["requestObject"]["metadata"]["name"]), (&json!("Request"), &json!("s")));
    assert!(secret.get("responseObject").is_none());
    assert_eq!(all[2]["requestObject"][0]["path"], "/data/x");
    let refused = &all[3];
    assert_eq!((&refused["impersonatedUser"]["username"], &refused["responseStatus"]["code"]), (&json!("ann"), &json!(403)));
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    let missing = &all[4];
    assert_eq!(missing["level"], "Metadata");
    assert_eq!(missing["responseStatus"]["reason"], "NotFound");
    assert!(missing.get("requestObject").is_none() && missing.get("responseObject").is_none());
    let (_, metrics) = c.raw("GET", "/metrics", &[], b"");
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("apiserver_audit_level_total{level=\"RequestResponse\"} 2"), "{metrics}");
}

#[test]
fn watches_and_strangers() {
    let c = recorded(json!([{"level": "Metadata", "verbs": ["watch"]}, {"level": "Metadata", "users": [""]},
        {"level": "Request", "resources": [{"resources": ["nodes"]}]}]));
    c.json("POST", MAPS, json!({"metadata": {"name": "a"}}));
    let mut watch = c.watch(&format!("{MAPS}?watch=1"), "application/json");
    watch.next();
    drop(watch);
    let stages = |all: &[Value]| all.iter().map(|e| e["stage"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut all = events(&c);
    // The server notices in its own time that the client is gone.
    while all.len() < 2 {
        std::thread::yield_now();
        all = events(&c);
    }
    assert_eq!(stages(&all), ["ResponseStarted", "ResponseComplete"]);
    let stranger = std::process::Command::new("curl")
        .args(["-sS", "-H", "Authorization: Bearer x", "--cacert"])
        .arg(c.dir.path().join("pki/ca.crt"))
        .arg(format!("{}/api", c.url))
        .output()
        .unwrap();
    assert!(stranger.status.success());
    let last = events(&c).pop().unwrap();
    assert_eq!((&last["stage"], &last["responseStatus"]["code"]), (&json!("ResponseStarted"), &json!(401)));
    assert_eq!(last["responseStatus"]["message"], "Authentication failed, attempted: bearer");
}

/// A server that answers each POST with the next of `codes`, then with 200, and hands the bodies on.
fn receiver(codes: &'static [u16]) -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let (sender, bodies) = channel();
    std::thread::spawn(move || {
        for (at, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut size = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    size = text.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; size];
            reader.read_exact(&mut body).unwrap();
            let code = codes.get(at).copied().unwrap_or(200);
            write!(stream, "HTTP/1.1 {code} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            if code == 200 && sender.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, bodies)
}

#[test]
fn a_webhook_that_fails_at_first_gets_all() {
    let (url, bodies) = receiver(&[503, 500]);
    let c = Cluster::guarded(Options::default(), |dir| GuardOptions {
        audit: AuditOptions {
            policy_file: write(dir, "policy.yaml", &json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1",
                "rules": [{"level": "Metadata", "resources": [{"resources": ["configmaps"]}]}]})),
            webhook_config_file: write(dir, "hook.yaml",
                &json!({"clusters": [{"name": "c", "cluster": {"server": url}}]})),
            webhook_batch_max_wait: Duration::from_millis(20),
            webhook_initial_backoff: Duration::from_millis(20),
            ..AuditOptions::default()
        },
        ..GuardOptions::default()
    });
    for name in ["a", "b"] {
        c.json("POST", MAPS, json!({"metadata": {"name": name}}));
    }
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let list = bodies.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
        seen.extend(list["items"].as_array().unwrap().iter().map(|e| e["stage"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen, ["RequestReceived", "ResponseComplete", "RequestReceived", "ResponseComplete"]);
    assert!(c.api.guard.figures().contains("apiserver_audit_error_total{plugin=\"webhook\"} 0"));
}
