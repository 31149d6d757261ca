//! `/metrics/probes`: how often each probe of a running container succeeded, failed, or could not be made, in kubelet's names.
//!
//! In: the subject. Out: Prometheus text. Counts begin anew with each start of the container, as counters may.

use super::{Subject, text::Text};

const TOTAL: &str = "prober_probe_total";

pub fn page(subject: &Subject) -> Vec<u8> {
    let mut t = Text::default();
    let help = "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
    t.family(TOTAL, "counter", help);
    for pod in &subject.pods {
        for container in &pod.containers {
            for (kind, counts) in &container.probes {
                let results = ["successful", "failed", "unknown"].into_iter().zip(counts);
                for (result, count) in results.filter(|(_, count)| **count > 0) {
                    let labels = [
                        ("container", &*container.name),
                        ("namespace", &*pod.namespace),
                        ("pod", &*pod.name),
                        ("pod_uid", &*pod.uid),
                        ("probe_type", *kind),
                        ("result", result),
                    ];
                    t.sample(TOTAL, &labels, count);
                }
            }
        }
    }
    t.into_bytes()
}
