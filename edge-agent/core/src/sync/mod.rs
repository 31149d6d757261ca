//! Holds the desired set and keeps it equal to the hub's, whatever the link loses, repeats or reorders.
//!
//! In: journal records at the start; `Down::Welcome` and `Down::Change` of the current session; the journal's verdict.
//! Out: records to persist, then acknowledgements to send and keys that changed, in exactly this order.
//! Never: acknowledges or applies what the journal does not hold, but a token in place of another (`owed`); takes a generation
//! older than the held one.

mod items;
mod owed;

pub use items::{Held, Items};

use crate::{clock::Now, pods::PodMemory};
use limpet_protocol::{
    Ack, Hello, Inventory, Item, ItemHash, ItemKey, ItemStep, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, SetChange,
    SetDigest, SetStep, Up, Welcome, limits, squeeze,
};
use owed::Owed;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What the journal keeps for the cores. Append only: the order of variants is on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    Put(Item),
    Remove(ItemKey),
    /// No session number above this one has been used.
    SessionCeiling(u64),
    /// No report version above this one has been used.
    VersionCeiling(u64),
    /// The last good time known, milliseconds since 1970.
    TimeFloor(u64),
    /// What must survive a reboot about one pod.
    Pod(PodMemory),
    ForgetPod(String),
    /// An Event that the hub does not have yet: number and JSON.
    Event(u64, Vec<u8>),
    /// The hub has all Events up to this number.
    EventsTaken(u64),
    /// Bytes on the wire in the month that began then (seconds since 1970): sent, received.
    LinkUse(i64, u64, u64),
}

#[derive(Clone, Debug, PartialEq)]
pub enum SyncOutput {
    /// Make durable, then call `persisted`. Nothing else comes before that.
    Persist(Vec<Record>),
    Send(Up),
    /// These keys were put or removed, durably but for what is `owed`.
    Changed(Vec<ItemKey>),
    /// The hub's clock, to raise the time floor.
    HubTime(u64),
}

/// Session numbers are reserved in blocks, so that a flapping link seldom writes to flash.
const SESSION_BLOCK: u64 = 64;
/// After asking for the differences, this long before asking again.
const INVENTORY_AGAIN_MS: u64 = 15_000;

#[derive(Debug)]
pub struct Sync {
    items: Items,
    session: u64,
    session_ceiling: u64,
    link: Link,
    pending: Option<Pending>,
    owed: Owed,
    out: VecDeque<SyncOutput>,
    /// Oldest and newest protocol version of this agent.
    versions: (u8, u8),
    /// What this session speaks.
    speak: u8,
}

/// Where the conversation with the hub stands.
#[derive(Debug, Default)]
enum Link {
    #[default]
    Down,
    /// `Hello` is sent, `Welcome` awaited.
    Greeting,
    Up(Talk),
}

#[derive(Debug, Default)]
struct Talk {
    seq_next: u64,
    /// The hub's newest word on what the whole set should be.
    target: SetDigest,
    asked_at_ms: Option<u64>,
    /// A step was missed: acknowledgements pause until the set is whole again.
    gap: bool,
}

#[derive(Debug)]
struct Pending {
    changed: Vec<ItemKey>,
    seq: u64,
    removals: Vec<ItemKey>,
    /// With the hashes of their bodies.
    puts: Vec<(Item, ItemHash)>,
    digest: SetDigest,
    now: Now,
}

impl Sync {
    pub fn new() -> Sync {
        Sync::speaking((PROTOCOL_VERSION_MIN, PROTOCOL_VERSION))
    }

    /// An agent of another age: oldest and newest version that it speaks.
    pub fn speaking(versions: (u8, u8)) -> Sync {
        Sync {
            items: Items::default(),
            session: 0,
            session_ceiling: 0,
            link: Link::Down,
            pending: None,
            owed: Owed::default(),
            out: VecDeque::new(),
            versions,
            speak: versions.0,
        }
    }

    /// One journal record at the start, where `rest` follows. Records that are not for this module are passed over.
    pub fn replay(&mut self, record: Record) {
        match record {
            Record::Put(item) => self.items.put_plain(item.key, item.generation, item.body),
            Record::Remove(key) => {
                self.items.remove(&key);
            }
            Record::SessionCeiling(n) => {
                self.session_ceiling = self.session_ceiling.max(n);
                self.session = self.session_ceiling;
            }
            _ => {}
        }
    }

    /// All records are replayed, and everybody has looked at what there is: the set takes as little memory as it can.
    pub fn rest(&mut self) {
        self.items.fold();
    }

    pub fn items(&self) -> &Items {
        &self.items
    }

    pub fn session(&self) -> u64 {
        self.session
    }

    /// The protocol version of this session; the oldest one before the hub's welcome.
    pub fn speaks(&self) -> u8 {
        self.speak
    }

    pub fn in_sync(&self) -> bool {
        matches!(&self.link, Link::Up(talk) if talk.target == self.items.digest())
    }

    pub fn welcomed(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// The transport is up: draws a session number and says hello. `hello.digest` is filled in here.
    pub fn connected(&mut self, mut hello: Hello) {
        self.session += 1;
        if self.session > self.session_ceiling {
            self.session_ceiling = self.session + SESSION_BLOCK;
            let record = Record::SessionCeiling(self.session_ceiling);
            self.out.push_back(SyncOutput::Persist(vec![record]));
        }
        hello.digest = self.items.digest();
        hello.speaks = self.versions;
        self.speak = self.versions.0;
        self.link = Link::Greeting;
        self.out.push_back(SyncOutput::Send(Up::Hello(hello)));
    }

    pub fn disconnected(&mut self) {
        self.link = Link::Down;
        self.out.retain(|o| !matches!(o, SyncOutput::Send(_)));
    }

    pub fn welcome(&mut self, now: Now, welcome: &Welcome) {
        if !matches!(self.link, Link::Greeting) || !(self.versions.0..=self.versions.1).contains(&welcome.speak) {
            return;
        }
        self.speak = welcome.speak;
        self.out.push_back(SyncOutput::HubTime(welcome.time_ms));
        self.link = Link::Up(Talk { seq_next: 1, target: welcome.digest, ..Talk::default() });
        self.ask_if_different(now);
    }

    /// A step of the set that may consist of differences. A difference to a body that is not held makes it a missed step.
    pub fn step(&mut self, now: Now, step: SetStep) {
        let Link::Up(talk) = &mut self.link else { return };
        let mut change = SetChange { seq: step.seq, removals: step.removals, digest: step.digest, ..SetChange::default() };
        if step.seq >= talk.seq_next {
            let count = step.puts.len();
            change.puts = step.puts.into_iter().filter_map(|put| whole(&self.items, put)).collect();
            talk.gap |= change.puts.len() < count;
        }
        self.change(now, change);
    }

    /// A step of the set. Call `poll` until empty before the next input.
    pub fn change(&mut self, now: Now, change: SetChange) {
        let Link::Up(talk) = &mut self.link else { return };
        if change.seq < talk.seq_next {
            // A repetition: it is durable already.
            if !talk.gap {
                let seq = talk.seq_next - 1;
                self.out.push_back(SyncOutput::Send(Up::Ack(Ack { seq })));
            }
            return;
        }
        if change.seq > talk.seq_next {
            talk.gap = true;
        }
        talk.seq_next = change.seq + 1;
        talk.target = change.digest;
        let (mut removals, mut puts, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for removal in change.removals {
            if self.items.by_key(&removal.key).is_some_and(|held| held.generation <= removal.generation) {
                changed.push(removal.key.clone());
                removals.push(removal.key);
            }
        }
        let mut room = limits::ITEMS_PER_NODE_MAX.saturating_sub(self.items.len());
        for item in change.puts {
            let (held, hash) = (self.items.by_key(&item.key), ItemHash::of(&item.body));
            let stale = held.is_some_and(|held| item.generation < held.generation || held.hash == hash);
            if stale || (held.is_none() && room == 0) {
                continue;
            }
            room = room.saturating_sub(usize::from(held.is_none()));
            changed.push(item.key.clone());
            puts.push((item, hash));
        }
        let pending = Pending { changed, seq: change.seq, removals, puts, digest: change.digest, now };
        if pending.changed.is_empty() {
            return self.settle(pending);
        }
        if pending.removals.is_empty() && self.owed.take(now, &self.items, &pending.puts) {
            return self.apply(pending);
        }
        let removed = pending.removals.iter().cloned().map(Record::Remove);
        let records = removed.chain(pending.puts.iter().map(|(item, _)| Record::Put(item.clone()))).collect();
        self.pending = Some(pending);
        self.out.push_back(SyncOutput::Persist(records));
    }

    /// What is held and not in the journal: to be written before the next record that is worth a write, and before an orderly
    /// end. Call `recorded` when it is written.
    pub fn owed(&self) -> Vec<Record> {
        self.owed.records(&self.items)
    }

    pub fn recorded(&mut self) {
        self.owed = Owed::default();
    }

    /// The journal's verdict on the last `Persist`. On failure nothing is applied or acknowledged, and the whole set
    /// is asked for again later.
    pub fn persisted(&mut self, ok: bool) {
        let Some(pending) = self.pending.take() else { return };
        if !ok {
            if let Link::Up(talk) = &mut self.link {
                talk.gap = true;
                talk.asked_at_ms = Some(pending.now.mono_ms);
            }
            return;
        }
        self.apply(pending);
    }

    fn apply(&mut self, mut pending: Pending) {
        for key in std::mem::take(&mut pending.removals) {
            self.items.remove(&key);
        }
        for (item, hash) in std::mem::take(&mut pending.puts) {
            self.items.put_hashed(item.key, item.generation, hash, &item.body);
        }
        self.out.push_back(SyncOutput::Changed(std::mem::take(&mut pending.changed)));
        self.settle(pending);
    }

    fn settle(&mut self, pending: Pending) {
        let whole = pending.digest == self.items.digest();
        let Link::Up(talk) = &mut self.link else { return };
        if whole {
            talk.gap = false;
            talk.asked_at_ms = None;
        }
        if !talk.gap {
            self.out.push_back(SyncOutput::Send(Up::Ack(Ack { seq: pending.seq })));
        }
        self.ask_if_different(pending.now);
    }

    fn ask_if_different(&mut self, now: Now) {
        let Link::Up(talk) = &mut self.link else { return };
        let waits = talk.asked_at_ms.is_some_and(|at| now.mono_ms < at + INVENTORY_AGAIN_MS);
        if talk.target == self.items.digest() || waits {
            return;
        }
        talk.asked_at_ms = Some(now.mono_ms);
        let inventory = Inventory { entries: self.items.inventory() };
        self.out.push_back(SyncOutput::Send(Up::Inventory(inventory)));
    }

    pub fn poll(&mut self) -> Option<SyncOutput> {
        self.out.pop_front()
    }

    /// Call when `wake_at` has passed.
    pub fn tick(&mut self, now: Now) {
        self.ask_if_different(now);
    }

    pub fn wake_at(&self) -> Option<(u64, &'static str)> {
        match &self.link {
            Link::Up(talk) if talk.target != self.items.digest() => {
                talk.asked_at_ms.map(|at| (at + INVENTORY_AGAIN_MS, "the set still differs from the hub's"))
            }
            _ => None,
        }
    }

    /// The records that rebuild this state, for compaction.
    pub fn snapshot(&self) -> impl Iterator<Item = Record> + '_ {
        let ceiling = std::iter::once(Record::SessionCeiling(self.session_ceiling));
        ceiling.chain(self.items.all().map(|(key, held)| {
            let body = held.body();
            Record::Put(Item { key: key.clone(), generation: held.generation, body })
        }))
    }
}

impl Default for Sync {
    fn default() -> Sync {
        Sync::new()
    }
}

/// The whole item of a step; `None` when its base is not what is held here.
fn whole(items: &Items, put: ItemStep) -> Option<Item> {
    let body = match put.base {
        0 => put.body,
        base => {
            let held = items.by_key(&put.key).filter(|held| held.hash.prefix() == base)?;
            squeeze::unfold(&held.body(), &put.body, limits::ITEM_BYTES_MAX).ok()?
        }
    };
    Some(Item { key: put.key, generation: put.generation, body })
}

#[cfg(test)]
mod tests;
