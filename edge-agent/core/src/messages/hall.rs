//! Who is connected to the board's own broker, what they want to hear, and what waits for them.
//!
//! In: comings and goings of clients of a namespace, subscriptions, messages. Out: deliveries, client by client.
//! A namespace hears only itself. A client that is too slow loses its oldest messages, and only its own.
//! A session outlives its connection where the client wants that, until its pod goes or the place is needed.
//! Never: keeps anything for a client that wanted no session; more than the bounds below.

use super::{
    session::{Session, Step},
    topics::{is_filter, matches},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub const CLIENTS_MAX: usize = 128;
pub const CLIENTS_PER_POD_MAX: usize = 16;
pub const FILTERS_MAX: usize = 64;
/// Retained messages of a namespace.
pub const RETAINED_MAX: usize = 256;
pub const RETAINED_BYTES_MAX: usize = 256 * 1024;
/// One message for one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub topic: Arc<str>,
    pub payload: Arc<[u8]>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// It was there before the subscription.
    pub retain: bool,
}

#[derive(Debug, Default)]
struct Room {
    clients: BTreeMap<u64, Session>,
    retained: BTreeMap<Arc<str>, (Arc<[u8]>, u8)>,
    retained_bytes: usize,
}

#[derive(Debug, Default)]
pub struct Hall {
    rooms: BTreeMap<String, Room>,
    last: u64,
    /// Messages that clients were too slow for.
    pub dropped: u64,
}

impl Hall {
    /// A client of a pod that calls itself `name` (which may be empty), and whether it had a session. A client of the pod
    /// with the same name loses its place (MQTT-3.1.4-2). The error is for the log.
    pub fn enter(&mut self, namespace: &str, pod: &str, name: &str, stays: bool) -> Result<(u64, bool), &'static str> {
        self.last += 1;
        let number = self.last;
        let room = self.rooms.entry(namespace.into()).or_default();
        let same = room.clients.iter().find(|(_, c)| c.pod == pod && c.name == name && !name.is_empty());
        if let Some(mut old) = same.map(|(number, _)| *number).and_then(|number| room.clients.remove(&number))
            && old.stays
            && stays
        {
            old.goes();
            old.returns();
            room.clients.insert(number, old);
            return Ok((number, true));
        }
        let of_pod = |c: &Session| c.pod == pod;
        let own = room.clients.values().filter(|c| of_pod(c)).count();
        let has_place = own < CLIENTS_PER_POD_MAX || room.make_place(of_pod);
        let all = self.rooms.values().map(|r| r.clients.len()).sum::<usize>();
        if !has_place || (all >= CLIENTS_MAX && !self.rooms.values_mut().any(|room| room.make_place(|_| true))) {
            self.sweep(namespace);
            return Err("there are too many clients");
        }
        let room = self.rooms.entry(namespace.into()).or_default();
        room.clients.insert(number, Session::new(pod, name, stays));
        Ok((number, false))
    }

    /// The connection has ended.
    pub fn leave(&mut self, namespace: &str, client: u64) {
        if let Some(room) = self.rooms.get_mut(namespace)
            && let Some(session) = room.clients.get_mut(&client)
        {
            session.goes();
            if !session.stays {
                room.clients.remove(&client);
            }
        }
        self.sweep(namespace);
    }

    fn sweep(&mut self, namespace: &str) {
        if self.rooms.get(namespace).is_some_and(|room| room.clients.is_empty() && room.retained.is_empty()) {
            self.rooms.remove(namespace);
        }
    }

    /// Whether the client still has its place.
    pub fn is_in(&self, namespace: &str, client: u64) -> bool {
        self.rooms.get(namespace).is_some_and(|room| room.clients.contains_key(&client))
    }

    /// A pod is gone, and with it the sessions of its clients.
    pub fn forget_pod(&mut self, namespace: &str, pod: &str) {
        if let Some(room) = self.rooms.get_mut(namespace) {
            room.clients.retain(|_, client| client.pod != pod);
        }
        self.sweep(namespace);
    }

    /// No pod of the namespace uses the broker any more.
    pub fn forget(&mut self, namespace: &str) {
        self.rooms.remove(namespace);
    }

    /// The QoS that is granted; `None`: refused. What is retained waits for the client at once.
    pub fn subscribe(&mut self, namespace: &str, client: u64, filter: &str, qos: u8) -> Option<u8> {
        let room = self.rooms.get_mut(namespace)?;
        let own = room.clients.get_mut(&client)?;
        if !is_filter(filter) || (own.filters.len() >= FILTERS_MAX && !own.filters.contains_key(filter)) {
            return None;
        }
        let qos = qos.min(2);
        own.filters.insert(filter.into(), qos);
        for (topic, (payload, said)) in room.retained.iter().filter(|(topic, _)| matches(filter, topic)) {
            let delivery = Delivery { topic: topic.clone(), payload: payload.clone(), qos: qos.min(*said), retain: true };
            own.push(delivery, &mut self.dropped);
        }
        Some(qos)
    }

    pub fn unsubscribe(&mut self, namespace: &str, client: u64, filter: &str) {
        if let Some(client) = self.rooms.get_mut(namespace).and_then(|r| r.clients.get_mut(&client)) {
            client.filters.remove(filter);
        }
    }

    /// Gives a message to everybody of the namespace who wants it; returns whom to wake.
    pub fn publish(&mut self, namespace: &str, topic: &str, payload: &[u8], qos: u8, retain: bool) -> BTreeSet<u64> {
        let mut woken = BTreeSet::new();
        let room = self.rooms.entry(namespace.into()).or_default();
        let (topic, payload): (Arc<str>, Arc<[u8]>) = (topic.into(), payload.into());
        for (number, client) in &mut room.clients {
            let best = client.filters.iter().filter(|(f, _)| matches(f, &topic)).map(|(_, qos)| *qos).max();
            if let Some(granted) = best {
                let delivery =
                    Delivery { topic: topic.clone(), payload: payload.clone(), qos: granted.min(qos), retain: false };
                client.push(delivery, &mut self.dropped);
                if client.is_here {
                    woken.insert(*number);
                }
            }
        }
        if retain {
            room.retain(&topic, &payload, qos);
        }
        woken
    }

    fn client(&mut self, namespace: &str, client: u64) -> Option<&mut Session> {
        self.rooms.get_mut(namespace)?.clients.get_mut(&client)
    }

    /// What is to be sent to the client now.
    pub fn next(&mut self, namespace: &str, client: u64) -> Option<Step> {
        self.client(namespace, client)?.next()
    }

    pub fn acknowledged(&mut self, namespace: &str, client: u64, answer: Answer) {
        let Some(client) = self.client(namespace, client) else { return };
        match answer {
            Answer::Acknowledged(id) => client.acknowledged(id),
            Answer::Received(id) => client.has_received(id),
            Answer::Completed(id) => client.completed(id),
            Answer::Released(id) => client.released(id),
        }
    }

    /// A message of QoS 2 that the client has published: whether it is new. `None`: it has too many open ones.
    pub fn take(&mut self, namespace: &str, client: u64, id: u16) -> Option<bool> {
        self.client(namespace, client)?.take(id)
    }
}

/// What a client says about a number: PUBACK, PUBREC, PUBCOMP of what it was sent; PUBREL of what it published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Acknowledged(u16),
    Received(u16),
    Completed(u16),
    Released(u16),
}

impl Room {
    /// Ends the oldest session whose client is away; whether there was one.
    fn make_place(&mut self, fits: impl Fn(&Session) -> bool) -> bool {
        let oldest = self.clients.iter().find(|(_, c)| !c.is_here && fits(c)).map(|(number, _)| *number);
        oldest.and_then(|number| self.clients.remove(&number)).is_some()
    }

    /// An empty payload takes the retained message away. Without room for a new one, it is not retained.
    fn retain(&mut self, topic: &str, payload: &[u8], qos: u8) {
        if let Some((old, _)) = self.retained.remove(topic) {
            self.retained_bytes -= old.len() + topic.len();
        }
        let bytes = payload.len() + topic.len();
        let fits = self.retained.len() < RETAINED_MAX && self.retained_bytes + bytes <= RETAINED_BYTES_MAX;
        if !payload.is_empty() && fits {
            self.retained_bytes += bytes;
            self.retained.insert(topic.into(), (payload.into(), qos));
        }
    }
}

#[cfg(test)]
mod tests;
