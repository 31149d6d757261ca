//! How soon a failed pod of a DaemonSet makes way for the next: a node that rejects its pods is not asked all the time.
//!
//! In: failed pods, the time. Out: leave to delete one, or the time from which it will be given: at once, then 1 s, 2 s and
//! so on to 15 min after the last, for each DaemonSet, generation and node; half an hour without a failure forgets them.
//! Source: kube-controller-manager's back-off of failed daemon pods.
//! Never: outlives the hub; the first failure after its start is dealt with at once.

use crate::{
    Timestamp,
    control::common::after,
    view::DaemonSet,
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

const FIRST_S: i64 = 1;
const MAX_S: i64 = 15 * 60;
/// Without a failure for so long a node counts as sound.
const FORGOTTEN_S: i64 = 2 * MAX_S;

/// (uid of the DaemonSet, its generation, node)
type Place = (Box<str>, i64, Box<str>);

struct Entry {
    since: Timestamp,
    pause_s: i64,
    /// Uid of the pod that may go.
    pod: Box<str>,
}

#[derive(Default)]
pub(super) struct BackOff(Mutex<BTreeMap<Place, Entry>>);

impl BackOff {
    /// Whether a failed pod may be deleted now; otherwise from when on. The same pod gets the same answer again.
    pub fn ask(&self, ds: &DaemonSet, node: &str, pod: &str, now: Timestamp) -> Result<(), Timestamp> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = |e: &Entry| now.as_second() - e.since.as_second() > FORGOTTEN_S;
        let place = (ds.meta.uid.clone(), ds.status.observed_generation, Box::from(node));
        let known = all.get(&place).filter(|e| !old(e));
        let pause_s = match known {
            Some(e) if *e.pod == *pod => return Ok(()),
            Some(e) if after(e.since, e.pause_s) > now => return Err(after(e.since, e.pause_s)),
            Some(e) => (e.pause_s * 2).min(MAX_S),
            None => FIRST_S,
        };
        all.retain(|_, e| !old(e));
        all.insert(place, Entry { since: now, pause_s, pod: pod.into() });
        Ok(())
    }
}
