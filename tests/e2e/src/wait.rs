//! Waiting for a condition, with a bound.
//!
//! In: a question and how long to ask it; `LIMPET_E2E_PATIENCE`: so many times as long, for emulated machines.
//! Out: its answer, or what it last said. Never: a fixed sleep instead of a question, or a processor that only asks.

use crate::Result;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How many times as long everything may take here.
pub fn patience() -> u32 {
    std::env::var("LIMPET_E2E_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Asks until the answer is `Ok`; the last error when `limit` has passed.
pub fn until<T>(what: &str, limit: Duration, ask: impl FnMut() -> Result<T>) -> Result<T> {
    until_every(PAUSE, what, limit, ask)
}

/// The same with another shortest pause between two questions: for those that cost more than they are worth.
#[allow(clippy::disallowed_methods)] // asking other processes: there is nothing to be woken by
pub fn until_every<T>(least: Duration, what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let limit = limit * patience();
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(why) if start.elapsed() > limit => {
                return Err(format!("{what}: not within {} s: {why}", limit.as_secs()));
            }
            Err(_) => std::thread::sleep(pause(asked.elapsed(), start.elapsed()).max(least)),
        }
    }
}

/// A question that is a run of kubectl takes the processor from what it waits for: three times as long as it took is waited, but
/// not so long that the answer comes much later than it might.
fn pause(took: Duration, waited: Duration) -> Duration {
    (took * 3).min(waited / 10).min(PAUSE_MAX)
}

/// For `until`: the answer is yes or no.
pub fn yes(condition: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(otherwise()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dear_questions_are_asked_less_often_the_longer_they_are_asked() {
        let ms = Duration::from_millis;
        assert_eq!(pause(ms(90), ms(1000)), ms(100));
        assert_eq!(pause(ms(90), ms(60_000)), ms(270));
        assert_eq!(pause(ms(900), ms(60_000)), PAUSE_MAX);
        assert_eq!(pause(ms(1), ms(60_000)), ms(3));
        let mut asked = 0;
        let answer = until("the third answer", ms(60_000), || {
            asked += 1;
            yes(asked == 3, || "not yet".into())
        });
        assert!(answer.is_ok() && asked == 3);
        assert_eq!(until::<()>("it", ms(0), || Err("no".into())), Err("it: not within 0 s: no".into()));
    }
}
