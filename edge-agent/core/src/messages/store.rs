//! Messages for the hub, until it has them: in order, within a bound, the oldest dropped and counted.
//!
//! In: messages that workloads published on `up/…`, the hub's `MessagesTaken`. Out: messages to send, and what is to be written
//! down because the hub is away. While the hub takes what is sent nothing is written.
//! Never: loses a message without counting it; lets a row have a gap.

use crate::clock::Now;
use limpet_protocol::{BoardMessage, Up};
use std::collections::VecDeque;

pub const STORE_MAX: usize = 8192;
pub const STORE_BYTES_MAX: usize = 1024 * 1024;
const IN_FLIGHT_MAX: usize = 32;
const AGAIN_MS: u64 = 60_000;
const SINCE: u8 = 4;

#[derive(Debug, Default)]
pub struct Store {
    queue: VecDeque<BoardMessage>,
    bytes: usize,
    /// Of the queue's front, so many went out on this connection; when the last of them did.
    sent: usize,
    sent_ms: u64,
    /// Number of the message sent last in this row.
    before: u64,
    last: u64,
    /// Dropped, and no message stands behind them yet.
    lost: u64,
    /// Everything up to this number is written down.
    written: u64,
    connected: bool,
    held: bool,
}

fn size(message: &BoardMessage) -> usize {
    message.payload.len() + message.topic.len() + 64
}

impl Store {
    /// `from`: above every number that was used before. `kept`: what was written down, in order.
    pub fn new(from: u64, kept: Vec<BoardMessage>) -> Store {
        let last = kept.last().map_or(from, |m| m.number.max(from));
        let mut store = Store { last, written: last, ..Store::default() };
        for message in kept {
            store.bytes += size(&message);
            store.queue.push_back(message);
        }
        store.shrink();
        store
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn put(&mut self, (namespace, pod): (&str, &str), topic: &str, payload: &[u8], now: Now) {
        self.last += 1;
        let message = BoardMessage {
            number: self.last,
            after: 0,
            lost: std::mem::take(&mut self.lost),
            namespace: namespace.into(),
            pod: pod.into(),
            topic: topic.into(),
            at_ms: now.wall_ms,
            payload: payload.into(),
        };
        self.bytes += size(&message);
        self.queue.push_back(message);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.queue.len() > STORE_MAX || self.bytes > STORE_BYTES_MAX {
            let Some(old) = self.queue.pop_front() else { return };
            self.bytes -= size(&old);
            self.sent = self.sent.saturating_sub(1);
            let lost = old.lost + 1;
            match self.queue.front_mut() {
                Some(next) => next.lost += lost,
                None => self.lost += lost,
            }
        }
    }

    pub fn connected(&mut self, speak: u8) {
        self.connected = speak >= SINCE;
        (self.sent, self.before) = (0, 0);
    }

    pub fn disconnected(&mut self) {
        self.connected = false;
        (self.sent, self.before) = (0, 0);
    }

    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// The hub has everything up to `number` durably.
    pub fn taken(&mut self, number: u64) {
        while self.sent > 0 && self.queue.front().is_some_and(|m| m.number <= number) {
            if let Some(old) = self.queue.pop_front() {
                self.bytes -= size(&old);
                self.sent -= 1;
            }
        }
    }

    pub fn wants(&self, now: Now) -> bool {
        let overdue = self.sent > 0 && now.mono_ms >= self.sent_ms + AGAIN_MS;
        self.connected && !self.held && (overdue || (self.sent < self.queue.len() && self.sent < IN_FLIGHT_MAX))
    }

    pub fn poll(&mut self, now: Now) -> Option<Up> {
        if !self.wants(now) {
            return None;
        }
        if self.sent > 0 && now.mono_ms >= self.sent_ms + AGAIN_MS {
            (self.sent, self.before) = (0, 0);
        }
        let message = self.queue.get(self.sent)?;
        let after = std::mem::replace(&mut self.before, message.number);
        (self.sent, self.sent_ms) = (self.sent + 1, now.mono_ms);
        Some(Up::Message(BoardMessage { after, ..message.clone() }))
    }

    pub fn wake_at(&self) -> Option<u64> {
        (self.connected && !self.held && self.sent > 0).then_some(self.sent_ms + AGAIN_MS)
    }

    /// Messages that should outlive the agent, and are not written down yet.
    pub fn to_write(&mut self) -> Vec<BoardMessage> {
        if self.connected && !self.held {
            return Vec::new();
        }
        let new = self.queue.iter().filter(|m| m.number > self.written).cloned().collect();
        self.written = self.last;
        new
    }

    /// All that is here, when what is written down has become too long.
    pub fn all(&self) -> impl Iterator<Item = &BoardMessage> {
        self.queue.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 1_000 }
    }

    fn put(store: &mut Store, n: u64) {
        store.put(("d", "p"), "up/t", &n.to_be_bytes(), now(0));
    }

    fn sent(store: &mut Store, at: u64) -> Vec<(u64, u64, u64)> {
        let next = || match store.poll(now(at))? {
            Up::Message(m) => Some((m.number, m.after, m.lost)),
            _ => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_row_without_gaps_until_it_is_taken() {
        let mut store = Store::new(100, Vec::new());
        (0..40).for_each(|n| put(&mut store, n));
        assert!(sent(&mut store, 0).is_empty(), "nobody is there");
        assert_eq!(store.to_write().len(), 40);
        assert!(store.to_write().is_empty(), "once");
        store.connected(3);
        assert!(sent(&mut store, 0).is_empty(), "an old hub");
        store.connected(4);
        let row = sent(&mut store, 0);
        assert_eq!((row.len(), row[0], row[1]), (IN_FLIGHT_MAX, (101, 0, 0), (102, 101, 0)));
        store.taken(110);
        assert_eq!(sent(&mut store, 1).first(), Some(&(133, 132, 0)));
        assert_eq!(store.wake_at(), Some(1 + AGAIN_MS));
        let again = sent(&mut store, 1 + AGAIN_MS);
        assert_eq!((again.len(), again[0]), (30, (111, 0, 0)), "not confirmed: the row begins anew");
        store.disconnected();
        store.connected(4);
        assert_eq!(sent(&mut store, 9)[0], (111, 0, 0));
        store.taken(140);
        assert!(store.is_empty() && store.wake_at().is_none());
        put(&mut store, 1);
        assert!(store.to_write().is_empty(), "the hub is there");
        store.hold(true);
        assert_eq!((store.to_write().len(), store.wants(now(0))), (1, false));
    }

    #[test]
    fn the_oldest_go_and_are_counted_through_a_restart() {
        let mut store = Store::new(0, Vec::new());
        (0..STORE_MAX as u64 + 10).for_each(|n| put(&mut store, n));
        let kept: Vec<BoardMessage> = store.all().cloned().collect();
        assert_eq!((kept.len(), kept[0].number, kept[0].lost), (STORE_MAX, 11, 10));
        let mut store = Store::new(5, kept);
        put(&mut store, 1);
        store.connected(4);
        assert_eq!(sent(&mut store, 0)[0], (12, 0, 11));
        for _ in 0..20 {
            store.put(("d", "p"), "up/big", &vec![0; 60_000], now(0));
        }
        assert!(store.bytes <= STORE_BYTES_MAX);
        let first = store.all().next().unwrap().clone();
        assert_eq!(first.lost, first.number - 1, "every one that is missing is counted");
    }
}
