//! `/metrics/resource`: what metrics-server scrapes, in kubelet's names.
//!
//! In: the subject, measurements. Out: Prometheus text.

use super::{
    Measured, Subject,
    text::{Text, seconds},
};

pub fn page(subject: &Subject, measured: &Measured) -> Vec<u8> {
    let mut t = Text::default();
    let m = &measured.machine;
    let each = |t: &mut Text, name: &str, kind: &str, help: &str, of: &dyn Fn(usize, usize) -> Option<f64>| {
        t.family(name, kind, help);
        for (p, pod) in subject.pods.iter().enumerate() {
            for (c, container) in pod.containers.iter().enumerate().filter(|(_, c)| c.running) {
                let labels =
                    [("container", &*container.name), ("namespace", &*pod.namespace), ("pod", &*pod.name)];
                if let Some(value) = of(p, c) {
                    t.sample(name, &labels, value);
                }
            }
        }
    };
    let stats = |p: usize, c: usize| &measured.pods[p].containers[c].stats;
    each(&mut t, "container_cpu_usage_seconds_total", "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        &|p, c| stats(p, c).usage.cpu_ns.map(seconds));
    each(&mut t, "container_memory_working_set_bytes", "gauge",
        "[STABLE] Current working set of the container in bytes",
        &|p, c| stats(p, c).usage.working_set_bytes.map(|n| n as f64));
    each(&mut t, "container_start_time_seconds", "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
        &|p, c| Some(subject.pods[p].containers[c].started_ms as f64 / 1000.0));
    each(&mut t, "container_swap_usage_bytes", "gauge", "[ALPHA] Current amount of the container swap usage in bytes",
        &|p, c| stats(p, c).swap_bytes.map(|n| n as f64));
    t.one("node_cpu_usage_seconds_total", "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds", seconds(m.cpu_ns));
    t.one("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes",
        m.memory_total.saturating_sub(m.memory_available));
    t.one("node_swap_usage_bytes", "gauge", "[ALPHA] Current swap usage of the node in bytes",
        m.swap_total.saturating_sub(m.swap_free));
    let pods = |t: &mut Text, name: &str, kind: &str, help: &str, of: &dyn Fn(usize) -> Option<f64>| {
        t.family(name, kind, help);
        for (p, pod) in subject.pods.iter().enumerate() {
            if let Some(value) = of(p) {
                t.sample(name, &[("namespace", &*pod.namespace), ("pod", &*pod.name)], value);
            }
        }
    };
    pods(&mut t, "pod_cpu_usage_seconds_total", "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        &|p| measured.pods[p].stats.usage.cpu_ns.map(seconds));
    pods(&mut t, "pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes",
        &|p| measured.pods[p].stats.usage.working_set_bytes.map(|n| n as f64));
    pods(&mut t, "pod_swap_usage_bytes", "gauge", "[ALPHA] Current amount of the pod swap usage in bytes",
        &|p| measured.pods[p].stats.swap_bytes.map(|n| n as f64));
    t.one("resource_scrape_error", "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise", 0);
    t.into_bytes()
}
