//! What one client of the board's broker has: what it wants to hear, what waits for it, and what is under way.
//!
//! In: deliveries, acknowledgements, the connection's end and return. Out: what to send next, in order.
//! Source: MQTT 3.1.1 (OASIS), 3.1.2.4 (sessions), 4.3 (QoS), 4.4 (delivery again).
//! Never: more memory than the bounds below, whatever is acknowledged or not.

use super::Delivery;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What waits for one client or is under way to it.
pub const QUEUE_MAX: usize = 256;
pub const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Sent and not acknowledged.
pub const IN_FLIGHT_MAX: usize = 16;
/// Messages of QoS 2 that a client has published and not released.
pub const RECEIVED_MAX: usize = 64;

/// What to send to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// PUBLISH; with a number when its QoS is 1 or 2.
    Say { id: Option<u16>, delivery: Delivery, again: bool },
    /// PUBREL
    Release(u16),
}

#[derive(Debug)]
enum Under {
    /// Sent; the client has to acknowledge (QoS 1) or receive it (QoS 2).
    Said(Delivery),
    /// The client has received it, and has to complete it.
    Received,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    pub pod: String,
    /// The name that the client gave itself; empty: none.
    pub name: String,
    /// Stays when the connection ends.
    pub stays: bool,
    pub is_here: bool,
    pub filters: BTreeMap<String, u8>,
    queue: VecDeque<Delivery>,
    /// Of the queue and of what is under way.
    bytes: usize,
    under_way: VecDeque<(u16, Under)>,
    /// Numbers that are sent again after a return.
    again: VecDeque<u16>,
    received: BTreeSet<u16>,
    last_id: u16,
}

fn size(delivery: &Delivery) -> usize {
    delivery.payload.len() + delivery.topic.len()
}

impl Session {
    pub fn new(pod: &str, name: &str, stays: bool) -> Session {
        Session { pod: pod.into(), name: name.into(), stays, is_here: true, ..Session::default() }
    }

    /// While the client is away only what is acknowledged waits for it. The oldest go when there is no room.
    pub fn push(&mut self, delivery: Delivery, dropped: &mut u64) {
        if !self.is_here && delivery.qos == 0 {
            return;
        }
        self.bytes += size(&delivery);
        self.queue.push_back(delivery);
        while self.queue.len() > QUEUE_MAX || self.bytes > QUEUE_BYTES_MAX {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.bytes -= size(&oldest);
            *dropped += 1;
        }
    }

    pub fn next(&mut self) -> Option<Step> {
        while let Some(id) = self.again.pop_front() {
            match self.under_way.iter().find(|(known, _)| *known == id) {
                Some((_, Under::Said(delivery))) => {
                    return Some(Step::Say { id: Some(id), delivery: delivery.clone(), again: true });
                }
                Some((_, Under::Received)) => return Some(Step::Release(id)),
                None => {}
            }
        }
        if self.under_way.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let delivery = self.queue.pop_front()?;
        if delivery.qos == 0 {
            self.bytes -= size(&delivery);
            return Some(Step::Say { id: None, delivery, again: false });
        }
        let id = self.fresh_id();
        self.under_way.push_back((id, Under::Said(delivery.clone())));
        Some(Step::Say { id: Some(id), delivery, again: false })
    }

    /// Never 0, and none that is under way.
    fn fresh_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && self.under_way.iter().all(|(id, _)| *id != self.last_id) {
                return self.last_id;
            }
        }
    }

    fn find(&self, id: u16, fits: impl Fn(&Under) -> bool) -> Option<usize> {
        self.under_way.iter().position(|(known, under)| *known == id && fits(under))
    }

    fn end(&mut self, at: usize) {
        if let Some((_, Under::Said(delivery))) = self.under_way.remove(at) {
            self.bytes -= size(&delivery);
        }
    }

    /// PUBACK
    pub fn acknowledged(&mut self, id: u16) {
        if let Some(at) = self.find(id, |u| matches!(u, Under::Said(delivery) if delivery.qos == 1)) {
            self.end(at);
        }
    }

    /// PUBREC
    pub fn has_received(&mut self, id: u16) {
        if let Some(at) = self.find(id, |u| matches!(u, Under::Said(delivery) if delivery.qos == 2)) {
            if let Some((_, Under::Said(delivery))) = self.under_way.get(at) {
                self.bytes -= size(delivery);
            }
            self.under_way[at].1 = Under::Received;
        }
    }

    /// PUBCOMP
    pub fn completed(&mut self, id: u16) {
        if let Some(at) = self.find(id, |u| matches!(u, Under::Received)) {
            self.end(at);
        }
    }

    /// A message of QoS 2 of the client's: whether it is a new one. `None`: it releases none.
    pub fn take(&mut self, id: u16) -> Option<bool> {
        if self.received.contains(&id) {
            return Some(false);
        }
        (self.received.len() < RECEIVED_MAX).then(|| self.received.insert(id))
    }

    /// PUBREL
    pub fn released(&mut self, id: u16) {
        self.received.remove(&id);
    }

    pub fn goes(&mut self) {
        self.is_here = false;
        let dropped: usize = self.queue.iter().filter(|d| d.qos == 0).map(size).sum();
        self.bytes -= dropped;
        self.queue.retain(|d| d.qos > 0);
        self.again.clear();
    }

    pub fn returns(&mut self) {
        self.is_here = true;
        self.again = self.under_way.iter().map(|(id, _)| *id).collect();
    }

    #[cfg(test)]
    pub fn counted(&self) -> usize {
        let said = |under: &Under| if let Under::Said(delivery) = under { size(delivery) } else { 0 };
        let real = self.queue.iter().map(size).sum::<usize>() + self.under_way.iter().map(|(_, u)| said(u)).sum::<usize>();
        assert_eq!(real, self.bytes);
        self.bytes
    }
}
