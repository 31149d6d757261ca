//! A bound on how often one key may change the world: a controller that fights with somebody gets slow, not loud.
//!
//! In: keys whose plan had changes, and the time. Out: how long the key must wait before its next turn, and whether to say so:
//! a Deployment that grows by a thousand pods is hot for a while, too, and nobody's enemy.
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
/// What goes on for so long is a fight.
const FIGHT_AFTER: Duration = Duration::from_secs(30);
/// Keys after which cooled ones are looked for and forgotten.
const SWEEP_AT: usize = 1024;

struct Bucket {
    spent: f64,
    at: Instant,
    /// Since when it is above the bound, without having cooled to the half of it; moved on when that was said.
    hot_since: Option<Instant>,
}

/// What a key has to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Before it is looked at again.
    pub pause: Duration,
    /// It has been going on for so long that somebody should hear of it; once in `FIGHT_AFTER`.
    pub fight: bool,
}

/// One bucket a key, made when it is first needed.
pub(super) struct Heat<K> {
    buckets: Mutex<HashMap<K, Bucket>>,
}

impl<K: Eq + Hash> Heat<K> {
    pub fn new() -> Heat<K> {
        Heat { buckets: Mutex::new(HashMap::new()) }
    }

    /// Counts one plan with changes.
    pub fn spend(&self, key: K, now: Instant) -> Rest {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SWEEP_AT {
            buckets.retain(|_, b| cooled(b, now) > 0.0);
        }
        let bucket = buckets.entry(key).or_insert(Bucket { spent: 0.0, at: now, hot_since: None });
        let before = cooled(bucket, now);
        (bucket.spent, bucket.at) = (before + 1.0, now);
        if before < BURST / 2.0 {
            bucket.hot_since = None;
        }
        let pause = Duration::from_secs_f64(((bucket.spent - BURST) / PER_SECOND).max(0.0));
        let mut fight = false;
        if !pause.is_zero() {
            let since = *bucket.hot_since.get_or_insert(now);
            fight = now.duration_since(since) >= FIGHT_AFTER;
            if fight {
                bucket.hot_since = Some(now);
            }
        }
        Rest { pause, fight }
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
            assert_eq!(heat.spend("a", now).pause, Duration::ZERO);
        }
        assert_eq!(heat.spend("a", now).pause, Duration::from_millis(100));
        assert_eq!(heat.spend("b", now).pause, Duration::ZERO, "others are not slowed");
        let later = now + Duration::from_secs(60);
        assert_eq!(heat.spend("a", later).pause, Duration::ZERO);
    }

    /// Changes as often as it may for so many seconds; how often that was called a fight.
    fn fights(heat: &Heat<&'static str>, from: Instant, seconds: u64) -> usize {
        let end = from + Duration::from_secs(seconds);
        let (mut now, mut fights) = (from, 0);
        while now < end {
            let rest = heat.spend("a", now);
            fights += usize::from(rest.fight);
            now += rest.pause.max(Duration::from_millis(5));
        }
        fights
    }

    #[tokio::test(start_paused = true)]
    async fn much_to_do_is_no_fight_but_what_never_ends_is() {
        let now = Instant::now();
        assert_eq!(fights(&Heat::new(), now, 25), 0);
        let heat = Heat::new();
        assert_eq!(fights(&heat, now, 300), 9, "said once in half a minute");
        assert_eq!(fights(&heat, now + Duration::from_secs(400), 25), 0, "peace in between");
    }

    #[tokio::test(start_paused = true)]
    async fn cooled_keys_are_forgotten() {
        let heat = Heat::new();
        let now = Instant::now();
        (0..SWEEP_AT).for_each(|n| assert_eq!(heat.spend(n, now).pause, Duration::ZERO));
        heat.spend(SWEEP_AT, now + Duration::from_secs(1));
        assert_eq!(heat.buckets.lock().unwrap().len(), 1);
    }
}
