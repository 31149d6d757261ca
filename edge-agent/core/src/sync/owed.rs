//! Tokens that came in place of others: a card is not written for each.
//!
//! In: puts of a step. Out: whether they can wait, and the records once there is an occasion.
//! Never: waits with what the journal has nothing of; holds more than 512 keys or a day.
//!
//! A power cut before the occasion leaves the older token, and the set differs from the hub's until the next session asks for
//! what differs (decision 0115).

use super::{Items, Record};
use crate::clock::Now;
use limpet_protocol::{Item, ItemHash, ItemKey, ItemKind};
use std::collections::BTreeSet;

const KEYS_MAX: usize = 512;
const BODY_BYTES_MAX: usize = 8 << 10;
const WAIT_MS_MAX: u64 = 24 * 3_600_000;

#[derive(Debug, Default)]
pub(super) struct Owed {
    keys: BTreeSet<ItemKey>,
    /// When the first of them came.
    since_ms: u64,
}

impl Owed {
    /// All of these puts can wait, and are owed from now on; or none.
    pub fn take(&mut self, now: Now, items: &Items, puts: &[(Item, ItemHash)]) -> bool {
        let renews = |(item, _): &(Item, ItemHash)| {
            item.key.kind == ItemKind::Token && item.body.len() <= BODY_BYTES_MAX && items.by_key(&item.key).is_some()
        };
        let late = !self.keys.is_empty() && now.mono_ms >= self.since_ms + WAIT_MS_MAX;
        if late || self.keys.len() + puts.len() > KEYS_MAX || !puts.iter().all(renews) {
            return false;
        }
        if self.keys.is_empty() {
            self.since_ms = now.mono_ms;
        }
        self.keys.extend(puts.iter().map(|(item, _)| item.key.clone()));
        true
    }

    /// Of what is still held.
    pub fn records(&self, items: &Items) -> Vec<Record> {
        let held = |key: &ItemKey| {
            let held = items.by_key(key)?;
            Some(Record::Put(Item { key: key.clone(), generation: held.generation, body: held.body() }))
        };
        self.keys.iter().filter_map(held).collect()
    }
}
