//! CPU time as a rate: two measurements and the time between them.
//!
//! In: measurements as questions bring them. Out: billionths of a core for the node and each container.
//! Never: keeps more than two measurements, or compares ones that are too near or too far.

use super::{Measured, Subject};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Nearer than this the kernel's steps show; farther than that it is history.
const APART_MS: std::ops::RangeInclusive<u128> = 900..=120_000;
/// A newer measurement takes the place of the older one after this long.
const RENEW_MS: u128 = 10_000;

#[derive(Default)]
pub struct Samples(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    before: Option<Sample>,
    last: Option<Sample>,
}

#[derive(Clone)]
struct Sample {
    at: Instant,
    node_ns: u64,
    /// By cgroup: a container's `pod group/id`, a pod's own group.
    groups: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Rates {
    pub node: Option<u64>,
    pub groups: BTreeMap<String, u64>,
    /// How long the measurements lie apart.
    pub window_ms: u64,
}

impl Samples {
    /// Adds a measurement; whether there is now one to compare it with.
    pub fn add(&self, subject: &Subject, measured: &Measured) -> bool {
        let mut groups = BTreeMap::new();
        for (pod, m) in subject.pods.iter().zip(&measured.pods) {
            groups.extend(m.stats.usage.cpu_ns.map(|ns| (pod.group.clone(), ns)));
            for (c, m) in pod.containers.iter().zip(&m.containers) {
                groups.extend(m.stats.usage.cpu_ns.map(|ns| (format!("{}/{}", pod.group, c.id), ns)));
            }
        }
        let new = Sample { at: Instant::now(), node_ns: measured.machine.cpu_ns, groups };
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |old: &Sample| new.at.duration_since(old.at).as_millis();
        if let Some(last) = inner.last.take_if(|last| age(last) >= RENEW_MS) {
            inner.before = Some(last);
        }
        if inner.before.as_ref().is_none_or(|before| !APART_MS.contains(&age(before))) {
            let last = inner.last.take().filter(|last| APART_MS.contains(&age(last)));
            inner.before = last;
        }
        let good = inner.before.is_some();
        if good || inner.last.is_none() {
            inner.last = Some(new);
        }
        good
    }

    pub fn rates(&self) -> Rates {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(before), Some(last)) = (&inner.before, &inner.last) else { return Rates::default() };
        let window = last.at.duration_since(before.at);
        let rate = |old: u64, new: u64| {
            let ns = u128::from(new.saturating_sub(old));
            (ns * 1_000_000_000 / window.as_nanos().max(1)) as u64
        };
        let groups = last.groups.iter().filter_map(|(g, new)| Some((g.clone(), rate(*before.groups.get(g)?, *new))));
        Rates {
            node: Some(rate(before.node_ns, last.node_ns)),
            groups: groups.collect(),
            window_ms: window.as_millis() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::PodMeasured;
    use std::time::Duration;

    fn ask(samples: &Samples, cpu_ns: u64) -> bool {
        let pod = crate::views::PodSubject { group: "g".into(), ..Default::default() };
        let subject = Subject { pods: vec![pod], ..Subject::default() };
        let mut measured = PodMeasured::default();
        measured.stats.usage.cpu_ns = Some(cpu_ns);
        let measured = Measured {
            machine: Default::default(),
            interfaces: Vec::new(),
            disk: String::new(),
            fs: Default::default(),
            pods: vec![measured],
        };
        samples.add(&subject, &measured)
    }

    fn older(samples: &Samples, by: Duration) {
        let mut guard = samples.0.lock().unwrap();
        let inner = &mut *guard;
        for sample in [&mut inner.before, &mut inner.last] {
            *sample = sample.take().map(|s| Sample { at: s.at.checked_sub(by).unwrap(), ..s });
        }
    }

    #[test]
    fn two_measurements_make_a_rate() {
        let samples = Samples::default();
        assert!(!ask(&samples, 0), "nothing to compare with");
        assert!(!ask(&samples, 0), "too near");
        older(&samples, Duration::from_secs(20));
        assert!(ask(&samples, 10_000_000_000));
        let rates = samples.rates();
        let half = rates.groups["g"];
        assert!((490_000_000..=500_000_000).contains(&half) && rates.window_ms >= 20_000, "{rates:?}");
        // Asked again at once: the same window, not a tiny one.
        assert!(ask(&samples, 10_000_000_000));
        assert!(samples.rates().window_ms >= 20_000);
        older(&samples, Duration::from_secs(600));
        assert!(!ask(&samples, 20_000_000_000), "too far");
    }
}
