//! Deletes bootstrap tokens whose time is over.
//!
//! In: one Secret of type `bootstrap.kubernetes.io/token`. Out: its deletion at its expiration.
//! Semantics: https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
//! Never: looks at other Secrets, or at tokens without an end.

use super::Controller;
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    view::{Kind, Secret},
};
use base64::{Engine, engine::general_purpose::STANDARD};

pub(super) const TYPE: &str = "bootstrap.kubernetes.io/token";
pub(super) const NAMESPACE: &str = "kube-system";

#[derive(Debug)]
pub struct TokenCleaner;

impl Controller for TokenCleaner {
    fn name(&self) -> &'static str {
        "token-cleaner-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Secret::RESOURCE]
    }

    fn keys_for(&self, _view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let token = changed.new_as::<Secret>().is_some_and(|s| &*s.type_ == TYPE && &*s.meta.namespace == NAMESPACE);
        if token { vec![changed.key.clone()] } else { vec![] }
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(secret) = view.get::<Secret>(&key.namespace, &key.name).filter(|s| &*s.type_ == TYPE) else {
            return plan;
        };
        let encoded = secret.field("/data/expiration");
        let Some(text) = encoded.as_str().and_then(decode) else { return plan };
        // What cannot be read has expired, as upstream has it.
        let due = text.parse::<Timestamp>().unwrap_or(Timestamp::UNIX_EPOCH);
        if due > now {
            plan.wake_at(due);
        } else if secret.meta.deleting.is_none() {
            plan.because("Expired", format!("the bootstrap token {} expired at {text}", key.name));
            plan.delete(Secret::RESOURCE, &secret.meta);
        }
        plan
    }
}

/// Standard base64 of a short text.
pub(super) fn decode(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use serde_json::json;

    #[test]
    fn reads_base64() {
        for (text, want) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(decode(text).as_deref(), Some(want));
        }
        assert_eq!(decode("*"), None);
    }

    #[test]
    fn a_token_goes_at_its_time() {
        let mut w = World::new();
        let token = |name: &str, ns: &str, end: &str| json!({"metadata": {"name": name, "namespace": ns}, "type": TYPE,
            "data": {"expiration": end}});
        // 2026-11-23T10:01:40Z
        w.create("/secrets", token("a", NAMESPACE, "MjAyNi0xMS0yM1QxMDowMTo0MFo="));
        w.create("/secrets", token("b", "other", "MjAyNi0xMS0yM1QxMDowMTo0MFo="));
        w.create("/secrets", token("broken", NAMESPACE, "eA=="));
        w.create("/secrets", json!({"metadata": {"name": "ever", "namespace": NAMESPACE}, "type": TYPE, "data": {}}));
        w.pass(99);
        assert_eq!(w.list("/secrets").len(), 3, "what cannot be read has expired");
        w.pass(2);
        let left: Vec<&str> = w.list("/secrets").iter().map(|s| s["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(left, ["ever", "b"]);
    }
}
