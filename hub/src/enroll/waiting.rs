//! The waiting room: devices with a good token that somebody has to let in.
//!
//! In: devices that ask, an operator's decisions. Out: records under `limpet/waiting`, by node name.
//! A decision is for one key: another device that asks under the same name waits anew.
//! Never: more than `WAITING_MAX` devices; a record that is older than a day and that nobody asked for again.

use super::{Enroll, EnrollError, Identity, Refusal, TokenRecord, expect, fingerprint, millis, put};
use limpet_protocol::join::JoinAsk;
use limpet_store::{Expect, Key, StoreError, Write};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

const WAITING: &str = "limpet/waiting";
const WAITING_MAX: usize = 4096;
const FORGET_MS: u64 = 86_400_000;
/// A device asks every minute; not every time is worth a write.
const ASKED_STEP_MS: u64 = 600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    Waiting,
    Approved,
    Rejected,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    pub node: String,
    pub key_sha256: String,
    pub description: String,
    pub hardware: String,
    pub address: String,
    pub token: String,
    pub asked_ms: u64,
    pub decision: Decision,
}

/// Everybody who has something to do with the door, for `limpet node list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Devices {
    pub joined: Vec<Identity>,
    pub waiting: Vec<Waiting>,
}

impl Enroll {
    pub fn devices(&self) -> Devices {
        Devices { joined: self.identities(), waiting: self.waiting() }
    }

    /// Devices that wait, and decisions that have not been picked up.
    pub fn waiting(&self) -> Vec<Waiting> {
        let records = self.store.list(WAITING, None).records;
        records.iter().filter_map(|r| serde_json::from_slice(&r.bytes).ok()).collect()
    }

    /// Decides about a waiting device; whether there was one.
    pub async fn decide(&self, node: &str, decision: Decision) -> Result<bool, EnrollError> {
        let Some((waiting, revision)) = self.get::<Waiting>(WAITING, node)? else { return Ok(false) };
        let decided = Waiting { decision, ..waiting };
        self.store.write(put(WAITING, node, &decided, Expect::Revision(revision))?).await?;
        Ok(true)
    }

    /// Lets an approved device pass; everybody else is noted, or refused.
    pub(super) async fn pass_waiting_room(
        &self,
        token: &TokenRecord,
        ask: &JoinAsk,
        (key_sha256, address): (&str, &str),
        now: SystemTime,
    ) -> Result<(), EnrollError> {
        let known = self.get::<Waiting>(WAITING, &ask.node_name)?;
        let same = known.as_ref().map(|(w, _)| w).filter(|w| w.key_sha256 == key_sha256);
        match same.map(|w| w.decision) {
            Some(Decision::Approved) => return Ok(()),
            Some(Decision::Rejected) => return Err(Refusal::Rejected(ask.node_name.clone()).into()),
            _ => {}
        }
        let waits = EnrollError::Waits { node: ask.node_name.clone(), fingerprint: fingerprint(key_sha256) };
        if same.is_some_and(|w| millis(now) < w.asked_ms + ASKED_STEP_MS) {
            return Err(waits);
        }
        if known.is_none() {
            self.make_room(now).await?;
        }
        let short = |text: &str, max| text.chars().take(max).collect::<String>();
        let waiting = Waiting {
            node: ask.node_name.clone(),
            key_sha256: key_sha256.into(),
            description: short(&ask.description, 256),
            hardware: short(&ask.hardware, 16),
            address: address.into(),
            token: token.id.clone(),
            asked_ms: millis(now),
            decision: Decision::Waiting,
        };
        let expected = expect(known.map(|k| k.1));
        self.store.write(put(WAITING, &ask.node_name, &waiting, expected)?).await?;
        Err(waits)
    }

    pub(super) async fn leave_waiting_room(&self, node: &str) -> Result<(), EnrollError> {
        let write = Write::Delete { key: Key::new(WAITING, "", node), expect: Expect::Any, last: None };
        match self.store.write(write).await {
            Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    async fn make_room(&self, now: SystemTime) -> Result<(), EnrollError> {
        let all = self.waiting();
        for old in all.iter().filter(|w| w.asked_ms + FORGET_MS < millis(now)) {
            self.leave_waiting_room(&old.node).await?;
        }
        if self.store.count(WAITING) >= WAITING_MAX {
            return Err(EnrollError::Wish(format!("{WAITING_MAX} devices wait already; approve or reject some")));
        }
        Ok(())
    }
}
