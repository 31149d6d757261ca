//! Namespaces, and what is in each of them from the start.
//!
//! In: the hub of `live`. Out: fails on what stays behind in a namespace, or is missing in a new one.
//! Source: "Namespaces", "OrderedNamespaceDeletion", "ServiceAccounts", "Secrets", "ConfigMap", "Services" of the suite.

use crate::live::{Client, MERGE, STRATEGIC, names};
use serde_json::json;

#[test]
fn a_namespace_goes_with_everything_pods_first() {
    let mut c = Client::new("place");
    let namespace = format!("/api/v1/namespaces/{}", c.namespace);
    let (pods, maps, services) = (c.at("v1", "pods"), c.at("v1", "configmaps"), c.at("v1", "services"));
    let pod = json!({"metadata": {"name": "p", "finalizers": ["example.org/held"]},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    c.made(&pods, pod);
    c.made(&maps, json!({"metadata": {"name": "m"}}));
    c.made(&services, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}));
    let gone = c.deleted(&namespace, json!({}));
    assert_eq!(gone["status"]["phase"], "Terminating");
    c.until("the pod is being deleted", |c| c.got(&format!("{pods}/p"))["metadata"]["deletionTimestamp"].is_string());
    // Nothing new gets in.
    let (code, status) = c.post(&maps, json!({"metadata": {"name": "late"}}));
    assert_eq!((code, &status["details"]["causes"][0]["reason"]), (403, &json!("NamespaceTerminating")), "{status}");
    let conditions = |c: &mut Client| c.got(&namespace)["status"]["conditions"].clone();
    c.until("it says what it waits for", |c| {
        let all = conditions(c);
        let held = all.as_array().into_iter().flatten().find(|x| x["type"] == "NamespaceFinalizersRemaining");
        held.is_some_and(|x| x["status"] == "True" && x["message"].as_str().unwrap_or_default().contains("example.org/held"))
    });
    assert_eq!(c.get(&format!("{maps}/m")).0, 200, "pods go first, the rest waits for them");
    c.changed(&format!("{pods}/p"), |pod| pod["metadata"]["finalizers"] = json!([]));
    c.gone(&namespace);
    assert_eq!((c.get(&format!("{maps}/m")).0, c.get(&format!("{services}/s")).0), (404, 404));
}

#[test]
fn a_namespace_is_patched_and_updated_its_status_and_finalizers_too() {
    let mut c = Client::new("place");
    let one = format!("/api/v1/namespaces/{}", c.namespace);
    let patched = c.patched(&one, STRATEGIC, json!({"metadata": {"labels": {"testLabel": "testValue"}}}));
    assert_eq!(patched["metadata"]["labels"]["testLabel"], "testValue");
    assert_eq!(patched["metadata"]["labels"]["kubernetes.io/metadata.name"], c.namespace.as_str());
    let updated = c.changed(&one, |object| object["metadata"]["labels"]["updated"] = json!("yes"));
    assert_eq!(updated["metadata"]["labels"]["updated"], "yes");
    let status = format!("{one}/status");
    let condition = json!([{"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "set by a test"}]);
    let patched = c.patched(&status, MERGE, json!({"metadata": {"annotations": {"a": "b"}},
        "status": {"conditions": condition}}));
    assert_eq!((&patched["status"]["conditions"], &patched["status"]["phase"]), (&condition, &json!("Active")));
    let put = c.changed(&status, |object| object["status"]["conditions"][0]["type"] = json!("StatusUpdate"));
    assert_eq!(put["status"]["conditions"][0]["type"], "StatusUpdate");
    let mut finalized = c.got(&one);
    finalized["spec"]["finalizers"].as_array_mut().unwrap().push(json!("e2e.example.com/fakeFinalizer"));
    let (code, said) = c.put(&format!("{one}/finalize"), &finalized);
    assert_eq!((code, &said["spec"]["finalizers"]), (200, &json!(["kubernetes", "e2e.example.com/fakeFinalizer"])));
    let mut without = said.clone();
    without["spec"]["finalizers"] = json!(["kubernetes"]);
    assert_eq!(c.put(&format!("{one}/finalize"), &without).1["spec"]["finalizers"], json!(["kubernetes"]));
}

#[test]
fn every_namespace_has_the_authority_and_an_account() {
    let mut c = Client::new("place");
    let map = c.at("v1", "configmaps/kube-root-ca.crt");
    c.until("the authority's certificate", |c| c.get(&map).0 == 200);
    let whole = c.got(&map)["data"]["ca.crt"].as_str().unwrap().to_owned();
    assert!(whole.starts_with("-----BEGIN CERTIFICATE-----"));
    c.delete(&map);
    c.until("it comes back", |c| c.get(&map).0 == 200);
    c.changed(&map, |object| object["data"] = json!({"ca.crt": ""}));
    c.until("it is mended", |c| c.got(&map)["data"]["ca.crt"] == whole.as_str());
    let account = c.at("v1", "serviceaccounts/default");
    let before = c.got(&account)["metadata"]["uid"].clone();
    c.delete(&account);
    c.until("the account comes back", |c| c.get(&account).1["metadata"]["uid"].as_str().is_some_and(|uid| uid != before));
}

#[test]
fn keys_and_what_must_not_change() {
    let mut c = Client::new("place");
    for (plural, field) in [("configmaps", "data"), ("secrets", "data")] {
        let collection = c.at("v1", plural);
        let (code, status) = c.post(&collection, json!({"metadata": {"name": "empty"}, field: {"": "dmFsdWU="}}));
        assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{plural}: {status}");
        let one = format!("{collection}/fixed");
        c.made(&collection, json!({"metadata": {"name": "fixed"}, field: {"a": "dmFsdWU="}}));
        c.changed(&one, |object| object["immutable"] = json!(true));
        let mut other = c.got(&one);
        other[field]["b"] = json!("dmFsdWU=");
        assert_eq!(c.put(&one, &other).0, 422, "{plural}");
        let mut soft = c.got(&one);
        soft["immutable"] = json!(false);
        assert_eq!(c.put(&one, &soft).0, 422, "{plural}");
        let mut labelled = c.got(&one);
        labelled["metadata"]["labels"] = json!({"l": "1"});
        assert_eq!(c.put(&one, &labelled).0, 200, "{plural}: metadata may change");
        assert_eq!(c.delete(&one).0, 200);
    }
    let secrets = c.at("v1", "secrets");
    c.made(&secrets, json!({"metadata": {"name": "patched"}, "data": {"key": "dmFsdWU="}, "type": "Opaque"}));
    let patched = c.patched(&format!("{secrets}/patched"), STRATEGIC,
        json!({"metadata": {"labels": {"testsecret": "true"}}, "data": {"key": "dmFsdWUx"}}));
    assert_eq!((&patched["data"]["key"], &patched["metadata"]["labels"]["testsecret"]), (&json!("dmFsdWUx"), &json!("true")));
}

#[test]
fn the_api_server_is_a_service() {
    let mut c = Client::new("place");
    let service = c.got("/api/v1/namespaces/default/services/kubernetes");
    assert_eq!(service["spec"]["ports"][0]["name"], "https");
    assert!(names(&c.got("/api/v1/services")).contains(&"kubernetes".to_owned()));
    let endpoints = c.got("/api/v1/namespaces/default/endpoints/kubernetes");
    let address = endpoints["subsets"][0]["addresses"][0]["ip"].clone();
    assert!(address.is_string(), "{endpoints}");
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes";
    let slices = c.got(slices);
    assert_eq!(slices["items"][0]["endpoints"][0]["addresses"][0], address, "{slices}");
}

#[test]
fn endpoints_follow_their_service_and_its_pods() {
    let mut c = Client::new("place");
    let (services, pods) = (c.at("v1", "services"), c.at("v1", "pods"));
    c.made(&services, json!({"metadata": {"name": "empty"}, "spec": {"selector": {"app": "e"}, "ports": [{"port": 80}]}}));
    let endpoints = c.at("v1", "endpoints/empty");
    let slices = c.at("discovery.k8s.io/v1", "endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dempty");
    c.until("Endpoints and one slice, both empty", |c| {
        c.get(&endpoints).0 == 200 && c.got(&slices)["items"].as_array().is_some_and(|all| all.len() == 1)
    });
    let pod = |name: &str| json!({"metadata": {"name": name, "labels": {"app": "e"}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]}});
    for (name, ip) in [("p1", "192.0.2.21"), ("p2", "192.0.2.22")] {
        c.made(&pods, pod(name));
        c.patched(&format!("{pods}/{name}/status"), MERGE, json!({"status": {"phase": "Running", "podIP": ip,
            "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]}}));
    }
    c.until("both pods are endpoints", |c| {
        let slice = c.got(&slices)["items"][0].clone();
        let ready = slice["endpoints"].as_array().into_iter().flatten().filter(|e| e["conditions"]["ready"] == true);
        ready.count() == 2 && c.got(&endpoints)["subsets"][0]["addresses"].as_array().is_some_and(|all| all.len() == 2)
    });
    c.deleted(&format!("{pods}/p1"), json!({"gracePeriodSeconds": 0}));
    c.until("one is left", |c| c.got(&endpoints)["subsets"][0]["addresses"].as_array().is_some_and(|all| all.len() == 1));
    c.delete(&format!("{services}/empty"));
    c.gone(&endpoints);
    c.until("no slice", |c| names(&c.got(&slices)).is_empty());
    // Endpoints that somebody wrote get a slice of their own.
    c.made(&services, json!({"metadata": {"name": "own"}, "spec": {"ports": [{"port": 80}]}}));
    c.made(&c.at("v1", "endpoints"), json!({"metadata": {"name": "own"},
        "subsets": [{"addresses": [{"ip": "192.0.2.31"}], "ports": [{"port": 8080, "name": "x"}]}]}));
    let mirrored = c.at("discovery.k8s.io/v1", "endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Down");
    c.until("a mirror", |c| {
        let slice = c.got(&mirrored)["items"][0].clone();
        slice["endpoints"][0]["addresses"][0] == "192.0.2.31"
            && slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"
    });
    let own = c.at("v1", "endpoints/own");
    c.changed(&own, |object| object["subsets"][0]["addresses"][0]["ip"] = json!("192.0.2.32"));
    c.until("the mirror follows", |c| c.got(&mirrored)["items"][0]["endpoints"][0]["addresses"][0] == "192.0.2.32");
    c.delete(&own);
    c.until("the mirror goes", |c| names(&c.got(&mirrored)).is_empty());
}
