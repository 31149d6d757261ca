//! Pods that wait for a node: which is next, which rests, and which cannot be helped until something changes.
//!
//! In: pods that became pending, verdicts, cures, time. Out: the next pod, and when to look again.
//! Semantics: kube-scheduler's active, back-off and unschedulable queues.
//! Never: tries a pod again because time passed, except after `STUCK_S` in case an event was missed.

use super::reason::Plugins;
use crate::{Key, Timestamp};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

/// A pod that nothing woke for so long is tried again, as upstream.
const STUCK_S: i64 = 300;

/// By priority, then by age, then by name.
type Rank = (Reverse<i32>, Timestamp, Key);

#[derive(Clone, Debug)]
enum Place {
    Active,
    Backoff(Timestamp),
    /// Rejected by these plugins at this time.
    Stuck(Plugins, Timestamp),
    /// Decided, and its binding is on its way.
    InFlight,
}

#[derive(Clone, Debug)]
struct Entry {
    priority: i32,
    created: Timestamp,
    attempts: u32,
    last_try: Timestamp,
    place: Place,
}

/// Numbers of waiting pods, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
    pub gated: usize,
}

#[derive(Clone, Debug)]
pub struct Queue {
    entries: HashMap<Key, Entry>,
    active: BTreeSet<Rank>,
    backoff: BTreeSet<(Timestamp, Key)>,
    /// Stuck pods, oldest first, to look at after `STUCK_S`.
    stuck: BTreeSet<(Timestamp, Key)>,
    first_s: i64,
    max_s: i64,
}

impl Queue {
    pub fn new(first_s: i64, max_s: i64) -> Queue {
        Queue {
            entries: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            stuck: BTreeSet::new(),
            first_s,
            max_s,
        }
    }

    /// A pod that is pending now. One that waits already moves to the front when `again` (its own spec changed).
    pub fn add(&mut self, key: &Key, priority: i32, created: Timestamp, again: bool, now: Timestamp) {
        match self.entries.get(key).map(|e| e.place.clone()) {
            None => {
                let entry =
                    Entry { priority, created, attempts: 0, last_try: now, place: Place::Active };
                self.active.insert((Reverse(priority), created, key.clone()));
                self.entries.insert(key.clone(), entry);
            }
            Some(Place::Stuck(..)) if again => self.wake(key, now),
            Some(_) => {}
        }
    }

    pub fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.forget_place(key, &entry);
        }
    }

    /// Takes the next pod to decide on; it is in flight until `rejected`, `failed` or `remove`.
    pub fn next(&mut self, now: Timestamp) -> Option<Key> {
        self.ripen(now);
        let (_, _, key) = self.active.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.place = Place::InFlight;
            entry.attempts = entry.attempts.saturating_add(1);
            entry.last_try = now;
        }
        Some(key)
    }

    /// When something ripens by itself.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let resting = self.backoff.first().map(|(t, _)| *t);
        let stuck = self.stuck.first().map(|(t, _)| later(*t, STUCK_S));
        resting.into_iter().chain(stuck).min()
    }

    /// No node would do; waits for an event that cures one of the plugins that objected.
    pub fn rejected(&mut self, key: &Key, by: Plugins, now: Timestamp) {
        self.place(key, Place::Stuck(by, now));
    }

    /// Something went wrong on the way (a conflict, a refused write): tried again after a pause.
    pub fn failed(&mut self, key: &Key, now: Timestamp) {
        let Some(entry) = self.entries.get(key) else { return };
        let until = later(now, self.pause_s(entry.attempts));
        self.place(key, Place::Backoff(until));
    }

    /// Moves stuck pods for which `cures` holds: to the front, or to rest when they were tried a moment ago.
    pub fn cure(&mut self, now: Timestamp, mut cures: impl FnMut(&Key, Plugins) -> bool) {
        let keys: Vec<Key> = self
            .stuck
            .iter()
            .filter(|(_, key)| match self.entries.get(key).map(|e| &e.place) {
                Some(Place::Stuck(by, _)) => cures(key, *by),
                _ => false,
            })
            .map(|(_, key)| key.clone())
            .collect();
        for key in keys {
            self.wake(&key, now);
        }
    }

    pub fn any_stuck(&self) -> bool {
        !self.stuck.is_empty()
    }

    pub fn waiting(&self) -> Waiting {
        let gated = self.stuck.iter().filter(|(_, key)| {
            let place = self.entries.get(key).map(|e| &e.place);
            matches!(place, Some(Place::Stuck(by, _)) if by.contains(super::reason::Plugin::SchedulingGates))
        });
        let gated = gated.count();
        Waiting {
            active: self.active.len(),
            backoff: self.backoff.len(),
            unschedulable: self.stuck.len() - gated,
            gated,
        }
    }

    fn wake(&mut self, key: &Key, now: Timestamp) {
        let Some(entry) = self.entries.get(key) else { return };
        let gated = matches!(entry.place, Place::Stuck(by, _) if by.contains(super::reason::Plugin::SchedulingGates));
        let rested = later(entry.last_try, self.pause_s(entry.attempts));
        let place = if gated || rested <= now { Place::Active } else { Place::Backoff(rested) };
        self.place(key, place);
    }

    fn place(&mut self, key: &Key, place: Place) {
        let Some(mut entry) = self.entries.remove(key) else { return };
        self.forget_place(key, &entry);
        match &place {
            Place::Active => {
                self.active.insert((Reverse(entry.priority), entry.created, key.clone()));
            }
            Place::Backoff(until) => {
                self.backoff.insert((*until, key.clone()));
            }
            Place::Stuck(_, since) => {
                self.stuck.insert((*since, key.clone()));
            }
            Place::InFlight => {}
        }
        entry.place = place;
        self.entries.insert(key.clone(), entry);
    }

    fn forget_place(&mut self, key: &Key, entry: &Entry) {
        match &entry.place {
            Place::Active => {
                self.active.remove(&(Reverse(entry.priority), entry.created, key.clone()));
            }
            Place::Backoff(until) => {
                self.backoff.remove(&(*until, key.clone()));
            }
            Place::Stuck(_, since) => {
                self.stuck.remove(&(*since, key.clone()));
            }
            Place::InFlight => {}
        }
    }

    fn ripen(&mut self, now: Timestamp) {
        while let Some((until, key)) = self.backoff.first().cloned() {
            if until > now {
                break;
            }
            self.place(&key, Place::Active);
        }
        while let Some((since, key)) = self.stuck.first().cloned() {
            if later(since, STUCK_S) > now {
                break;
            }
            self.place(&key, Place::Active);
        }
    }

    /// Doubles with each attempt.
    fn pause_s(&self, attempts: u32) -> i64 {
        let doubled = self.first_s.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        doubled.min(self.max_s)
    }
}

fn later(t: Timestamp, seconds: i64) -> Timestamp {
    t.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// Pods with a nomination, by node: room that is meant for them.
#[derive(Clone, Debug, Default)]
pub struct Nominations {
    by_node: BTreeMap<Box<str>, BTreeSet<Key>>,
    nodes: HashMap<Key, Box<str>>,
}

impl Nominations {
    /// Whether room that was kept is free now.
    pub fn set(&mut self, key: &Key, node: Option<&str>) -> bool {
        if self.nodes.get(key).map(|n| &**n) == node {
            return false;
        }
        let had = self.nodes.contains_key(key);
        if let Some(old) = self.nodes.remove(key)
            && let Some(keys) = self.by_node.get_mut(&old)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_node.remove(&old);
            }
        }
        if let Some(node) = node {
            self.by_node.entry(node.into()).or_default().insert(key.clone());
            self.nodes.insert(key.clone(), node.into());
        }
        had
    }

    pub fn on<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Key> {
        self.by_node.get(node).into_iter().flatten()
    }

    pub fn of(&self, key: &Key) -> Option<&str> {
        self.nodes.get(key).map(|n| &**n)
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::reason::Plugin;
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + s).unwrap()
    }

    fn key(name: &str) -> Key {
        Key::new("/pods", "a", name)
    }

    #[test]
    fn priority_then_age_decides() {
        let mut q = Queue::new(1, 10);
        q.add(&key("young"), 0, at(5), false, at(9));
        q.add(&key("old"), 0, at(1), false, at(9));
        q.add(&key("high"), 7, at(8), false, at(9));
        let order: Vec<Key> = std::iter::from_fn(|| q.next(at(9))).collect();
        assert_eq!(order, [key("high"), key("old"), key("young")]);
    }

    #[test]
    fn rejected_pods_wait_for_their_cure_and_rest_between_tries() {
        let mut q = Queue::new(1, 10);
        q.add(&key("p"), 0, at(0), false, at(0));
        let by: Plugins = [Plugin::NodeResourcesFit].into_iter().collect();
        let mut now = 0;
        for pause in [1, 2, 4, 8, 10, 10] {
            assert_eq!(q.next(at(now)), Some(key("p")));
            q.rejected(&key("p"), by, at(now));
            q.cure(at(now), |_, by| by.contains(Plugin::NodePorts));
            assert_eq!(q.next(at(now + 100)), None, "not its cure");
            q.cure(at(now), |_, by| by.contains(Plugin::NodeResourcesFit));
            assert_eq!(q.next(at(now)), None, "tried a moment ago");
            assert_eq!(q.wake_at(), Some(at(now + pause)));
            now += pause;
        }
        assert_eq!(q.next(at(now)), Some(key("p")));
        q.rejected(&key("p"), by, at(now));
        assert_eq!(q.wake_at(), Some(at(now + STUCK_S)));
        assert_eq!(q.next(at(now + STUCK_S)), Some(key("p")), "an event may have been missed");
    }

    #[test]
    fn opened_gates_and_changed_pods_need_no_rest() {
        let mut q = Queue::new(1, 10);
        q.add(&key("p"), 0, at(0), false, at(0));
        q.next(at(0));
        q.rejected(&key("p"), [Plugin::SchedulingGates].into_iter().collect(), at(0));
        assert_eq!(q.waiting(), Waiting { gated: 1, ..Waiting::default() });
        q.add(&key("p"), 0, at(0), true, at(0));
        assert_eq!(q.next(at(0)), Some(key("p")));
        q.failed(&key("p"), at(0));
        assert_eq!((q.next(at(1)), q.next(at(2))), (None, Some(key("p"))));
        q.remove(&key("p"));
        assert!(q.entries.is_empty() && q.wake_at().is_none());
    }
}
