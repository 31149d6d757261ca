//! What a node is told, and of which changes it hears.

use super::*;

fn put(view: &mut ObjectStore, revision: u64, resource: &str, object: Value) -> Changed {
    let at = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (ns, name) = (at("/metadata/namespace"), at("/metadata/name"));
    view.apply(revision, resource, &ns, &name, Some(object.to_string().into_bytes().into()))
}

fn pod(name: &str, node: &str, secret: &str, phase: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "7",
            "managedFields": [{}]},
        "spec": {"nodeName": node, "serviceAccountName": "default",
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}]}],
            "volumes": [{"name": "s", "secret": {"secretName": secret}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]},
        "status": {"phase": phase}})
}

fn named(kind: &str, namespace: &str, name: &str) -> Value {
    json!({"kind": kind, "metadata": {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "3"}})
}

fn world() -> ObjectStore {
    let mut view = ObjectStore::new();
    put(&mut view, 1, "/nodes", json!({"metadata": {"name": "n1", "uid": "n1"}}));
    for secret in ["s1", "s2", "s3"] {
        put(&mut view, 2, "/secrets", named("Secret", "a", secret));
    }
    put(&mut view, 3, "/configmaps", named("ConfigMap", "a", "m"));
    put(&mut view, 4, "/services", named("Service", "a", "web"));
    put(&mut view, 4, "/services", named("Service", "b", "other"));
    put(&mut view, 4, "/services", named("Service", "default", "kubernetes"));
    put(&mut view, 4, "/services", named("Service", "default", "private"));
    put(&mut view, 5, "/pods", pod("p1", "n1", "s1", "Running"));
    put(&mut view, 6, "/pods", pod("p2", "n2", "s2", "Running"));
    view
}

#[test]
fn a_board_hears_of_a_pod_when_its_binding_is_stored_and_not_before() {
    let mut view = world();
    let mut loose = pod("p3", "n1", "s3", "Pending");
    loose["spec"].as_object_mut().unwrap().remove("nodeName");
    put(&mut view, 7, "/pods", loose.clone());
    view.assume_bound("a", "p3", "p3", "n1");
    let key = ItemKey::new(ItemKind::Pod, "a", "p3");
    let secret = ItemKey::new(ItemKind::Secret, "a", "s3");
    let knows = |view: &ObjectStore| {
        let items = wanted(view, "n1").items;
        (items.contains_key(&key), items.contains_key(&secret))
    };
    assert_eq!(knows(&view), (false, false));
    // Somebody says something of the pod meanwhile.
    loose["metadata"]["labels"] = json!({"app": "web"});
    put(&mut view, 8, "/pods", loose.clone());
    assert_eq!(knows(&view), (false, false));
    loose["spec"]["nodeName"] = json!("n1");
    let changed = put(&mut view, 9, "/pods", loose);
    assert!(!looks_the_same(&changed));
    assert_eq!(knows(&view), (true, true));
}

#[test]
fn a_node_knows_what_its_pods_name_and_no_more() {
    let wanted = wanted(&world(), "n1");
    let names: Vec<String> =
        wanted.items.keys().map(|k| format!("{:?} {}/{}", k.kind, k.namespace, k.name)).collect();
    assert_eq!(
        names,
        [
            "Node /n1",
            "Pod a/p1",
            "ConfigMap a/m",
            "Secret a/s1",
            "Service a/web",
            "Service default/kubernetes"
        ]
    );
    assert_eq!(wanted.tokens.len(), 1);
    assert_eq!(wanted.digest.count, 6);
    let body = body(&world(), &ItemKey::new(ItemKind::Pod, "a", "p1")).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(body["status"].is_null() && body["metadata"]["managedFields"].is_null());
    assert!(body["metadata"]["resourceVersion"].is_null() && body["spec"]["nodeName"] == "n1");
}

#[test]
fn a_class_of_runtimes_travels_with_its_pods() {
    let mut view = world();
    let mut user = pod("p3", "n1", "s1", "Pending");
    user["spec"]["runtimeClassName"] = json!("small");
    put(&mut view, 10, "/pods", user);
    let class = |name: &str| json!({"metadata": {"name": name, "uid": name, "resourceVersion": "11"}, "handler": "crun"});
    put(&mut view, 11, "node.k8s.io/runtimeclasses", class("other"));
    put(&mut view, 12, "node.k8s.io/runtimeclasses", class("small"));
    let settings: Vec<ItemKey> =
        wanted(&view, "n1").items.into_keys().filter(|k| k.kind == ItemKind::Settings).collect();
    assert_eq!(settings, [ItemKey::new(ItemKind::Settings, "", "runtimeclasses/small")]);
    assert_eq!(body(&view, &settings[0]).unwrap(), br#"{"handler":"crun"}"#);
    assert_eq!(&*object_key(&settings[0]).name, "small");
}

#[test]
fn claims_on_devices_travel_with_their_pods() {
    let mut view = world();
    let mut user = pod("p3", "n1", "s1", "Pending");
    user["spec"]["resourceClaims"] = json!([{"name": "cam", "resourceClaimName": "data"}]);
    user["status"]["resourceClaimStatuses"] = json!([{"name": "cam", "resourceClaimName": "data"}]);
    put(&mut view, 10, "/pods", user);
    let claim = |status: Value| json!({"metadata": {"name": "data", "namespace": "a", "uid": "c1", "resourceVersion": "11"},
        "status": status});
    let key = ItemKey::new(ItemKind::Claim, "a", "resourceclaims/data");
    put(&mut view, 11, "resource.k8s.io/resourceclaims", claim(json!({})));
    assert!(!wanted(&view, "n1").items.contains_key(&key), "not allocated");
    let result = json!({"request": "r", "driver": "d", "pool": "n1", "device": "cam0"});
    let allocated = claim(json!({"allocation": {"devices": {"results": [result]}}}));
    let changed = put(&mut view, 12, "resource.k8s.io/resourceclaims", allocated);
    assert!(nodes_for(&view, &changed).contains("n1") && !nodes_for(&view, &changed).contains("n2"));
    assert!(wanted(&view, "n1").items.contains_key(&key) && !wanted(&view, "n2").items.contains_key(&key));
    let told: Value = serde_json::from_slice(&body(&view, &key).unwrap()).unwrap();
    assert_eq!(told, json!({"results": [result]}));
    assert_eq!(&*object_key(&key).resource, "resource.k8s.io/resourceclaims");
    let pod: Value = serde_json::from_slice(&body(&view, &ItemKey::new(ItemKind::Pod, "a", "p3")).unwrap()).unwrap();
    assert_eq!(pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"], "data");
}

#[test]
fn claims_travel_as_the_volumes_that_they_are_bound_to() {
    let mut view = world();
    let mut user = pod("p3", "n1", "s1", "Pending");
    user["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    put(&mut view, 10, "/pods", user);
    let claim = json!({"metadata": {"name": "data", "namespace": "a", "uid": "c1"}, "spec": {"volumeName": "pv1"}});
    put(&mut view, 11, "/persistentvolumeclaims", claim);
    let key = ItemKey::new(ItemKind::Claim, "a", "data");
    let volume = |uid: &str| json!({
        "metadata": {"name": "pv1", "uid": "v1", "resourceVersion": "4"}, "status": {"phase": "Bound"},
        "spec": {"hostPath": {"path": "/data"}, "claimRef": {"namespace": "a", "name": "data", "uid": uid}}});
    put(&mut view, 12, "/persistentvolumes", volume("another"));
    assert!(!wanted(&view, "n1").items.contains_key(&key), "a claim of the same name that is gone");
    let changed = put(&mut view, 13, "/persistentvolumes", volume("c1"));
    assert_eq!(nodes_for(&view, &changed), BTreeSet::from(["n1".to_string()]));
    assert!(wanted(&view, "n1").items.contains_key(&key) && !wanted(&view, "n2").items.contains_key(&key));
    let body: Value = serde_json::from_slice(&body(&view, &key).unwrap()).unwrap();
    assert_eq!((&body["spec"]["hostPath"]["path"], &body["status"]), (&json!("/data"), &Value::Null));
}

#[test]
fn claims_of_ephemeral_volumes_travel_too() {
    let mut view = world();
    let mut user = pod("p3", "n1", "s1", "Pending");
    user["spec"]["volumes"] = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
    put(&mut view, 10, "/pods", user);
    let claim = json!({"metadata": {"name": "p3-scratch", "namespace": "a", "uid": "c1"}, "spec": {"volumeName": "pv1"}});
    let changed = put(&mut view, 11, "/persistentvolumeclaims", claim);
    assert_eq!(nodes_for(&view, &changed), BTreeSet::from(["n1".to_string()]));
    let volume = json!({"metadata": {"name": "pv1", "uid": "v1", "resourceVersion": "4"},
        "spec": {"hostPath": {"path": "/data"}, "claimRef": {"namespace": "a", "name": "p3-scratch", "uid": "c1"}}});
    put(&mut view, 12, "/persistentvolumes", volume);
    assert!(wanted(&view, "n1").items.contains_key(&ItemKey::new(ItemKind::Claim, "a", "p3-scratch")));
}

#[test]
fn a_node_knows_the_schedules_that_only_it_can_follow() {
    let mut view = world();
    let cron = |name: &str, node: &str, suspend: bool| json!({"metadata": {"name": name, "namespace": "b", "uid": name,
            "resourceVersion": "20", "creationTimestamp": "2026-11-23T10:00:00Z"},
        "spec": {"schedule": "30 2 * * mon", "timeZone": "Europe/Berlin", "suspend": suspend, "jobTemplate": {"spec": {
            "template": {"spec": {"nodeName": node, "containers": [
                {"name": "c", "envFrom": [{"secretRef": {"name": "k"}}]}]}}}}}});
    put(&mut view, 20, "/secrets", named("Secret", "b", "k"));
    let changed = put(&mut view, 21, "batch/cronjobs", cron("mine", "n1", false));
    assert_eq!(nodes_for(&view, &changed), BTreeSet::from(["n1".to_string()]));
    put(&mut view, 22, "batch/cronjobs", cron("anywhere", "", false));
    put(&mut view, 23, "batch/cronjobs", cron("asleep", "n1", true));
    let wanted = wanted(&view, "n1");
    let of = |kind: ItemKind| -> Vec<&str> {
        wanted.items.keys().filter(|k| k.kind == kind && k.namespace == "b").map(|k| &*k.name).collect()
    };
    assert_eq!((of(ItemKind::Schedule), of(ItemKind::Secret)), (vec!["mine"], vec!["k"]));
    let told: Value = serde_json::from_slice(&body(&view, &ItemKey::new(ItemKind::Schedule, "b", "mine")).unwrap()).unwrap();
    assert_eq!((&told["schedule"]["hour"], &told["schedule"]["weekday"]), (&json!(4), &json!(2)));
    let offsets = told["schedule"]["offsets"].as_array().unwrap();
    assert_eq!((&offsets[0]["ahead_s"], &offsets[1]["ahead_s"]), (&json!(3600), &json!(7200)));
    let changed = put(&mut view, 24, "/secrets", named("Secret", "b", "k"));
    assert!(nodes_for(&view, &changed).contains("n1"));
}

#[test]
fn a_finished_pod_is_known_but_needs_nothing() {
    let mut view = world();
    put(&mut view, 9, "/pods", pod("p1", "n1", "s1", "Succeeded"));
    let wanted = wanted(&view, "n1");
    assert_eq!(wanted.items.len(), 2);
    let body = body(&view, &ItemKey::new(ItemKind::Pod, "a", "p1")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["status"], json!({"phase": "Succeeded"}));
}

#[test]
fn conditions_that_gates_name_travel_and_others_do_not() {
    let mut view = world();
    let mut gated = pod("p1", "n1", "s1", "Running");
    gated["spec"]["readinessGates"] = json!([{"conditionType": "x/gate"}]);
    gated["status"]["conditions"] = json!([{"type": "Ready", "status": "False"},
        {"type": "x/gate", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    put(&mut view, 9, "/pods", gated.clone());
    let body = body(&view, &ItemKey::new(ItemKind::Pod, "a", "p1")).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["status"], json!({"conditions": [{"type": "x/gate", "status": "True"}]}));
    gated["status"]["conditions"][1]["status"] = json!("False");
    assert!(!looks_the_same(&put(&mut view, 10, "/pods", gated)), "the node must hear of it");
}

#[test]
fn events_find_their_nodes() {
    let mut view = world();
    let changed = put(&mut view, 10, "/secrets", named("Secret", "a", "s2"));
    assert_eq!(nodes_for(&view, &changed), BTreeSet::from(["n2".to_string()]));
    let changed = put(&mut view, 10, "/secrets", named("Secret", "a", "s3"));
    assert!(nodes_for(&view, &changed).is_empty());
    let changed = put(&mut view, 11, "/services", named("Service", "default", "kubernetes"));
    assert_eq!(nodes_for(&view, &changed).len(), 2);
    let mut again = pod("p1", "n1", "s1", "Running");
    again["status"]["podIP"] = json!("10.0.0.1");
    let changed = put(&mut view, 12, "/pods", again);
    assert!(looks_the_same(&changed));
    let moved = put(&mut view, 13, "/pods", pod("p1", "n3", "s1", "Running"));
    assert!(!looks_the_same(&moved));
    assert_eq!(nodes_for(&view, &moved).len(), 2);
}
