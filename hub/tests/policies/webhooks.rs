//! What upstream's conformance suite asks of admission webhooks (AdmissionWebhook), in own words.
//!
//! In: a webhook on loopback where the suite has a pod. Out: docs/CONFORMANCE.md says which test is which.
//! Never: a wait for time: a configuration holds from the next request on.

use super::*;

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: [(&str, &str); 1] = [("Content-Type", "application/merge-patch+json")];

fn plural(kind: &str) -> String {
    format!("{CONFIGURATIONS}/{}s", kind.to_ascii_lowercase())
}

fn made(c: &Cluster, path: &str, object: Value) -> Value {
    let (code, value) = c.json("POST", path, object);
    assert_eq!(code, 201, "{path}: {value}");
    value
}

fn refuses(c: &Cluster, reason: &'static str) -> Webhook {
    Webhook::start(c, move |asked| review(asked, json!({"allowed": false, "status": {"message": reason}})))
}

/// Listing and deleting configurations by label; nothing of them is left.
#[test]
fn configurations_are_listed_and_deleted_together() {
    let c = Cluster::start();
    let changer = Webhook::start(&c, |asked| {
        let own = asked["request"]["object"]["data"]["seen"].as_str().unwrap_or_default().to_owned() + "x";
        review(asked, patch(json!([{"op": "add", "path": "/data/seen", "value": own}])))
    });
    let refuser = refuses(&c, "never");
    for (kind, hook) in [("MutatingWebhookConfiguration", &changer), ("ValidatingWebhookConfiguration", &refuser)] {
        let path = plural(kind);
        for number in 0..3 {
            let mut object = hook.configuration(kind, &format!("listed-{number}"), json!({}));
            object["metadata"]["labels"] = json!({"listed": "yes"});
            made(&c, &path, object);
        }
        let (_, list) = c.get(&format!("{path}?labelSelector=listed%3Dyes"));
        assert_eq!(list["items"].as_array().unwrap().len(), 3);
        let (code, answer) = c.json("POST", MAPS, config_map("hooked", json!({"a": "1"})));
        match kind.starts_with("Mutating") {
            true => assert_eq!((code, &answer["data"]["seen"]), (201, &json!("xxx"))),
            false => assert!(answer["message"].as_str().unwrap().ends_with("denied the request: never"), "{answer}"),
        }
        assert_eq!(c.raw("DELETE", &format!("{path}?labelSelector=listed%3Dyes"), &[], b"").0, 200);
        let (code, answer) = c.json("POST", MAPS, config_map("alone", json!({"a": "1"})));
        assert_eq!((code, &answer["data"]), (201, &json!({"a": "1"})));
        for name in ["hooked", "alone"] {
            c.raw("DELETE", &format!("{MAPS}/{name}"), &[], b"");
        }
    }
}

/// The rules of a configuration are updated, then patched; each holds at once.
#[test]
fn rules_are_updated_and_patched() {
    let c = Cluster::start();
    let changer = Webhook::start(&c, |asked| review(asked, patch(json!([{"op": "add", "path": "/data/m", "value": "1"}]))));
    let refuser = refuses(&c, "no");
    for (kind, hook) in [("MutatingWebhookConfiguration", &changer), ("ValidatingWebhookConfiguration", &refuser)] {
        let path = plural(kind);
        let mut object = made(&c, &path, hook.configuration(kind, "changing", json!({})));
        let touched = |number: usize| {
            let name = format!("{}-{number}", kind.to_ascii_lowercase());
            let (code, answer) = c.json("POST", MAPS, config_map(&name, json!({"a": "1"})));
            code != 201 || answer["data"]["m"] == "1"
        };
        assert!(touched(0));
        object["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
        assert_eq!(c.json("PUT", &format!("{path}/changing"), object).0, 200);
        assert!(!touched(1));
        let back = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]).to_string();
        let form = [("Content-Type", "application/json-patch+json")];
        assert_eq!(c.raw("PATCH", &format!("{path}/changing"), &form, back.as_bytes()).0, 200);
        assert!(touched(2));
        c.raw("DELETE", &format!("{path}/changing"), &[], b"");
    }
}

#[test]
fn conditions_are_kept_and_wrong_ones_refused() {
    let c = Cluster::start();
    let hook = refuses(&c, "no");
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let path = plural(kind);
        let condition = |expression: &str| json!({"matchConditions": [{"name": "c", "expression": expression}]});
        let mut object = made(&c, &path, hook.configuration(kind, "told", condition("object.metadata.name == 'a'")));
        assert_eq!(object["webhooks"][0]["matchConditions"][0]["expression"], "object.metadata.name == 'a'");
        object["webhooks"][0]["matchConditions"][0]["expression"] = json!("object.metadata.name == 'b'");
        assert_eq!(c.json("PUT", &format!("{path}/told"), object).0, 200);
        let (_, stored) = c.get(&format!("{path}/told"));
        assert_eq!(stored["webhooks"][0]["matchConditions"][0]["expression"], "object.metadata.name == 'b'");
        let (code, answer) = c.json("POST", &path, hook.configuration(kind, "wrong", condition("... [] bad expression")));
        assert!(code == 422 && answer["message"].as_str().unwrap().contains("compilation failed"), "{answer}");
    }
}

#[test]
fn attaching_is_refused() {
    let c = Cluster::start();
    let hook = refuses(&c, "attaching to pod 'to-be-attached' is not allowed");
    let rules = json!({"rules": [rule("", "pods/attach", &["CONNECT"])]});
    made(&c, &plural("ValidatingWebhookConfiguration"), hook.configuration("ValidatingWebhookConfiguration", "attach", rules));
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "to-be-attached"}, "spec": {"containers": [{"name": "c", "image": "i"}],
        "nodeName": "n"}});
    made(&c, pods, pod);
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", "v4.channel.k8s.io")];
    let (code, answer) = c.raw("POST", &format!("{pods}/to-be-attached/attach?container=c&stdout=true"), &upgrade, b"");
    let words = String::from_utf8(answer).unwrap();
    assert!(code >= 400 && words.contains("attaching to pod 'to-be-attached' is not allowed"), "{code} {words}");
    let request = &hook.asked.lock().unwrap()[0]["request"];
    assert_eq!((&request["operation"], &request["subResource"]), (&json!("CONNECT"), &json!("attach")));
}

fn definition(schema: Value, versions: &[(&str, bool)]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|(name, storage)| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}}))
        .collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "tides.hook.example"},
        "spec": {"group": "hook.example", "scope": "Namespaced", "names": {"plural": "tides", "kind": "Tide"},
            "versions": versions}})
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TIDES: &str = "/apis/hook.example/v1/namespaces/default/tides";

fn of_tides(operations: &[&str]) -> Value {
    let mut rule = rule("hook.example", "tides", operations);
    rule["apiVersions"] = json!(["*"]);
    json!({ "rules": [rule] })
}

/// Custom resources are judged when they are made, changed and deleted.
#[test]
fn custom_resources_are_refused() {
    let c = Cluster::start();
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    made(&c, DEFINITIONS, definition(schema, &[("v1", true)]));
    let judge = Webhook::start(&c, |asked| {
        let request = &asked["request"];
        let object = if request["operation"] == "DELETE" { &request["oldObject"] } else { &request["object"] };
        let bad = object["data"]["bad"] == "yes";
        review(asked, json!({"allowed": !bad, "status": {"message": "it is bad"}}))
    });
    let rules = of_tides(&["CREATE", "UPDATE", "DELETE"]);
    made(&c, &plural("ValidatingWebhookConfiguration"), judge.configuration("ValidatingWebhookConfiguration", "t", rules));
    let tide = |name: &str, bad: &str| {
        json!({"apiVersion": "hook.example/v1", "kind": "Tide", "metadata": {"name": name}, "data": {"bad": bad}})
    };
    let (_, answer) = c.json("POST", TIDES, tide("bad", "yes"));
    assert!(answer["message"].as_str().unwrap().contains("denied the request: it is bad"), "{answer}");
    made(&c, TIDES, tide("good", "no"));
    let (code, _) = c.raw("PATCH", &format!("{TIDES}/good"), &MERGE, br#"{"data": {"bad": "yes"}}"#);
    assert_ne!(code, 200);
    // One that is bad already cannot be deleted; when it is good it can.
    c.raw("DELETE", &format!("{}/t", plural("ValidatingWebhookConfiguration")), &[], b"");
    assert_eq!(c.raw("PATCH", &format!("{TIDES}/good"), &MERGE, br#"{"data": {"bad": "yes"}}"#).0, 200);
    let rules = of_tides(&["DELETE"]);
    made(&c, &plural("ValidatingWebhookConfiguration"), judge.configuration("ValidatingWebhookConfiguration", "t", rules));
    assert_ne!(c.raw("DELETE", &format!("{TIDES}/good"), &[], b"").0, 200);
    assert_eq!(c.raw("PATCH", &format!("{TIDES}/good"), &MERGE, br#"{"data": {"bad": "no"}}"#).0, 200);
    assert_eq!(c.raw("DELETE", &format!("{TIDES}/good"), &[], b"").0, 200);
}

/// What a webhook adds to a custom resource is pruned by its schema; also when another version has become the stored one.
#[test]
fn custom_resources_are_changed_and_pruned() {
    let c = Cluster::start();
    let text = json!({"type": "string"});
    let data = json!({"type": "object", "properties": {"start": text, "one": text}});
    let schema = json!({"type": "object", "properties": {"data": data}});
    made(&c, DEFINITIONS, definition(schema.clone(), &[("v1", true), ("v2", false)]));
    let changer = Webhook::start(&c, |asked| {
        let added = json!([{"op": "add", "path": "/data/one", "value": "yes"}, {"op": "add", "path": "/data/two",
            "value": "yes"}]);
        review(asked, patch(added))
    });
    let rules = of_tides(&["CREATE", "UPDATE"]);
    made(&c, &plural("MutatingWebhookConfiguration"), changer.configuration("MutatingWebhookConfiguration", "t", rules));
    let tide = json!({"apiVersion": "hook.example/v1", "kind": "Tide", "metadata": {"name": "t"}, "data": {"start": "yes"}});
    assert_eq!(made(&c, TIDES, tide)["data"], json!({"start": "yes", "one": "yes"}));
    let (_, mut stored) = c.get(&format!("{DEFINITIONS}/tides.hook.example"));
    stored["spec"]["versions"] = definition(schema, &[("v1", false), ("v2", true)])["spec"]["versions"].clone();
    assert_eq!(c.json("PUT", &format!("{DEFINITIONS}/tides.hook.example"), stored).0, 200);
    assert_eq!(c.raw("PATCH", &format!("{TIDES}/t"), &MERGE, br#"{"data": {"start": "later"}}"#).0, 200);
    let (_, seen) = c.get(&format!("{}/t", TIDES.replace("/v1/", "/v2/")));
    assert_eq!(seen["data"], json!({"start": "later", "one": "yes"}));
}

#[test]
fn definitions_are_refused() {
    let c = Cluster::start();
    let hook = refuses(&c, "no definitions today");
    let selector = json!({"matchLabels": {"hook": "yes"}});
    let rules = json!({"rules": [rule("apiextensions.k8s.io", "customresourcedefinitions", &["CREATE"])],
        "objectSelector": selector});
    made(&c, &plural("ValidatingWebhookConfiguration"), hook.configuration("ValidatingWebhookConfiguration", "d", rules));
    let mut object = definition(json!({"type": "object"}), &[("v1", true)]);
    object["metadata"]["labels"] = json!({"hook": "yes"});
    let (code, answer) = c.json("POST", DEFINITIONS, object);
    assert!(code != 201 && answer["message"].as_str().unwrap().contains("no definitions today"), "{answer}");
    assert_eq!(c.get(&format!("{DEFINITIONS}/tides.hook.example")).0, 404);
}

/// No webhook comes between an operator and the configuration of webhooks.
#[test]
fn configurations_are_out_of_reach() {
    let c = Cluster::start();
    let refuser = refuses(&c, "nothing goes");
    let changer = Webhook::start(&c, |asked| {
        review(asked, patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"changed": "yes"}}])))
    });
    let mut all = rule("admissionregistration.k8s.io", "*", &["*"]);
    all["apiVersions"] = json!(["*"]);
    let rules = json!({ "rules": [all] });
    for (kind, hook) in [("ValidatingWebhookConfiguration", &refuser), ("MutatingWebhookConfiguration", &changer)] {
        made(&c, &plural(kind), hook.configuration(kind, "greedy", rules.clone()));
    }
    for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
        let other = made(&c, &plural(kind), refuser.configuration(kind, "other", json!({"rules": []})));
        assert!(other["metadata"]["labels"].is_null(), "{other}");
        assert_eq!(c.raw("DELETE", &format!("{}/other", plural(kind)), &[], b"").0, 200);
    }
    assert_eq!((refuser.count(), changer.count()), (0, 0));
}

/// What a webhook adds to a pod has defaults, too.
#[test]
fn defaults_come_after_the_change() {
    let c = Cluster::start();
    let added = json!([{"op": "add", "path": "/spec/initContainers", "value": [{"name": "added", "image": "i:1"}]}]);
    let hook = Webhook::start(&c, move |asked| review(asked, patch(added.clone())));
    let rules = json!({"rules": [rule("", "pods", &["CREATE"])]});
    made(&c, &plural("MutatingWebhookConfiguration"), hook.configuration("MutatingWebhookConfiguration", "p", rules));
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let pod = made(&c, "/api/v1/namespaces/default/pods", pod);
    let container = &pod["spec"]["initContainers"][0];
    assert_eq!((&container["name"], &container["terminationMessagePolicy"]), (&json!("added"), &json!("File")));
}

/// Pods and ConfigMaps that are not as they should be: made, replaced, patched; but not where the selector does not reach.
#[test]
fn pods_and_maps_are_refused_where_the_selector_reaches() {
    let c = Cluster::start();
    let judge = Webhook::start(&c, |asked| {
        let object = &asked["request"]["object"];
        let bad = object["data"]["bad"] == "yes" || object["metadata"]["labels"]["bad"] == "yes";
        review(asked, json!({"allowed": !bad, "status": {"message": "unwanted"}}))
    });
    let selector = json!({"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]});
    let rules = [rule("", "configmaps", &["CREATE", "UPDATE"]), rule("", "pods", &["CREATE"])];
    let more = json!({"rules": rules, "namespaceSelector": selector});
    made(&c, &plural("ValidatingWebhookConfiguration"), judge.configuration("ValidatingWebhookConfiguration", "j", more));
    let pod = json!({"metadata": {"name": "p", "labels": {"bad": "yes"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (_, answer) = c.json("POST", "/api/v1/namespaces/default/pods", pod);
    assert!(answer["message"].as_str().unwrap().contains("unwanted"), "{answer}");
    assert_ne!(c.json("POST", MAPS, config_map("m", json!({"bad": "yes"}))).0, 201);
    made(&c, MAPS, config_map("m", json!({"bad": "no"})));
    assert_ne!(c.json("PUT", &format!("{MAPS}/m"), config_map("m", json!({"bad": "yes"}))).0, 200);
    assert_ne!(c.raw("PATCH", &format!("{MAPS}/m"), &MERGE, br#"{"data": {"bad": "yes"}}"#).0, 200);
    made(&c, "/api/v1/namespaces", json!({"metadata": {"name": "free", "labels": {"free": "yes"}}}));
    made(&c, "/api/v1/namespaces/free/configmaps", config_map("m", json!({"bad": "yes"})));
}
