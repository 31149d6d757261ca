//! Who is connected to the board's own broker, what they want to hear, and what waits for them.
//!
//! In: comings and goings of clients of a namespace, subscriptions, messages. Out: deliveries, client by client.
//! A namespace hears only itself. A client that is too slow loses its oldest messages, and only its own.
//! Never: keeps anything for a client that has gone; more than the bounds below.

use super::topics::{is_filter, matches};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

pub const CLIENTS_MAX: usize = 128;
pub const CLIENTS_PER_POD_MAX: usize = 16;
pub const FILTERS_MAX: usize = 64;
/// Retained messages of a namespace.
pub const RETAINED_MAX: usize = 256;
pub const RETAINED_BYTES_MAX: usize = 256 * 1024;
/// What waits for one client.
pub const QUEUE_MAX: usize = 256;
pub const QUEUE_BYTES_MAX: usize = 256 * 1024;

/// One message for one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub topic: Arc<str>,
    pub payload: Arc<[u8]>,
    /// 0 or 1.
    pub qos: u8,
    /// It was there before the subscription.
    pub retain: bool,
}

#[derive(Debug, Default)]
struct Client {
    pod: String,
    filters: BTreeMap<String, u8>,
    queue: VecDeque<Delivery>,
    bytes: usize,
}

impl Client {
    fn push(&mut self, delivery: Delivery, dropped: &mut u64) {
        self.bytes += delivery.payload.len() + delivery.topic.len();
        self.queue.push_back(delivery);
        while self.queue.len() > QUEUE_MAX || self.bytes > QUEUE_BYTES_MAX {
            self.pop();
            *dropped += 1;
        }
    }

    fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.bytes -= delivery.payload.len() + delivery.topic.len();
        Some(delivery)
    }
}

#[derive(Debug, Default)]
struct Room {
    clients: BTreeMap<u64, Client>,
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
    /// A client of a pod; the error is for the log.
    pub fn enter(&mut self, namespace: &str, pod: &str) -> Result<u64, &'static str> {
        let all = self.rooms.values().map(|r| r.clients.len()).sum::<usize>();
        let own = self.rooms.get(namespace).map_or(0, |r| r.clients.values().filter(|c| c.pod == pod).count());
        if all >= CLIENTS_MAX || own >= CLIENTS_PER_POD_MAX {
            return Err("there are too many clients");
        }
        self.last += 1;
        let room = self.rooms.entry(namespace.into()).or_default();
        room.clients.insert(self.last, Client { pod: pod.into(), ..Client::default() });
        Ok(self.last)
    }

    pub fn leave(&mut self, namespace: &str, client: u64) {
        if let Some(room) = self.rooms.get_mut(namespace) {
            room.clients.remove(&client);
            if room.clients.is_empty() && room.retained.is_empty() {
                self.rooms.remove(namespace);
            }
        }
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
        let qos = qos.min(1);
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
                woken.insert(*number);
            }
        }
        if retain {
            room.retain(&topic, &payload, qos);
        }
        woken
    }

    pub fn next(&mut self, namespace: &str, client: u64) -> Option<Delivery> {
        self.rooms.get_mut(namespace)?.clients.get_mut(&client)?.pop()
    }
}

impl Room {
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
mod tests {
    use super::*;

    fn heard(hall: &mut Hall, namespace: &str, client: u64) -> Vec<(String, Vec<u8>, u8, bool)> {
        let next = || hall.next(namespace, client).map(|d| (d.topic.to_string(), d.payload.to_vec(), d.qos, d.retain));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_namespace_hears_itself_and_nobody_else() {
        let mut hall = Hall::default();
        let (a, b) = (hall.enter("a", "p").unwrap(), hall.enter("b", "p").unwrap());
        for client in [("a", a), ("b", b)] {
            assert_eq!(hall.subscribe(client.0, client.1, "#", 1), Some(1));
        }
        assert_eq!(hall.publish("a", "t", b"1", 0, true), BTreeSet::from([a]));
        assert!(hall.publish("c", "t", b"1", 0, true).is_empty());
        assert_eq!(heard(&mut hall, "a", a), [("t".into(), b"1".to_vec(), 0, false)]);
        assert!(heard(&mut hall, "b", b).is_empty());
        assert!(heard(&mut hall, "b", a).is_empty(), "a number of another namespace");
        let late = hall.enter("a", "q").unwrap();
        hall.subscribe("a", late, "+", 1);
        assert_eq!(heard(&mut hall, "a", late), [("t".into(), b"1".to_vec(), 0, true)]);
        hall.publish("a", "t", b"", 1, true);
        heard(&mut hall, "a", late);
        hall.unsubscribe("a", late, "+");
        hall.subscribe("a", late, "t", 1);
        assert!(heard(&mut hall, "a", late).is_empty(), "taken away");
        hall.leave("a", a);
        hall.leave("a", late);
        hall.leave("b", b);
        assert!(!hall.rooms.contains_key("a") && !hall.rooms.contains_key("b"), "nothing stays of those who left");
    }

    #[test]
    fn bounds_hold_whatever_a_client_tries() {
        let mut hall = Hall::default();
        let greedy = hall.enter("a", "p").unwrap();
        for n in 0..100_000 {
            hall.publish("a", &format!("t/{n}"), b"x", 1, true);
        }
        assert_eq!(hall.rooms["a"].retained.len(), RETAINED_MAX);
        let granted = (0..1000).filter(|n| hall.subscribe("a", greedy, &format!("f/{n}/#"), 1).is_some()).count();
        assert_eq!(granted, FILTERS_MAX);
        assert_eq!(hall.subscribe("a", greedy, "a/#/b", 0), None);
        let slow = hall.enter("a", "q").unwrap();
        hall.subscribe("a", slow, "#", 0);
        for n in 0..1000u32 {
            hall.publish("a", "t", &n.to_be_bytes(), 0, false);
        }
        let all = heard(&mut hall, "a", slow);
        assert_eq!((all.len(), all.last().unwrap().1.clone()), (QUEUE_MAX, 999u32.to_be_bytes().to_vec()));
        for _ in 0..100 {
            hall.publish("a", "t", &[0; 10_000], 0, false);
        }
        assert!(heard(&mut hall, "a", slow).len() <= QUEUE_BYTES_MAX / 10_000);
        let more = (0..100).filter(|_| hall.enter("a", "p").is_ok()).count();
        assert_eq!(more, CLIENTS_PER_POD_MAX - 1);
        let others = (0..1000).filter(|n| hall.enter("b", &n.to_string()).is_ok()).count();
        assert_eq!(others + CLIENTS_PER_POD_MAX + 1, CLIENTS_MAX);
    }
}
