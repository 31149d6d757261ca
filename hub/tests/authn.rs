//! Who is who on a real API server: issuers, a token file, a webhook, a front proxy, strangers.
#![allow(clippy::unwrap_used)]

#[path = "support/issuer.rs"]
mod issuer;
#[path = "support/mod.rs"]
mod support;

use issuer::{Https, signer};
use limpet_hub::{
    auth::{AuthnOptions, Oidc, front::FrontOptions},
    guard::GuardOptions,
    pki::{Pki, Subject},
};
use limpet_store::Options;
use serde_json::{Value, json};
use std::{
    io::Write,
    process::{Command, Stdio},
    time::SystemTime,
};
use support::Cluster;

fn started(authn: impl FnOnce(&std::path::Path) -> AuthnOptions) -> Cluster {
    Cluster::guarded(Options::default(), |dir| GuardOptions { authn: authn(dir), ..GuardOptions::default() })
}

/// Who the API thinks that somebody with these arguments for curl is.
fn who(c: &Cluster, arguments: &[&str]) -> (u16, Value) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-w", "\n%{http_code}", "-H", "Content-Type: application/json", "--data-binary", "@-", "--cacert"]);
    curl.arg(c.dir.path().join("pki/ca.crt")).args(arguments);
    curl.arg(format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", c.url));
    let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{}").unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    (code.parse().unwrap(), value["status"]["userInfo"].clone())
}

fn bearer(c: &Cluster, token: &str) -> (u16, Value) {
    who(c, &["-H", &format!("Authorization: Bearer {token}")])
}

fn later(seconds: u64) -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + seconds
}

#[test]
fn tokens_of_an_issuer() {
    let (first, second) = (signer(), signer());
    let https = Https::start();
    https.serve_keys(&first);
    let config = json!({
        "kind": "AuthenticationConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
        "jwt": [{
            "issuer": {"url": https.url, "audiences": ["limpet"], "certificateAuthority": https.ca},
            "claimMappings": {
                "username": {"expression": "'shop:' + claims.sub"},
                "groups": {"claim": "groups", "prefix": "shop:"},
                "extra": [{"key": "shop.example/till", "valueExpression": "claims.till"}],
            },
            "claimValidationRules": [{"expression": "claims.till != 'stolen'"}],
            "userValidationRules": [{"expression": "!user.username.endsWith(':root')", "message": "not root"}],
        }],
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
    });
    let c = started(|dir| {
        std::fs::write(dir.join("authn.yaml"), config.to_string()).unwrap();
        AuthnOptions { authentication_config: Some(dir.join("authn.yaml")), ..AuthnOptions::default() }
    });
    let claims = |more: Value| {
        let mut claims = json!({"iss": https.url, "aud": "limpet", "sub": "ann", "exp": later(3600),
            "groups": ["till"], "till": "7"});
        more.as_object().unwrap().iter().for_each(|(field, value)| claims[field] = value.clone());
        claims
    };
    let good = first.sign(&claims(json!({}))).unwrap();
    let (code, user) = bearer(&c, &good);
    assert_eq!((code, &user["username"]), (201, &json!("shop:ann")));
    assert_eq!(user["groups"], json!(["shop:till", "system:authenticated"]));
    assert_eq!(user["extra"]["shop.example/till"], json!(["7"]));
    for wrong in [
        json!({"aud": "others"}),
        json!({"exp": 1}),
        json!({"sub": "root"}),
        json!({"till": "stolen"}),
        json!({"iss": "https://elsewhere.example"}),
    ] {
        assert_eq!(bearer(&c, &first.sign(&claims(wrong.clone())).unwrap()).0, 401, "{wrong}");
    }
    // The issuer changes its key: the new one is fetched, and the old one is over.
    https.serve_keys(&second);
    assert_eq!(bearer(&c, &second.sign(&claims(json!({}))).unwrap()).0, 201);
    assert_eq!(bearer(&c, &good).0, 401);
    // TokenReview knows them, too.
    let review = json!({"spec": {"token": second.sign(&claims(json!({}))).unwrap()}});
    let status = c.json("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).1["status"].clone();
    assert_eq!((&status["authenticated"], &status["user"]["username"]), (&json!(true), &json!("shop:ann")));
    let elsewhere = json!({"spec": {"token": second.sign(&claims(json!({}))).unwrap(), "audiences": ["vault"]}});
    let status = c.json("POST", "/apis/authentication.k8s.io/v1/tokenreviews", elsewhere).1["status"].clone();
    assert_eq!(status["authenticated"], false);
    // Strangers may only look whether the hub lives.
    assert_eq!(who(&c, &[]).0, 401);
}

#[test]
fn an_issuer_by_flags() {
    let key = signer();
    let https = Https::start();
    https.serve_keys(&key);
    let c = started(|dir| {
        std::fs::write(dir.join("ca.pem"), &https.ca).unwrap();
        let oidc = Oidc {
            issuer_url: https.url.clone(),
            client_id: "limpet".into(),
            username_claim: "sub".into(),
            username_prefix: None,
            groups_claim: Some("groups".into()),
            groups_prefix: "oidc:".into(),
            required_claims: vec![("hd".into(), "shop".into())],
            signing_algs: vec!["ES256".into()],
            ca_file: Some(dir.join("ca.pem")),
        };
        AuthnOptions { oidc: Some(oidc), ..AuthnOptions::default() }
    });
    let token = |hd: &str| {
        key.sign(&json!({"iss": https.url, "aud": "limpet", "sub": "ann", "exp": later(3600), "hd": hd, "groups": "a"})).unwrap()
    };
    let (code, user) = bearer(&c, &token("shop"));
    assert_eq!((code, &user["username"]), (201, &json!(format!("{}#ann", https.url))));
    assert_eq!(user["groups"][0], "oidc:a");
    assert_eq!(bearer(&c, &token("other")).0, 401);
}

#[test]
fn a_file_and_a_webhook() {
    let https = Https::start();
    let answer = json!({"status": {"authenticated": true, "user": {"username": "hook", "groups": ["ops"]}}});
    https.answer("/review", answer);
    let c = started(|dir| {
        std::fs::write(dir.join("tokens.csv"), "secret,ann,1,\"dev,ops\"\n").unwrap();
        std::fs::write(dir.join("ca.pem"), &https.ca).unwrap();
        let cluster = json!({"server": format!("{}/review", https.url), "certificate-authority": "ca.pem"});
        let config = json!({"clusters": [{"name": "c", "cluster": cluster}]});
        std::fs::write(dir.join("hook.yaml"), config.to_string()).unwrap();
        AuthnOptions {
            token_auth_file: Some(dir.join("tokens.csv")),
            token_webhook_config_file: Some(dir.join("hook.yaml")),
            anonymous_auth: false,
            ..AuthnOptions::default()
        }
    });
    let (code, user) = bearer(&c, "secret");
    assert_eq!((code, &user["username"], &user["uid"]), (201, &json!("ann"), &json!("1")));
    assert_eq!(https.asked("/review"), 0);
    for _ in 0..3 {
        assert_eq!(bearer(&c, "other").1["groups"], json!(["ops", "system:authenticated"]));
    }
    assert_eq!(https.asked("/review"), 1);
    https.answer("/review", json!({"status": {"authenticated": false}}));
    assert_eq!(bearer(&c, "third").0, 401);
    assert_eq!(who(&c, &[]).0, 401);
}

#[test]
fn a_front_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let front = Pki::open(&dir.path().join("front"), &[], SystemTime::now()).unwrap();
    let ca = dir.path().join("front.crt");
    std::fs::write(&ca, front.ca_pem()).unwrap();
    let c = started(|_| AuthnOptions {
        front: Some(FrontOptions {
            client_ca_file: ca.clone(),
            allowed_names: vec!["front".into()],
            username_headers: vec!["X-Remote-User".into()],
            uid_headers: vec![],
            group_headers: vec!["X-Remote-Group".into()],
            extra_headers_prefix: vec!["X-Remote-Extra-".into()],
        }),
        ..AuthnOptions::default()
    });
    let proxy = |name: &str, groups: &[&str], headers: &[&str]| {
        let issued = front.issue_client(&Subject::client(name, groups), 1, SystemTime::now()).unwrap();
        let (certificate, key) = (dir.path().join("c.crt"), dir.path().join("c.key"));
        std::fs::write(&certificate, &issued.certificate_pem).unwrap();
        std::fs::write(&key, &issued.key_pem).unwrap();
        let mut arguments = vec!["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
        headers.iter().for_each(|header| arguments.extend(["-H", header]));
        who(&c, &arguments)
    };
    let headers = ["X-Remote-User: ann", "X-Remote-Group: dev", "X-Remote-Group: ops", "X-Remote-Extra-Team: a"];
    let (code, user) = proxy("front", &[], &headers);
    assert_eq!((code, &user["username"]), (201, &json!("ann")));
    assert_eq!(user["groups"], json!(["dev", "ops", "system:authenticated"]));
    assert_eq!(user["extra"]["team"], json!(["a"]));
    // Its certificate makes nobody of it: neither another name with headers, nor a mighty one without.
    assert_eq!(proxy("other", &[], &headers).0, 403);
    assert_eq!(proxy("admin", &["system:masters"], &[]).0, 403);
    // The headers of others are only headers.
    assert_eq!(who(&c, &["-H", headers[0]]).0, 403);
    let admin = c.dir.path().join("pki/admin");
    let (certificate, key) = (admin.with_extension("crt"), admin.with_extension("key"));
    let own = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap(), "-H", headers[0]];
    assert_ne!(who(&c, &own).1["username"], "ann");
}

#[test]
fn bootstrap_tokens_are_secrets_with_an_end_and_only_for_bootstrappers() {
    let c = started(|_| AuthnOptions { bootstrap_tokens: true, ..AuthnOptions::default() });
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let made = |id: &str, more: Value| {
        let mut data = json!({"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:boards"});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let secret = json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token",
            "stringData": data});
        assert_eq!(c.json("POST", secrets, secret).0, 201, "{id}");
    };
    made("aaaaaa", json!({"expiration": "2100-01-01T00:00:00Z"}));
    let (code, user) = bearer(&c, "aaaaaa.0123456789abcdef");
    let groups = json!(["system:bootstrappers", "system:bootstrappers:boards", "system:authenticated"]);
    assert_eq!((code, &user["username"], &user["groups"]), (201, &json!("system:bootstrap:aaaaaa"), &groups));
    assert_eq!(bearer(&c, "aaaaaa.0123456789abcdee").0, 401);
    made("bbbbbb", json!({"expiration": "2020-01-01T00:00:00Z"}));
    made("cccccc", json!({"expiration": "tomorrow"}));
    made("dddddd", json!({"usage-bootstrap-authentication": "yes"}));
    made("eeeeee", json!({"auth-extra-groups": "system:masters"}));
    made("ffffff", json!({"token-id": "aaaaaa"}));
    for id in ["bbbbbb", "cccccc", "dddddd", "eeeeee", "ffffff", "gggggg"] {
        assert_eq!(bearer(&c, &format!("{id}.0123456789abcdef")).0, 401, "{id}");
    }
    assert_eq!(c.raw("DELETE", &format!("{secrets}/bootstrap-token-aaaaaa"), &[], b"").0, 200);
    assert_eq!(bearer(&c, "aaaaaa.0123456789abcdef").0, 401);
    // They are not believed where nobody asked for them.
    let plain = started(|_| AuthnOptions::default());
    let secret = json!({"metadata": {"name": "bootstrap-token-aaaaaa"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "aaaaaa", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}});
    assert_eq!(plain.json("POST", secrets, secret).0, 201);
    assert_eq!(bearer(&plain, "aaaaaa.0123456789abcdef").0, 401);
}
