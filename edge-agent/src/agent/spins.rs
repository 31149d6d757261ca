//! A guard against a timer that stays due: a board that runs on a battery must not pay for a fault of this program.
//!
//! In: each time the loop was woken, and by what. Out: whether it has a rest now.
//! Never: counts what others say; only timers can be due for ever.

/// Work takes its time: whoever is woken so often within a second has none.
const WAKES_A_SECOND_MAX: u32 = 1000;
const SECOND_MS: u64 = 1000;

#[derive(Debug, Default)]
pub struct Spins {
    second: u64,
    wakes: u32,
}

impl Spins {
    /// Counts a wake by a timer. `Some` once in the second in which it was one too many: then say so.
    pub fn woken(&mut self, now_ms: u64) -> Option<u32> {
        let second = now_ms / SECOND_MS;
        if second != self.second {
            (self.second, self.wakes) = (second, 0);
        }
        self.wakes = self.wakes.saturating_add(1);
        (self.wakes == WAKES_A_SECOND_MAX).then_some(self.wakes)
    }

    /// No timer wakes the loop before this.
    pub fn not_before(&self) -> u64 {
        if self.wakes < WAKES_A_SECOND_MAX { 0 } else { (self.second + 1) * SECOND_MS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_again_and_again_waits_for_the_next_second() {
        let mut spins = Spins::default();
        // Often, and always with something to do.
        for ms in 0..10_000 {
            assert_eq!(spins.woken(ms * 2), None);
            assert_eq!(spins.not_before(), 0);
        }
        let told = (0..5000).filter(|_| spins.woken(50_100).is_some()).count();
        assert_eq!((told, spins.not_before()), (1, 51_000));
        assert_eq!((spins.woken(51_000), spins.not_before()), (None, 0));
    }
}
