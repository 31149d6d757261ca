//! Fills Secrets of type `kubernetes.io/service-account-token`: a token without an end for who asks for one by hand.
//!
//! In: one such Secret and its ServiceAccount. Out: `token`, `ca.crt`, `namespace` and the account's uid; its deletion when
//! the account is gone or was made anew.
//! Source: kube-controller-manager's tokens controller. Never: makes such a Secret, or changes a token that is there.

use super::{
    Controller,
    legacytoken::{ACCOUNT, TYPE},
};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    view::{Kind, Secret, ServiceAccount},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use std::{fmt, sync::Arc};

pub const ISSUER: &str = "kubernetes/serviceaccount";
pub const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Signs claims with the hub's key for ServiceAccount tokens.
pub trait TokenSigner: Send + Sync {
    /// `None`: it cannot; the Secret stays empty.
    fn sign(&self, claims: &Value) -> Option<String>;
}

/// Signs nothing.
#[derive(Debug)]
pub struct NoSigner;

impl TokenSigner for NoSigner {
    fn sign(&self, _claims: &Value) -> Option<String> {
        None
    }
}

pub struct AccountTokens {
    pub signer: Arc<dyn TokenSigner>,
    pub ca_pem: String,
}

impl fmt::Debug for AccountTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountTokens")
    }
}

impl Controller for AccountTokens {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Secret::RESOURCE, ServiceAccount::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if let Some(secret) = changed.new_as::<Secret>() {
            return if &*secret.type_ == TYPE { vec![changed.key.clone()] } else { vec![] };
        }
        if !changed.is::<ServiceAccount>() {
            return vec![];
        }
        let of = |s: &&Arc<Secret>| {
            &*s.type_ == TYPE && s.meta.annotations.get(ACCOUNT) == Some(&*changed.key.name)
        };
        let secrets = view.list::<Secret>(&changed.key.namespace).filter(of);
        secrets.map(|s| Key::new(Secret::RESOURCE, &s.meta.namespace, &s.meta.name)).collect()
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let secret = view.get::<Secret>(&key.namespace, &key.name);
        let Some(secret) = secret.filter(|s| &*s.type_ == TYPE && s.meta.deleting.is_none()) else { return plan };
        let Some(name) = secret.meta.annotations.get(ACCOUNT) else { return plan };
        let account = view.get::<ServiceAccount>(&key.namespace, name);
        let uid = secret.meta.annotations.get(ACCOUNT_UID);
        let Some(account) = account.filter(|a| uid.is_none_or(|uid| *uid == *a.meta.uid)) else {
            plan.because("NoAccount", format!("ServiceAccount {name} of the token {key} is not there any more"));
            plan.delete(Secret::RESOURCE, &secret.meta);
            return plan;
        };
        let data = secret.field("/data");
        let mut wanted = Map::new();
        if data["token"].as_str().is_none_or(str::is_empty) {
            let claims = claims(&key.namespace, &secret.meta.name, name, &account.meta.uid);
            let Some(token) = self.signer.sign(&claims) else { return plan };
            wanted.insert("token".into(), json!(STANDARD.encode(token)));
        }
        for (field, text) in [("ca.crt", &*self.ca_pem), ("namespace", &*key.namespace)] {
            let encoded = json!(STANDARD.encode(text));
            if data[field] != encoded {
                wanted.insert(field.into(), encoded);
            }
        }
        let mut patch = json!({});
        if !wanted.is_empty() {
            patch["data"] = Value::Object(wanted);
        }
        if uid.is_none() {
            patch["metadata"] = json!({"annotations": {ACCOUNT_UID: account.meta.uid}});
        }
        if patch != json!({}) {
            plan.patch_exact(Secret::RESOURCE, &secret.meta, None, patch);
        }
        plan
    }
}

fn claims(namespace: &str, secret: &str, account: &str, uid: &str) -> Value {
    json!({
        "iss": ISSUER,
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": account,
        "kubernetes.io/serviceaccount/service-account.uid": uid,
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    #[test]
    fn a_token_is_filled_in_and_goes_with_its_account() {
        let mut w = World::new();
        w.create("/serviceaccounts", json!({"metadata": {"name": "ci", "namespace": "a"}}));
        let secret = |name: &str, account: &str| json!({"metadata": {"name": name, "namespace": "a",
            "annotations": {ACCOUNT: account}}, "type": TYPE});
        w.create("/secrets", secret("t", "ci"));
        w.create("/secrets", secret("nobody", "ghost"));
        w.settle();
        assert!(!w.exists("/secrets", "a", "nobody"));
        let filled = w.get("/secrets", "a", "t").clone();
        let text = |field: &str| {
            let encoded = filled["data"][field].as_str().unwrap();
            String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
        };
        assert_eq!((&*text("ca.crt"), &*text("namespace")), ("CA", "a"));
        let claims: Value = serde_json::from_str(&text("token")).unwrap();
        assert_eq!(claims["sub"], "system:serviceaccount:a:ci");
        let uid = w.get("/serviceaccounts", "a", "ci")["metadata"]["uid"].clone();
        assert_eq!(claims["kubernetes.io/serviceaccount/service-account.uid"], uid);
        assert_eq!(filled["metadata"]["annotations"][ACCOUNT_UID], uid);
        w.patch("/secrets", "a", "t", json!({"data": {"ca.crt": null, "extra": "eA=="}}));
        w.settle();
        assert_eq!(w.get("/secrets", "a", "t")["data"]["token"], filled["data"]["token"], "the token stays");
        assert_eq!(w.get("/secrets", "a", "t")["data"]["ca.crt"], filled["data"]["ca.crt"]);
        w.delete("/serviceaccounts", "a", "ci");
        w.settle();
        assert!(!w.exists("/secrets", "a", "t"));
    }
}
