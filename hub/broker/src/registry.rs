//! The nodes that are connected now, and the way to send to them.
//!
//! In: registrations by connections, messages by the hub. Out: bounded queues that the connections drain.
//! A second connection of a node replaces the first: the board may have rebooted before its old socket timed out.
//! Never: waits; a full queue is the sender's answer.

use crate::{
    Refused,
    connection::{self, Setting, Stream},
    queue::Queue,
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

/// What happens at the nodes' end. `connection` is unique in the life of the broker and grows.
#[derive(Debug)]
pub enum FromNode {
    Connected { node: String, connection: u64, peer: std::net::SocketAddr },
    /// `silent`: for how long nothing had been heard of the node.
    Disconnected { node: String, connection: u64, reason: String, silent: std::time::Duration },
    /// `channel` is the last letter of the topic.
    Message { node: String, connection: u64, channel: char, payload: Bytes },
}

/// The sender keeps the message; what must arrive is sent again after the next `Connected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the node is not connected")]
    NotConnected,
    #[error("the node takes messages too slowly")]
    QueueFull,
}

/// A connection's own end of its registration.
pub(crate) struct Seat {
    pub connection: u64,
    pub queue: Arc<Queue>,
}

struct Entry {
    connection: u64,
    queue: Arc<Queue>,
}

pub(crate) struct Shared {
    nodes: Mutex<BTreeMap<String, Entry>>,
    next: AtomicU64,
    pub tls: RwLock<Arc<rustls::ServerConfig>>,
    /// For streams that come in by another door; gone when the broker has ended.
    pub setting: OnceLock<Weak<Setting>>,
    pub refused: Refused,
}

/// The hub's handle on the broker; clones are cheap.
#[derive(Clone)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
}

impl Broker {
    pub(crate) fn new(tls: Arc<rustls::ServerConfig>) -> Broker {
        let shared = Shared {
            nodes: Mutex::new(BTreeMap::new()),
            next: AtomicU64::new(1),
            tls: RwLock::new(tls),
            setting: OnceLock::new(),
            refused: Refused::default(),
        };
        Broker { shared: Arc::new(shared) }
    }

    /// Settings for connections from now on (a renewed certificate).
    pub fn set_tls(&self, tls: Arc<rustls::ServerConfig>) {
        *self.shared.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// Serves a client that came in by another door of the hub, until it ends. `certificate`: DER of the leaf that TLS
    /// verified against the hub's CA there; without one the client is refused.
    pub async fn attach(&self, stream: Box<dyn Stream>, certificate: Vec<u8>, peer: std::net::SocketAddr) {
        let Some(setting) = self.shared.setting.get().and_then(Weak::upgrade) else { return };
        let (Ok(stranger), Ok(_place)) =
            (setting.strangers.clone().acquire_owned().await, setting.all.clone().acquire_owned().await)
        else {
            return;
        };
        connection::serve(stream, certificate, peer, &setting, Some(stranger)).await;
    }

    /// Queues one message for a node's socket.
    pub fn send(&self, node: &str, channel: char, payload: Bytes) -> Result<(), SendError> {
        let nodes = self.nodes();
        let entry = nodes.get(node).ok_or(SendError::NotConnected)?;
        entry.queue.send(channel, payload, false)
    }

    /// Queues one message behind everything else that waits for the node's socket.
    pub fn send_last(&self, node: &str, channel: char, payload: Bytes) -> Result<(), SendError> {
        let nodes = self.nodes();
        let entry = nodes.get(node).ok_or(SendError::NotConnected)?;
        entry.queue.send(channel, payload, true)
    }

    /// Ends a node's connection, if it has one.
    pub fn disconnect(&self, node: &str, reason: &str) {
        if let Some(entry) = self.nodes().get(node) {
            entry.queue.end(reason);
        }
    }

    /// Ends this connection of a node, unless a newer one has taken its place.
    pub fn disconnect_one(&self, node: &str, connection: u64, reason: &str) {
        if let Some(entry) = self.nodes().get(node).filter(|e| e.connection == connection) {
            entry.queue.end(reason);
        }
    }

    /// Whether the node has a connection now.
    pub fn is_connected(&self, node: &str) -> bool {
        self.nodes().contains_key(node)
    }

    /// How many nodes are connected now.
    pub fn connected(&self) -> usize {
        self.nodes().len()
    }

    pub(crate) fn register(&self, node: &str) -> Seat {
        let connection = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::<Queue>::default();
        let entry = Entry { connection, queue: Arc::clone(&queue) };
        if let Some(old) = self.nodes().insert(node.to_string(), entry) {
            old.queue.close();
            old.queue.end("replaced by a newer connection of the same node");
        }
        Seat { connection, queue }
    }

    /// Removes the registration unless a newer connection has taken its place.
    pub(crate) fn unregister(&self, node: &str, connection: u64) {
        let mut nodes = self.nodes();
        if nodes.get(node).is_some_and(|e| e.connection == connection) {
            nodes.remove(node);
        }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
