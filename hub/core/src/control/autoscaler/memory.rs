//! What autoscalers recommended and did lately.
//!
//! In: recommendations and scale changes, with their time. Out: the same, as far as a window reaches back.
//! Never: more than an hour, the longest window that the API allows.

use crate::Timestamp;
use jiff::SignedDuration;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

const KEPT_S: i64 = 3600;
/// Looks of one autoscaler in an hour, and some.
const ENTRIES_MAX: usize = 512;

#[derive(Default)]
struct Memory {
    recommended: VecDeque<(Timestamp, i32)>,
    changes: VecDeque<(Timestamp, i32)>,
}

#[derive(Default)]
pub struct Memories(Mutex<BTreeMap<Box<str>, Memory>>);

fn trim(list: &mut VecDeque<(Timestamp, i32)>, now: Timestamp) {
    let old = |t: &(Timestamp, i32)| now.as_second() - t.0.as_second() > KEPT_S;
    while list.front().is_some_and(old) || list.len() > ENTRIES_MAX {
        list.pop_front();
    }
}

impl Memories {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Of a workload that nothing is known of: what it has counts as recommended a moment ago, so that an autoscaler that is new,
    /// or whose hub is, waits before it takes pods away.
    pub fn begin(&self, uid: &str, replicas: i32, now: Timestamp) {
        let mut all = self.lock();
        let list = &mut all.entry(uid.into()).or_default().recommended;
        if list.is_empty() {
            list.push_back((now - SignedDuration::from_secs(1), replicas));
        }
    }

    /// A second look at the same time takes the place of the first.
    pub fn recommended(&self, uid: &str, replicas: i32, now: Timestamp) {
        let mut all = self.lock();
        let list = &mut all.entry(uid.into()).or_default().recommended;
        list.retain(|(t, _)| *t != now);
        list.push_back((now, replicas));
        trim(list, now);
    }

    pub fn scaled(&self, uid: &str, by: i32, now: Timestamp) {
        let mut all = self.lock();
        let list = &mut all.entry(uid.into()).or_default().changes;
        list.push_back((now, by));
        trim(list, now);
    }

    /// Recommendations of the last `window_s` seconds.
    pub fn since(&self, uid: &str, window_s: i64, now: Timestamp) -> Vec<i32> {
        let all = self.lock();
        let list = all.get(uid).into_iter().flat_map(|m| &m.recommended);
        list.filter(|(t, _)| now.as_second() - t.as_second() < window_s.max(1)).map(|(_, n)| *n).collect()
    }

    /// (pods added, pods taken) in the last `period_s` seconds.
    pub fn moved(&self, uid: &str, period_s: i64, now: Timestamp) -> (i32, i32) {
        let all = self.lock();
        let list = all.get(uid).into_iter().flat_map(|m| &m.changes);
        let recent = list.filter(|(t, _)| now.as_second() - t.as_second() < period_s);
        recent.fold((0, 0), |(up, down), (_, by)| (up + (*by).max(0), down + (-*by).max(0)))
    }
}
