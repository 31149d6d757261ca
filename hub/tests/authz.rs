//! Who may do what on a real API server, by other authorizers than Node and RBAC.
#![allow(clippy::unwrap_used)]

#[path = "support/issuer.rs"]
mod issuer;
#[path = "support/mod.rs"]
mod support;

use issuer::Https;
use limpet_hub::{
    auth::{AuthnOptions, AuthzOptions},
    guard::GuardOptions,
};
use limpet_store::Options;
use serde_json::{Value, json};
use std::{path::Path, process::Command};
use support::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A cluster where the tokens `ann` and `bob` are those users.
fn started(authz: impl FnOnce(&Path) -> AuthzOptions) -> Cluster {
    Cluster::guarded(Options::default(), |dir| {
        std::fs::write(dir.join("tokens.csv"), "ann,ann,1,dev\nbob,bob,2\n").unwrap();
        let authn = AuthnOptions { token_auth_file: Some(dir.join("tokens.csv")), ..AuthnOptions::default() };
        GuardOptions { authn, authz: authz(dir), ..GuardOptions::default() }
    })
}

fn ask(c: &Cluster, token: &str, method: &str, path: &str) -> (u16, Value) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-X", method, "-w", "\n%{http_code}", "-H", &format!("Authorization: Bearer {token}"), "--cacert"]);
    curl.arg(c.dir.path().join("pki/ca.crt")).arg(format!("{}{path}", c.url));
    let text = String::from_utf8(curl.output().unwrap().stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

/// A webhook's file in kubeconfig's form; one that nobody answers at without `https`.
fn hook(dir: &Path, name: &str, https: Option<&Https>) -> std::path::PathBuf {
    let (server, ca) = match https {
        Some(https) => (format!("{}/sar", https.url), https.ca.clone()),
        None => ("http://127.0.0.1:1".to_owned(), String::new()),
    };
    let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let mut cluster = json!({"server": server});
    if !ca.is_empty() {
        cluster["certificate-authority-data"] = json!(encode(&ca));
    }
    let path = dir.join(name);
    std::fs::write(&path, json!({"clusters": [{"name": "c", "cluster": cluster}]}).to_string()).unwrap();
    path
}

fn answer(https: &Https, status: Value) {
    https.answer("/sar", json!({"status": status}));
}

#[test]
fn lines_of_a_file() {
    let policy = json!({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy",
        "spec": {"group": "dev", "namespace": "default", "resource": "pods", "readonly": true}});
    let c = started(|dir| {
        std::fs::write(dir.join("abac.jsonl"), format!("{policy}\n")).unwrap();
        let modes = ["Node", "RBAC", "ABAC"].map(str::to_owned).to_vec();
        AuthzOptions { modes, policy_file: Some(dir.join("abac.jsonl")), ..AuthzOptions::default() }
    });
    assert_eq!(ask(&c, "ann", "GET", PODS).0, 200);
    assert_eq!(ask(&c, "ann", "DELETE", PODS).0, 403);
    let (code, status) = ask(&c, "bob", "GET", PODS);
    assert_eq!(code, 403);
    assert!(status["message"].as_str().unwrap().contains("No policy matched."), "{status}");
    // RBAC is still asked: discovery is for everybody who is known.
    assert_eq!(ask(&c, "bob", "GET", "/api").0, 200);
}

#[test]
fn a_webhook_after_rbac() {
    let https = Https::start();
    answer(&https, json!({"allowed": true, "reason": "because"}));
    let c = started(|dir| AuthzOptions {
        modes: ["Node", "RBAC", "Webhook"].map(str::to_owned).to_vec(),
        webhook_config_file: Some(hook(dir, "hook.yaml", Some(&https))),
        ..AuthzOptions::default()
    });
    assert_eq!(ask(&c, "ann", "GET", &format!("{PODS}?fieldSelector=spec.nodeName%3Dpi&labelSelector=a")).0, 200);
    let sent = https.bodies("/sar").pop().unwrap();
    assert_eq!((&sent["kind"], &sent["apiVersion"]), (&json!("SubjectAccessReview"), &json!("authorization.k8s.io/v1")));
    assert_eq!(sent["spec"], json!({"user": "ann", "uid": "1", "groups": ["dev", "system:authenticated"],
        "resourceAttributes": {"namespace": "default", "verb": "list", "version": "v1", "resource": "pods",
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["pi"]}]},
            "labelSelector": {"requirements": [{"key": "a", "operator": "Exists"}]}}}));
    // The same question has the same answer for a while; what RBAC allows is not asked.
    answer(&https, json!({"allowed": false, "denied": true, "reason": "no more"}));
    let before = https.asked("/sar");
    assert_eq!(ask(&c, "ann", "GET", &format!("{PODS}?labelSelector=a&fieldSelector=spec.nodeName%3Dpi")).0, 200);
    assert_eq!(ask(&c, "ann", "GET", "/api").0, 200);
    assert_eq!(https.asked("/sar"), before);
    let (code, status) = ask(&c, "bob", "GET", PODS);
    assert_eq!((code, status["message"].as_str().unwrap().ends_with(": no more")), (403, true));
    // A review asks the same chain, and passes selectors on.
    let about = json!({"verb": "list", "resource": "pods", "namespace": "x", "fieldSelector": {"rawSelector": "a=b"}});
    let review = json!({"spec": {"user": "eve", "resourceAttributes": about}});
    let (_, review) = c.json("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review);
    assert_eq!((&review["status"]["allowed"], &review["status"]["denied"]), (&json!(false), &json!(true)), "{review}");
    let sent = https.bodies("/sar").pop().unwrap();
    let expect = json!({"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]});
    assert_eq!(sent["spec"]["resourceAttributes"]["fieldSelector"], expect);
}

#[test]
fn a_configuration_with_conditions_and_policies_of_failure() {
    let https = Https::start();
    answer(&https, json!({"allowed": true}));
    let c = started(|dir| {
        let webhook = |name: &str, file: std::path::PathBuf, failure: &str, conditions: &[&str]| {
            let conditions: Vec<Value> = conditions.iter().map(|text| json!({"expression": text})).collect();
            json!({"type": "Webhook", "name": name, "webhook": {
                "timeout": "3s", "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1",
                "unauthorizedTTL": "30s", "authorizedTTL": "30s", "failurePolicy": failure, "matchConditions": conditions,
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": file}}})
        };
        let about = "has(request.resourceAttributes) && request.resourceAttributes.namespace == 'kube-system'";
        let config = json!({"kind": "AuthorizationConfiguration", "apiVersion": "apiserver.config.k8s.io/v1", "authorizers": [
            webhook("shut", hook(dir, "a.yaml", None), "Deny", &[about]),
            webhook("gone", hook(dir, "b.yaml", None), "NoOpinion", &["request.user == 'bob'"]),
            webhook("good", hook(dir, "c.yaml", Some(&https)), "Deny", &["'dev' in request.groups"]),
            {"type": "RBAC", "name": "rbac"},
        ]});
        std::fs::write(dir.join("authz.yaml"), config.to_string()).unwrap();
        AuthzOptions { config: Some(dir.join("authz.yaml")), ..AuthzOptions::default() }
    });
    assert_eq!(ask(&c, "ann", "GET", PODS).0, 200);
    // The first one cannot be asked, and then nobody gets in; others are not asked about that.
    let (code, status) = ask(&c, "ann", "GET", "/api/v1/namespaces/kube-system/pods");
    assert_eq!(code, 403);
    assert!(status["message"].as_str().unwrap().contains("\"shut\" could not be asked"), "{status}");
    assert_eq!(ask(&c, "bob", "GET", PODS).0, 403);
    assert_eq!(ask(&c, "bob", "GET", "/api").0, 200);
    // The operator's group needs nobody's opinion.
    assert_eq!(c.get("/api/v1/namespaces/kube-system/pods").0, 200);
}

#[test]
fn wrong_chains_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = |value: Value| {
        // The file of one case must not be that of another.
        let path = dir.path().join(format!("{}.yaml", value.to_string().len()));
        std::fs::write(&path, value.to_string()).unwrap();
        AuthzOptions { config: Some(path), ..AuthzOptions::default() }
    };
    let modes = |all: &[&str]| AuthzOptions {
        modes: all.iter().map(|mode| (*mode).to_owned()).collect(),
        ..AuthzOptions::default()
    };
    let config = |authorizers: Value| {
        file(json!({"kind": "AuthorizationConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
            "authorizers": authorizers}))
    };
    for (options, words) in [
        (modes(&["Magic"]), "\"Magic\" is not known"),
        (modes(&[]), "must name 1 to"),
        (modes(&["ABAC"]), "ABAC needs --authorization-policy-file"),
        (modes(&["Webhook"]), "Webhook needs --authorization-webhook-config-file"),
        (AuthzOptions { policy_file: Some("x".into()), ..modes(&["RBAC"]) }, "needs ABAC"),
        (config(json!([{"type": "Webhook", "name": "a"}])), "authorizers[0]: webhook: Required value"),
        (config(json!([{"type": "RBAC", "name": "a"}, {"type": "Node", "name": "a"}])), "Duplicate value: \"a\""),
    ] {
        let why = options.chain().err().unwrap();
        assert!(why.contains(words), "{why}");
    }
}
