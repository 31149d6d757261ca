//! Figures of a controller's queue, under the names that Kubernetes' own controllers use.
//!
//! In: keys taken, work done, retries. Out: Prometheus text: `workqueue_*` by `name`.
//! Source: k8s.io/component-base/metrics/prometheus/workqueue. Never: a lock that work waits for.

use super::histogram::Histogram;
use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds in seconds.
const BOUNDS: [f64; 12] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0];

/// Figures of one controller.
pub(super) struct Figures {
    taken: AtomicU64,
    retries: AtomicU64,
    running: AtomicU64,
    waited: Histogram,
    worked: Histogram,
}

impl Default for Figures {
    fn default() -> Figures {
        let (waited, worked) = (Histogram::new(&BOUNDS), Histogram::new(&BOUNDS));
        let zero = AtomicU64::default;
        Figures { taken: zero(), retries: zero(), running: zero(), waited, worked }
    }
}

impl Figures {
    pub fn took(&self, waited: Duration) {
        self.taken.fetch_add(1, Relaxed);
        self.running.fetch_add(1, Relaxed);
        self.waited.observe(waited);
    }

    pub fn gave_back(&self, worked: Duration) {
        self.running.fetch_sub(1, Relaxed);
        self.worked.observe(worked);
    }

    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }
}

/// The figures of all controllers; each row is (name, figures, keys that wait).
pub(super) fn text(rows: &[(&str, &Figures, usize)]) -> String {
    let mut out = String::new();
    let mut family = |metric: &str, type_: &str, help: &str, value: &dyn Fn(&Figures, usize) -> u64| {
        let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} {type_}");
        for (name, figures, depth) in rows {
            let _ = writeln!(out, "{metric}{{name=\"{name}\"}} {}", value(figures, *depth));
        }
    };
    let adds = |f: &Figures, depth: usize| f.taken.load(Relaxed) + depth as u64;
    family("workqueue_depth", "gauge", "Keys that wait for the controller.", &|_, depth| depth as u64);
    family("workqueue_adds_total", "counter", "Keys that were put into the queue.", &adds);
    family("workqueue_retries_total", "counter", "Keys that came again after a failure.", &|f, _| {
        f.retries.load(Relaxed)
    });
    family("limpet_controller_running", "gauge", "Keys that are worked on now.", &|f, _| f.running.load(Relaxed));
    for (metric, help, histogram) in [
        ("workqueue_queue_duration_seconds", "How long keys waited.", (|f| &f.waited) as fn(&Figures) -> &Histogram),
        ("workqueue_work_duration_seconds", "How long the work on a key took.", |f| &f.worked),
    ] {
        let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} histogram");
        rows.iter().for_each(|(name, figures, _)| histogram(figures).text(metric, &format!("name=\"{name}\""), &mut out));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_prometheus_reads_them() {
        let figures = Figures::default();
        figures.took(Duration::from_micros(50));
        figures.gave_back(Duration::from_millis(2));
        figures.took(Duration::from_secs(5000));
        figures.retried();
        let text = text(&[("job", &figures, 3)]);
        for line in [
            "workqueue_depth{name=\"job\"} 3",
            "workqueue_adds_total{name=\"job\"} 5",
            "workqueue_retries_total{name=\"job\"} 1",
            "limpet_controller_running{name=\"job\"} 1",
            "workqueue_queue_duration_seconds_bucket{name=\"job\",le=\"0.0001\"} 1",
            "workqueue_queue_duration_seconds_bucket{name=\"job\",le=\"1000\"} 1",
            "workqueue_queue_duration_seconds_bucket{name=\"job\",le=\"+Inf\"} 2",
            "workqueue_work_duration_seconds_bucket{name=\"job\",le=\"0.001\"} 0",
            "workqueue_work_duration_seconds_count{name=\"job\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
