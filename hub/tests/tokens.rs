//! Tokens without an end, from Secrets, through the real API.
//!
//! In: a Secret of type `kubernetes.io/service-account-token`. Out: who its token stands for, and for how long.
//! Never: a token that is not in its Secret any more.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use base64::{Engine, prelude::BASE64_STANDARD};
use limpet_hub_core::control::accounttoken::TokenSigner;
use serde_json::{Value, json};
use std::process::Command;
use support::Cluster;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MERGE: [(&str, &str); 1] = [("Content-Type", "application/merge-patch+json")];

/// The user's name by the API, empty when it lets nobody in.
fn who(c: &Cluster, token: &str) -> String {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let out = Command::new("curl")
        .args(["-sS", "--cacert"])
        .arg(c.dir.path().join("pki/ca.crt"))
        .args(["-H", "Content-Type: application/json", "-H", &format!("Authorization: Bearer {token}"), "-d", &review])
        .arg(format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", c.url))
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    said["status"]["userInfo"]["username"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_token_holds_as_long_as_its_secret_holds_it() {
    let c = Cluster::start();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let (code, account) = c.json("POST", accounts, json!({"metadata": {"name": "ci"}}));
    assert_eq!(code, 201, "{account}");
    let claims = json!({"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:ci",
        "kubernetes.io/serviceaccount/namespace": "default", "kubernetes.io/serviceaccount/secret.name": "t",
        "kubernetes.io/serviceaccount/service-account.name": "ci",
        "kubernetes.io/serviceaccount/service-account.uid": account["metadata"]["uid"]});
    let token = c.api.sign(&claims).unwrap();
    assert_eq!(who(&c, &token), "", "there is no Secret yet");
    let secret = json!({"metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "ci"}},
        "type": "kubernetes.io/service-account-token", "data": {"token": BASE64_STANDARD.encode(&token)}});
    let (code, said) = c.json("POST", SECRETS, secret);
    assert_eq!(code, 201, "{said}");
    let user = "system:serviceaccount:default:ci";
    assert_eq!(who(&c, &token), user);
    let at = format!("{SECRETS}/t");
    let noted = || c.get(&at).1["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_string();
    assert!((0..500).any(|_| noted()), "the day of the use is noted");
    let label = |value: Value| json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": value}}});
    for (patch, want) in [
        (label(json!("2026-01-01")), ""),
        (label(Value::Null), user),
        (json!({"data": {"token": BASE64_STANDARD.encode("another")}}), ""),
        (json!({"data": {"token": BASE64_STANDARD.encode(&token)}}), user),
    ] {
        let (code, _) = c.raw("PATCH", &at, &MERGE, patch.to_string().as_bytes());
        assert_eq!((code, who(&c, &token)), (200, want.to_owned()), "{patch}");
    }
    assert_eq!(c.raw("DELETE", &format!("{accounts}/ci"), &[], b"").0, 200);
    assert_eq!(who(&c, &token), "", "the account is gone");
    assert_eq!(c.json("POST", accounts, json!({"metadata": {"name": "ci"}})).0, 201);
    assert_eq!(who(&c, &token), "", "another account of the same name");
}
