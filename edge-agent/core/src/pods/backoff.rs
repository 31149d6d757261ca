//! Waiting longer and longer between attempts.
//!
//! In: monotonic times of failures. Out: until when to wait. The rule is kubelet's: the first retry is at once, then
//! `first` doubling to `max`; quiet for twice `max` starts over.

use crate::plan::HostFacts;

#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    first_ms: u64,
    max_ms: u64,
    delay_ms: u64,
    updated_ms: u64,
}

impl Backoff {
    /// CrashLoopBackOff and ImagePullBackOff.
    pub fn kubelet() -> Backoff {
        Backoff::new(10_000, 300_000)
    }

    /// CrashLoopBackOff as the node is set; 0 is kubelet's own default.
    pub fn restart(host: &HostFacts) -> Backoff {
        let or = |set: u64, default| if set == 0 { default } else { set };
        let max_ms = or(host.restart_wait_ms_max, 300_000);
        Backoff::new(or(host.restart_wait_ms_first, 10_000).min(max_ms), max_ms)
    }

    pub fn new(first_ms: u64, max_ms: u64) -> Backoff {
        Backoff { first_ms, max_ms, delay_ms: 0, updated_ms: 0 }
    }

    fn expired(&self, at_ms: u64) -> bool {
        // Ten minutes at kubelet's default, and no less for a node that is set to wait shorter.
        at_ms.saturating_sub(self.updated_ms) > 2 * self.max_ms.max(300_000)
    }

    /// Until when something that failed at `failed_ms` must wait, and how long that is in all; `None`: not at all.
    pub fn wait(&self, failed_ms: u64) -> Option<(u64, u64)> {
        if self.delay_ms == 0 || self.expired(failed_ms) {
            return None;
        }
        Some((failed_ms + self.delay_ms, self.delay_ms))
    }

    /// An attempt begins after a failure at `failed_ms`.
    pub fn next(&mut self, failed_ms: u64, now_ms: u64) {
        let fresh = self.delay_ms == 0 || self.expired(failed_ms);
        self.delay_ms = if fresh { self.first_ms } else { (self.delay_ms * 2).min(self.max_ms) };
        self.updated_ms = now_ms;
    }

    /// Counts a failure and says until when to wait, for things that wait after the first failure already.
    pub fn fail(&mut self, now_ms: u64) -> u64 {
        self.next(now_ms, now_ms);
        now_ms + self.delay_ms
    }

    pub fn reset(&mut self) {
        self.delay_ms = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubelet_waits() {
        let mut b = Backoff::kubelet();
        let mut now = 1000;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let failed = now;
            let until = b.wait(failed).map_or(now, |(until, _)| until);
            waits.push((until - failed) / 1000);
            b.next(failed, until);
            now = until + 1000;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let long_after = now + 601_000;
        assert_eq!(b.wait(long_after), None);
        b.next(long_after, long_after);
        assert_eq!(b.wait(long_after + 5), Some((long_after + 10_005, 10_000)));
    }
}
