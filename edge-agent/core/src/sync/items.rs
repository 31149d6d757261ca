//! The desired set in memory: every item that the hub wants here, by key.
//!
//! In: steps that are durable. Out: bodies by key, the digest of all, an inventory.
//! Never: changes before the journal has them, but for tokens that wait (`owed`); iterates in an order that is not the keys'.

use crate::api;
use limpet_protocol::{InventoryEntry, ItemHash, ItemKey, ItemKind, SetDigest, dictionary, squeeze};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, btree_map::Entry};

/// One held item.
#[derive(Clone, Debug)]
pub struct Held {
    pub generation: u64,
    pub hash: ItemHash,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    /// With the words of the link's dictionary: a node holds many, and looks into few.
    Folded(Box<[u8]>),
    /// At the start, where most of what the journal says is said anew further on, and what stays is looked into first.
    Plain(Box<[u8]>),
}

impl Body {
    fn folded(body: &[u8]) -> Body {
        Body::Folded(dictionary::PREPARED.fold(body).into())
    }
}

impl Held {
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        match &self.body {
            Body::Folded(bytes) | Body::Plain(bytes) => bytes.len(),
        }
    }

    /// The object's JSON.
    pub fn body(&self) -> Vec<u8> {
        match &self.body {
            Body::Folded(bytes) => squeeze::unfold(dictionary::WORDS, bytes, usize::MAX).unwrap_or_default(),
            Body::Plain(bytes) => bytes.to_vec(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Items {
    held: BTreeMap<ItemKey, Held>,
    digest: SetDigest,
}

impl Items {
    pub fn digest(&self) -> SetDigest {
        self.digest
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub fn get(&self, kind: ItemKind, namespace: &str, name: &str) -> Option<&Held> {
        self.held.get(&ItemKey::new(kind, namespace, name))
    }

    pub fn by_key(&self, key: &ItemKey) -> Option<&Held> {
        self.held.get(key)
    }

    /// The object behind a key; `None` when it is not held or cannot be read.
    pub fn read<T: DeserializeOwned>(&self, kind: ItemKind, namespace: &str, name: &str) -> Option<T> {
        api::parse(&self.get(kind, namespace, name)?.body()).ok()
    }

    /// All items of a kind, in order of namespace and name.
    pub fn of(&self, kind: ItemKind) -> impl Iterator<Item = (&ItemKey, &Held)> {
        self.held.range(ItemKey::new(kind, "", "")..).take_while(move |(key, _)| key.kind == kind)
    }

    pub fn all(&self) -> impl Iterator<Item = (&ItemKey, &Held)> {
        self.held.iter()
    }

    pub fn inventory(&self) -> Vec<InventoryEntry> {
        let entry = |(key, held): (&ItemKey, &Held)| InventoryEntry {
            key: key.clone(),
            generation: held.generation,
            hash: held.hash,
        };
        self.held.iter().map(entry).collect()
    }

    pub fn put(&mut self, key: ItemKey, generation: u64, body: &[u8]) {
        self.put_hashed(key, generation, ItemHash::of(body), body);
    }

    /// As `put`, with the body's hash.
    pub(super) fn put_hashed(&mut self, key: ItemKey, generation: u64, hash: ItemHash, body: &[u8]) {
        self.hold(key, generation, hash, Body::folded(body));
    }

    /// As `put`, until `fold`.
    pub(super) fn put_plain(&mut self, key: ItemKey, generation: u64, body: Vec<u8>) {
        self.hold(key, generation, ItemHash::of(&body), Body::Plain(body.into()));
    }

    fn hold(&mut self, key: ItemKey, generation: u64, hash: ItemHash, body: Body) {
        self.digest.add(&key, hash);
        match self.held.entry(key) {
            Entry::Occupied(mut entry) => {
                let old = entry.insert(Held { generation, hash, body });
                self.digest.remove(entry.key(), old.hash);
            }
            Entry::Vacant(entry) => {
                entry.insert(Held { generation, hash, body });
            }
        }
    }

    /// Whatever is still as it came out of the journal.
    pub(super) fn fold(&mut self) {
        for held in self.held.values_mut() {
            if let Body::Plain(bytes) = &held.body {
                held.body = Body::folded(bytes);
            }
        }
    }

    pub fn remove(&mut self, key: &ItemKey) -> bool {
        match self.held.remove(key) {
            Some(old) => {
                self.digest.remove(key, old.hash);
                true
            }
            None => false,
        }
    }
}
