//! Answers of webhooks that are remembered for a while.
//!
//! In: answers with their time. Out: the answer, until its time is over. Never: more than `ANSWERS_MAX`.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

const ANSWERS_MAX: usize = 10_000;

pub struct Answers<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Answers<K, V> {
    fn default() -> Answers<K, V> {
        Answers(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Answers<K, V> {
    fn all(&self) -> MutexGuard<'_, HashMap<K, (V, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &K) -> Option<V> {
        let now = Instant::now();
        self.all().get(key).filter(|(_, until)| *until > now).map(|(value, _)| value.clone())
    }

    pub fn keep(&self, key: K, value: V, time: Duration) {
        if time.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut all = self.all();
        if all.len() >= ANSWERS_MAX {
            all.retain(|_, (_, until)| *until > now);
            if all.len() >= ANSWERS_MAX {
                all.clear();
            }
        }
        all.insert(key, (value, now + time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_end() {
        let answers = Answers::default();
        answers.keep("a", 1, Duration::from_secs(10));
        answers.keep("b", 2, Duration::ZERO);
        assert_eq!((answers.get(&"a"), answers.get(&"b")), (Some(1), None));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(answers.get(&"a"), None);
    }
}
