//! How long things took, in kubelet's buckets.
//!
//! In: durations, as the loop and its tasks meet them. Out: Prometheus' histograms, for `/metrics`.
//! Never: allocates, or grows: the buckets are fixed, and nothing is counted while nothing happens.

use super::text::Text;
use std::time::Duration;

/// Starts of pods.
const POD_S: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
    1200.0, 1800.0, 2700.0, 3600.0,
];
/// Rounds of the loop.
const ROUND_S: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Operations of the runtime: fourteen, each two and a half times the one before.
const OPERATION_S: [f64; 14] = operations();

const fn operations() -> [f64; 14] {
    let mut bounds = [0.005; 14];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 2.5;
        at += 1;
    }
    bounds
}

/// Durations by the bucket that they fall in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    counts: [u32; N],
    /// Longer than the last bound.
    longer: u32,
    sum_us: u64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Histogram<N> {
        Histogram { counts: [0; N], longer: 0, sum_us: 0 }
    }
}

impl<const N: usize> Histogram<N> {
    fn add(&mut self, bounds: &[f64; N], took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = bounds.iter().position(|bound| seconds <= *bound);
        let count = bucket.map_or(&mut self.longer, |at| &mut self.counts[at]);
        *count = count.saturating_add(1);
        self.sum_us = self.sum_us.saturating_add(took.as_micros() as u64);
    }

    /// Each bucket with all that are below it, as Prometheus has them.
    fn show(&self, bounds: &[f64; N], name: &str, label: Option<(&str, &str)>, t: &mut Text) {
        let labels: Vec<(&str, &str)> = label.into_iter().collect();
        let mut all = 0;
        let buckets = bounds.iter().map(f64::to_string).zip(self.counts).chain([("+Inf".to_string(), self.longer)]);
        for (bound, count) in buckets {
            all += u64::from(count);
            let with_bound: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            t.sample(&format!("{name}_bucket"), &with_bound, all);
        }
        t.sample(&format!("{name}_sum"), &labels, self.sum_us as f64 / 1e6);
        t.sample(&format!("{name}_count"), &labels, all);
    }
}

/// What the runtime is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    PullImage,
    RunPodSandbox,
    StartContainer,
}

/// Everything of which it is said how long it took: 400 bytes at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    operations: [Histogram<14>; 3],
    pods: Histogram<25>,
    rounds: Histogram<11>,
}

impl Took {
    pub fn operation(&mut self, which: Operation, took: Duration) {
        self.operations[which as usize].add(&OPERATION_S, took);
    }

    /// From the pod's arrival at the board until its last container ran for the first time.
    pub fn pod(&mut self, took: Duration) {
        self.pods.add(&POD_S, took);
    }

    /// One round of the agent's loop in which it looked at pods, with all that it did for them there.
    pub fn round(&mut self, took: Duration) {
        self.rounds.add(&ROUND_S, took);
    }

    pub fn metrics(&self, t: &mut Text) {
        let name = "kubelet_runtime_operations_duration_seconds";
        t.family(name, "histogram", "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.");
        for (kind, took) in ["pull_image", "run_podsandbox", "start_container"].into_iter().zip(&self.operations) {
            took.show(&OPERATION_S, name, Some(("operation_type", kind)), t);
        }
        let name = "kubelet_pod_start_duration_seconds";
        let help = "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run";
        t.family(name, "histogram", help);
        self.pods.show(&POD_S, name, None, t);
        let name = "kubelet_pod_worker_duration_seconds";
        t.family(name, "histogram", "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: sync");
        self.rounds.show(&ROUND_S, name, Some(("operation_type", "sync")), t);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_prometheus_reads_them() {
        let mut took = Took::default();
        for ms in [4, 5, 6, 40, 2_000_000] {
            took.operation(Operation::StartContainer, Duration::from_millis(ms));
        }
        let mut text = Text::default();
        took.metrics(&mut text);
        let text = String::from_utf8(text.into_bytes()).unwrap();
        let name = "kubelet_runtime_operations_duration_seconds";
        for (line, value) in [
            ("_bucket{operation_type=\"start_container\",le=\"0.005\"}", "2"),
            ("_bucket{operation_type=\"start_container\",le=\"0.0125\"}", "3"),
            ("_bucket{operation_type=\"start_container\",le=\"0.03125\"}", "3"),
            ("_bucket{operation_type=\"start_container\",le=\"0.078125\"}", "4"),
            ("_bucket{operation_type=\"start_container\",le=\"745.0580596923828\"}", "4"),
            ("_bucket{operation_type=\"start_container\",le=\"+Inf\"}", "5"),
            ("_sum{operation_type=\"start_container\"}", "2000.055"),
            ("_count{operation_type=\"start_container\"}", "5"),
            ("_count{operation_type=\"pull_image\"}", "0"),
        ] {
            assert!(text.contains(&format!("\n{name}{line} {value}\n")), "{line} {value}: {text}");
        }
        assert!(text.contains("\nkubelet_pod_start_duration_seconds_bucket{le=\"0.5\"} 0\n"), "{text}");
        assert_eq!(text.matches(" histogram\n").count(), 3);
    }

    #[test]
    fn they_are_small() {
        assert!(size_of::<Took>() <= 400, "{}", size_of::<Took>());
    }
}
