//! When to ask for new bound tokens.
//!
//! In: the token items of the set. Out: keys whose token has used up four fifths of its life.
//! Never: gives up; offline the old token stays mounted, and the question is asked again, at once when the hub is there.

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

    /// The hub is there: what was asked before has not reached it, or its answer was lost.
    pub fn linked(&mut self) {
        self.due.values_mut().for_each(|(_, again_mono)| *again_mono = 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BEGUN_MS: u64 = 1_795_431_600_000;

    fn at(seconds: u64) -> Now {
        Now { mono_ms: 7_000_000 + seconds * 1000, wall_ms: BEGUN_MS + seconds * 1000 }
    }

    #[test]
    fn asked_for_after_four_fifths_and_again_when_the_hub_is_there() {
        let key = ItemKey::new(ItemKind::Token, "default", "p/t");
        let mut items = Items::default();
        let end = crate::clock::rfc3339(BEGUN_MS + 3_600_000);
        let token = json!({"token": "no.jwt.at all", "expirationTimestamp": end}).to_string();
        items.put(key.clone(), 1, token.as_bytes());
        let mut tokens = Tokens::default();
        tokens.changed(&key, &items);
        assert!(tokens.take_due(at(2879)).is_empty());
        assert_eq!(tokens.wake_at(at(2879)).map(|(at, _)| at), Some(7_000_000 + 2_880_000));
        assert_eq!(tokens.take_due(at(2880)), std::slice::from_ref(&key));
        // Nobody has heard that: after ten minutes, or at once when somebody is there.
        assert!(tokens.take_due(at(3479)).is_empty());
        assert_eq!(tokens.take_due(at(3480)), std::slice::from_ref(&key));
        tokens.linked();
        assert_eq!(tokens.wake_at(at(3490)).map(|(at, _)| at), Some(7_000_000 + 3_490_000));
        assert_eq!(tokens.take_due(at(3490)), std::slice::from_ref(&key));
        assert!(tokens.take_due(at(3491)).is_empty());
    }
}
