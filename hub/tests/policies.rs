//! Admission policies and webhooks, by the real kubectl against real TLS servers on loopback.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;
/// What the conformance suite asks of webhooks, beyond the tests here.
#[path = "policies/webhooks.rs"]
mod webhooks;

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};
use support::Cluster;

fn apply(c: &Cluster, object: Value) -> support::Output {
    c.kubectl_in(&["apply", "-f", "-"], &object.to_string())
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn rule(group: &str, resource: &str, operations: &[&str]) -> Value {
    json!({"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource], "operations": operations})
}

fn policy(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["matchConstraints"] =
        json!({"resourceRules": [rule("", "configmaps", &["CREATE", "UPDATE", "DELETE"])]});
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name}, "spec": spec})
}

fn binding(policy: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["policyName"] = json!(policy);
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": format!("{policy}-binding")}, "spec": spec})
}

#[test]
fn a_policy_denies_what_it_is_bound_to() {
    let c = Cluster::start();
    let spec = json!({"validations": [{"expression": "request.operation == 'DELETE' || size(object.data) <= 1",
        "message": "too much"}],
        "matchConditions": [{"name": "not-system", "expression": "!request.namespace.startsWith('kube-')"}]});
    apply(&c, policy("small", spec)).ok();
    // Without a binding it does nothing.
    apply(&c, config_map("before", json!({"a": "1", "b": "2"}))).ok();
    apply(&c, binding("small", json!({"validationActions": ["Deny"]}))).ok();
    let words = apply(&c, config_map("after", json!({"a": "1", "b": "2"}))).fails();
    let expect = "ValidatingAdmissionPolicy 'small' with binding 'small-binding' denied request: too much";
    assert!(words.contains(expect), "{words}");
    apply(&c, config_map("fine", json!({"a": "1"}))).ok();
    c.kubectl(&["delete", "cm", "before"]).ok();
    let system = c.kubectl(&[
        "create",
        "cm",
        "x",
        "-n",
        "kube-system",
        "--from-literal=a=1",
        "--from-literal=b=2",
    ]);
    system.ok();
    let dry = c.kubectl(&[
        "create",
        "cm",
        "x",
        "--from-literal=a=1",
        "--from-literal=b=2",
        "--dry-run=server",
    ]);
    assert!(dry.fails().contains("too much"));
    let warns = binding("small", json!({"validationActions": ["Warn", "Audit"]}));
    apply(&c, warns).ok();
    let out = apply(&c, config_map("after", json!({"a": "1", "b": "2"})));
    assert!(
        out.good
            && out
                .err
                .contains("Warning: Validation failed for ValidatingAdmissionPolicy 'small'"),
        "{}",
        out.err
    );
}

#[test]
fn a_policy_reads_its_parameters_and_rights() {
    let c = Cluster::start();
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "max", "expression": "int(params.data.max)"}],
        "matchConditions": [{"name": "others", "expression": "object == null || object.metadata.name != 'params'"}],
        "validations": [{"expression": "object == null || size(object.data) <= variables.max",
                "messageExpression": "'at most ' + string(variables.max)", "reason": "Forbidden"},
            {"expression": "authorizer.group('').resource('secrets').namespace('default').check('list').allowed()",
                "message": "only for those who read secrets"},
            {"expression": "namespaceObject.metadata.name == request.namespace"}]});
    apply(&c, config_map("params", json!({"max": "1"}))).ok();
    apply(&c, policy("bounded", spec)).ok();
    let reference = json!({"name": "params", "namespace": "default", "parameterNotFoundAction": "Deny"});
    apply(
        &c,
        binding(
            "bounded",
            json!({"validationActions": ["Deny"], "paramRef": reference}),
        ),
    )
    .ok();
    let words = apply(&c, config_map("x", json!({"a": "1", "b": "2"}))).fails();
    assert!(words.contains("denied request: at most 1"), "{words}");
    apply(&c, config_map("x", json!({"a": "1"}))).ok();
    apply(&c, config_map("params", json!({"max": "2"}))).ok();
    apply(&c, config_map("x", json!({"a": "1", "b": "2"}))).ok();
    let jane = c.kubeconfig_of("jane", &[]);
    c.kubectl(&["create", "role", "r", "--verb=*", "--resource=configmaps"])
        .ok();
    c.kubectl(&["create", "rolebinding", "r", "--role=r", "--user=jane"])
        .ok();
    let words = c
        .kubectl_as(&jane, &["create", "cm", "of-jane", "--from-literal=a=1"], "")
        .fails();
    assert!(words.contains("only for those who read secrets"), "{words}");
    c.kubectl(&["delete", "cm", "params"]).ok();
    let words = apply(&c, config_map("y", json!({"a": "1"}))).fails();
    assert!(
        words.contains("no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{words}"
    );
}

#[test]
fn wrong_expressions_are_refused_with_their_policy() {
    let c = Cluster::start();
    let words = apply(
        &c,
        policy("p", json!({"validations": [{"expression": "object.x +"}]})),
    )
    .fails();
    assert!(
        words.contains("spec.validations[0].expression") && words.contains("Syntax error"),
        "{words}"
    );
    let words = apply(&c, policy("p", json!({"validations": []}))).fails();
    assert!(
        words.contains("validations or auditAnnotations must contain at least one item"),
        "{words}"
    );
    let words = apply(&c, binding("p", json!({"validationActions": ["Deny", "Warn"]}))).fails();
    assert!(words.contains("must not contain both Deny and Warn"), "{words}");
}

#[test]
fn a_hostile_policy_ends() {
    let c = Cluster::start();
    let items = "object.data.map(k, k)";
    let expression =
        format!("{items}.all(a, {items}.all(b, {items}.all(c, {items}.all(d, a + b + c + d != ''))))");
    apply(
        &c,
        policy("slow", json!({"validations": [{"expression": expression}]})),
    )
    .ok();
    apply(&c, binding("slow", json!({"validationActions": ["Deny"]}))).ok();
    let data: Value = (0..300)
        .map(|n| (format!("k{n}"), json!("v")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let words = apply(&c, config_map("big", data)).fails();
    assert!(words.contains("running out of cost budget"), "{words}");
}

#[test]
fn a_mutating_policy_changes_objects() {
    let c = Cluster::start();
    let spec = json!({"reinvocationPolicy": "Never", "matchConstraints": {"resourceRules": [rule("", "configmaps",
        &["CREATE"])]},
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'made-by': request.userInfo.username}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/data/count', value: string(size(object.data))}]"}}]});
    let kind = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "spec": spec});
    apply(&c, kind("MutatingAdmissionPolicy", "m", spec)).ok();
    apply(
        &c,
        kind("MutatingAdmissionPolicyBinding", "m", json!({"policyName": "m"})),
    )
    .ok();
    apply(&c, config_map("x", json!({"a": "1"}))).ok();
    let (_, made) = c.get("/api/v1/namespaces/default/configmaps/x");
    assert_eq!(made["data"], json!({"a": "1", "count": "1"}), "{made}");
    assert!(made["metadata"]["labels"]["made-by"].is_string(), "{made}");
}

/// A webhook on loopback: what it was asked, and what it answers.
struct Webhook {
    url: String,
    bundle: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    fn start(c: &Cluster, answer: impl Fn(&Value) -> Value + Send + 'static) -> Webhook {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.is_ca = rcgen::IsCa::NoCa;
        let certificate = parameters.self_signed(&key).unwrap();
        let pem = certificate.pem();
        let chain = vec![certificate.der().clone()];
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("localhost:0").unwrap();
        let url = format!("https://localhost:{}/hook", listener.local_addr().unwrap().port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let tls = rustls::StreamOwned::new(connection, stream);
                // A client that goes away is its own affair.
                let _ = serve(tls, &answer, &seen);
            }
        });
        let _ = c;
        let bundle = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
        Webhook { url, bundle, asked }
    }

    fn configuration(&self, kind: &str, name: &str, more: Value) -> Value {
        let mut webhook = json!({"name": format!("{name}.example.com"), "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5, "clientConfig": {"url": self.url, "caBundle": self.bundle},
            "rules": [rule("", "configmaps", &["CREATE", "UPDATE", "DELETE"])]});
        for (field, value) in more.as_object().unwrap() {
            webhook[field] = value.clone();
        }
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "webhooks": [webhook]})
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn serve(
    stream: impl Read + Write,
    answer: &dyn Fn(&Value) -> Value,
    seen: &Mutex<Vec<Value>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let review: Value = serde_json::from_slice(&body)?;
    let out = answer(&review).to_string();
    seen.lock().unwrap().push(review);
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{out}",
        out.len()
    )?;
    stream.flush()
}

fn review(review: &Value, response: Value) -> Value {
    let mut response = response;
    response["uid"] = review["request"]["uid"].clone();
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn patch(operations: Value) -> Value {
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, operations.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": text})
}

#[test]
fn webhooks_change_and_refuse() {
    let c = Cluster::start();
    let changer = Webhook::start(&c, |asked| {
        if asked["request"]["operation"] == "DELETE" {
            return review(asked, json!({"allowed": true}));
        }
        review(
            asked,
            patch(
                json!([{"op": "add", "path": "/data/changed", "value": "yes"}, {"op": "add", "path": "/nope", "value": 1}]),
            ),
        )
    });
    let judge = Webhook::start(&c, |asked| {
        let bad = asked["request"]["object"]["data"]["bad"].is_string();
        let mut response = json!({"allowed": !bad, "warnings": ["be careful"]});
        if bad {
            response["status"] = json!({"message": "bad data", "code": 422});
        }
        review(asked, response)
    });
    let selector = json!({"objectSelector": {"matchLabels": {"hook": "yes"}}});
    apply(
        &c,
        changer.configuration("MutatingWebhookConfiguration", "change", selector),
    )
    .ok();
    let conditions =
        json!({"matchConditions": [{"name": "no-skip", "expression": "request.name != 'skipped'"}]});
    apply(
        &c,
        judge.configuration("ValidatingWebhookConfiguration", "judge", conditions),
    )
    .ok();

    let mut object = config_map("x", json!({"a": "1"}));
    object["metadata"]["labels"] = json!({"hook": "yes"});
    let out = apply(&c, object);
    assert!(
        out.good && out.err.contains("Warning: be careful"),
        "{} {}",
        out.out,
        out.err
    );
    let (_, made) = c.get("/api/v1/namespaces/default/configmaps/x");
    // A field that the kind does not know is dropped.
    assert_eq!(
        (&made["data"], made.get("nope")),
        (&json!({"a": "1", "changed": "yes"}), None)
    );
    let asked = judge.asked.lock().unwrap()[0]["request"].clone();
    assert_eq!(asked["object"]["data"]["changed"], "yes");
    assert_eq!(
        asked["kind"],
        json!({"group": "", "version": "v1", "kind": "ConfigMap"})
    );
    assert_eq!(
        (&asked["operation"], &asked["namespace"], &asked["dryRun"]),
        (&json!("CREATE"), &json!("default"), &json!(false))
    );

    let words = apply(&c, config_map("y", json!({"bad": "1"}))).fails();
    assert!(
        words.contains("admission webhook \"judge.example.com\" denied the request: bad data"),
        "{words}"
    );
    apply(&c, config_map("skipped", json!({"bad": "1"}))).ok();
    assert_eq!(changer.count(), 1);
    c.kubectl(&["delete", "cm", "x"]).ok();
    assert_eq!(changer.count(), 2);
    let last = judge.asked.lock().unwrap().last().unwrap()["request"].clone();
    assert_eq!(
        (
            &last["operation"],
            &last["object"],
            &last["oldObject"]["data"]["a"]
        ),
        (&json!("DELETE"), &Value::Null, &json!("1"))
    );
}

#[test]
fn a_webhook_that_cannot_be_reached() {
    let c = Cluster::start();
    let slow = Webhook::start(&c, |asked| {
        thread::sleep(std::time::Duration::from_secs(4));
        review(asked, json!({"allowed": true}))
    });
    apply(
        &c,
        slow.configuration(
            "ValidatingWebhookConfiguration",
            "slow",
            json!({"timeoutSeconds": 1}),
        ),
    )
    .ok();
    let words = apply(&c, config_map("x", json!({}))).fails();
    let expect =
        "failed calling webhook \"slow.example.com\": failed to call webhook: Post \"https://localhost:";
    assert!(
        words.contains(expect) && words.contains("context deadline exceeded"),
        "{words}"
    );
    apply(
        &c,
        slow.configuration(
            "ValidatingWebhookConfiguration",
            "slow",
            json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"}),
        ),
    )
    .ok();
    apply(&c, config_map("x", json!({}))).ok();
    // A certificate of somebody else.
    let other = Webhook::start(&c, |asked| review(asked, json!({"allowed": true})));
    let mut wrong = slow.configuration("ValidatingWebhookConfiguration", "slow", json!({}));
    wrong["webhooks"][0]["clientConfig"]["url"] = json!(other.url);
    apply(&c, wrong).ok();
    let words = apply(&c, config_map("y", json!({}))).fails();
    assert!(
        words.contains("failed calling webhook") && other.count() == 0,
        "{words}"
    );
    // Nobody is locked out of the configuration itself.
    c.kubectl(&["delete", "validatingwebhookconfiguration", "slow"])
        .ok();
    apply(&c, config_map("y", json!({}))).ok();
}

#[test]
fn an_earlier_webhook_is_asked_again() {
    let c = Cluster::start();
    // The first counts what is there; the second adds something.
    let counter = Webhook::start(&c, |asked| {
        let data = asked["request"]["object"]["data"].as_object().unwrap();
        let count = data.keys().filter(|key| *key != "count").count().to_string();
        review(
            asked,
            patch(json!([{"op": "add", "path": "/data/count", "value": count}])),
        )
    });
    let adder = Webhook::start(&c, |asked| {
        review(
            asked,
            patch(json!([{"op": "add", "path": "/data/more", "value": "1"}])),
        )
    });
    apply(
        &c,
        counter.configuration(
            "MutatingWebhookConfiguration",
            "a",
            json!({"reinvocationPolicy": "IfNeeded"}),
        ),
    )
    .ok();
    apply(
        &c,
        adder.configuration("MutatingWebhookConfiguration", "b", json!({})),
    )
    .ok();
    apply(&c, config_map("x", json!({"a": "1"}))).ok();
    let (_, made) = c.get("/api/v1/namespaces/default/configmaps/x");
    assert_eq!(made["data"], json!({"a": "1", "more": "1", "count": "2"}));
    assert_eq!((counter.count(), adder.count()), (2, 1));
}

#[test]
fn a_conversion_webhook_converts() {
    let c = Cluster::start();
    // In v1 there is `spec.host`, in v2 `spec.hosts`.
    let converter = Webhook::start(&c, |asked| {
        let wanted = asked["request"]["desiredAPIVersion"].clone();
        let convert = |object: &Value| {
            let mut object = object.clone();
            let spec = object["spec"].as_object_mut().unwrap();
            match (spec.remove("host"), spec.remove("hosts")) {
                (Some(host), _) => _ = spec.insert("hosts".into(), json!([host])),
                (_, Some(hosts)) => _ = spec.insert("host".into(), hosts[0].clone()),
                _ => {}
            }
            object["apiVersion"] = wanted.clone();
            object
        };
        let objects: Vec<Value> = asked["request"]["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(convert)
            .collect();
        let failed = objects
            .iter()
            .any(|object| object["metadata"]["name"] == "broken");
        let result = if failed {
            json!({"status": "Failed", "message": "not this one"})
        } else {
            json!({"status": "Success"})
        };
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {
            "uid": asked["request"]["uid"], "convertedObjects": objects, "result": result}})
    });
    let version = |name: &str, storage: bool, spec: Value| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": spec}}}}})
    };
    let client = json!({"url": converter.url, "caBundle": converter.bundle});
    apply(&c, json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "sites.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "sites", "kind": "Site"},
            "versions": [version("v1", true, json!({"host": {"type": "string"}})),
                version("v2", false, json!({"hosts": {"type": "array", "items": {"type": "string"}}}))],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                "clientConfig": client}}}})).ok();
    let site = |version: &str, name: &str, spec: Value| json!({"apiVersion": format!("example.com/{version}"), "kind": "Site",
        "metadata": {"name": name}, "spec": spec});
    let path = |version: &str| format!("/apis/example.com/{version}/namespaces/default/sites");
    let (code, made) = c.json("POST", &path("v2"), site("v2", "a", json!({"hosts": ["x"]})));
    assert_eq!((code, &made["spec"]["hosts"]), (201, &json!(["x"])), "{made}");
    let (_, stored) = c.get(&format!("{}/a", path("v1")));
    assert_eq!(
        (&stored["apiVersion"], &stored["spec"]),
        (&json!("example.com/v1"), &json!({"host": "x"}))
    );
    let (_, list) = c.get(&path("v2"));
    assert_eq!(list["items"][0]["spec"], json!({"hosts": ["x"]}));
    // A list is converted with one call.
    for name in ["b", "c", "d"] {
        assert_eq!(c.json("POST", &path("v1"), site("v1", name, json!({"host": name}))).0, 201);
    }
    let before = converter.count();
    let (_, list) = c.get(&path("v2"));
    assert_eq!((&list["items"][3]["spec"], list["items"].as_array().unwrap().len()), (&json!({"hosts": ["d"]}), 4));
    assert_eq!(converter.count(), before + 1);
    let mut watch = c.watch(&format!("{}?watch=1", path("v2")), "application/json");
    assert_eq!(watch.next().1["spec"], json!({"hosts": ["x"]}));
    let (code, status) = c.json("POST", &path("v2"), site("v2", "broken", json!({"hosts": ["x"]})));
    assert_eq!(code, 500);
    let words = status["message"].as_str().unwrap();
    assert!(
        words.contains("conversion webhook for example.com/v2, Kind=Site failed: not this one"),
        "{words}"
    );
}
