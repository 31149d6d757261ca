//! What survives a power cut.
//!
//! In and out: bytes of one record. Never: more than `KEPT_BYTES_MAX`; a record of a version that is not known here.

use crate::limits;
use alloc::vec::Vec;
use limpet_protocol::{Item, limits::LEAF_ITEM_BYTES_MAX};
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;

/// Small, and written rarely: at each start, when the set changes, and when the hub's time is a day newer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Starts of this board: the upper half of every number that must never be used twice.
    pub epoch: u32,
    /// Random, made once.
    pub instance: [u8; 16],
    /// The last good time known, milliseconds since 1970.
    pub floor_ms: u64,
    pub items: Vec<Item>,
}

impl Kept {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(VERSION);
        postcard::to_extend(self, out).unwrap_or_default()
    }

    /// `None` for what this firmware cannot read: the board then begins anew, and its hub tells it all again.
    pub fn decode(bytes: &[u8]) -> Option<Kept> {
        let (&version, rest) = bytes.split_first()?;
        if version != VERSION || bytes.len() > limits::KEPT_BYTES_MAX {
            return None;
        }
        let (kept, left) = postcard::take_from_bytes::<Kept>(rest).ok()?;
        let fits = kept.items.len() <= limits::ITEMS_MAX && kept.items.iter().all(|i| i.body.len() <= LEAF_ITEM_BYTES_MAX);
        (left.is_empty() && fits).then_some(kept)
    }
}
