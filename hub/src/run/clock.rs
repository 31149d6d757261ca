//! The one place where the runners read the clock and draw random numbers.
//!
//! In: nothing. Out: the time, seeds. Never: waits.

use limpet_hub_core::{
    Timestamp,
    clocks::{Even, Evenness, WallClock},
};
use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Instant,
};
use tokio::sync::watch;

pub fn now() -> Timestamp {
    Timestamp::now()
}

/// As `now`, but never back: what sessions measure their waits with. It follows a jump forward, which only makes waits
/// shorter, and passes over one back.
pub fn steady() -> Timestamp {
    static LAST: Mutex<Option<(Timestamp, Instant)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let (wall, mono) = (now(), Instant::now());
    let at = match *last {
        Some((at, seen)) => at.checked_add(mono - seen).unwrap_or(wall).max(wall),
        None => wall,
    };
    *last = Some((at, mono));
    at
}

/// When a `steady` time comes.
pub fn steady_instant(at: Timestamp) -> tokio::time::Instant {
    let wait = at.duration_since(steady());
    tokio::time::Instant::now() + std::time::Duration::try_from(wait).unwrap_or_default()
}

/// A clock that was right when the hub began to ask it, and that nobody sets: how long somebody has been silent is
/// measured with it. Other than `steady` it does not follow a jump forward either, after which everybody would have been
/// silent for long.
pub fn even() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
    let (wall, mono) = START.get_or_init(|| (now(), Instant::now()));
    wall.checked_add(mono.elapsed()).unwrap_or(*wall)
}

/// Whether the wall clock can be trusted with waits, for the controllers.
pub struct Clock;

impl WallClock for Clock {
    fn even(&self, now: Timestamp) -> Even {
        let mut told = None;
        let mut last = evenness().0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.times_set();
        let even = last.look(now, even());
        if last.times_set() != before {
            told = Some(last.times_set());
        }
        drop(last);
        if let Some(times) = told {
            tracing::warn!("the hub's wall clock was set; waits that were measured with it begin again");
            evenness().1.send_replace(times);
        }
        even
    }
}

/// How often somebody has set the wall clock since the hub's start; changes whenever it is noticed again. Nobody polls: it is
/// noticed by whoever asks for the time next.
pub fn times_set() -> watch::Receiver<u64> {
    evenness().1.subscribe()
}

fn evenness() -> &'static (Mutex<Evenness>, watch::Sender<u64>) {
    static LOOKS: OnceLock<(Mutex<Evenness>, watch::Sender<u64>)> = OnceLock::new();
    LOOKS.get_or_init(|| (Mutex::new(Evenness::new(now(), even())), watch::Sender::new(0)))
}

/// Random bits for generated names. Without randomness the time must do: names only need to differ.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => now().as_nanosecond() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_told() {
        let (mut told, real) = (times_set(), now());
        Clock.even(real);
        told.mark_unchanged();
        let tomorrow = real.checked_add(jiff::SignedDuration::from_hours(24)).unwrap();
        let even = Clock.even(tomorrow);
        assert!(even.was_set && even.since == tomorrow && told.has_changed().unwrap());
    }
}
