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
