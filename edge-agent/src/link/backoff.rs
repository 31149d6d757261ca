//! How long to wait before the next attempt: doubling, with jitter, so that a fleet does not come back in step.

const FIRST_MS: u64 = 1000;

#[derive(Debug)]
pub struct Backoff {
    next_ms: u64,
    max_ms: u64,
}

impl Backoff {
    pub fn new(max_s: u64) -> Backoff {
        Backoff { next_ms: FIRST_MS, max_ms: max_s.max(1) * 1000 }
    }

    pub fn reset(&mut self) {
        self.next_ms = FIRST_MS;
    }

    /// Between half and all of the present delay, which then doubles.
    pub fn next(&mut self) -> std::time::Duration {
        let mut random = [0u8; 2];
        let _ = getrandom::fill(&mut random);
        let share = u64::from(u16::from_le_bytes(random));
        let delay = self.next_ms / 2 + self.next_ms / 2 * share / 65_535;
        self.next_ms = (self.next_ms * 2).min(self.max_ms);
        std::time::Duration::from_millis(delay)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn doubles_to_its_cap_with_jitter() {
        let mut b = super::Backoff::new(60);
        for full in [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            let ms = b.next().as_millis() as u64;
            assert!(ms >= full / 2 && ms <= full, "{ms} of {full}");
        }
        b.reset();
        assert!(b.next().as_millis() <= 1000);
    }
}
