//! A board's journal: what survives, and what it would rebuild.
//!
//! In: records, some synced, some only written. Out: the records after a power cut; the set and the ceilings that they hold,
//! kept from record to record, so that "acknowledged is durable" is one comparison after every event. Tokens in place of others
//! may wait for the next record.
//! Never: loses a record that was synced.

use crate::Rng;
use limpet_agent_core::Record;
use limpet_protocol::{Item, ItemHash, ItemKey, ItemKind, SetDigest};
use std::collections::BTreeMap;

const RECORDS_MAX: usize = 400;

#[derive(Default)]
pub struct Journal {
    records: Vec<Record>,
    /// Records from here on are lost with the power, all or some.
    synced: usize,
    /// What a compaction left behind.
    base: usize,
    written: u64,
    /// Hashes of the bodies of the set that the records make, and its digest.
    held: BTreeMap<ItemKey, ItemHash>,
    digest: SetDigest,
    versions: u64,
    sessions: u64,
}

impl Journal {
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Written and synced, and with it everything before.
    pub fn append(&mut self, record: Record) {
        self.append_lazily(record);
        self.synced = self.records.len();
    }

    /// Written; the disk has it whenever the next record is synced.
    pub fn append_lazily(&mut self, record: Record) {
        self.note(&record);
        self.records.push(record);
        self.written += 1;
    }

    fn note(&mut self, record: &Record) {
        match record {
            Record::VersionCeiling(n) => self.versions = self.versions.max(*n),
            Record::SessionCeiling(n) => self.sessions = self.sessions.max(*n),
            Record::Put(item) => {
                let hash = ItemHash::of(&item.body);
                self.digest.add(&item.key, hash);
                self.replace(&item.key, Some(hash));
            }
            Record::Remove(key) => self.replace(key, None),
            _ => {}
        }
    }

    /// What was held under a key is no more; what is there instead.
    fn replace(&mut self, key: &ItemKey, now: Option<ItemHash>) {
        let old = match now {
            Some(hash) => self.held.insert(key.clone(), hash),
            None => self.held.remove(key),
        };
        old.into_iter().for_each(|old| self.digest.remove(key, old));
    }

    /// Of what was not synced the beginning may have reached the disk.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        let loose = self.records.len() - self.synced;
        if loose > 0 {
            let lost = self.records.split_off(self.synced + rng.between(0, loose as u64 + 1) as usize);
            self.synced = self.records.len();
            lost.iter().for_each(|record| self.take_back(record));
        }
    }

    /// A token that was written in place of another, on the way to the record that it goes before: the other one is there again.
    /// Nothing else of the set may be lost.
    fn take_back(&mut self, lost: &Record) {
        let Record::Put(Item { key, .. }) = lost else { return };
        let of_key = |record: &Record| match record {
            Record::Put(item) if item.key == *key => Some(Some(ItemHash::of(&item.body))),
            Record::Remove(removed) if removed == key => Some(None),
            _ => None,
        };
        let before = self.records.iter().rev().find_map(of_key).flatten();
        if let Some(hash) = before.filter(|_| key.kind == ItemKind::Token) {
            self.digest.add(key, hash);
            self.replace(key, Some(hash));
        }
    }

    pub fn is_long(&self) -> bool {
        self.records.len() > RECORDS_MAX + 2 * self.base
    }

    /// A new journal with the present state takes the place of the old one.
    pub fn compact(&mut self, records: Vec<Record>) {
        let written = self.written + records.len() as u64;
        *self = Journal { base: records.len(), synced: records.len(), written, ..Journal::default() };
        records.iter().for_each(|r| self.note(r));
        self.records = records;
    }

    /// Records written in all.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Of the set that the journal alone would rebuild, with owed tokens in place of those that it has. What it has nothing of
    /// may not wait, nor anything but a token.
    pub fn digest(&self, owed: &[Record]) -> SetDigest {
        let mut digest = self.digest;
        for record in owed {
            let Record::Put(Item { key, body, .. }) = record else { continue };
            if let Some(old) = self.held.get(key).filter(|_| key.kind == ItemKind::Token) {
                digest.remove(key, *old);
                digest.add(key, ItemHash::of(body));
            }
        }
        digest
    }

    /// No report with a version above this one may be sent.
    pub fn version_ceiling(&self) -> u64 {
        self.versions
    }

    /// No session above this one may be begun.
    pub fn session_ceiling(&self) -> u64 {
        self.sessions
    }
}
