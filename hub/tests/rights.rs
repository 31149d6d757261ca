//! What rights lead to: acting as somebody else, by the old right and by the narrow ones; giving rights away; approving
//! and signing.
//!
//! In: roles, tokens of ServiceAccounts, Impersonate-* headers. Out: who was asked for, or a 403 that names the missing right.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::Cluster;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

struct Deputy<'a> {
    c: &'a Cluster,
    token: String,
}

impl<'a> Deputy<'a> {
    /// A ServiceAccount of this name, and its rights.
    fn new(c: &'a Cluster, name: &str, rules: Value) -> Deputy<'a> {
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        assert_eq!(c.json("POST", accounts, json!({"metadata": {"name": name}})).0, 201);
        let role = json!({"metadata": {"name": name}, "rules": rules});
        assert_eq!(c.json("POST", &format!("{RBAC}/clusterroles"), role).0, 201);
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}]});
        assert_eq!(c.json("POST", &format!("{RBAC}/clusterrolebindings"), binding).0, 201);
        let revision = c.api.store.revision();
        while c.api.authorizer.view().read().unwrap().revision() < revision {
            std::thread::yield_now();
        }
        let (_, made) = c.json("POST", &format!("{accounts}/{name}/token"), json!({"spec": {}}));
        Deputy { c, token: made["status"]["token"].as_str().unwrap().to_owned() }
    }

    /// Without a client certificate: the token says who it is.
    fn ask(&self, method: &str, path: &str, headers: &[&str], body: Option<Value>) -> (u16, Value) {
        let mut command = std::process::Command::new("curl");
        let form = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        command.args(["-sS", "-X", method, "-w", "\n%{http_code}", "-H", &format!("Content-Type: {form}")]);
        command.arg("-H").arg(format!("Authorization: Bearer {}", self.token));
        command.arg("--cacert").arg(self.c.dir.path().join("pki/ca.crt"));
        for header in headers {
            command.args(["-H", header]);
        }
        if let Some(body) = body {
            command.args(["--data-binary", &body.to_string()]);
        }
        let output = command.arg(format!("{}{path}", self.c.url)).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }

    fn whoami(&self, headers: &[&str]) -> (u16, Value) {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let (code, answer) = self.ask("POST", REVIEWS, headers, Some(review));
        let part = if code == 201 { &answer["status"]["userInfo"] } else { &answer["message"] };
        (code, part.clone())
    }
}

#[test]
fn the_old_right_is_good_for_everything_and_each_part_needs_it() {
    let c = Cluster::start();
    let rules = json!([{"apiGroups": [""], "resources": ["users"], "resourceNames": ["ann"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "verbs": ["impersonate"]}]);
    let deputy = Deputy::new(&c, "old", rules);
    assert_eq!(deputy.whoami(&["Impersonate-User: ann"]).1, json!({"username": "ann", "groups": ["system:authenticated"]}));
    let (_, who) = deputy.whoami(&["Impersonate-User: ann", "Impersonate-Extra-Scopes: x", "Impersonate-Extra-Scopes: y"]);
    assert_eq!(who["extra"], json!({"scopes": ["x", "y"]}));
    for (more, code) in [
        (&["Impersonate-User: bob"][..], 403),
        (&["Impersonate-User: ann", "Impersonate-Group: system:masters"], 403),
        (&["Impersonate-User: ann", "Impersonate-Uid: 1"], 403),
        (&["Impersonate-User: ann", "Impersonate-Extra-Other: x"], 403),
        (&["Impersonate-User: system:node:n"], 403),
        (&["Impersonate-User: system:serviceaccount:default:default"], 403),
        (&["Impersonate-Group: a"], 400),
        (&["Impersonate-Uid: a"], 400),
    ] {
        assert_eq!(deputy.whoami(more).0, code, "{more:?}");
    }
}

#[test]
fn a_narrow_right_is_good_for_what_it_names_and_as_whom() {
    let c = Cluster::start();
    let rules = json!([
        {"apiGroups": ["authentication.k8s.io"], "resources": ["users"], "resourceNames": ["ann"],
            "verbs": ["impersonate:user-info"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["groups"], "verbs": ["impersonate:user-info"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["impersonate-on:user-info:list"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"],
            "verbs": ["impersonate-on:user-info:create"]},
    ]);
    let deputy = Deputy::new(&c, "narrow", rules);
    let (code, who) = deputy.whoami(&["Impersonate-User: ann", "Impersonate-Group: dev"]);
    assert_eq!((code, &who["groups"]), (201, &json!(["dev", "system:authenticated"])));
    // Ann may nothing herself: the right to act as her gives no more than she has.
    let maps = "/api/v1/namespaces/default/configmaps";
    let (code, told) = deputy.ask("GET", maps, &["Impersonate-User: ann"], None);
    assert_eq!(code, 403);
    assert!(told["message"].as_str().unwrap().contains("User \"ann\" cannot list"), "{told}");
    c.kubectl(&["create", "clusterrolebinding", "ann", "--clusterrole=cluster-admin", "--user=ann"]).ok();
    let listed = || deputy.ask("GET", maps, &["Impersonate-User: ann"], None).0;
    while listed() != 200 {
        std::thread::yield_now();
    }
    for (method, path, headers, words) in [
        ("DELETE", format!("{maps}/x"), &["Impersonate-User: ann"][..], "cannot impersonate-on:user-info:delete"),
        ("GET", format!("{maps}/x"), &["Impersonate-User: ann"], "cannot impersonate-on:user-info:get"),
        ("GET", "/api/v1/secrets".into(), &["Impersonate-User: ann"], "cannot impersonate-on:user-info:list"),
        ("GET", maps.into(), &["Impersonate-User: bob"], "cannot impersonate:user-info resource \"users\""),
        ("GET", maps.into(), &["Impersonate-User: ann", "Impersonate-Group: system:masters"],
            "the system:masters group is not allowed"),
        ("GET", maps.into(), &["Impersonate-User: ann", "Impersonate-Uid: 1"], "resource \"uids\""),
        ("GET", maps.into(), &["Impersonate-User: system:node:n"], "cannot impersonate-on:arbitrary-node:list"),
        ("GET", maps.into(), &["Impersonate-User: system:serviceaccount:default:default"],
            "cannot impersonate-on:serviceaccount:list"),
    ] {
        let (code, told) = deputy.ask(method, &path, headers, None);
        let told = told["message"].as_str().unwrap_or_default();
        assert!(code == 403 && told.contains(words), "{method} {path} {headers:?}: {code} {told}");
    }
}

#[test]
fn nodes_and_accounts_have_their_own_modes_and_fixed_groups() {
    let c = Cluster::start();
    let rules = json!([
        {"apiGroups": ["authentication.k8s.io"], "resources": ["nodes"], "resourceNames": ["n"],
            "verbs": ["impersonate:arbitrary-node"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["serviceaccounts"], "verbs": ["impersonate:serviceaccount"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"],
            "verbs": ["impersonate-on:arbitrary-node:create", "impersonate-on:serviceaccount:create"]},
    ]);
    let deputy = Deputy::new(&c, "nodes", rules);
    assert_eq!(deputy.whoami(&["Impersonate-User: system:node:n"]).1["groups"], json!(["system:nodes", "system:authenticated"]));
    assert_eq!(deputy.whoami(&["Impersonate-User: system:node:other"]).0, 403);
    assert_eq!(deputy.whoami(&["Impersonate-User: system:node:n", "Impersonate-Group: a"]).0, 403);
    let (code, who) = deputy.whoami(&["Impersonate-User: system:serviceaccount:shop:till"]);
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]);
    assert_eq!((code, &who["groups"]), (201, &groups));
    // The operator's group needs no role; a node gets a node's groups.
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let headers = [("Impersonate-User", "system:node:n"), ("Content-Type", "application/json")];
    let (code, body) = c.raw("POST", REVIEWS, &headers, review.as_bytes());
    let who: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, &who["status"]["userInfo"]["groups"]), (201, &json!(["system:nodes", "system:authenticated"])));
}

#[test]
fn who_writes_roles_gives_away_only_what_they_have() {
    let c = Cluster::start();
    let verbs = json!(["get", "list", "create", "update", "patch", "delete"]);
    let written = json!(["clusterroles", "clusterrolebindings"]);
    let rules = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": written, "verbs": verbs},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let deputy = Deputy::new(&c, "writer", rules);
    let roles = format!("{RBAC}/clusterroles");
    let gathers = json!({"clusterRoleSelectors": [{"matchLabels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}]});
    let post = |path: &str, object: Value| deputy.ask("POST", path, &[], Some(object));
    let patch = |path: &str, change: Value| deputy.ask("PATCH", path, &[], Some(change));
    let own = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    assert_eq!(post(&roles, json!({"metadata": {"name": "own"}, "rules": own})).0, 201);
    // A role that gathers others gets their rights, whoever is bound to it.
    let (code, told) = post(&roles, json!({"metadata": {"name": "all"}, "rules": [], "aggregationRule": gathers}));
    assert_eq!(code, 403, "{told}");
    let (code, told) = patch(&format!("{roles}/writer"), json!({"aggregationRule": gathers}));
    assert_eq!(code, 403, "{told}");
    assert!(told["message"].as_str().unwrap().contains("must have cluster-admin privileges to use an aggregationRule"), "{told}");
    // A label adds a role to `admin`.
    let label = json!({"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}});
    assert_eq!(patch(&format!("{roles}/cluster-admin"), label.clone()).0, 403);
    assert_eq!(patch(&format!("{roles}/own"), label).0, 200);
    let binding = |name: &str, role: &str| json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "writer", "namespace": "default"}]});
    let bindings = format!("{RBAC}/clusterrolebindings");
    assert_eq!(post(&bindings, binding("a", "cluster-admin")).0, 403);
    assert_eq!(post(&bindings, binding("b", "admin")).0, 403, "what it gathers counts");
    assert_eq!(post(&bindings, binding("c", "own")).0, 201);
    assert_eq!(patch(&format!("{bindings}/cluster-admin"), json!({"subjects": []})).0, 403);
}

#[test]
fn certificates_are_approved_and_signed_by_who_may_for_that_signer() {
    let c = Cluster::start();
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let of = |subject: &str| {
        let pem = std::process::Command::new("openssl")
            .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "/dev/null"])
            .args(["-subj", subject])
            .output()
            .unwrap();
        assert!(pem.status.success(), "openssl is needed for this test");
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem.stdout)
    };
    let signer = "kubernetes.io/kube-apiserver-client";
    let request = |name: &str, subject: &str| json!({"metadata": {"name": name},
        "spec": {"request": of(subject), "signerName": signer, "usages": ["client auth"]}});
    let all = json!({"apiGroups": ["certificates.k8s.io"], "verbs": ["*"], "resources": ["certificatesigningrequests",
        "certificatesigningrequests/approval", "certificatesigningrequests/status"]});
    let on = |verb: &str, name: &str| json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "resourceNames": [name], "verbs": [verb]});
    let none = Deputy::new(&c, "none", json!([all, on("approve", "example.com/*"), on("sign", "example.com/other")]));
    let approver = Deputy::new(&c, "approver", json!([all, on("approve", "kubernetes.io/*")]));
    let signs = Deputy::new(&c, "signs", json!([all, on("sign", signer)]));
    assert_eq!(none.ask("POST", requests, &[], Some(request("a", "/CN=ann"))).0, 201);
    let (code, told) = none.ask("POST", requests, &[], Some(request("m", "/O=system:masters/CN=ann")));
    assert_eq!(code, 403, "{told}");
    let path = format!("{requests}/a");
    let write = |who: &Deputy<'_>, sub: &str, status: Value| {
        let (_, mut object) = c.get(&path);
        object["status"] = status;
        who.ask("PUT", &format!("{path}/{sub}"), &[], Some(object))
    };
    let approved = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "test"}]});
    for who in [&none, &signs] {
        let (code, told) = write(who, "approval", approved.clone());
        assert_eq!(code, 403);
        assert!(told["message"].as_str().unwrap().contains("user not permitted to approve requests with signerName"), "{told}");
    }
    assert_eq!(write(&approver, "approval", approved.clone()).0, 200);
    let pem = std::fs::read(c.dir.path().join("pki/admin.crt")).unwrap();
    let mut signed = approved;
    signed["certificate"] = json!(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem));
    for who in [&none, &approver] {
        let (code, told) = write(who, "status", signed.clone());
        assert_eq!(code, 403);
        assert!(told["message"].as_str().unwrap().contains("user not permitted to sign requests with signerName"), "{told}");
    }
    assert_eq!(write(&signs, "status", signed).0, 200);
}
