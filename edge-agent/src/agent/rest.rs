//! When memory is given back: what starting and joining needed, and what lies between what a busy time left.
//!
//! In: when something was said to the hub. Out: when the next time is due.
//! Never: waits for ever for silence, or does it more often than it is worth.

/// Nothing was said for so long: whatever it was about is over.
const SILENCE_MS: u64 = 10_000;
/// A board that never falls silent, and one that never says a word (its probes alone leave fragments), does it so often.
const EVERY_MS: u64 = 600_000;

#[derive(Debug, Default)]
pub struct Rest {
    said_at_ms: Option<u64>,
    done_at_ms: u64,
}

impl Rest {
    pub fn said(&mut self, now_ms: u64) {
        self.said_at_ms = Some(now_ms);
    }

    pub fn due_at(&self) -> u64 {
        let at_latest = self.done_at_ms + EVERY_MS;
        self.said_at_ms.map_or(at_latest, |at| at_latest.min(at + SILENCE_MS))
    }

    /// True when it is to be done now.
    pub fn is_due(&mut self, now_ms: u64) -> bool {
        let due = self.due_at() <= now_ms;
        if due {
            *self = Rest { said_at_ms: None, done_at_ms: now_ms };
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_after_the_last_word_and_every_ten_minutes() {
        let mut rest = Rest::default();
        rest.said(1_000);
        rest.said(3_000);
        assert!(!rest.is_due(12_999));
        assert!(rest.is_due(13_000));
        assert!(!rest.is_due(13_000));
        // Silence.
        assert_eq!(rest.due_at(), 613_000);
        assert!(rest.is_due(613_000));
        // Never silent.
        let done = (613..1_900).filter(|second| {
            rest.said(second * 1000);
            rest.is_due(second * 1000)
        });
        assert_eq!(done.collect::<Vec<u64>>(), [1_213, 1_813]);
    }
}
