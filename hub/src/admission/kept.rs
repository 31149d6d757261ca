//! What is used of quotas, kept from write to write.
//!
//! In: the store, the quotas of a namespace. Out: for one kind of object, what all of them take of each quota's resources.
//! The first question walks over the objects; later ones follow the store's events. Nothing is believed that was not counted
//! from stored objects: a reader that fell behind, or quotas that are others now, mean to count anew.
//! Never: more than `TALLIES_MAX` counts; the one that was asked longest ago is forgotten.

use limpet_hub_core::{quota::takes, view::Object};
use limpet_objects::quantity::Quantity;
use limpet_store::{Record, Store, Watch};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

const TALLIES_MAX: usize = 256;

/// Storage and namespace.
type Place = (String, String);

#[derive(Default)]
pub struct Kept {
    tallies: BTreeMap<Place, Tally>,
    /// Counts the questions.
    asked: u64,
}

struct Tally {
    watch: Watch,
    /// The specs that it counts for, in the order of `sums`.
    specs: Vec<Value>,
    /// For each spec and each resource of its `hard`.
    sums: Vec<Quantity>,
    /// The same of each object, by name.
    objects: HashMap<String, Box<[Quantity]>>,
    asked: u64,
}

impl Kept {
    /// What all objects of `storage` in the namespace take, for each spec and each resource of its `hard` in order.
    /// `None`: the store cannot be read at the moment.
    pub fn sums(&mut self, store: &Store, storage: &str, namespace: &str, specs: &[Value]) -> Option<&[Quantity]> {
        self.asked += 1;
        let place = (storage.to_owned(), namespace.to_owned());
        let mut tally = self.tallies.remove(&place).filter(|t| t.specs == specs);
        if tally.as_mut().is_none_or(|t| !t.follow(storage)) {
            tally = Some(Tally::count(store, storage, namespace, specs)?);
        }
        let mut tally = tally?;
        tally.asked = self.asked;
        if self.tallies.len() >= TALLIES_MAX
            && let Some(oldest) = self.tallies.iter().min_by_key(|(_, t)| t.asked).map(|(place, _)| place.clone())
        {
            self.tallies.remove(&oldest);
        }
        Some(&self.tallies.entry(place).or_insert(tally).sums)
    }
}

impl Tally {
    fn count(store: &Store, storage: &str, namespace: &str, specs: &[Value]) -> Option<Tally> {
        let listing = store.list(storage, Some(namespace));
        let watch = store.watch(storage, Some(namespace), listing.revision).ok()?;
        let resources = specs.iter().map(|s| s["hard"].as_object().map_or(0, |h| h.len())).sum();
        let mut tally = Tally {
            watch,
            specs: specs.to_vec(),
            sums: vec![Quantity::ZERO; resources],
            objects: HashMap::new(),
            asked: 0,
        };
        listing.records.iter().for_each(|record| tally.put(storage, record));
        Some(tally)
    }

    /// Takes in what happened since; false: it cannot be known any more.
    fn follow(&mut self, storage: &str) -> bool {
        while let Some(event) = self.watch.try_next() {
            let Ok(event) = event else { return false };
            match event.is_delete() {
                true => self.remove(&event.record.key.name),
                false => self.put(storage, &event.record),
            }
        }
        true
    }

    fn put(&mut self, storage: &str, record: &Record) {
        self.remove(&record.key.name);
        let Some(object) = Object::parse(storage, record.bytes.clone()) else { return };
        let each = self.specs.iter().flat_map(|spec| {
            let names = spec["hard"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
            names.map(|name| takes(spec, storage, &object, name)).collect::<Vec<_>>()
        });
        let own: Box<[Quantity]> = each.collect();
        self.sums.iter_mut().zip(&own).for_each(|(sum, amount)| *sum = sum.plus(*amount));
        self.objects.insert(record.key.name.to_string(), own);
    }

    fn remove(&mut self, name: &str) {
        let Some(own) = self.objects.remove(name) else { return };
        self.sums.iter_mut().zip(&own).for_each(|(sum, amount)| *sum = sum.minus(*amount));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limpet_store::{Draft, Expect, Key, Options, Write};
    use serde_json::json;

    const PODS: &str = "/pods";

    fn key(name: &str) -> Key {
        Key::new(PODS, "a", name)
    }

    async fn put(store: &Store, name: &str, cpu: &str, phase: &str) {
        let pod = json!({"metadata": {"name": name, "namespace": "a", "uid": name}, "status": {"phase": phase},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        let draft = Draft::opaque(pod.to_string().into_bytes());
        store.write(Write::Put { key: key(name), expect: Expect::Any, draft }).await.unwrap();
    }

    #[tokio::test]
    async fn the_count_follows_every_write() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        let ending = json!({"hard": {"count/pods": "9"}, "scopes": ["Terminating"]});
        let specs = [json!({"hard": {"pods": "9", "requests.cpu": "9"}}), ending];
        let mut kept = Kept::default();
        let mut sums = |store: &Store, specs: &[Value]| -> Vec<String> {
            kept.sums(store, PODS, "a", specs).unwrap().iter().map(ToString::to_string).collect()
        };
        put(&store, "p", "250m", "Running").await;
        assert_eq!(sums(&store, &specs), ["1", "250m", "0"]);
        put(&store, "q", "1", "Pending").await;
        put(&store, "p", "500m", "Running").await;
        assert_eq!(sums(&store, &specs), ["2", "1500m", "0"]);
        put(&store, "q", "1", "Succeeded").await;
        assert_eq!(sums(&store, &specs), ["1", "500m", "0"]);
        store.write(Write::Delete { key: key("p"), expect: Expect::Any, last: None }).await.unwrap();
        assert_eq!(sums(&store, &specs), ["0", "0", "0"]);
        // Other quotas are counted anew.
        assert_eq!(sums(&store, &[json!({"hard": {"count/pods": "1"}})]), ["1"]);
        assert_eq!(sums(&store, &specs), ["0", "0", "0"]);
    }
}
