//! Signs the ConfigMap `cluster-info`, so that who has a bootstrap token knows that the cluster is the right one.
//!
//! In: the bootstrap tokens for signing, and `kube-public/cluster-info`. Out: one detached signature a token
//! (`jws-kubeconfig-<token id>`), none for tokens that are over; the ConfigMap itself when there is none.
//! Semantics: https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#configmap-signing; RFC 7515
//! (detached, HS256). Never: writes a secret anywhere, or changes a kubeconfig that is there.

use super::{
    Controller,
    token::{NAMESPACE, TYPE, decode},
};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    view::{ConfigMap, Kind, Namespace, Secret},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const PUBLIC: &str = "kube-public";
const INFO: &str = "cluster-info";
const CONTENT: &str = "kubeconfig";
const PREFIX: &str = "jws-kubeconfig-";

#[derive(Debug)]
pub struct BootstrapSigner {
    /// A kubeconfig with the hub's address and CA and without any user. Empty: none is made.
    pub kubeconfig: String,
}

impl Controller for BootstrapSigner {
    fn name(&self) -> &'static str {
        "bootstrap-signer-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Secret::RESOURCE, ConfigMap::RESOURCE, Namespace::RESOURCE]
    }

    fn keys_for(&self, _view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let is_token = |s: &Secret| &*s.type_ == TYPE && &*s.meta.namespace == NAMESPACE;
        let token = [changed.old_as::<Secret>(), changed.new_as::<Secret>()].into_iter().flatten().any(|s| is_token(s));
        let info = changed.is::<ConfigMap>() && &*changed.key.namespace == PUBLIC && &*changed.key.name == INFO;
        let place = changed.is::<Namespace>() && &*changed.key.name == PUBLIC;
        if token || info || place { vec![Key::new(ConfigMap::RESOURCE, PUBLIC, INFO)] } else { vec![] }
    }

    fn reconcile(&self, view: &ObjectStore, _key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(map) = view.get::<ConfigMap>(PUBLIC, INFO) else {
            let place = view.get::<Namespace>("", PUBLIC).filter(|n| n.meta.deleting.is_none());
            if place.is_some() && !self.kubeconfig.is_empty() {
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": INFO, "namespace": PUBLIC}, "data": {CONTENT: self.kubeconfig}});
                plan.create(ConfigMap::RESOURCE, PUBLIC, object);
            }
            return plan;
        };
        let data = map.field("/data");
        let Some(content) = data[CONTENT].as_str() else { return plan };
        let mut signatures = Map::new();
        for secret in view.list::<Secret>(NAMESPACE).filter(|s| &*s.type_ == TYPE) {
            if let Some((id, key)) = signing_token(secret, now, &mut plan) {
                signatures.insert(format!("{PREFIX}{id}"), json!(sign(content, &id, &key)));
            }
        }
        let mut patch = Map::new();
        for (name, _) in data.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with(PREFIX)) {
            if !signatures.contains_key(name) {
                patch.insert(name.clone(), Value::Null);
            }
        }
        patch.extend(signatures.into_iter().filter(|(name, value)| data[name.as_str()] != *value));
        if !patch.is_empty() {
            plan.patch_exact(ConfigMap::RESOURCE, &map.meta, None, json!({"data": patch}));
        }
        plan
    }
}

/// Id and secret of a token that is good for signing now.
fn signing_token(secret: &Secret, now: Timestamp, plan: &mut Plan) -> Option<(String, String)> {
    let data = secret.field("/data");
    let text = |name: &str| data[name].as_str().and_then(decode);
    let plain = |t: &str, len: usize| t.len() == len && t.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    let id = text("token-id").filter(|id| plain(id, 6))?;
    let key = text("token-secret").filter(|key| plain(key, 16))?;
    let named = secret.meta.name.strip_prefix("bootstrap-token-") == Some(&id);
    if !named || secret.meta.deleting.is_some() || text("usage-bootstrap-signing").as_deref() != Some("true") {
        return None;
    }
    if let Some(end) = text("expiration") {
        let end = end.parse::<Timestamp>().ok().filter(|t| *t > now)?;
        plan.wake_at(end);
    }
    Some((id, key))
}

/// A JWS in compact form without its payload.
fn sign(content: &str, id: &str, key: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac_sha256(key.as_bytes(), signed.as_bytes())))
}

/// RFC 2104 with SHA-256, for keys of at most 64 bytes.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use base64::engine::general_purpose::STANDARD;

    fn token(id: &str, more: &[(&str, &str)]) -> Value {
        let mut data = json!({"token-id": STANDARD.encode(id), "token-secret": STANDARD.encode("0123456789abcdef"),
            "usage-bootstrap-signing": STANDARD.encode("true")});
        more.iter().for_each(|(k, v)| data[*k] = json!(STANDARD.encode(v)));
        json!({"metadata": {"name": format!("bootstrap-token-{id}"), "namespace": NAMESPACE}, "type": TYPE, "data": data})
    }

    fn signed(w: &World) -> Vec<String> {
        let data = w.get("/configmaps", PUBLIC, INFO)["data"].as_object().unwrap();
        data.keys().filter(|k| k.starts_with(PREFIX)).cloned().collect()
    }

    #[test]
    fn hmac_as_in_rfc_4231() {
        let hex = |b: [u8; 32]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let got = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(got), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn signatures_come_and_go_with_their_tokens() {
        let mut w = World::new();
        w.create("/namespaces", json!({"metadata": {"name": PUBLIC}}));
        w.create("/secrets", token("abcdef", &[("expiration", "2026-11-23T10:01:40Z")]));
        w.create("/secrets", token("zzzzzz", &[]));
        w.create("/secrets", token("nosign", &[("usage-bootstrap-signing", "false")]));
        w.create("/secrets", token("broken", &[("token-secret", "short")]));
        w.settle();
        assert_eq!(signed(&w), ["jws-kubeconfig-abcdef", "jws-kubeconfig-zzzzzz"]);
        let first = w.get("/configmaps", PUBLIC, INFO)["data"]["jws-kubeconfig-zzzzzz"].clone();
        let (header, signature) = first.as_str().unwrap().split_once("..").unwrap();
        let payload = URL_SAFE_NO_PAD.encode("KUBECONFIG");
        let want = hmac_sha256(b"0123456789abcdef", format!("{header}.{payload}").as_bytes());
        assert_eq!(URL_SAFE_NO_PAD.decode(signature).unwrap(), want);
        assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), br#"{"alg":"HS256","kid":"zzzzzz"}"#);
        w.patch("/configmaps", PUBLIC, INFO, json!({"data": {CONTENT: "other", "mine": "kept"}}));
        w.pass(99);
        assert_ne!(w.get("/configmaps", PUBLIC, INFO)["data"]["jws-kubeconfig-zzzzzz"], first);
        w.pass(2);
        assert_eq!(signed(&w), ["jws-kubeconfig-zzzzzz"], "the other one is over");
        w.delete("/secrets", NAMESPACE, "bootstrap-token-zzzzzz");
        w.settle();
        assert_eq!(w.get("/configmaps", PUBLIC, INFO)["data"], json!({CONTENT: "other", "mine": "kept"}));
        w.delete("/configmaps", PUBLIC, INFO);
        w.settle();
        assert_eq!(w.get("/configmaps", PUBLIC, INFO)["data"][CONTENT], "KUBECONFIG");
    }
}
