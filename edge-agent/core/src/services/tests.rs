//! Tables, variables and names from the items of a small cluster.

use super::*;
use limpet_protocol::ItemKey;
use serde_json::json;

fn items() -> Items {
    let mut items = Items::default();
    let mut put = |kind, namespace: &str, name: &str, body: serde_json::Value| {
        items.put(ItemKey::new(kind, namespace, name), 1, body.to_string().as_bytes());
    };
    put(ItemKind::Service, "default", "web-app", json!({"spec": {"clusterIP": "10.96.0.10", "ports": [
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]}}));
    put(ItemKind::Service, "default", "db", json!({"spec": {"clusterIP": "None", "ports": [
        {"name": "pg", "port": 5432}]}}));
    put(ItemKind::Service, "other", "far", json!({"spec": {"type": "ExternalName", "externalName": "example.org"}}));
    let slice = |service: &str, port: &str, number: u16, eps: serde_json::Value| json!({
        "metadata": {"labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
        "ports": [{"name": port, "port": number}], "endpoints": eps});
    put(ItemKind::EndpointSlice, "default", "web-1", slice("web-app", "http", 8080, json!([
        {"addresses": ["10.42.0.3"], "conditions": {"ready": true}},
        {"addresses": ["10.42.0.2"]}, {"addresses": ["10.42.0.4"], "conditions": {"ready": false}}])));
    put(ItemKind::EndpointSlice, "default", "db-1", slice("db", "pg", 5432, json!([
        {"addresses": ["10.42.0.9"], "hostname": "db-0"}])));
    items
}

#[test]
fn backends_are_the_ready_ones_in_order() {
    let table = table(&items(), &Local::default());
    let web = table.iter().find(|s| s.name == "web-app").unwrap();
    let ips: Vec<&str> = web.ports[0].backends.iter().map(|b| b.ip.as_str()).collect();
    assert_eq!(ips, ["10.42.0.2", "10.42.0.3"]);
}

#[test]
fn variables_of_services() {
    let env = environment(&items(), "default", true, Some(&("192.0.2.1".into(), 6443)));
    let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(get("WEB_APP_SERVICE_HOST"), Some("10.96.0.10"));
    assert_eq!(get("WEB_APP_SERVICE_PORT_HTTP"), Some("80"));
    assert_eq!(get("WEB_APP_PORT_80_TCP_ADDR"), Some("10.96.0.10"));
    assert_eq!(get("WEB_APP_PORT"), Some("tcp://10.96.0.10:80"));
    assert_eq!(get("DB_SERVICE_HOST"), None);
    assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("192.0.2.1"));
    let without = environment(&items(), "default", false, None);
    assert!(without.is_empty());
}

#[test]
fn names_are_answered_refused_or_passed_on() {
    let names = Names::new("cluster.local", table(&items(), &Local::default()));
    let a = |ip: &str| Record2::Address(ip.parse().unwrap());
    use super::DnsRecord as Record2;
    for (name, wanted, answer) in [
        ("web-app.default.svc.cluster.local", Wanted::A, Answer::Records(vec![a("10.96.0.10")])),
        ("WEB-APP.default.svc.cluster.local.", Wanted::A, Answer::Records(vec![a("10.96.0.10")])),
        ("web-app.default.svc.cluster.local", Wanted::Aaaa, Answer::Records(vec![])),
        ("nope.default.svc.cluster.local", Wanted::A, Answer::NoSuchName),
        ("db.default.svc.cluster.local", Wanted::A, Answer::Records(vec![a("10.42.0.9")])),
        ("db-0.db.default.svc.cluster.local", Wanted::A, Answer::Records(vec![a("10.42.0.9")])),
        ("db-1.db.default.svc.cluster.local", Wanted::A, Answer::NoSuchName),
        (
            "_http._tcp.web-app.default.svc.cluster.local",
            Wanted::Srv,
            Answer::Records(vec![Record2::Srv { port: 80, target: "web-app.default.svc.cluster.local".into() }]),
        ),
        (
            "_pg._tcp.db.default.svc.cluster.local",
            Wanted::Srv,
            Answer::Records(vec![Record2::Srv { port: 5432, target: "db-0.db.default.svc.cluster.local".into() }]),
        ),
        ("far.other.svc.cluster.local", Wanted::A, Answer::Records(vec![Record2::Cname("example.org".into())])),
        ("default.svc.cluster.local", Wanted::A, Answer::Records(vec![])),
        ("example.org", Wanted::A, Answer::NotOurs),
        ("xcluster.local", Wanted::A, Answer::NotOurs),
        (
            "10.0.96.10.in-addr.arpa",
            Wanted::Ptr,
            Answer::Records(vec![Record2::Ptr("web-app.default.svc.cluster.local".into())]),
        ),
        ("1.2.3.4.in-addr.arpa", Wanted::Ptr, Answer::NotOurs),
    ] {
        assert_eq!(names.lookup(name, wanted), answer, "{name}");
    }
}

#[test]
fn pods_of_the_node_are_preferred() {
    let backend = |ip: &str, node: &str| Backend { ip: ip.into(), node: node.into(), ..Backend::default() };
    let port = |backends: Vec<Backend>| ServicePortEntry { backends, ..ServicePortEntry::default() };
    let ips = |p: &ServicePortEntry, local: bool| -> Vec<String> {
        p.reachable("n1", local).map(|b| b.ip.clone()).collect()
    };
    let both = port(vec![backend("10.42.0.2", "n1"), backend("10.42.1.2", "n2")]);
    assert_eq!(ips(&both, false), ["10.42.0.2"]);
    let far = port(vec![backend("10.42.1.2", "n2")]);
    assert_eq!(ips(&far, false), ["10.42.1.2"]);
    assert!(ips(&far, true).is_empty());
    assert_eq!(ips(&port(vec![backend("192.0.2.1", "")]), true), ["192.0.2.1"]);
}

/// The board has lost power while the hub was away: its pods have other addresses, and the hub's slices are of before.
#[test]
fn the_boards_own_pods_are_where_they_are_now() {
    let mut items = Items::default();
    let mut put = |kind, name: &str, body: serde_json::Value| {
        items.put(ItemKey::new(kind, "default", name), 1, body.to_string().as_bytes());
    };
    put(ItemKind::Service, "web", json!({"spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}}));
    let endpoint = |ip: &str, node: &str, pod: &str, conditions: serde_json::Value| json!({"addresses": [ip], "nodeName": node,
        "conditions": conditions, "targetRef": {"kind": "Pod", "namespace": "default", "name": pod, "uid": pod}});
    put(ItemKind::EndpointSlice, "web-1", json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"port": 8080}], "endpoints": [
            endpoint("10.42.0.2", "here", "moved", json!({"ready": true})),
            endpoint("10.42.0.3", "here", "waits", json!({"ready": true})),
            endpoint("10.42.0.4", "here", "well", json!({"ready": false})),
            endpoint("10.42.0.5", "here", "going", json!({"ready": false, "terminating": true})),
            endpoint("10.42.0.6", "here", "unknown", json!({"ready": true})),
            endpoint("10.42.1.2", "there", "moved", json!({"ready": true}))]}));
    let objects = ["moved", "waits", "well", "going"].map(|name| {
        crate::api::parse::<crate::api::Pod>(json!({"metadata": {"name": name, "namespace": "default"}}).to_string().as_bytes())
            .unwrap()
    });
    let ips = ["10.42.0.9", "", "10.42.0.10", "10.42.0.11"].map(|ip| if ip.is_empty() { vec![] } else { vec![ip.to_string()] });
    let uid: crate::pods::Uid = "u".into();
    let view = |n: usize| crate::pods::PodView {
        uid: &uid,
        object: &objects[n],
        ips: &ips[n],
        sandbox_ready: n != 1,
        ready: n != 1,
        is_static: false,
    };
    let seen = |local: &Local| -> Vec<String> {
        table(&items, local)[0].ports[0].backends.iter().map(|b| b.ip.clone()).collect()
    };
    assert_eq!(seen(&Local::default()), ["10.42.0.2", "10.42.0.3", "10.42.0.6", "10.42.1.2"], "as the hub has said");
    let local = Local::new("here", (0..4).map(view));
    assert_eq!(seen(&local), ["10.42.0.10", "10.42.0.6", "10.42.0.9", "10.42.1.2"]);
}
