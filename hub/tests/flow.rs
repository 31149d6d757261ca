//! Priority and fairness on a real API server: the objects that every cluster has, and objects that act at once.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use limpet_hub::pki::Subject;
use serde_json::{Value, json};
use std::{process::Command, time::SystemTime};
use support::Cluster;

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Code and headers of a GET as somebody.
fn ask(c: &Cluster, name: &str) -> (u16, String) {
    let (certificate, key) = (c.dir.path().join(format!("{name}.crt")), c.dir.path().join(format!("{name}.key")));
    if !certificate.exists() {
        let issued = c.pki.issue_client(&Subject::client(name, &[]), 1, SystemTime::now()).unwrap();
        std::fs::write(&certificate, &issued.certificate_pem).unwrap();
        std::fs::write(&key, &issued.key_pem).unwrap();
    }
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-o", "/dev/null", "-D", "-", "-w", "%{http_code}", "--cacert"]);
    curl.arg(c.dir.path().join("pki/ca.crt")).arg("--cert").arg(&certificate).arg("--key").arg(&key);
    let text = String::from_utf8(curl.arg(format!("{}{PODS}", c.url)).output().unwrap().stdout).unwrap();
    let (head, code) = text.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), head.to_ascii_lowercase())
}

fn uid(c: &Cluster, path: &str, name: &str) -> String {
    c.get(&format!("{path}/{name}")).1["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[test]
fn what_every_cluster_has() {
    let c = Cluster::start();
    let names = |path: &str| {
        let items = c.get(path).1["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(SCHEMAS).len(), 13);
    assert_eq!(names(LEVELS).len(), 8);
    // Deleted ones come back.
    assert_eq!(c.raw("DELETE", &format!("{SCHEMAS}/global-default"), &[], b"").0, 200);
    while c.get(&format!("{SCHEMAS}/global-default")).0 != 200 {}
    loop {
        let table = c.kubectl(&["get", "flowschemas"]).ok();
        let missing = table.lines().skip(1).filter(|line| !line.trim_end().ends_with("False")).count();
        if missing == 0 {
            break;
        }
    }
}

#[test]
fn answers_say_what_decided() {
    let c = Cluster::start();
    let (_, head) = ask(&c, "ann");
    let schema = format!("x-kubernetes-pf-flowschema-uid: {}", uid(&c, SCHEMAS, "global-default"));
    let level = format!("x-kubernetes-pf-prioritylevel-uid: {}", uid(&c, LEVELS, "global-default"));
    assert!(head.contains(&schema) && head.contains(&level), "{head}");
    let (_, metrics) = c.raw("GET", "/metrics", &[], b"");
    let metrics = String::from_utf8(metrics).unwrap();
    for line in [
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245",
        "apiserver_flowcontrol_current_inqueue_requests{priority_level=\"workload-low\"} 0",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"}",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn objects_act_at_once() {
    let c = Cluster::start();
    assert_eq!(ask(&c, "ann").0, 403);
    let limited = json!({"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}});
    let level = json!({"metadata": {"name": "shut"}, "spec": {"type": "Limited", "limited": limited}});
    let rule = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["default"]});
    let schema = json!({"metadata": {"name": "shut"}, "spec": {
        "priorityLevelConfiguration": {"name": "shut"}, "matchingPrecedence": 50,
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "ann"}}], "resourceRules": [rule]}]}});
    let made = |path: &str, object: Value| assert_eq!(c.json("POST", path, object).0, 201);
    made(LEVELS, level);
    made(SCHEMAS, schema);
    let head = loop {
        let (code, head) = ask(&c, "ann");
        if code == 429 {
            break head;
        }
        assert_eq!(code, 403);
    };
    assert!(head.contains("retry-after: 1"), "{head}");
    // Others and the operator go on.
    assert_eq!((ask(&c, "bob").0, c.get(PODS).0), (403, 200));
    let (_, metrics) = c.raw("GET", "/metrics", &[], b"");
    let labels = "flow_schema=\"shut\",priority_level=\"shut\",reason=\"concurrency-limit\"";
    let line = &format!("apiserver_flowcontrol_rejected_requests_total{{{labels}}}");
    assert!(String::from_utf8(metrics).unwrap().contains(line));
    assert_eq!(c.raw("DELETE", &format!("{SCHEMAS}/shut"), &[], b"").0, 200);
    while ask(&c, "ann").0 != 403 {}
}
