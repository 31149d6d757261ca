//! A queue of keys to work on: each key at most once in it, and by one worker at a time.
//!
//! In: `add` from listeners, `add_at` for timers, the outcome of each piece of work. Out: `next` for workers.
//! A key that is added while it is worked on comes again afterwards. Failures come again later and later.
//! Never: grows beyond the number of keys.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Since then.
    Waiting(Instant),
    Running,
    /// Running, and wanted again.
    RunningAgain,
    /// Not to run before its timer.
    Resting,
}

struct Inner<K> {
    ready: VecDeque<K>,
    places: HashMap<K, Place>,
    timers: BTreeMap<(Instant, u64), K>,
    timer_of: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    counter: u64,
}

pub(super) struct Queue<K> {
    inner: Mutex<Inner<K>>,
    news: Notify,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub fn new() -> Queue<K> {
        let inner = Inner {
            ready: VecDeque::new(),
            places: HashMap::new(),
            timers: BTreeMap::new(),
            timer_of: HashMap::new(),
            failures: HashMap::new(),
            counter: 0,
        };
        Queue { inner: Mutex::new(inner), news: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, key: K) {
        self.lock().add(key);
        self.news.notify_one();
    }

    /// As `add`, at a time; an earlier time that was asked for stays.
    pub fn add_at(&self, key: K, at: Instant) {
        self.lock().add_at(key, at);
        self.news.notify_one();
    }

    /// The next key, which its worker must give back with `done` or `failed`.
    pub async fn next(&self) -> K {
        self.next_waited().await.0
    }

    /// As `next`, with the time that the key had to wait.
    pub async fn next_waited(&self) -> (K, Duration) {
        loop {
            let (found, wake) = {
                let mut inner = self.lock();
                inner.fire(Instant::now());
                let found = inner.ready.pop_front().map(|key| {
                    let waited = match inner.places.insert(key.clone(), Place::Running) {
                        Some(Place::Waiting(since)) => since.elapsed(),
                        _ => Duration::ZERO,
                    };
                    (key, waited)
                });
                let more = !inner.ready.is_empty();
                if more {
                    self.news.notify_one();
                }
                (found, inner.timers.keys().next().map(|(at, _)| *at))
            };
            if let Some(found) = found {
                return found;
            }
            match wake {
                None => self.news.notified().await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, self.news.notified()).await;
                }
            }
        }
    }

    pub fn done(&self, key: K) {
        let mut inner = self.lock();
        inner.failures.remove(&key);
        inner.give_back(key);
        drop(inner);
        self.news.notify_one();
    }

    /// As `done`, but what was added meanwhile, and what is added during the pause, waits for its end.
    pub fn rest(&self, key: K, pause: Duration) {
        let mut inner = self.lock();
        inner.failures.remove(&key);
        inner.places.insert(key.clone(), Place::Resting);
        inner.add_at(key, Instant::now() + pause);
        drop(inner);
        self.news.notify_one();
    }

    /// The key comes again after a pause that doubles with each failure in a row. Returns the pause.
    pub fn failed(&self, key: K) -> Duration {
        let mut inner = self.lock();
        let count = inner.failures.entry(key.clone()).or_insert(0);
        let pause = RETRY_FIRST.saturating_mul(1 << (*count).min(12)).min(RETRY_MAX);
        *count += 1;
        inner.add_at(key.clone(), Instant::now() + pause);
        // What was added meanwhile may be the cure; it waits for the same pause.
        inner.places.remove(&key);
        drop(inner);
        self.news.notify_one();
        pause
    }

    /// Calls `see` for every key that waits now, for metrics.
    pub fn each_waiting(&self, see: impl FnMut(&K)) {
        self.lock().ready.iter().for_each(see);
    }

    /// Keys that wait now, for metrics.
    pub fn len(&self) -> usize {
        self.lock().ready.len()
    }
}

impl<K: Clone + Eq + Hash> Inner<K> {
    fn add(&mut self, key: K) {
        match self.places.get_mut(&key) {
            Some(Place::Waiting(_) | Place::RunningAgain | Place::Resting) => {}
            Some(place) => *place = Place::RunningAgain,
            None => {
                self.places.insert(key.clone(), Place::Waiting(Instant::now()));
                self.ready.push_back(key);
            }
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if let Some(earlier) = self.timer_of.get(&key) {
            if earlier.0 <= at {
                return;
            }
            let earlier = *earlier;
            self.timers.remove(&earlier);
        }
        self.counter += 1;
        self.timers.insert((at, self.counter), key.clone());
        self.timer_of.insert(key, (at, self.counter));
    }

    fn fire(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.timer_of.remove(&key);
            if self.places.get(&key) == Some(&Place::Resting) {
                self.places.remove(&key);
            }
            self.add(key);
        }
    }

    fn give_back(&mut self, key: K) {
        if self.places.remove(&key) == Some(Place::RunningAgain) {
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keys_are_worked_on_once_and_again_when_added_meanwhile() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("b");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        queue.done("b");
        assert_eq!(queue.len(), 0);
        queue.done("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a");
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_come_again_later_and_later_until_they_are_done() {
        let queue = Queue::new();
        queue.add("a");
        let mut pauses = Vec::new();
        for _ in 0..20 {
            assert_eq!(queue.next().await, "a");
            pauses.push(queue.failed("a"));
        }
        assert_eq!((pauses[0], pauses[1], pauses[19]), (RETRY_FIRST, RETRY_FIRST * 2, RETRY_MAX));
        assert_eq!(queue.next().await, "a");
        queue.done("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.failed("a"), RETRY_FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_resting_key_comes_when_its_pause_is_over_and_not_before() {
        let queue = Queue::new();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        let start = Instant::now();
        queue.rest("a", Duration::from_secs(3));
        queue.add("a");
        assert_eq!(queue.len(), 0);
        assert_eq!(queue.next().await, "a");
        assert_eq!((Instant::now() - start).as_secs(), 3);
        queue.done("a");
        assert_eq!(queue.len(), 0);
        queue.add("a");
        assert_eq!(queue.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_timer_wins() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_at("a", start + Duration::from_secs(5));
        queue.add_at("a", start + Duration::from_secs(2));
        queue.add_at("a", start + Duration::from_secs(9));
        assert_eq!(queue.next().await, "a");
        assert_eq!((Instant::now() - start).as_secs(), 2);
        queue.done("a");
        assert!(queue.lock().timers.is_empty());
    }
}
