//! When a probe runs and what its results mean.
//!
//! In: time and results. Out: whether to run now, and verdicts once a threshold is reached.
//! The rules are kubelet's (Kubernetes "Configure Liveness, Readiness and Startup Probes").
//! Never: runs a probe, or two of one kind at a time.

use super::{Check, check_of};
use crate::api;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// With a capital, as in the Events.
    pub fn title(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "startup",
            ProbeKind::Liveness => "liveness",
            ProbeKind::Readiness => "readiness",
        }
    }
}

/// Readiness is tried earlier than its period until it first succeeds, so that pods become ready fast.
const EARLY_MS: [u64; 6] = [50, 100, 200, 400, 800, 1600];

#[derive(Debug)]
pub(super) struct Prober {
    pub kind: ProbeKind,
    pub check: Check,
    pub timeout_ms: u64,
    pub grace_s: Option<i64>,
    period_ms: u64,
    success_threshold: u32,
    failure_threshold: u32,
    regular_at: u64,
    early_at: Option<u64>,
    early_count: usize,
    in_flight: Option<Flight>,
    run: u32,
    last: Option<bool>,
    pub result: Option<bool>,
    held: bool,
    /// Tries that succeeded, failed, came to nothing.
    pub counts: [u32; 3],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flight {
    Regular,
    Early,
}

/// What a result brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Nothing,
    /// The verdict changed or was confirmed at its threshold.
    Decided(bool),
}

impl Prober {
    pub fn new(kind: ProbeKind, probe: &api::Probe, container: &api::Container, start_ms: u64) -> Prober {
        let or = |value: Option<u32>, default: u32| value.filter(|v| *v > 0).unwrap_or(default);
        let delay_ms = u64::from(probe.initial_delay_seconds.unwrap_or(0)) * 1000;
        Prober {
            kind,
            check: check_of(&probe.handler, container),
            timeout_ms: u64::from(or(probe.timeout_seconds, 1)) * 1000,
            grace_s: probe.termination_grace_period_seconds,
            period_ms: u64::from(or(probe.period_seconds, 10)) * 1000,
            success_threshold: or(probe.success_threshold, 1),
            failure_threshold: or(probe.failure_threshold, 3),
            regular_at: start_ms + delay_ms,
            early_at: None,
            early_count: 0,
            in_flight: None,
            run: 0,
            last: None,
            result: None,
            held: false,
            counts: [0; 3],
        }
    }

    pub fn next_at(&self) -> Option<u64> {
        if self.held || self.in_flight.is_some() {
            return None;
        }
        Some(self.early_at.map_or(self.regular_at, |early| early.min(self.regular_at)))
    }

    /// Marks the probe as running when it is due.
    pub fn take_due(&mut self, now_ms: u64) -> bool {
        match self.next_at() {
            Some(at) if at <= now_ms => {
                let regular = self.regular_at <= now_ms;
                self.in_flight = Some(if regular { Flight::Regular } else { Flight::Early });
                self.early_at = None;
                if regular {
                    self.regular_at = now_ms + self.period_ms;
                }
                true
            }
            _ => false,
        }
    }

    /// Whether the running try is an extra one, whose failure is not news.
    pub fn is_early(&self) -> bool {
        self.in_flight == Some(Flight::Early)
    }

    pub fn result(&mut self, now_ms: u64, ok: bool) -> Verdict {
        let Some(flight) = self.in_flight.take() else { return Verdict::Nothing };
        self.counts[usize::from(!ok)] += 1;
        let waiting = self.kind == ProbeKind::Readiness && self.result != Some(true) && !ok;
        if waiting && let Some(delay) = EARLY_MS.get(self.early_count) {
            self.early_at = Some(now_ms + delay);
            self.early_count += 1;
        }
        if flight == Flight::Early && !ok {
            return Verdict::Nothing;
        }
        self.run = if self.last == Some(ok) { self.run + 1 } else { 1 };
        self.last = Some(ok);
        let threshold = if ok { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold {
            return Verdict::Nothing;
        }
        self.result = Some(ok);
        if !ok && self.kind != ProbeKind::Readiness {
            // The container is about to be killed: no more probing of this attempt.
            self.held = true;
        }
        Verdict::Decided(ok)
    }

    /// The running try came to nothing. Whether that is news.
    pub fn no_result(&mut self) -> bool {
        let flight = self.in_flight.take();
        self.counts[2] += u32::from(flight.is_some());
        flight == Some(Flight::Regular)
    }

    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Run as soon as its delay allows (the container has just started up).
    pub fn hurry(&mut self, now_ms: u64) {
        self.regular_at = self.regular_at.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prober(kind: ProbeKind, json: &str) -> Prober {
        let probe: api::Probe = api::parse(json.as_bytes()).unwrap();
        Prober::new(kind, &probe, &api::Container::default(), 1000)
    }

    #[test]
    fn waits_for_delay_and_period_and_counts_to_the_threshold() {
        let mut p = prober(
            ProbeKind::Liveness,
            r#"{"tcpSocket":{"port":80},"initialDelaySeconds":5,"periodSeconds":2,"failureThreshold":2}"#,
        );
        assert!(!p.take_due(5999));
        assert!(p.take_due(6000));
        assert!(!p.take_due(9000), "one at a time");
        assert_eq!(p.result(6100, false), Verdict::Nothing);
        assert_eq!(p.next_at(), Some(8000));
        assert!(p.take_due(8000));
        assert_eq!(p.result(8100, false), Verdict::Decided(false));
        assert_eq!(p.next_at(), None, "held after its verdict");
    }

    #[test]
    fn readiness_tries_early_until_ready() {
        let mut p = prober(ProbeKind::Readiness, r#"{"tcpSocket":{"port":80}}"#);
        assert!(p.take_due(1000));
        assert!(!p.is_early());
        assert_eq!(p.result(1001, false), Verdict::Nothing);
        assert_eq!(p.next_at(), Some(1051));
        assert!(p.take_due(1051));
        assert!(p.is_early());
        assert_eq!(p.result(1052, true), Verdict::Decided(true));
        assert_eq!(p.next_at(), Some(11_000));
    }

    #[test]
    fn a_start_that_is_over_shortens_no_delay() {
        let text = r#"{"tcpSocket":{"port":80},"initialDelaySeconds":60,"periodSeconds":5}"#;
        let mut p = prober(ProbeKind::Liveness, text);
        p.hurry(9000);
        assert!(!p.take_due(60_999));
        assert!(p.take_due(61_000));
    }

    #[test]
    fn a_success_in_between_starts_the_count_again() {
        let mut p = prober(ProbeKind::Liveness, r#"{"exec":{"command":["x"]},"periodSeconds":1}"#);
        let mut verdicts = Vec::new();
        for (i, ok) in [false, false, true, false, false, false].into_iter().enumerate() {
            let at = 1000 + 1000 * i as u64;
            assert!(p.take_due(at));
            verdicts.push(p.result(at, ok));
        }
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Decided(false)).count(), 1);
        assert_eq!(verdicts[5], Verdict::Decided(false));
    }
}
