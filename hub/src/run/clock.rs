//! The one place where the runners read the clock and draw random numbers.
//!
//! In: nothing. Out: the time, seeds. Never: waits.

use limpet_hub_core::Timestamp;
use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Instant,
};

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

/// Random bits for generated names. Without randomness the time must do: names only need to differ.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => now().as_nanosecond() as u64,
    }
}
