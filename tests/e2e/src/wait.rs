//! Waiting for a condition, with a bound.
//!
//! In: a question and how long to ask it. Out: its answer, or what it last said. Never: a fixed sleep instead of a question.

use crate::Result;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the answer is `Ok`; the last error when `limit` has passed.
#[allow(clippy::disallowed_methods)] // asking other processes: there is nothing to be woken by
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(why) if start.elapsed() > limit => {
                return Err(format!("{what}: not within {} s: {why}", limit.as_secs()));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// For `until`: the answer is yes or no.
pub fn yes(condition: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(otherwise()) }
}
