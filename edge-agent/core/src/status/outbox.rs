//! Reports until the hub has them: latest wins, one slot a pod; Events in their order, in a bounded spool.
//!
//! In: statuses, farewells, Events, the hub's `Reported` and `EventsTaken`. Out: messages with versions that never fall.
//! While the hub is away Events also go to the journal, so many an hour and no more: they outlive a reboot, and a container
//! that fails for ever does not wear out the flash.
//! Never: sends a version that the journal's ceiling does not cover; holds more than one report of a pod.

use crate::{clock::Now, pods::Uid, sync::Record};
use limpet_protocol::{NodeReport, NumberedEvent, PodGone, PodReport, Up, topic::Channel};
use std::collections::{BTreeMap, VecDeque};

const VERSION_BLOCK: u64 = 4096;
const EVENTS_MAX: usize = 512;
const EVENTS_BYTES_MAX: usize = 256 * 1024;
const IN_FLIGHT_MAX: usize = 64;
const EVENTS_IN_FLIGHT_MAX: usize = 32;
/// Events written to the journal in an hour.
const KEPT_PER_HOUR_MAX: u32 = 60;
const HOUR_MS: u64 = 3_600_000;
/// From this version on Events are numbered and confirmed.
const NUMBERED_SINCE: u8 = 3;
/// A report that the hub has not confirmed on a living connection is sent again after this long.
const AGAIN_MS: u64 = 60_000;
/// After a failure of the journal.
const BLOCKED_MS: u64 = 10_000;

#[derive(Clone, Debug, PartialEq)]
pub enum OutboxOutput {
    /// Make durable before the next `poll`.
    Persist(Record),
    /// Append when convenient; no need to wait for the disk.
    Keep(Record),
    Send(Channel, Up),
}

/// An Event on its way.
#[derive(Debug)]
struct Spooled {
    number: u64,
    json: Vec<u8>,
    /// When it went out on this connection.
    sent_at: Option<u64>,
    /// The journal has it.
    kept: bool,
}

#[derive(Debug)]
struct Slot {
    namespace: String,
    name: String,
    status: Option<Vec<u8>>,
    gone: bool,
    /// The last status went out; what goes next is the farewell.
    told: bool,
    version: u64,
    /// When it went out on this connection.
    sent_at: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Outbox {
    pods: BTreeMap<Uid, Slot>,
    node: Option<(Vec<u8>, u64, Option<u64>)>,
    node_known: Vec<u8>,
    events: VecDeque<Spooled>,
    events_bytes: usize,
    /// The Event sent last in this row.
    event_before: u64,
    /// The hub confirmed Events that the journal holds.
    taken: Option<u64>,
    /// Begin of the present hour, and Events that went to the journal in it.
    kept_hour: (u64, u32),
    /// Events may not travel now: as if the hub were away.
    events_held: bool,
    speak: u8,
    version: u64,
    ceiling: u64,
    /// The ceiling before the one that is being made durable.
    ceiling_before: u64,
    /// The journal failed: nothing goes out until then.
    blocked_until: u64,
    connected: bool,
}

impl Outbox {
    /// `ceiling`: from the journal, 0 at the first start.
    pub fn new(ceiling: u64) -> Outbox {
        Outbox { version: ceiling, ceiling, ..Outbox::default() }
    }

    /// Events that the journal gave back, in order.
    pub fn remember(&mut self, events: impl IntoIterator<Item = (u64, Vec<u8>)>) {
        for (number, json) in events {
            self.version = self.version.max(number);
            self.events_bytes += json.len();
            self.events.push_back(Spooled { number, json, sent_at: None, kept: true });
        }
    }

    /// The records that rebuild what must survive, for compaction.
    pub fn snapshot(&self) -> impl Iterator<Item = Record> + '_ {
        let kept = self.events.iter().filter(|e| e.kept);
        std::iter::once(Record::VersionCeiling(self.ceiling))
            .chain(kept.map(|e| Record::Event(e.number, e.json.clone())))
    }

    pub fn pod(&mut self, uid: Uid, namespace: String, name: String, status: Vec<u8>) {
        self.version += 1;
        let version = self.version;
        let gone = self.pods.get(&uid).is_some_and(|s| s.gone);
        self.pods.insert(uid, Slot { namespace, name, status: Some(status), gone, told: false, version, sent_at: None });
    }

    pub fn gone(&mut self, uid: Uid, namespace: String, name: String) {
        self.version += 1;
        let version = self.version;
        let status = self.pods.remove(&uid).and_then(|s| s.status);
        self.pods.insert(uid, Slot { namespace, name, status, gone: true, told: false, version, sent_at: None });
    }

    /// The pod has left the set: nobody wants to hear of it any more.
    pub fn forget(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    /// Offers the node's report; an equal one is not sent again.
    pub fn node(&mut self, body: Vec<u8>) {
        if self.node_known == body {
            return;
        }
        self.node_known.clone_from(&body);
        self.version += 1;
        self.node = Some((body, self.version, None));
    }

    /// The next report of the node goes out although the hub has an equal one.
    pub fn node_again(&mut self) {
        self.node_known.clear();
    }

    /// The oldest goes when there are too many.
    pub fn event(&mut self, json: Vec<u8>) {
        self.version += 1;
        self.events_bytes += json.len();
        self.events.push_back(Spooled { number: self.version, json, sent_at: None, kept: false });
        while self.events.len() > EVENTS_MAX || self.events_bytes > EVENTS_BYTES_MAX {
            self.drop_event();
        }
    }

    fn drop_event(&mut self) -> Option<Spooled> {
        let event = self.events.pop_front()?;
        self.events_bytes -= event.json.len();
        if event.kept {
            self.taken = Some(event.number);
        }
        Some(event)
    }

    /// The hub has all Events up to `number` durably.
    pub fn events_taken(&mut self, number: u64) {
        while self.events.front().is_some_and(|e| e.number <= number && e.sent_at.is_some()) {
            self.drop_event();
        }
    }

    fn resend_events(&mut self) {
        self.event_before = 0;
        self.events.iter_mut().for_each(|e| e.sent_at = None);
    }

    /// A new session is welcome at the hub: everything unconfirmed goes out again.
    pub fn connected(&mut self, speak: u8) {
        (self.connected, self.speak) = (true, speak);
        self.resend_events();
        self.pods.values_mut().for_each(|s| (s.sent_at, s.told) = (None, false));
        if let Some((_, _, sent)) = &mut self.node {
            *sent = None;
        }
    }

    /// Events stay here for now.
    pub fn hold_events(&mut self, held: bool) {
        self.events_held = held;
    }

    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// The hub has this version of the pod (of the node: empty `uid`) durably.
    pub fn reported(&mut self, uid: &str, version: u64) {
        if uid.is_empty() {
            self.node = self.node.take().filter(|(_, v, _)| *v > version);
        } else if self.pods.get(uid).is_some_and(|s| s.version <= version) {
            self.pods.remove(uid);
        }
    }

    pub fn idle(&self) -> bool {
        self.pods.is_empty() && self.node.is_none() && self.events.is_empty()
    }

    /// Events that wait to be confirmed.
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// Whether `poll` has something to give now.
    pub fn wants(&self, now: Now) -> bool {
        let due = |sent: Option<u64>| sent.is_none_or(|at| now.mono_ms >= at + AGAIN_MS);
        let something = || {
            self.version > self.ceiling
                || self.node.as_ref().is_some_and(|(_, _, sent)| due(*sent))
                || self.pods.values().any(|s| due(s.sent_at))
                || self.event_to_send(now)
        };
        self.connected && now.mono_ms >= self.blocked_until && something()
    }

    fn event_to_send(&self, now: Now) -> bool {
        if self.events_held {
            return false;
        }
        let overdue = self.events.front().and_then(|e| e.sent_at).is_some_and(|at| now.mono_ms >= at + AGAIN_MS);
        let in_flight = self.events.iter().take_while(|e| e.sent_at.is_some()).count();
        overdue || (in_flight < self.events.len() && in_flight < EVENTS_IN_FLIGHT_MAX)
    }

    /// The record that `poll` gave last could not be made durable: it is tried again later.
    pub fn unpersisted(&mut self, now: Now) {
        self.ceiling = self.ceiling_before;
        self.blocked_until = now.mono_ms + BLOCKED_MS;
    }

    /// The next message to send, or a record that must be durable first.
    pub fn poll(&mut self, now: Now) -> Option<OutboxOutput> {
        if now.mono_ms < self.blocked_until {
            return None;
        }
        if self.version > self.ceiling {
            self.ceiling_before = self.ceiling;
            self.ceiling = self.version + VERSION_BLOCK;
            return Some(OutboxOutput::Persist(Record::VersionCeiling(self.ceiling)));
        }
        if let Some(record) = self.to_keep(now) {
            return Some(OutboxOutput::Keep(record));
        }
        if !self.connected {
            return None;
        }
        let due = |sent: Option<u64>| sent.is_none_or(|at| now.mono_ms >= at + AGAIN_MS);
        if let Some((body, version, sent)) = &mut self.node
            && due(*sent)
        {
            *sent = Some(now.mono_ms);
            let report = NodeReport { version: *version, body: body.clone() };
            return Some(OutboxOutput::Send(Channel::Status, Up::NodeReport(report)));
        }
        let in_flight = self.pods.values().filter(|s| s.sent_at.is_some() && !due(s.sent_at)).count();
        if in_flight < IN_FLIGHT_MAX
            && let Some((uid, slot)) = self.pods.iter_mut().find(|(_, s)| due(s.sent_at))
        {
            return Some(OutboxOutput::Send(Channel::Status, slot.message(uid, now)));
        }
        self.next_event(now).map(|up| OutboxOutput::Send(Channel::Event, up))
    }

    fn next_event(&mut self, now: Now) -> Option<Up> {
        if !self.event_to_send(now) {
            return None;
        }
        if self.speak < NUMBERED_SINCE {
            return self.drop_event().map(|e| Up::Event(e.json));
        }
        if self.events.front().and_then(|e| e.sent_at).is_some_and(|at| now.mono_ms >= at + AGAIN_MS) {
            self.resend_events();
        }
        let event = self.events.iter_mut().find(|e| e.sent_at.is_none())?;
        event.sent_at = Some(now.mono_ms);
        let after = std::mem::replace(&mut self.event_before, event.number);
        Some(Up::NumberedEvent(NumberedEvent { number: event.number, after, json: event.json.clone() }))
    }

    /// What the journal should learn about Events.
    fn to_keep(&mut self, now: Now) -> Option<Record> {
        if let Some(number) = self.taken.take() {
            return Some(Record::EventsTaken(number));
        }
        if self.connected && !self.events_held {
            return None;
        }
        if now.mono_ms >= self.kept_hour.0 + HOUR_MS {
            self.kept_hour = (now.mono_ms, 0);
        }
        let event = self.events.iter_mut().find(|e| !e.kept).filter(|_| self.kept_hour.1 < KEPT_PER_HOUR_MAX)?;
        self.kept_hour.1 += 1;
        event.kept = true;
        Some(Record::Event(event.number, event.json.clone()))
    }

    pub fn wake_at(&self) -> Option<(u64, &'static str)> {
        let pods = self.pods.values().filter_map(|s| s.sent_at);
        let node = self.node.iter().filter_map(|(_, _, sent)| *sent);
        if !self.connected {
            return None;
        }
        let blocked = (self.version > self.ceiling).then_some((self.blocked_until, "the journal failed"));
        let event = self.events.front().and_then(|e| e.sent_at).filter(|_| !self.events_held);
        let again = pods.chain(node).chain(event).min().map(|first| (first + AGAIN_MS, "a report is not confirmed"));
        blocked.into_iter().chain(again).min()
    }
}

impl Slot {
    /// The last status goes before the farewell, each time anew until that is confirmed; both carry growing versions.
    fn message(&mut self, uid: &Uid, now: Now) -> Up {
        let (uid, namespace, name) = (uid.to_string(), self.namespace.clone(), self.name.clone());
        let again = self.sent_at.take().is_some();
        self.told &= !again;
        match &self.status {
            Some(status) if self.gone && !self.told => {
                self.told = true;
                Up::PodReport(PodReport { uid, namespace, name, version: self.version - 1, status: status.clone() })
            }
            _ if self.gone => {
                self.sent_at = Some(now.mono_ms);
                Up::PodGone(PodGone { uid, namespace, name, version: self.version })
            }
            status => {
                self.sent_at = Some(now.mono_ms);
                let status = status.clone().unwrap_or_default();
                Up::PodReport(PodReport { uid, namespace, name, version: self.version, status })
            }
        }
    }
}

#[cfg(test)]
mod tests;
