//! Reports until the hub has them: latest wins, one slot a pod; Events in a bounded spool.
//!
//! In: statuses, farewells, Events, the hub's `Reported`. Out: messages with versions that never fall.
//! Never: sends a version that the journal's ceiling does not cover; holds more than one report of a pod.

use crate::{clock::Now, pods::Uid, sync::Record};
use limpet_protocol::{NodeReport, PodGone, PodReport, Up, topic::Channel};
use std::collections::{BTreeMap, VecDeque};

const VERSION_BLOCK: u64 = 4096;
const EVENTS_MAX: usize = 512;
const EVENTS_BYTES_MAX: usize = 256 * 1024;
const IN_FLIGHT_MAX: usize = 64;
/// A report that the hub has not confirmed on a living connection is sent again after this long.
const AGAIN_MS: u64 = 60_000;
/// After a failure of the journal.
const BLOCKED_MS: u64 = 10_000;

#[derive(Clone, Debug, PartialEq)]
pub enum OutboxOutput {
    /// Make durable before the next `poll`.
    Persist(Record),
    Send(Channel, Up),
}

#[derive(Debug)]
struct Slot {
    namespace: String,
    name: String,
    status: Option<Vec<u8>>,
    gone: bool,
    version: u64,
    /// When it went out on this connection.
    sent_at: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Outbox {
    pods: BTreeMap<Uid, Slot>,
    node: Option<(Vec<u8>, u64, Option<u64>)>,
    node_known: Vec<u8>,
    events: VecDeque<Vec<u8>>,
    events_bytes: usize,
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

    pub fn snapshot(&self) -> Record {
        Record::VersionCeiling(self.ceiling)
    }

    pub fn pod(&mut self, uid: Uid, namespace: String, name: String, status: Vec<u8>) {
        self.version += 1;
        let version = self.version;
        let gone = self.pods.get(&uid).is_some_and(|s| s.gone);
        self.pods.insert(uid, Slot { namespace, name, status: Some(status), gone, version, sent_at: None });
    }

    pub fn gone(&mut self, uid: Uid, namespace: String, name: String) {
        self.version += 1;
        let version = self.version;
        let status = self.pods.remove(&uid).and_then(|s| s.status);
        self.pods.insert(uid, Slot { namespace, name, status, gone: true, version, sent_at: None });
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

    pub fn event(&mut self, event: Vec<u8>) {
        self.events_bytes += event.len();
        self.events.push_back(event);
        while self.events.len() > EVENTS_MAX || self.events_bytes > EVENTS_BYTES_MAX {
            let dropped = self.events.pop_front().map_or(0, |e| e.len());
            self.events_bytes -= dropped;
        }
    }

    /// A new session is welcome at the hub: everything unconfirmed goes out again.
    pub fn connected(&mut self) {
        self.connected = true;
        self.pods.values_mut().for_each(|s| s.sent_at = None);
        if let Some((_, _, sent)) = &mut self.node {
            *sent = None;
        }
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

    /// Whether `poll` has something to give now.
    pub fn wants(&self, now: Now) -> bool {
        let due = |sent: Option<u64>| sent.is_none_or(|at| now.mono_ms >= at + AGAIN_MS);
        let something = || {
            self.version > self.ceiling
                || self.node.as_ref().is_some_and(|(_, _, sent)| due(*sent))
                || self.pods.values().any(|s| due(s.sent_at))
                || !self.events.is_empty()
        };
        self.connected && now.mono_ms >= self.blocked_until && something()
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
        let event = self.events.pop_front()?;
        self.events_bytes -= event.len();
        Some(OutboxOutput::Send(Channel::Event, Up::Event(event)))
    }

    pub fn wake_at(&self) -> Option<(u64, &'static str)> {
        let pods = self.pods.values().filter_map(|s| s.sent_at);
        let node = self.node.iter().filter_map(|(_, _, sent)| *sent);
        if !self.connected {
            return None;
        }
        let blocked = (self.version > self.ceiling).then_some((self.blocked_until, "the journal failed"));
        let again = pods.chain(node).min().map(|first| (first + AGAIN_MS, "a report is not confirmed"));
        blocked.into_iter().chain(again).min()
    }
}

impl Slot {
    /// The last status goes before the farewell; both carry growing versions.
    fn message(&mut self, uid: &Uid, now: Now) -> Up {
        let (uid, namespace, name) = (uid.to_string(), self.namespace.clone(), self.name.clone());
        match self.status.take_if(|_| self.gone) {
            Some(status) => {
                Up::PodReport(PodReport { uid, namespace, name, version: self.version - 1, status })
            }
            None if self.gone => {
                self.sent_at = Some(now.mono_ms);
                Up::PodGone(PodGone { uid, namespace, name, version: self.version })
            }
            None => {
                self.sent_at = Some(now.mono_ms);
                let status = self.status.clone().unwrap_or_default();
                Up::PodReport(PodReport { uid, namespace, name, version: self.version, status })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(ms: u64) -> Now {
        Now { mono_ms: ms, wall_ms: ms }
    }

    fn drain(outbox: &mut Outbox, ms: u64) -> Vec<Up> {
        let mut all = Vec::new();
        while let Some(out) = outbox.poll(now(ms)) {
            if let OutboxOutput::Send(_, up) = out {
                all.push(up);
            }
        }
        all
    }

    fn versions(all: &[Up]) -> Vec<u64> {
        let version = |up: &Up| match up {
            Up::PodReport(r) => Some(r.version),
            Up::PodGone(r) => Some(r.version),
            Up::NodeReport(r) => Some(r.version),
            _ => None,
        };
        all.iter().filter_map(version).collect()
    }

    #[test]
    fn latest_wins_and_stays_until_it_is_confirmed() {
        let mut o = Outbox::new(0);
        assert!(o.poll(now(0)).is_none());
        for n in 0..3 {
            o.pod("u".into(), "d".into(), "p".into(), vec![n]);
        }
        assert!(matches!(o.poll(now(0)), Some(OutboxOutput::Persist(Record::VersionCeiling(_)))));
        assert!(drain(&mut o, 0).is_empty(), "nothing before a session");
        o.connected();
        let sent = drain(&mut o, 0);
        assert!(matches!(&sent[..], [Up::PodReport(r)] if r.status == [2] && r.version == 3));
        assert!(drain(&mut o, 1).is_empty());
        o.disconnected();
        o.connected();
        assert_eq!(versions(&drain(&mut o, 2)), [3]);
        assert_eq!(versions(&drain(&mut o, 60_002)), [3], "asked again");
        o.reported("u", 2);
        assert!(!o.idle());
        o.reported("u", 3);
        assert!(o.idle());
    }

    #[test]
    fn versions_never_fall_across_restarts() {
        let mut o = Outbox::new(0);
        o.connected();
        o.node(vec![1]);
        let Some(OutboxOutput::Persist(Record::VersionCeiling(ceiling))) = o.poll(now(0)) else { panic!() };
        let before = versions(&drain(&mut o, 0));
        let mut again = Outbox::new(ceiling);
        again.connected();
        again.node(vec![1]);
        assert!(versions(&drain(&mut again, 0)) > before);
    }

    #[test]
    fn the_last_status_goes_before_the_farewell() {
        let mut o = Outbox::new(0);
        o.connected();
        o.pod("u".into(), "d".into(), "p".into(), vec![1]);
        o.gone("u".into(), "d".into(), "p".into());
        let sent = drain(&mut o, 0);
        assert!(matches!(&sent[..], [Up::PodReport(_), Up::PodGone(_)]), "{sent:?}");
        assert_eq!(versions(&sent), [1, 2]);
        o.reported("u", 1);
        assert!(!o.idle());
        o.reported("u", 2);
        assert!(o.idle());
    }

    #[test]
    fn events_are_bounded_and_last() {
        let mut o = Outbox::new(0);
        for n in 0..2000u32 {
            o.event(n.to_le_bytes().to_vec());
        }
        o.pod("u".into(), "d".into(), "p".into(), vec![1]);
        o.connected();
        let sent = drain(&mut o, 0);
        assert!(matches!(sent[0], Up::PodReport(_)));
        assert_eq!(sent.len(), 1 + EVENTS_MAX);
    }
}
