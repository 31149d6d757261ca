//! Figures about the API server, in Prometheus' text form and under upstream's names.
//!
//! In: each answered request. Out: the text of `/metrics`. Labels come from the registry and fixed words
//! only, so that no client can make the set grow. Never: blocks for longer than one addition.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// Upper bounds in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 10.0, 60.0];

/// A label's value.
type Word = Cow<'static, str>;

/// What a request counts under.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Labels {
    pub verb: &'static str,
    pub group: Word,
    pub version: Word,
    pub resource: Word,
    pub subresource: Word,
    pub scope: &'static str,
}

impl Labels {
    const NONE: Word = Cow::Borrowed("");
    pub const OTHER: Labels = Labels {
        verb: "GET",
        group: Self::NONE,
        version: Self::NONE,
        resource: Self::NONE,
        subresource: Self::NONE,
        scope: "",
    };
}

#[derive(Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    total: u64,
    sum: f64,
}

#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(Labels, u16), u64>>,
    durations: Mutex<BTreeMap<Labels, Histogram>>,
    pub watches: AtomicI64,
    pub in_flight: AtomicI64,
}

/// A request that is being answered; also one whose client leaves is counted out.
pub struct Entered<'a>(&'a AtomicI64);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub fn enter(&self) -> Entered<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Entered(&self.in_flight)
    }

    pub fn request(&self, labels: Labels, code: u16, took: Option<Duration>) {
        if let (Some(took), Ok(mut durations)) = (took, self.durations.lock()) {
            let histogram = durations.entry(labels.clone()).or_default();
            let seconds = took.as_secs_f64();
            histogram.total += 1;
            histogram.sum += seconds;
            for (count, bound) in histogram.counts.iter_mut().zip(BUCKETS) {
                *count += u64::from(seconds <= bound);
            }
        }
        if let Ok(mut requests) = self.requests.lock() {
            *requests.entry((labels, code)).or_default() += 1;
        }
    }

    /// The text; `stored` is the number of objects by resource.
    pub fn text(&self, revision: u64, stored: &[(String, usize)]) -> String {
        let mut out = String::with_capacity(16 * 1024);
        // Writing into a String cannot fail.
        let _ = self.write(&mut out, revision, stored);
        out
    }

    fn write(&self, out: &mut String, revision: u64, stored: &[(String, usize)]) -> std::fmt::Result {
        head(out, "apiserver_request_total", "counter", "Requests, by verb, resource and code.")?;
        for ((labels, code), count) in self.requests.lock().iter().flat_map(|r| r.iter()) {
            writeln!(out, "apiserver_request_total{{{},code=\"{code}\"}} {count}", text(labels))?;
        }
        head(
            out,
            "apiserver_request_duration_seconds",
            "histogram",
            "Time to answer, in seconds; no watches.",
        )?;
        for (labels, histogram) in self.durations.lock().iter().flat_map(|d| d.iter()) {
            let labels = text(labels);
            for (count, bound) in histogram.counts.iter().zip(BUCKETS) {
                writeln!(
                    out,
                    "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count}"
                )?;
            }
            let (total, sum) = (histogram.total, histogram.sum);
            writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {total}")?;
            writeln!(out, "apiserver_request_duration_seconds_sum{{{labels}}} {sum}")?;
            writeln!(out, "apiserver_request_duration_seconds_count{{{labels}}} {total}")?;
        }
        head(out, "apiserver_longrunning_requests", "gauge", "Open watches.")?;
        writeln!(
            out,
            "apiserver_longrunning_requests{{verb=\"WATCH\"}} {}",
            self.watches.load(Ordering::Relaxed)
        )?;
        head(out, "apiserver_current_inflight_requests", "gauge", "Requests being answered.")?;
        writeln!(out, "apiserver_current_inflight_requests {}", self.in_flight.load(Ordering::Relaxed))?;
        head(out, "apiserver_storage_objects", "gauge", "Stored objects, by resource.")?;
        for (resource, count) in stored {
            writeln!(out, "apiserver_storage_objects{{resource=\"{resource}\"}} {count}")?;
        }
        head(out, "limpet_store_revision", "gauge", "Newest revision of the store.")?;
        writeln!(out, "limpet_store_revision {revision}")
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn text(l: &Labels) -> String {
    format!(
        "verb=\"{}\",group=\"{}\",version=\"{}\",resource=\"{}\",subresource=\"{}\",scope=\"{}\"",
        l.verb, l.group, l.version, l.resource, l.subresource, l.scope
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_prints() {
        let metrics = Metrics::default();
        let labels =
            Labels {
            version: "v1".into(),
            resource: "pods".into(),
            scope: "resource",
            ..Labels::OTHER
        };
        metrics.request(labels.clone(), 200, Some(Duration::from_millis(7)));
        metrics.request(labels, 404, None);
        let text = metrics.text(9, &[("pods".into(), 3)]);
        let pods = r#"verb="GET",group="",version="v1",resource="pods",subresource="",scope="resource""#;
        for line in [
            format!("apiserver_request_total{{{pods},code=\"404\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{pods},le=\"0.005\"}} 0"),
            format!("apiserver_request_duration_seconds_bucket{{{pods},le=\"0.01\"}} 1"),
            "apiserver_storage_objects{resource=\"pods\"} 3".to_owned(),
            "limpet_store_revision 9".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
