//! What some objects were before their last change, for a while: nodes that still hold that are sent the difference.
//!
//! In: replaced objects of the kinds that nodes hold and people change. Out: the one before, by key.
//! Never: more than a fixed number of objects and bytes; the oldest go.

use super::{ConfigMap, EndpointSlice, Key, Kind, Object, Secret, Service};
use crate::limits::{PREVIOUS_BYTES_MAX, PREVIOUS_OBJECTS_MAX};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

#[derive(Debug, Default)]
pub(super) struct Previous {
    by_key: BTreeMap<Arc<Key>, (u64, Object)>,
    /// Keys in the order of keeping; an entry whose number is not the key's present one is void.
    order: VecDeque<(u64, Arc<Key>)>,
    last: u64,
    bytes: usize,
}

impl Previous {
    pub(super) fn keep(&mut self, key: &Arc<Key>, old: &Object) {
        let kinds = [ConfigMap::RESOURCE, Secret::RESOURCE, Service::RESOURCE, EndpointSlice::RESOURCE];
        if !kinds.contains(&&*key.resource) {
            return;
        }
        self.last += 1;
        self.bytes += old.raw().len();
        if let Some((_, before)) = self.by_key.insert(key.clone(), (self.last, old.clone())) {
            self.bytes -= before.raw().len();
        }
        self.order.push_back((self.last, key.clone()));
        while self.by_key.len() > PREVIOUS_OBJECTS_MAX || self.bytes > PREVIOUS_BYTES_MAX {
            self.drop_oldest();
        }
        // Void entries do not pile up.
        while self.order.len() > 2 * PREVIOUS_OBJECTS_MAX {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((number, key)) = self.order.pop_front() else { return };
        if self.by_key.get(&key).is_some_and(|(n, _)| *n == number)
            && let Some((_, object)) = self.by_key.remove(&key)
        {
            self.bytes -= object.raw().len();
        }
    }

    pub(super) fn of(&self, key: &Key) -> Option<&Object> {
        self.by_key.get(key).map(|(_, object)| object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bounded_and_newest_first() {
        let object = |n: usize, len: usize| {
            let meta = json!({"name": format!("m{n}"), "namespace": "a", "uid": "u", "resourceVersion": n.to_string()});
            let raw = json!({"metadata": meta, "data": {"k": "x".repeat(len)}}).to_string().into_bytes();
            let key = Arc::new(Key::new(ConfigMap::RESOURCE, "a", &format!("m{n}")));
            (key, Object::parse(ConfigMap::RESOURCE, raw.into()).unwrap())
        };
        let mut previous = Previous::default();
        for n in 0..3 * PREVIOUS_OBJECTS_MAX {
            let (key, old) = object(n % (PREVIOUS_OBJECTS_MAX + 100), n % 7);
            previous.keep(&key, &old);
            assert!(previous.by_key.len() <= PREVIOUS_OBJECTS_MAX && previous.order.len() <= 2 * PREVIOUS_OBJECTS_MAX);
        }
        let (key, old) = object(1, 9);
        previous.keep(&key, &old);
        assert_eq!(previous.of(&key).map(Object::raw), Some(old.raw()));
        for n in 0..20 {
            let (key, old) = object(n, PREVIOUS_BYTES_MAX / 10);
            previous.keep(&key, &old);
        }
        let held: usize = previous.by_key.values().map(|(_, o)| o.raw().len()).sum();
        assert!(held == previous.bytes && held <= PREVIOUS_BYTES_MAX, "{held} {}", previous.bytes);
        let pod = Arc::new(Key::new("/pods", "a", "p"));
        previous.keep(&pod, &old);
        assert!(previous.of(&pod).is_none());
    }
}
