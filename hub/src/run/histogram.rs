//! A histogram as Prometheus reads it.
//!
//! In: durations. Out: lines of buckets, sum and count. Never: a lock that work waits for.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

pub(super) struct Histogram {
    /// Upper bounds in seconds.
    bounds: &'static [f64],
    /// One more than bounds.
    buckets: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

impl Histogram {
    pub fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), nanos: AtomicU64::new(0) }
    }

    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let at = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        self.buckets[at].fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Relaxed)).sum()
    }

    /// `labels`: such as `name="job"`.
    pub fn text(&self, metric: &str, labels: &str, out: &mut String) {
        let mut sum = 0;
        let comma = if labels.is_empty() { "" } else { "," };
        for (at, bucket) in self.buckets.iter().enumerate() {
            sum += bucket.load(Relaxed);
            let le = self.bounds.get(at).map_or("+Inf".to_string(), f64::to_string);
            let _ = writeln!(out, "{metric}_bucket{{{labels}{comma}le=\"{le}\"}} {sum}");
        }
        let seconds = self.nanos.load(Relaxed) as f64 / 1e9;
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{metric}_sum{braces} {seconds}\n{metric}_count{braces} {sum}");
    }
}
