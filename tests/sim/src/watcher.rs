//! Somebody who watches everything, across crashes of the hub.
//!
//! In: each change as the view tells it, and the list that a new life of the hub begins with. Out: the first change that does
//! not follow from what was known: one that came twice, out of order, or never.
//! Never: asks the store.

use limpet_hub_core::{Changed, Key, view::Object};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Watcher {
    /// Versions of all objects, as far as they were heard of.
    known: BTreeMap<Key, u64>,
    newest: u64,
}

fn version(object: &Object) -> u64 {
    object.meta().resource_version
}

impl Watcher {
    pub fn saw(&mut self, changed: &Changed) -> Result<(), String> {
        let key = &changed.key;
        let (before, after) = (changed.old.as_ref().map(version), changed.new.as_ref().map(version));
        let known = self.known.get(key).copied();
        if before != known {
            return Err(format!("watch: {key} was {known:?} and is said to have been {before:?}"));
        }
        match after {
            Some(new) if new <= self.newest => {
                return Err(format!("watch: {key} comes at {new}, after {}", self.newest));
            }
            Some(new) => {
                self.newest = new;
                self.known.insert(key.clone(), new);
            }
            None if known.is_none() => return Err(format!("watch: {key} was deleted and was not there")),
            None => {
                self.known.remove(key);
            }
        }
        Ok(())
    }

    /// The hub has started: what there is must be what was heard of, for everything that is durable was told.
    pub fn listed(&mut self, all: &[Changed]) -> Result<(), String> {
        let there: BTreeMap<Key, u64> =
            all.iter().filter_map(|c| Some((c.key.clone(), version(c.new.as_ref()?)))).collect();
        let known = std::mem::replace(&mut self.known, there);
        self.newest = self.newest.max(self.known.values().copied().max().unwrap_or(0));
        // What was written in the hub's last moment was told nobody; nothing falls back.
        let back = known.iter().find(|(key, old)| self.known.get(*key).is_some_and(|new| new < *old));
        match back {
            Some((key, old)) => Err(format!("watch: {key} was {old} and is older after a start")),
            None => Ok(()),
        }
    }
}
