//! Quotas, limits and budgets through the real API, by many clients at the same time.
//!
//! In: a hub's API. Out: what is let in, and the words of what is not. Never: a node.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::Cluster;

fn at(plural: &str) -> String {
    format!("/api/v1/namespaces/default/{plural}")
}

fn quota(c: &Cluster, name: &str, spec: Value) {
    let (code, said) = c.json("POST", &at("resourcequotas"), json!({"metadata": {"name": name}, "spec": spec}));
    assert_eq!(code, 201, "{said}");
}

fn pod(name: &str, resources: Value) -> Value {
    let container = json!({"name": "c", "image": "i", "resources": resources});
    json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
}

/// The reason after "is forbidden: ", empty when it was let in.
fn refused(c: &Cluster, plural: &str, object: Value) -> String {
    let (code, said) = c.json("POST", &at(plural), object);
    if code == 201 {
        return String::new();
    }
    assert_eq!(code, 403, "{said}");
    let message = said["message"].as_str().unwrap();
    message.split_once(" is forbidden: ").unwrap().1.to_owned()
}

#[test]
fn many_at_the_same_time_never_exceed_a_quota() {
    let c = Cluster::start();
    quota(&c, "q", json!({"hard": {"count/configmaps": "7", "requests.cpu": "500m", "pods": "9"}}));
    let let_in = |plural: &'static str, object: &(dyn Fn(usize, usize) -> Value + Sync)| -> usize {
        let c = &c;
        let start = &std::sync::Barrier::new(16);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..16)
                .map(|t| {
                    scope.spawn(move || {
                        let made = |n: &usize| {
                            // All at the same moment, again and again.
                            start.wait();
                            c.json("POST", &at(plural), object(t, *n)).0 == 201
                        };
                        (0..4).filter(made).count()
                    })
                })
                .collect();
            clients.into_iter().map(|t| t.join().unwrap()).sum()
        })
    };
    // The namespace's own kube-root-ca.crt may be there already.
    let there = c.get(&at("configmaps")).1["items"].as_array().unwrap().len();
    let map = |t: usize, n: usize| json!({"metadata": {"name": format!("m-{t}-{n}")}});
    assert_eq!(let_in("configmaps", &map), 7 - there);
    let pods = |t: usize, n: usize| pod(&format!("p-{t}-{n}"), json!({"requests": {"cpu": "80m"}}));
    assert_eq!(let_in("pods", &pods), 6, "six times 80m are 480m");
}

#[test]
fn quotas_see_what_is_in_their_scope() {
    let c = Cluster::start();
    quota(&c, "best", json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}));
    quota(&c, "short", json!({"hard": {"pods": "0"}, "scopes": ["Terminating"]}));
    let class = json!({"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["system-cluster-critical"]}]});
    quota(&c, "critical", json!({"hard": {"pods": "0"}, "scopeSelector": class}));
    assert_eq!(refused(&c, "pods", pod("a", json!({}))), "");
    let words = "exceeded quota: best, requested: pods=1, used: pods=1, limited: pods=1";
    assert_eq!(refused(&c, "pods", pod("b", json!({}))), words);
    let some = json!({"requests": {"cpu": "1m"}});
    assert_eq!(refused(&c, "pods", pod("c", some.clone())), "");
    let mut deadline = pod("d", some.clone());
    deadline["spec"]["activeDeadlineSeconds"] = json!(9);
    assert!(refused(&c, "pods", deadline).starts_with("exceeded quota: short, "));
    let mut critical = pod("e", some);
    critical["spec"]["priorityClassName"] = json!("system-cluster-critical");
    assert!(refused(&c, "pods", critical).starts_with("exceeded quota: critical, "));
}

#[test]
fn quotas_of_storage_services_and_vendors_resources() {
    let c = Cluster::start();
    quota(&c, "q", json!({"hard": {"requests.storage": "3Gi", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi",
        "services.nodeports": "1", "requests.vendor.com/gpu": "1", "limits.cpu": "2"}}));
    let claim = |name: &str, class: &str, size: &str| json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": size}}}});
    let claims = "persistentvolumeclaims";
    assert_eq!(refused(&c, claims, claim("a", "tin", "2Gi")), "");
    let of_gold = "gold.storageclass.storage.k8s.io/requests.storage";
    let words = format!("exceeded quota: q, requested: {of_gold}=2Gi,requests.storage=2Gi, used: {of_gold}=0,\
        requests.storage=2Gi, limited: {of_gold}=1Gi,requests.storage=3Gi");
    assert_eq!(refused(&c, claims, claim("b", "gold", "2Gi")), words);
    assert_eq!(refused(&c, claims, claim("c", "gold", "1Gi")), "");
    let service = |name: &str, type_: &str| json!({"metadata": {"name": name}, "spec": {"type": type_, "ports": [{"port": 80}]}});
    assert_eq!(refused(&c, "services", service("a", "NodePort")), "");
    assert!(refused(&c, "services", service("b", "NodePort")).starts_with("exceeded quota: q, requested: services.nodeports=1"));
    assert_eq!(refused(&c, "services", service("c", "ClusterIP")), "");
    let (code, said) = c.json("PUT", &at("services/c"), service("c", "NodePort"));
    assert_eq!(code, 403, "a change that takes more counts: {said}");
    assert_eq!(refused(&c, "pods", pod("a", json!({}))), "failed quota: q: must specify limits.cpu for: c");
    let one = json!({"limits": {"cpu": "1", "vendor.com/gpu": "1"}, "requests": {"vendor.com/gpu": "1"}});
    assert_eq!(refused(&c, "pods", pod("b", one.clone())), "");
    assert!(refused(&c, "pods", pod("c", one)).contains("requested: requests.vendor.com/gpu=1, used: requests.vendor.com/gpu=1"));
    assert_eq!(refused(&c, "pods", pod("d", json!({"limits": {"cpu": "1"}}))), "", "a pod without the vendor's resource");
}

#[test]
fn limits_of_containers_pods_and_claims() {
    let c = Cluster::start();
    let limits = json!([
        {"type": "Container", "min": {"cpu": "50m"}, "max": {"memory": "1Gi"}, "maxLimitRequestRatio": {"cpu": "2"}},
        {"type": "Pod", "max": {"cpu": "1"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]);
    let (code, said) = c.json("POST", &at("limitranges"), json!({"metadata": {"name": "l"}, "spec": {"limits": limits}}));
    assert_eq!(code, 201, "{said}");
    let cases = [
        (json!({"limits": {"cpu": "100m", "memory": "1Gi"}}), ""),
        (json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "20m", "memory": "1Gi"}}),
            "minimum cpu usage per Container is 50m, but request is 10m"),
        (json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m", "memory": "1Gi"}}),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"),
        (json!({"limits": {"cpu": "2", "memory": "1Gi"}}), "maximum cpu usage per Pod is 1, but limit is 2"),
        (json!({"limits": {"memory": "1Gi"}}), "[cpu max limit to request ratio per Container is 2, but no limit is specified \
            or limit is 0, maximum cpu usage per Pod is 1.  No limit is specified]"),
    ];
    for (n, (resources, want)) in cases.into_iter().enumerate() {
        let got = refused(&c, "pods", pod(&format!("p{n}"), resources.clone()));
        assert_eq!(got, want, "{resources}");
    }
    for (size, want) in [
        ("1Gi", ""),
        ("1Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"),
        ("3Gi", "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
    ] {
        let claim = json!({"metadata": {"name": format!("c-{}", size.to_lowercase())}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
        assert_eq!(refused(&c, "persistentvolumeclaims", claim), want);
    }
}

#[test]
fn many_evictions_at_the_same_time_never_break_a_budget() {
    let c = Cluster::start();
    for n in 0..8 {
        let mut pod = pod(&format!("p{n}"), json!({}));
        pod["metadata"]["labels"] = json!({"app": "x"});
        let (code, said) = c.json("POST", &at("pods"), pod);
        assert_eq!(code, 201, "{said}");
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let patch = [("Content-Type", "application/merge-patch+json")];
        assert_eq!(c.raw("PATCH", &at(&format!("pods/p{n}/status")), &patch, ready.to_string().as_bytes()).0, 200);
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let spec = json!({"minAvailable": 5, "selector": {"matchLabels": {"app": "x"}}});
    let (code, said) = c.json("POST", budgets, json!({"metadata": {"name": "b"}, "spec": spec}));
    assert_eq!(code, 201, "{said}");
    // What the controller would say; nobody else counts here.
    let status = json!({"status": {"disruptionsAllowed": 3, "currentHealthy": 8, "desiredHealthy": 5, "expectedPods": 8,
        "observedGeneration": said["metadata"]["generation"]}});
    let patch = [("Content-Type", "application/merge-patch+json")];
    assert_eq!(c.raw("PATCH", &format!("{budgets}/b/status"), &patch, status.to_string().as_bytes()).0, 200);
    let evicted: usize = std::thread::scope(|scope| {
        let c = &c;
        let clients: Vec<_> = (0..8)
            .map(|n| {
                scope.spawn(move || {
                    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": format!("p{n}")}});
                    usize::from(c.json("POST", &at(&format!("pods/p{n}/eviction")), eviction).0 == 201)
                })
            })
            .collect();
        clients.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(evicted, 3);
    let left = c.get(&at("pods")).1;
    let alive = left["items"].as_array().unwrap().iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).count();
    assert_eq!(alive, 5);
}
