//! A bound on how often one key may change the world: a controller that fights with somebody gets slow, not loud.
//!
//! In: keys whose plan had changes, and the time. Out: how long the key must wait before its next turn.
//! Never: slows a key down that stays below the bound, or remembers keys that have cooled.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Plans with changes that a key may have in a row.
const BURST: f64 = 200.0;
/// Plans with changes a second that a key may have for ever.
const PER_SECOND: f64 = 10.0;
/// Keys after which cooled ones are looked for and forgotten.
const SWEEP_AT: usize = 1024;

struct Bucket {
    spent: f64,
    at: Instant,
}

/// One bucket a key, made when it is first needed.
pub(super) struct Heat<K> {
    buckets: Mutex<HashMap<K, Bucket>>,
}

impl<K: Eq + Hash> Heat<K> {
    pub fn new() -> Heat<K> {
        Heat { buckets: Mutex::new(HashMap::new()) }
    }

    /// Counts one plan with changes; the pause that the key has to keep before it is looked at again.
    pub fn spend(&self, key: K, now: Instant) -> Duration {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SWEEP_AT {
            buckets.retain(|_, b| cooled(b, now) > 0.0);
        }
        let bucket = buckets.entry(key).or_insert(Bucket { spent: 0.0, at: now });
        bucket.spent = cooled(bucket, now) + 1.0;
        bucket.at = now;
        Duration::from_secs_f64(((bucket.spent - BURST) / PER_SECOND).max(0.0))
    }
}

fn cooled(bucket: &Bucket, now: Instant) -> f64 {
    (bucket.spent - now.duration_since(bucket.at).as_secs_f64() * PER_SECOND).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fight_becomes_slow_and_peace_makes_fast_again() {
        let heat = Heat::new();
        let now = Instant::now();
        for _ in 0..200 {
            assert_eq!(heat.spend("a", now), Duration::ZERO);
        }
        assert_eq!(heat.spend("a", now), Duration::from_millis(100));
        assert_eq!(heat.spend("b", now), Duration::ZERO, "others are not slowed");
        let later = now + Duration::from_secs(60);
        assert_eq!(heat.spend("a", later), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn cooled_keys_are_forgotten() {
        let heat = Heat::new();
        let now = Instant::now();
        (0..SWEEP_AT).for_each(|n| assert_eq!(heat.spend(n, now), Duration::ZERO));
        heat.spend(SWEEP_AT, now + Duration::from_secs(1));
        assert_eq!(heat.buckets.lock().unwrap().len(), 1);
    }
}
