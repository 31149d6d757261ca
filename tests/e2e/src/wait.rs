//! Waiting for a condition, with a bound.
//!
//! In: a question and how long to ask it; `LIMPET_E2E_PATIENCE`: so many times as long, for emulated machines.
//! Out: its answer, or what it last said. Never: a fixed sleep instead of a question.

use crate::Result;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(50);

/// How many times as long everything may take here.
pub fn patience() -> u32 {
    std::env::var("LIMPET_E2E_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Asks until the answer is `Ok`; the last error when `limit` has passed.
pub fn until<T>(what: &str, limit: Duration, ask: impl FnMut() -> Result<T>) -> Result<T> {
    until_every(PAUSE, what, limit, ask)
}

/// The same with another pause between two questions: for those that cost more than they are worth.
#[allow(clippy::disallowed_methods)] // asking other processes: there is nothing to be woken by
pub fn until_every<T>(pause: Duration, what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let limit = limit * patience();
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(why) if start.elapsed() > limit => {
                return Err(format!("{what}: not within {} s: {why}", limit.as_secs()));
            }
            Err(_) => std::thread::sleep(pause),
        }
    }
}

/// For `until`: the answer is yes or no.
pub fn yes(condition: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(otherwise()) }
}
