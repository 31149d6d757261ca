//! When to ask for new bound tokens.
//!
//! In: the token items of the set. Out: keys whose token has used up four fifths of its life.
//! Never: gives up; offline the old token stays mounted and the question is asked again.

use crate::{api, clock::Now, sync::Items};
use limpet_protocol::{ItemKey, ItemKind};
use std::collections::BTreeMap;

const ASK_AGAIN_MS: u64 = 600_000;
const LIFE_MS_DEFAULT: u64 = 3_600_000;

#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// When to ask, on the wall clock that the expiry is told in, and when at the earliest to ask again.
    due: BTreeMap<ItemKey, (u64, u64)>,
}

impl Tokens {
    pub fn changed(&mut self, key: &ItemKey, items: &Items) {
        if key.kind != ItemKind::Token {
            return;
        }
        let token = items.by_key(key).and_then(|held| api::parse::<api::Token>(&held.body()).ok());
        let expiry = token.as_ref().and_then(|t| api_time(t.expiration_timestamp.as_deref()));
        match (token, expiry) {
            (Some(token), Some(expiry)) => {
                let issued = issued_ms(&token.token).unwrap_or(expiry.saturating_sub(LIFE_MS_DEFAULT));
                let life = expiry.saturating_sub(issued);
                self.due.insert(key.clone(), (issued + life / 5 * 4, 0));
            }
            _ => {
                self.due.remove(key);
            }
        }
    }

    pub fn take_due(&mut self, now: Now) -> Vec<ItemKey> {
        let mut keys = Vec::new();
        for (key, (ask_wall, again_mono)) in &mut self.due {
            if *ask_wall <= now.wall_ms && *again_mono <= now.mono_ms {
                *again_mono = now.mono_ms + ASK_AGAIN_MS;
                keys.push(key.clone());
            }
        }
        keys
    }

    pub fn wake_at(&self, now: Now) -> Option<(u64, &'static str)> {
        let at = |(ask, again): &(u64, u64)| (now.mono_ms + ask.saturating_sub(now.wall_ms)).max(*again);
        self.due.values().map(at).min().map(|at| (at, "renew a token"))
    }
}

fn api_time(text: Option<&str>) -> Option<u64> {
    crate::clock::parse_rfc3339(text?)
}

/// `iat` of a JWT, without checking anything: it only times a question.
fn issued_ms(jwt: &str) -> Option<u64> {
    let payload = jwt.split('.').nth(1)?.replace('-', "+").replace('_', "/");
    let bytes = api::base64_decode(&payload)?;
    let claims: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    claims.get("iat")?.as_u64()?.checked_mul(1000)
}
