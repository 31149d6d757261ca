//! The board's own MQTT broker for workloads: a socket for each pod that asks for it.
//!
//! In: pods with the annotation `limpet.dev/broker`, their clients (MQTT 3.1.1). Out: messages among the pods of a namespace;
//! what they publish on `up/…`, for the hub.
//! A client is who its socket says: each pod has one of its own, at `/run/limpet/mqtt.sock` in its containers, and on
//! `127.0.0.1:1883` in its network. Nothing exists until a pod asks.
//! Never: a connection from outside a pod; waits for a client.

mod client;
mod door;
mod file;

pub use file::Spooled;

use door::Door;
use limpet_agent_core::messages::Hall;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, mpsc};

/// In every container of such a pod.
pub const MOUNT: &str = "/run/limpet";
/// Messages on their way to the agent's loop; clients wait when there are more.
const UP_MAX: usize = 32;

/// A message for the hub.
#[derive(Debug)]
pub struct FromPod {
    pub namespace: Arc<str>,
    pub pod: Arc<str>,
    pub topic: String,
    pub payload: bytes::Bytes,
}

/// What all clients share.
#[derive(Clone)]
struct Shared {
    state: Arc<Mutex<State>>,
    up: mpsc::Sender<FromPod>,
}

#[derive(Default)]
struct State {
    hall: Hall,
    /// Who is told that something waits, by the number of the client.
    wake: BTreeMap<u64, Arc<Notify>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, namespace: &str, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        let mut state = self.lock();
        let woken = state.hall.publish(namespace, topic, payload, qos, retain);
        for client in woken {
            if let Some(news) = state.wake.get(&client) {
                news.notify_one();
            }
        }
    }
}

/// Who the clients of a door are.
#[derive(Clone)]
struct Whose {
    namespace: Arc<str>,
    pod: Arc<str>,
}

pub struct LocalBroker {
    dir: PathBuf,
    shared: Shared,
    doors: BTreeMap<String, (Whose, Door)>,
    pub up: mpsc::Receiver<FromPod>,
}

impl LocalBroker {
    /// `run`: the agent's directory of what does not outlive the board.
    pub fn new(run: &Path) -> LocalBroker {
        let (tell, up) = mpsc::channel(UP_MAX);
        let shared = Shared { state: Arc::default(), up: tell };
        LocalBroker { dir: run.join("broker"), shared, doors: BTreeMap::new(), up }
    }

    /// The directory that a pod's containers get.
    pub fn dir_of(run: &Path, uid: &str) -> PathBuf {
        run.join("broker").join(uid)
    }

    /// Opens the pod's socket, and with `net` (its network namespace) the port. What is open stays so.
    pub fn open(&mut self, uid: &str, namespace: &str, pod: &str, net: Option<&Path>) -> std::io::Result<()> {
        if self.doors.contains_key(uid) {
            return Ok(());
        }
        let whose = Whose { namespace: namespace.into(), pod: pod.into() };
        let door = Door::open(&self.dir.join(uid), net, &self.shared, &whose)?;
        self.doors.insert(uid.into(), (whose, door));
        Ok(())
    }

    /// The pod is gone: its clients end, and with the last pod of a namespace what it retained.
    pub fn close(&mut self, uid: &str) {
        let Some((whose, door)) = self.doors.remove(uid) else { return };
        drop(door);
        let _ = std::fs::remove_dir_all(self.dir.join(uid));
        let is_last = !self.doors.values().any(|(other, _)| other.namespace == whose.namespace);
        let mut state = self.shared.lock();
        // The next pod of this name may be there already.
        if !self.doors.values().any(|(other, _)| other.namespace == whose.namespace && other.pod == whose.pod) {
            state.hall.forget_pod(&whose.namespace, &whose.pod);
        }
        if is_last {
            state.hall.forget(&whose.namespace);
        }
    }

    /// A message from the hub.
    pub fn publish(&self, namespace: &str, topic: &str, payload: &[u8], retain: bool) {
        if self.doors.values().any(|(whose, _)| *whose.namespace == *namespace) {
            self.shared.publish(namespace, topic, payload, 1, retain);
        }
    }

    /// Messages that slow clients lost.
    #[cfg(test)]
    pub fn dropped(&self) -> u64 {
        self.shared.lock().hall.dropped
    }
}

#[cfg(test)]
mod tests;
