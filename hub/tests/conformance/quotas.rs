//! What a quota counts, for each kind as it comes and goes, and by scope; ranges of limits.
//!
//! In: the hub of `live` with its controllers. Out: fails when `status.used` does not come to what is there.
//! Source: "ResourceQuota" and "LimitRange" of the conformance suite.

use crate::live::{Client, MERGE};
use serde_json::{Value, json};

fn pod(name: &str, more: Value) -> Value {
    let mut spec = json!({"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]})
}

/// Until exactly this is used of it.
fn used(c: &mut Client, quota: &str, what: &str, amount: &str) {
    let path = c.at("v1", &format!("resourcequotas/{quota}"));
    c.until(&format!("{quota}: {what} is {amount}"), |c| c.got(&path)["status"]["used"][what] == amount);
}

fn quota(c: &mut Client, name: &str, spec: Value) {
    let path = c.at("v1", "resourcequotas");
    let hard = spec["hard"].clone();
    c.made(&path, json!({"metadata": {"name": name}, "spec": spec}));
    c.until("the quota's status", |c| c.got(&format!("{path}/{name}"))["status"]["hard"] == hard);
}

#[test]
fn each_kind_is_counted_while_it_lives() {
    let mut c = Client::new("quota");
    let hard = json!({"count/replicasets.apps": "5", "replicationcontrollers": "5", "services": "5", "services.nodeports": "1",
        "services.loadbalancers": "1", "secrets": "9", "configmaps": "9", "persistentvolumeclaims": "5",
        "requests.storage": "10Gi", "gold.storageclass.storage.k8s.io/requests.storage": "5Gi"});
    quota(&mut c, "q", json!({"hard": hard}));
    used(&mut c, "q", "configmaps", "1");
    used(&mut c, "q", "secrets", "0");
    let template = json!({"metadata": {"labels": {"q": "q"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let selector = json!({"replicas": 0, "selector": {"matchLabels": {"q": "q"}}, "template": template});
    let claim = json!({"spec": {"storageClassName": "gold", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}}}});
    let cases = [
        ("v1", "configmaps", json!({}), vec![("configmaps", "2", "1")]),
        ("v1", "secrets", json!({}), vec![("secrets", "1", "0")]),
        ("v1", "services", json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}}),
            vec![("services", "1", "0"), ("services.nodeports", "1", "0"), ("services.loadbalancers", "0", "0")]),
        ("v1", "replicationcontrollers", json!({"spec": {"replicas": 0, "selector": {"q": "q"}, "template": template}}),
            vec![("replicationcontrollers", "1", "0")]),
        ("apps/v1", "replicasets", json!({"spec": selector}), vec![("count/replicasets.apps", "1", "0")]),
        ("v1", "persistentvolumeclaims", claim, vec![("persistentvolumeclaims", "1", "0"), ("requests.storage", "2Gi", "0"),
            ("gold.storageclass.storage.k8s.io/requests.storage", "2Gi", "0")]),
    ];
    for (api_version, plural, mut object, counts) in cases {
        let collection = c.at(api_version, plural);
        object["metadata"] = json!({"name": "counted"});
        c.made(&collection, object);
        for (what, there, _) in &counts {
            used(&mut c, "q", what, there);
        }
        c.deleted(&format!("{collection}/counted"), json!({}));
        for (what, _, gone) in &counts {
            used(&mut c, "q", what, gone);
        }
    }
    // More than one node port is too much.
    let services = c.at("v1", "services");
    let two = json!({"metadata": {"name": "two"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "name": "a"}, {"port": 81,
        "name": "b"}]}});
    let (code, status) = c.post(&services, two);
    assert_eq!(code, 403, "{status}");
    assert!(status["message"].as_str().unwrap().contains("exceeded quota: q, requested: services.nodeports=2"), "{status}");
}

#[test]
fn a_pod_is_counted_refused_and_let_go() {
    let mut c = Client::new("quota");
    let pods = c.at("v1", "pods");
    let extended = "requests.example.com/dongle";
    quota(&mut c, "q", json!({"hard": {"pods": "5", "cpu": "1", "memory": "500Mi", extended: "3"}}));
    let mut first = pod("first", requests("500m", "252Mi"));
    first["spec"]["containers"][0]["resources"]["requests"]["example.com/dongle"] = json!("2");
    first["spec"]["containers"][0]["resources"]["limits"] = json!({"example.com/dongle": "2"});
    c.made(&pods, first);
    for (what, amount) in [("pods", "1"), ("cpu", "500m"), ("memory", "252Mi"), (extended, "2")] {
        used(&mut c, "q", what, amount);
    }
    let (code, status) = c.post(&pods, pod("large", requests("600m", "100Mi")));
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")), "{status}");
    let (code, status) = c.post(&pods, pod("unsaid", json!({})));
    assert!(code == 403 && status["message"].as_str().unwrap().contains("must specify cpu"), "{status}");
    c.deleted(&format!("{pods}/first"), json!({"gracePeriodSeconds": 0}));
    for (what, amount) in [("pods", "0"), ("cpu", "0"), ("memory", "0"), (extended, "0")] {
        used(&mut c, "q", what, amount);
    }
}

#[test]
fn scopes_count_what_is_in_them() {
    let mut c = Client::new("quota");
    let pods = c.at("v1", "pods");
    for scope in ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort"] {
        quota(&mut c, &scope.to_lowercase(), json!({"hard": {"pods": "5"}, "scopes": [scope]}));
    }
    let expect = |c: &mut Client, counts: [&str; 4]| {
        for (name, count) in ["terminating", "notterminating", "besteffort", "notbesteffort"].iter().zip(counts) {
            used(c, name, "pods", count);
        }
    };
    c.made(&pods, pod("long", requests("100m", "10Mi")));
    expect(&mut c, ["0", "1", "0", "1"]);
    let mut short = pod("short", json!({}));
    short["spec"]["activeDeadlineSeconds"] = json!(3600);
    c.made(&pods, short);
    expect(&mut c, ["1", "1", "1", "1"]);
    c.deleted(&format!("{pods}/long"), json!({"gracePeriodSeconds": 0}));
    c.deleted(&format!("{pods}/short"), json!({"gracePeriodSeconds": 0}));
    expect(&mut c, ["0", "0", "0", "0"]);
    let quotas = c.at("v1", "resourcequotas");
    let (code, status) = c.post(&quotas, json!({"metadata": {"name": "x"}, "spec": {"hard": {"services": "1"},
        "scopes": ["BestEffort"]}}));
    assert_eq!(code, 422, "{status}");
}

#[test]
fn priorities_are_a_scope_too() {
    let mut c = Client::new("quota");
    let pods = c.at("v1", "pods");
    let class = format!("high-{}", c.namespace);
    c.made("/apis/scheduling.k8s.io/v1/priorityclasses", json!({"metadata": {"name": class}, "value": 1000}));
    let selector = |operator: &str, values: Value| {
        json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions":
            [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    quota(&mut c, "in", selector("In", json!([class])));
    quota(&mut c, "notin", selector("NotIn", json!([class])));
    quota(&mut c, "exists", json!({"hard": {"pods": "2"}, "scopeSelector": {"matchExpressions":
        [{"scopeName": "PriorityClass", "operator": "Exists"}]}}));
    let mut high = pod("high", json!({}));
    high["spec"]["priorityClassName"] = json!(class);
    c.made(&pods, high.clone());
    for (name, count) in [("in", "1"), ("notin", "0"), ("exists", "1")] {
        used(&mut c, name, "pods", count);
    }
    high["metadata"]["name"] = json!("higher");
    assert_eq!(c.post(&pods, high).0, 403);
    c.made(&pods, pod("low", json!({})));
    used(&mut c, "notin", "pods", "1");
}

#[test]
fn a_quota_is_changed_and_its_status_is_the_controllers() {
    let mut c = Client::new("quota");
    quota(&mut c, "q", json!({"hard": {"configmaps": "3"}}));
    let path = c.at("v1", "resourcequotas/q");
    c.changed(&path, |object| object["spec"]["hard"]["configmaps"] = json!("7"));
    c.until("the new bound", |c| c.got(&path)["status"]["hard"]["configmaps"] == "7");
    c.patched(&format!("{path}/status"), MERGE, json!({"status": {"hard": {"configmaps": "99"}}}));
    c.until("the controller mends it", |c| c.got(&path)["status"]["hard"]["configmaps"] == "7");
    c.delete(&path);
    c.gone(&path);
}

#[test]
fn a_range_fills_in_and_refuses() {
    let mut c = Client::new("quota");
    let (ranges, pods) = (c.at("v1", "limitranges"), c.at("v1", "pods"));
    c.made(&ranges, json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container",
        "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"},
        "default": {"cpu": "500m", "memory": "500Mi"}, "defaultRequest": {"cpu": "100m", "memory": "200Mi"}}]}}));
    let resources = |pod: &Value| pod["spec"]["containers"][0]["resources"].clone();
    let made = c.made(&pods, pod("nothing", json!({})));
    assert_eq!(resources(&made), json!({"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "500m",
        "memory": "500Mi"}}));
    let made = c.made(&pods, pod("some", requests("300m", "150Mi")));
    assert_eq!(resources(&made), json!({"requests": {"cpu": "300m", "memory": "150Mi"}, "limits": {"cpu": "500m",
        "memory": "500Mi"}}));
    for (name, cpu, memory) in [("small", "10m", "150Mi"), ("large", "600m", "150Mi"), ("fat", "100m", "600Mi")] {
        assert_eq!(c.post(&pods, pod(name, requests(cpu, memory))).0, 403, "{name}");
    }
    c.changed(&format!("{ranges}/r"), |object| object["spec"]["limits"][0]["min"] = json!({"cpu": "9m", "memory": "49Mi"}));
    c.until("what was small is let in", |c| c.post(&pods, pod("small", requests("10m", "150Mi"))).0 == 201);
    assert_eq!(c.delete(&format!("{ranges}?fieldSelector=metadata.name%3Dr")).0, 200);
    c.gone(&format!("{ranges}/r"));
    c.until("no range any more", |c| c.post(&pods, pod("large", requests("600m", "600Mi"))).0 == 201);
}
