//! The board's broker between its clients, the store for the hub, and the link.
//!
//! In: pods that ask for the broker, what they publish on `up/…`, the hub's messages. Out: sockets opened and closed, messages
//! for the link, a file while the hub is away.
//! Never: writes while the hub takes what is sent.

use super::state::Agent;
use crate::{
    broker::{FromPod, LocalBroker, Spooled},
    runtime::rt::sandbox,
};
use limpet_agent_core::{
    Now,
    messages::{ANNOTATION, Store, topics},
};
use limpet_protocol::HubMessage;
use std::path::Path;

/// What was written waits so long for the disk.
const SYNC_MS: u64 = 10_000;

pub struct Messaging {
    pub local: LocalBroker,
    pub store: Store,
    file: Spooled,
    sync_at_ms: Option<u64>,
}

impl Messaging {
    /// `from`: above every number that was used before, but for those in the file.
    pub fn new(data: &Path, run: &Path, from: u64) -> Messaging {
        let (file, kept) = Spooled::open(data);
        Messaging { local: LocalBroker::new(run), store: Store::new(from, kept), file, sync_at_ms: None }
    }

    pub fn wake_at(&self, now_ms: u64) -> Option<u64> {
        self.store.wake_at().filter(|at| *at > now_ms).into_iter().chain(self.sync_at_ms).min()
    }

    /// What should outlive this process goes to the file.
    fn write(&mut self, now: Now) {
        let new = self.store.to_write();
        if new.is_empty() {
            return;
        }
        match self.file.append(&new, self.store.all()) {
            Ok(()) => {
                self.sync_at_ms.get_or_insert(now.mono_ms + SYNC_MS);
            }
            Err(e) => log::warn!("broker: messages for the hub cannot be written down: {e}"),
        }
    }

    pub fn tick(&mut self, now: Now) {
        if self.sync_at_ms.is_some_and(|at| at <= now.mono_ms) {
            self.sync_at_ms = None;
            if let Err(e) = self.file.sync() {
                log::warn!("broker: messages for the hub are not on the disk: {e}");
            }
        }
    }

    pub fn disconnected(&mut self, now: Now) {
        self.store.disconnected();
        self.write(now);
    }

    pub fn hold(&mut self, held: bool, now: Now) {
        self.store.hold(held);
        self.write(now);
    }

    pub fn taken(&mut self, number: u64) {
        self.store.taken(number);
        if self.store.is_empty() && !self.file.is_empty() {
            self.sync_at_ms = None;
            if let Err(e) = self.file.clear() {
                log::warn!("broker: {e}");
            }
        }
    }
}

impl Agent {
    /// Opens the pod's broker, should it ask for one; whether its containers get the socket.
    pub(super) fn open_broker(&mut self, uid: &str) -> bool {
        let Some(pod) = self.pods.pods().find(|p| **p.uid == *uid) else { return false };
        let meta = &pod.object.metadata;
        if meta.annotations.get(ANNOTATION).is_none_or(|v| v != "true") {
            return false;
        }
        let pin = sandbox::pin(&self.options.paths.run, uid, "net");
        let net = (!pod.object.spec.host_network).then_some(pin.as_path());
        match self.messaging.local.open(uid, &meta.namespace, &meta.name, net) {
            Ok(()) => true,
            Err(e) => {
                log::error!("broker: no socket for pod {}/{}: {e}", meta.namespace, meta.name);
                false
            }
        }
    }

    /// Sockets of pods that an agent before this one started.
    pub(super) fn reopen_brokers(&mut self) {
        let pods = self.pods.pods().filter(|p| p.object.metadata.annotations.contains_key(ANNOTATION));
        let uids: Vec<_> = pods.map(|p| p.uid.clone()).collect();
        for uid in uids {
            if self.hands.runtime.sandbox_exists(&uid) {
                self.open_broker(&uid);
            }
        }
    }

    pub(super) fn message_up(&mut self, message: &FromPod) {
        let now = self.clock.now();
        self.messaging.store.put((&message.namespace, &message.pod), &message.topic, &message.payload, now);
        self.messaging.write(now);
    }

    pub(super) fn message_down(&self, message: &HubMessage) {
        if topics::may_come_down(&message.topic) {
            self.messaging.local.publish(&message.namespace, &message.topic, &message.payload, message.retain);
        }
    }
}
