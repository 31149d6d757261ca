//! Figures of a controller's queue, under the names that Kubernetes' own controllers use.
//!
//! In: keys taken, work done and under way, retries. Out: Prometheus text: `workqueue_*` by `name`.
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
    waited: Histogram,
    worked: Histogram,
}

impl Default for Figures {
    fn default() -> Figures {
        let (waited, worked) = (Histogram::new(&BOUNDS), Histogram::new(&BOUNDS));
        let zero = AtomicU64::default;
        Figures { taken: zero(), retries: zero(), waited, worked }
    }
}

impl Figures {
    pub fn took(&self, waited: Duration) {
        self.taken.fetch_add(1, Relaxed);
        self.waited.observe(waited);
    }

    pub fn gave_back(&self, worked: Duration) {
        self.worked.observe(worked);
    }

    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }
}

/// One controller at the moment of a look.
pub(super) struct Row<'f> {
    pub name: &'static str,
    pub figures: &'f Figures,
    /// Keys that wait.
    pub depth: usize,
    /// For how long each key that is worked on has been.
    pub under_way: Vec<Duration>,
}

/// The figures of all controllers.
pub(super) fn text(rows: &[Row<'_>]) -> String {
    let mut out = String::new();
    let mut family = |metric: &str, type_: &str, help: &str, value: &dyn Fn(&Row<'_>) -> f64| {
        let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} {type_}");
        for row in rows {
            let _ = writeln!(out, "{metric}{{name=\"{}\"}} {}", row.name, value(row));
        }
    };
    let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
    family("workqueue_depth", "gauge", "Keys that wait for the controller.", &|r| r.depth as f64);
    family("workqueue_adds_total", "counter", "Keys that were put into the queue.", &|r| {
        (r.figures.taken.load(Relaxed) + r.depth as u64) as f64
    });
    family("workqueue_retries_total", "counter", "Keys that came again after a failure.", &|r| {
        r.figures.retries.load(Relaxed) as f64
    });
    family("workqueue_unfinished_work_seconds", "gauge", "Time spent on keys that are still worked on.", &|r| {
        seconds(Some(r.under_way.iter().sum()))
    });
    family("workqueue_longest_running_processor_seconds", "gauge", "The longest of these times.", &|r| {
        seconds(r.under_way.iter().max().copied())
    });
    family("limpet_controller_running", "gauge", "Keys that are worked on now.", &|r| r.under_way.len() as f64);
    for (metric, help, histogram) in [
        ("workqueue_queue_duration_seconds", "How long keys waited.", (|f| &f.waited) as fn(&Figures) -> &Histogram),
        ("workqueue_work_duration_seconds", "How long the work on a key took.", |f| &f.worked),
    ] {
        let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} histogram");
        for Row { name, figures, .. } in rows {
            histogram(figures).text(metric, &format!("name=\"{name}\""), &mut out);
        }
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
        let under_way = vec![Duration::from_millis(500), Duration::from_secs(2)];
        let text = text(&[
            Row { name: "job", figures: &figures, depth: 3, under_way },
            Row { name: "idle", figures: &Figures::default(), depth: 0, under_way: vec![] },
        ]);
        for line in [
            "workqueue_depth{name=\"job\"} 3",
            "workqueue_adds_total{name=\"job\"} 5",
            "workqueue_retries_total{name=\"job\"} 1",
            "workqueue_unfinished_work_seconds{name=\"job\"} 2.5",
            "workqueue_longest_running_processor_seconds{name=\"job\"} 2",
            "workqueue_unfinished_work_seconds{name=\"idle\"} 0",
            "workqueue_longest_running_processor_seconds{name=\"idle\"} 0",
            "limpet_controller_running{name=\"job\"} 2",
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
