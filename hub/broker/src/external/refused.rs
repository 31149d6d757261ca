//! Packets that were not taken, counted by reason, and told once.
//!
//! In: refusals. Out: counters for `/metrics`; a line in the log for the first of a sort and node, and then one an hour.
//! Never: a line for each packet: whoever forges a million must not fill the log.

use limpet_sealed::SealError;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

const SAID_EVERY: Duration = Duration::from_secs(3600);
/// Nodes whose last line is remembered.
const REMEMBERED_MAX: usize = 4096;
const REASONS: [&str; 5] = ["forged", "repeated", "lost", "foreign", "malformed"];

#[derive(Default)]
pub struct Refused {
    counts: [AtomicU64; REASONS.len()],
    said: Mutex<BTreeMap<(String, &'static str), Instant>>,
}

fn reason(error: &SealError) -> usize {
    match error {
        SealError::Forged => 0,
        SealError::Repeated { .. } => 1,
        SealError::Lost { .. } | SealError::Broken(_) | SealError::UsedUp => 2,
        SealError::Foreign => 3,
        SealError::Malformed | SealError::Key(_) => 4,
    }
}

impl Refused {
    /// Reason and count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASONS.into_iter().zip(self.counts.iter().map(|c| c.load(Ordering::Relaxed)))
    }

    pub(super) fn note(&self, node: &str, error: &SealError) {
        let n = reason(error);
        self.counts[n].fetch_add(1, Ordering::Relaxed);
        // Late packets of a session that has ended are usual.
        if matches!(error, SealError::Foreign) {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (node.to_string(), REASONS[n]);
        if said.get(&key).is_some_and(|at| at.elapsed() < SAID_EVERY) {
            return;
        }
        if said.len() >= REMEMBERED_MAX {
            said.clear();
        }
        said.insert(key, Instant::now());
        let what = REASONS[n];
        tracing::warn!(node, reason = what, "a packet for this node's session was refused: {error}; more of the sort are only counted");
    }
}
