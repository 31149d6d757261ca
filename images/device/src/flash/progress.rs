//! How far each card is.
//!
//! In: counts from the writing threads. Out: a line with rate and time left. Never: prints.

use super::drives::size;
use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::Duration,
};

/// Shared between the thread that writes a card and the one that shows it.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    done: AtomicU64,
    /// 0: not known, the image is compressed and does not say.
    total: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Writing = 0,
    Verifying,
    Provisioning,
    Finished,
    Failed,
}

const PHASES: [(Phase, &str); 5] = [
    (Phase::Writing, "writing"),
    (Phase::Verifying, "reading back"),
    (Phase::Provisioning, "adding the node's files"),
    (Phase::Finished, "done"),
    (Phase::Failed, "failed"),
];

impl Progress {
    pub fn begin(&self, phase: Phase, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Relaxed)).min(PHASES.len() - 1)].0
    }

    /// `since`: time in this phase.
    pub fn line(&self, since: Duration) -> String {
        let phase = self.phase();
        let word = PHASES.iter().find(|(p, _)| *p == phase).map_or("", |(_, w)| w);
        match phase {
            Phase::Writing | Phase::Verifying => {
                let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
                format!("{word} {}", measure(done, total, since))
            }
            _ => word.into(),
        }
    }
}

const BEGUN: Duration = Duration::from_millis(500);

/// `45 %, 310.0 MB of 689.1 MB, 25.1 MB/s, 15 s left`
fn measure(done: u64, total: u64, since: Duration) -> String {
    // Of what has only begun there is no rate yet.
    let rate = if since < BEGUN { 0.0 } else { done as f64 / since.as_secs_f64() };
    let speed = format!("{}/s", size(rate as u64));
    if total == 0 {
        return format!("{}, {speed}", size(done));
    }
    let percent = (done.min(total) as f64 / total as f64 * 100.0) as u64;
    let left = match rate > 0.0 {
        true => clock((total.saturating_sub(done) as f64 / rate) as u64),
        false => "unknown time".into(),
    };
    format!("{percent} %, {} of {}, {speed}, {left} left", size(done), size(total))
}

fn clock(seconds: u64) -> String {
    match seconds {
        s if s < 90 => format!("{s} s"),
        s => format!("{} min {} s", s / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_are_told() {
        let p = Progress::default();
        p.begin(Phase::Writing, 1_000_000_000);
        p.advance(250_000_000);
        let line = p.line(Duration::from_secs(10));
        assert_eq!(line, "writing 25 %, 250.0 MB of 1.0 GB, 25.0 MB/s, 30 s left");
        p.begin(Phase::Verifying, 0);
        assert_eq!(p.line(Duration::from_secs(1)), "reading back 0.0 MB, 0.0 MB/s");
        p.begin(Phase::Finished, 0);
        assert_eq!(p.line(Duration::ZERO), "done");
        assert_eq!(measure(0, 100, Duration::ZERO), "0 %, 0.0 MB of 0.0 MB, 0.0 MB/s, unknown time left");
        assert_eq!(measure(50, 100, Duration::from_millis(1)), "50 %, 0.0 MB of 0.0 MB, 0.0 MB/s, unknown time left");
        assert_eq!(clock(600), "10 min 0 s");
    }
}
