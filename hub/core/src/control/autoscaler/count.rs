//! The arithmetic: from figures of pods to a number of replicas.
//!
//! In: a figure per pod, what is aimed at, the pods that have no figure or are not ready. Out: replicas.
//! Source: the "Algorithm details" of the page on horizontal pod autoscaling. Never: a change on doubtful figures that goes
//! the other way than the sure ones.

use super::measure::Sorted;
use std::collections::BTreeMap;

/// Pods with figures, and what each figure is compared with (the same for all, or by pod: its request).
pub struct Figures<'a> {
    pub values: BTreeMap<&'a str, i64>,
    pub aims: Aims<'a>,
}

pub enum Aims<'a> {
    /// `averageValue`, in the unit of the values.
    Each(i64),
    /// Percent of what each pod requests.
    Percent { target: i64, requests: BTreeMap<&'a str, i64> },
}

impl Figures<'_> {
    /// Usage by aim; 1.0 is right on target.
    fn ratio(&self) -> Option<f64> {
        let sum: f64 = self.values.values().map(|v| *v as f64).sum();
        match &self.aims {
            Aims::Each(aim) => (*aim > 0 && !self.values.is_empty())
                .then(|| sum / self.values.len() as f64 / *aim as f64),
            Aims::Percent { target, requests } => {
                let asked: f64 = self.values.keys().filter_map(|p| requests.get(p)).map(|r| *r as f64).sum();
                (asked > 0.0 && *target > 0).then(|| sum * 100.0 / asked / *target as f64)
            }
        }
    }

    /// What a pod without a figure counts for when that is the careful guess against scaling down.
    fn full(&self, pod: &str) -> i64 {
        match &self.aims {
            Aims::Each(aim) => *aim,
            Aims::Percent { target, requests } => requests.get(pod).copied().unwrap_or(0) * (*target).max(100) / 100,
        }
    }
}

/// Whether `ratio` is near enough to 1; (up, down) in thousandths.
pub fn tolerated(ratio: f64, tolerance: (i64, i64)) -> bool {
    let (up, down) = (tolerance.0 as f64 / 1000.0, tolerance.1 as f64 / 1000.0);
    (1.0 - down..=1.0 + up).contains(&ratio)
}

pub fn ceil(number: f64) -> i32 {
    // A hair above a whole number is rounding, not usage.
    (number - 1e-9).ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

/// Replicas for figures of pods. `None`: there is no figure to go by.
pub fn replicas<'a>(
    mut figures: Figures<'a>,
    sorted: &Sorted<'a>,
    wanted: i32,
    tolerance: (i64, i64),
) -> Option<(i32, f64)> {
    let ratio = figures.ratio()?;
    let rebalance = !sorted.unready.is_empty() && ratio > 1.0;
    if !rebalance && sorted.missing.is_empty() {
        let same = tolerated(ratio, tolerance);
        return Some((if same { wanted } else { ceil(ratio * sorted.ready as f64) }, ratio));
    }
    for pod in &sorted.missing {
        let guess = if ratio < 1.0 { figures.full(pod) } else { 0 };
        figures.values.insert(pod, guess);
    }
    if rebalance {
        figures.values.extend(sorted.unready.iter().map(|pod| (*pod, 0)));
    }
    let careful = figures.ratio()?;
    let turned = (ratio < 1.0 && careful > 1.0) || (ratio > 1.0 && careful < 1.0);
    if tolerated(careful, tolerance) || turned {
        return Some((wanted, ratio));
    }
    let new = ceil(careful * figures.values.len() as f64);
    let backwards = (careful < 1.0 && new > wanted) || (careful > 1.0 && new < wanted);
    Some((if backwards { wanted } else { new }, ratio))
}
