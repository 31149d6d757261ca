//! Scenarios of endpoints in the test world.
//!
//! In: objects and disturbances. Out: what the cluster looks like at rest. Never: a clock or a network.

use super::*;
use crate::world::World;

fn service(port: Value) -> Value {
    json!({"metadata": {"name": "s", "namespace": "a", "labels": {"l": "1"}},
        "spec": {"clusterIP": "10.43.0.9", "selector": {"app": "x"}, "ports": [port]}})
}

fn pod(name: &str, port: i32) -> Value {
    json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]}})
}

fn slice(w: &World) -> &Value {
    let all = w.list("discovery.k8s.io/endpointslices");
    assert_eq!(all.len(), 1);
    all[0]
}

#[test]
fn an_empty_service_has_one_empty_slice() {
    let mut w = World::with_nodes(1);
    w.create("/services", service(json!({"port": 80})));
    w.settle();
    assert_eq!(slice(&w)["endpoints"], json!([]));
    assert_eq!(slice(&w)["metadata"]["labels"][SERVICE_NAME], "s");
    w.delete("/services", "a", "s");
    w.settle();
    assert_eq!(w.list("discovery.k8s.io/endpointslices").len() + w.list("/endpoints").len(), 0);
}

#[test]
fn endpoints_follow_their_pods() {
    let mut w = World::with_nodes(1);
    w.create("/services", service(json!({"name": "web", "port": 80, "targetPort": "http"})));
    w.create("/pods", pod("p", 8080));
    w.sick = vec!["q".into()];
    w.create("/pods", pod("q", 8080));
    w.settle();
    let s = slice(&w);
    assert_eq!(s["ports"], json!([{"name": "web", "port": 8080, "protocol": "TCP"}]));
    let ready = |w: &World| -> Vec<Value> {
        slice(w)["endpoints"].as_array().unwrap().iter().map(|e| e["conditions"]["ready"].clone()).collect()
    };
    assert_eq!(ready(&w), [json!(true), json!(false)]);
    let e = &w.get("/endpoints", "a", "s")["subsets"][0];
    assert_eq!(e["addresses"][0]["targetRef"]["name"], "p");
    assert_eq!(e["notReadyAddresses"][0]["targetRef"]["name"], "q");
    w.heal("q");
    w.settle();
    assert_eq!(ready(&w), [json!(true), json!(true)]);
    w.kubelet = false;
    w.delete("/pods", "a", "p");
    w.settle();
    let gone = &slice(&w)["endpoints"][0]["conditions"];
    assert_eq!(*gone, json!({"ready": false, "serving": true, "terminating": true}));
    w.kubelet = true;
    w.settle();
    assert_eq!(ready(&w), [json!(true)]);
}

#[test]
fn different_ports_are_different_slices_and_large_services_have_several() {
    let mut w = World::with_nodes(3);
    w.create("/services", service(json!({"port": 80, "targetPort": "http"})));
    w.create("/pods", pod("other", 9000));
    for i in 0..150 {
        w.create("/pods", pod(&format!("p{i}"), 8080));
    }
    w.settle();
    let sizes = |w: &World| {
        let of = |s: &&Value| s["endpoints"].as_array().unwrap().len();
        let mut sizes: Vec<usize> = w.list("discovery.k8s.io/endpointslices").iter().map(of).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&w), [1, 50, 100]);
    w.delete("/pods", "a", "other");
    w.settle();
    assert_eq!(sizes(&w), [50, 100]);
    assert_eq!(w.get("/endpoints", "a", "s")["subsets"].as_array().unwrap().len(), 1);
}

#[test]
fn services_without_selector_are_left_alone() {
    let mut w = World::with_nodes(1);
    let mut s = service(json!({"port": 80}));
    s["spec"]["selector"] = Value::Null;
    w.create("/services", s);
    w.create("/endpoints", json!({"metadata": {"name": "s", "namespace": "a"}, "subsets": []}));
    w.settle();
    assert_eq!(w.list("discovery.k8s.io/endpointslices").len(), 0);
    w.delete("/services", "a", "s");
    w.settle();
    assert_eq!(w.list("/endpoints").len(), 1);
}

/// What a pod is, and what its endpoint says: ready, serving, terminating; and where Endpoints has it.
#[test]
fn conditions_of_endpoints() {
    // publishNotReadyAddresses, ready, being deleted, phase -> the slice's conditions, the field of Endpoints.
    let cases = [
        (false, true, false, "Running", Some((true, true, false)), "addresses"),
        (false, false, false, "Running", Some((false, false, false)), "notReadyAddresses"),
        (false, true, true, "Running", Some((false, true, true)), ""),
        (false, false, true, "Running", Some((false, false, true)), ""),
        (true, true, false, "Running", Some((true, true, false)), "addresses"),
        (true, false, false, "Running", Some((true, false, false)), "addresses"),
        (true, true, true, "Running", Some((true, true, true)), "addresses"),
        (true, false, true, "Running", Some((true, false, true)), "addresses"),
        (false, false, false, "Succeeded", None, ""),
        (true, true, false, "Failed", None, ""),
    ];
    for (publish, ready, going, phase, conditions, place) in cases {
        let mut w = World::with_nodes(1);
        w.kubelet = false;
        let mut s = service(json!({"port": 80}));
        s["spec"]["publishNotReadyAddresses"] = json!(publish);
        w.create("/services", s);
        let mut p = pod("p", 8080);
        p["spec"]["nodeName"] = json!("n0");
        p["metadata"]["finalizers"] = json!(["x.io/hold"]);
        let is_ready = if ready { "True" } else { "False" };
        p["status"] = json!({"phase": phase, "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}],
            "conditions": [{"type": "Ready", "status": is_ready}]});
        w.create("/pods", p);
        if going {
            w.delete("/pods", "a", "p");
        }
        w.settle();
        let case = format!("{publish} {ready} {going} {phase}");
        let wanted = conditions.map(|(r, s, t)| json!({"ready": r, "serving": s, "terminating": t}));
        let found = slice(&w)["endpoints"].get(0).map(|e| e["conditions"].clone());
        assert_eq!(found, wanted, "{case}");
        let subset = w.get("/endpoints", "a", "s")["subsets"].get(0).cloned().unwrap_or_default();
        let fields: Vec<&String> = subset.as_object().into_iter().flatten().map(|(k, _)| k).filter(|k| *k != "ports").collect();
        assert_eq!(fields, if place.is_empty() { vec![] } else { vec![place] }, "{case}");
    }
}

#[test]
fn each_family_has_its_slices_and_endpoints_the_first() {
    let families = |w: &World| -> Vec<(String, Vec<Value>)> {
        let one = |s: &&Value| {
            let ends = s["endpoints"].as_array().cloned().unwrap_or_default();
            (s["addressType"].as_str().unwrap().to_owned(), ends.into_iter().map(|e| e["addresses"][0].clone()).collect())
        };
        let mut all: Vec<_> = w.list("discovery.k8s.io/endpointslices").iter().map(one).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    for (order, first) in [(json!(["IPv4", "IPv6"]), "10.0.0.7"), (json!(["IPv6", "IPv4"]), "fd00::7")] {
        let mut w = World::with_nodes(1);
        w.kubelet = false;
        let mut s = service(json!({"port": 80}));
        s["spec"]["ipFamilies"] = order;
        s["metadata"]["labels"][HEADLESS] = json!("said by the user");
        w.create("/services", s);
        w.settle();
        assert_eq!(families(&w), [("IPv4".into(), vec![]), ("IPv6".into(), vec![])], "one empty slice of each");
        assert!(w.list("discovery.k8s.io/endpointslices").iter().all(|s| s["metadata"]["labels"][HEADLESS].is_null()));
        let mut p = pod("p", 8080);
        p["spec"]["nodeName"] = json!("n0");
        p["status"] = json!({"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
            "conditions": [{"type": "Ready", "status": "True"}]});
        w.create("/pods", p);
        w.settle();
        assert_eq!(families(&w), [("IPv4".into(), vec![json!("10.0.0.7")]), ("IPv6".into(), vec![json!("fd00::7")])]);
        assert_eq!(w.get("/endpoints", "a", "s")["subsets"][0]["addresses"][0]["ip"], first);
    }
}

#[test]
fn hints_say_whom_an_endpoint_is_for() {
    let cases = [
        (Value::Null, true, Value::Null),
        (json!("PreferClose"), true, json!({"forZones": [{"name": "z1"}]})),
        (json!("PreferSameZone"), true, json!({"forZones": [{"name": "z1"}]})),
        (json!("PreferSameNode"), true, json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": "n0"}]})),
        (json!("PreferSameNode"), false, Value::Null),
        (json!("Other"), true, Value::Null),
    ];
    for (distribution, healthy, hints) in cases {
        let mut w = World::new();
        w.node("n0", json!({"topology.kubernetes.io/zone": "z1"}), json!([]));
        let mut s = service(json!({"port": 80}));
        s["spec"]["trafficDistribution"] = distribution.clone();
        w.create("/services", s);
        if !healthy {
            w.sick = vec!["p".into()];
        }
        w.create("/pods", pod("p", 8080));
        w.settle();
        assert_eq!(slice(&w)["endpoints"][0]["hints"], hints, "{distribution} {healthy}");
        assert_eq!(slice(&w)["endpoints"][0]["zone"], "z1");
    }
}
