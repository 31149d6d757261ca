//! Tokens without an end, from Secrets of type `kubernetes.io/service-account-token`.
//!
//! In: the claims of a token that this hub signed, the token itself, the store. Out: the user; which Secrets' tokens were
//! used today, so that somebody can note it (label `kubernetes.io/legacy-token-last-used`).
//! Source: the Kubernetes page "Managing Service Accounts". Never: a token that its Secret does not hold any more, or
//! one that was declared invalid.

use super::{tokens::Refused, user::User};
use crate::api::object;
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use limpet_hub_core::control::legacytoken::{INVALID_SINCE, LAST_USED, TYPE};
use limpet_store::{Key, Store};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};
use tokio::sync::Notify;

/// Secrets whose use is to be noted; beyond that it is noted at the next use.
const USED_MAX: usize = 1024;

/// Secrets (namespace, name) whose token was used and whose label does not say so yet.
#[derive(Default)]
pub struct Uses {
    waiting: Mutex<BTreeSet<(String, String)>>,
    news: Notify,
}

impl Uses {
    fn add(&self, namespace: &str, name: &str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < USED_MAX && waiting.insert((namespace.into(), name.into())) {
            self.news.notify_one();
        }
    }

    /// Waits until there is one.
    pub async fn next(&self) -> (String, String) {
        loop {
            let first = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            match first {
                Some(first) => return first,
                None => self.news.notified().await,
            }
        }
    }
}

/// The day as the labels have it.
pub fn day(now: Timestamp) -> String {
    now.strftime("%Y-%m-%d").to_string()
}

pub(super) fn holder(
    store: &Store,
    uses: &Uses,
    claims: &Value,
    token: &str,
    now: Timestamp,
) -> Result<User, Refused> {
    let claim = |name: &str| claims[format!("kubernetes.io/serviceaccount/{name}")].as_str().unwrap_or_default();
    let (namespace, account, name) = (claim("namespace"), claim("service-account.name"), claim("secret.name"));
    let stored = |resource: &str, name: &str| -> Option<Value> {
        serde_json::from_slice(&store.get(&Key::new(resource, namespace, name))?.bytes).ok()
    };
    let gone = |o: &Value| o["metadata"]["deletionTimestamp"].is_string();
    let secret = stored("/secrets", name).filter(|s| s["type"] == TYPE && !gone(s));
    let secret = secret.ok_or(Refused::Gone("the Secret"))?;
    let held = secret["data"]["token"].as_str().and_then(|t| BASE64_STANDARD.decode(t).ok());
    if held.as_deref() != Some(token.as_bytes()) {
        return Err(Refused::Gone("the Secret's token"));
    }
    let found = stored("/serviceaccounts", account).filter(|a| !gone(a)).ok_or(Refused::Gone("the ServiceAccount"))?;
    let uid = object::uid(&found);
    if uid != claim("service-account.uid") {
        return Err(Refused::Gone("the ServiceAccount"));
    }
    let labels = &secret["metadata"]["labels"];
    if labels[INVALID_SINCE].as_str().is_some_and(|since| !since.is_empty()) {
        return Err(Refused::Invalid(namespace.into(), name.into()));
    }
    if labels[LAST_USED] != day(now) {
        uses.add(namespace, name);
    }
    Ok(User::of_service_account(namespace, account, uid))
}
