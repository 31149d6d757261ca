//! How attempts to schedule went, under kube-scheduler's names.
//!
//! In: profile, result and duration of each attempt. Out: Prometheus text.
//! Source: https://kubernetes.io/docs/reference/instrumentation/metrics/. Never: a name of a pod or node as a label.

use super::histogram::Histogram;
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// As upstream: fifteen, each twice the one before.
const BOUNDS: [f64; 15] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

/// As upstream's label `result` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ended {
    Error,
    Scheduled,
    Unschedulable,
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Ended::Error => "error",
            Ended::Scheduled => "scheduled",
            Ended::Unschedulable => "unschedulable",
        }
    }
}

pub(super) struct Attempts {
    /// By profile and result; profiles are few, and named by the hub's configuration.
    all: Mutex<BTreeMap<(String, Ended), Histogram>>,
    deciding: Histogram,
}

impl Default for Attempts {
    fn default() -> Attempts {
        Attempts { all: Mutex::default(), deciding: Histogram::new(&BOUNDS) }
    }
}

impl Attempts {
    /// The choice of a node alone.
    pub fn decided(&self, took: Duration) {
        self.deciding.observe(took);
    }

    /// All of an attempt, the binding included.
    pub fn ended(&self, profile: &str, ended: Ended, took: Duration) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = all.entry((profile.to_owned(), ended)).or_insert_with(|| Histogram::new(&BOUNDS));
        histogram.observe(took);
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let head = |out: &mut String, name: &str, type_: &str, help: &str| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {type_}");
        };
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = |(profile, ended): &(String, Ended)| format!("profile=\"{profile}\",result=\"{}\"", ended.name());
        let total = "scheduler_schedule_attempts_total";
        head(&mut out, total, "counter", "Attempts to schedule pods, by how they ended.");
        for (key, histogram) in &*all {
            let _ = writeln!(out, "{total}{{{}}} {}", labels(key), histogram.count());
        }
        let duration = "scheduler_scheduling_attempt_duration_seconds";
        head(&mut out, duration, "histogram", "How long attempts took, the binding included.");
        all.iter().for_each(|(key, histogram)| histogram.text(duration, &labels(key), &mut out));
        let deciding = "scheduler_scheduling_algorithm_duration_seconds";
        head(&mut out, deciding, "histogram", "How long the choice of a node took.");
        self.deciding.text(deciding, "", &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_written_under_upstreams_names() {
        let attempts = Attempts::default();
        attempts.decided(Duration::from_micros(300));
        attempts.ended("default-scheduler", Ended::Scheduled, Duration::from_millis(3));
        attempts.ended("default-scheduler", Ended::Scheduled, Duration::from_secs(100));
        attempts.ended("packs", Ended::Unschedulable, Duration::from_millis(1));
        let text = attempts.text();
        for line in [
            "scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"scheduled\"} 2",
            "scheduler_schedule_attempts_total{profile=\"packs\",result=\"unschedulable\"} 1",
            "scheduler_scheduling_attempt_duration_seconds_bucket{profile=\"default-scheduler\",result=\"scheduled\",le=\"0.004\"} 1",
            "scheduler_scheduling_attempt_duration_seconds_bucket{profile=\"default-scheduler\",result=\"scheduled\",le=\"+Inf\"} 2",
            "scheduler_scheduling_attempt_duration_seconds_count{profile=\"packs\",result=\"unschedulable\"} 1",
            "scheduler_scheduling_algorithm_duration_seconds_bucket{le=\"0.001\"} 1",
            "scheduler_scheduling_algorithm_duration_seconds_count 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
