//! The clock that the agent believes: never below the last good time known, and the hub's when the system's is ahead.
//!
//! In: the system's clocks, a floor from the journal, the hub's time. Out: `Now`.
//! Never: sets the system's clock. A board that boots in 1970 counts on from the floor; one that boots in 2050 is right from
//! the hub's first word on.

use limpet_agent_core::Now;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Tests put a board into another year with this: seconds added to the system's clock, may be negative.
const TEST_OFFSET: &str = "LIMPET_FAKE_WALL_OFFSET_S";

#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    offset_ms: i64,
    /// A good time and the monotonic moment at which it was good.
    floor: Arc<Mutex<(u64, u64)>>,
    /// How far the system's clock is ahead of the hub's.
    ahead_ms: Arc<AtomicU64>,
}

/// Differences up to this are nobody's fault.
const AHEAD_MS_MIN: u64 = 120_000;

impl Clock {
    pub fn new() -> Clock {
        let offset_s: i64 = std::env::var(TEST_OFFSET).ok().and_then(|s| s.parse().ok()).unwrap_or(0);
        let offset_ms = offset_s.saturating_mul(1000);
        Clock { start: Instant::now(), offset_ms, floor: Arc::new(Mutex::new((0, 0))), ahead_ms: Arc::default() }
    }

    pub fn mono_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn system_ms(&self) -> u64 {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        system.saturating_add_signed(self.offset_ms)
    }

    pub fn wall_ms(&self) -> u64 {
        let system = self.system_ms().saturating_sub(self.ahead_ms.load(Ordering::Relaxed));
        let (floor, at) = *self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        system.max(floor + self.mono_ms().saturating_sub(at))
    }

    pub fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms(), wall_ms: self.wall_ms() }
    }

    /// It is at least this late.
    pub fn raise(&self, wall_ms: u64) {
        let mono = self.mono_ms();
        let mut floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        if wall_ms > floor.0 + mono.saturating_sub(floor.1) {
            *floor = (wall_ms, mono);
        }
    }

    /// The hub says what time it is.
    pub fn told(&self, hub_ms: u64) {
        let ahead = self.system_ms().saturating_sub(hub_ms);
        let ahead = if ahead > AHEAD_MS_MIN { ahead } else { 0 };
        if self.ahead_ms.swap(ahead, Ordering::Relaxed).abs_diff(ahead) > AHEAD_MS_MIN {
            log::warn!("clock: this board's is {} s ahead of the hub's; the hub's counts", ahead / 1000);
        }
        self.raise(hub_ms);
    }

    /// The last good time known and what has passed since; 0 when none is known.
    pub fn floor_ms(&self) -> u64 {
        let (floor, at) = *self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        if floor == 0 { 0 } else { floor + self.mono_ms().saturating_sub(at) }
    }

    /// A monotonic moment of `Now` for tokio's timers.
    pub fn instant(&self, mono_ms: u64) -> tokio::time::Instant {
        let at = self.start.checked_add(std::time::Duration::from_millis(mono_ms));
        tokio::time::Instant::from_std(at.unwrap_or_else(Instant::now))
    }
}

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let since = std::time::Duration::from_millis(self.wall_ms());
        Some(rustls::pki_types::UnixTime::since_unix_epoch(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_below_the_floor_and_never_back() {
        let clock = Clock::new();
        let real = clock.wall_ms();
        clock.raise(real + 1_000_000);
        assert!(clock.wall_ms() >= real + 1_000_000);
        clock.raise(5);
        assert!(clock.wall_ms() >= real + 1_000_000);
    }

    #[test]
    fn a_clock_that_is_ahead_follows_the_hub() {
        let clock = Clock { offset_ms: 24 * 365 * 86_400_000, ..Clock::new() };
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        assert!(clock.wall_ms() > real + 23 * 365 * 86_400_000);
        clock.told(real);
        assert!(clock.wall_ms().abs_diff(real) < AHEAD_MS_MIN);
        clock.told(real - 60_000);
        assert!(clock.wall_ms() >= real, "never back below what was once good");
    }
}
