//! The other hubs, and which node is connected to which hub.
//!
//! In: connections of this hub's broker, records of all hubs in the shared store, time. Out: `limpet/hubs/<id>` with a beat and
//! where the hub is reached, `limpet/links/<node>` with the hub that the node is connected to. A hub whose beat stands still, as
//! this one sees it, is gone, and so are its links. A hub alone keeps none of this.
//! Never: takes a link away from a hub that is there.

use crate::{enroll::Endpoints, pki::hex};
use limpet_store::{Draft, Expect, Key, Record, Revision, Store, StoreError, Write};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

const HUBS: &str = "limpet/hubs";
const LINKS: &str = "limpet/links";
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// A hub that was not heard of for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(16);
/// Hubs that are gone for so long are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// The end of a link elsewhere.
pub trait LinkEnds: Send + Sync {
    fn link_ended(&self, node: &str);
}

pub struct Peers {
    store: Store,
    own: String,
    endpoints: Endpoints,
    /// SHA-256 of the certificate with which this hub asks others.
    certificate: String,
    /// Newest revision of each hub's beat, and since when.
    beats: Mutex<BTreeMap<String, (Revision, Instant)>>,
}

impl Peers {
    /// `own`: this hub's identity, empty for a hub alone. `certificate`: DER of the one with which it asks others.
    pub fn new(store: Store, own: &str, endpoints: Endpoints, certificate: &[u8]) -> Arc<Peers> {
        let certificate = fingerprint(certificate);
        Arc::new(Peers { store, own: own.into(), endpoints, certificate, beats: Mutex::default() })
    }

    /// Whether the holder of a certificate is another hub of this cluster: one whose beat names it.
    pub async fn is_hub(&self, certificate: &[u8]) -> bool {
        if self.is_alone() || certificate.is_empty() {
            return false;
        }
        let asked = fingerprint(certificate);
        let named = || {
            let hubs = self.store.list(HUBS, None).records;
            hubs.iter().any(|hub| *hub.key.name != *self.own && certificate_of(hub).as_deref() == Some(&asked))
        };
        // It may have come a moment ago.
        named() || (self.store.catch_up().await.is_ok() && named())
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn own(&self) -> &str {
        &self.own
    }

    /// A hub of which there is a record and that is not there; it may come back.
    pub fn missing(&self) -> Option<String> {
        let hubs = self.store.list(HUBS, None).records;
        let names = hubs.iter().map(|hub| hub.key.name.to_string());
        names.filter(|name| *name != self.own).find(|name| !self.is_there(name))
    }

    /// The other hubs that are there.
    pub fn others(&self) -> Vec<String> {
        if self.is_alone() {
            return Vec::new();
        }
        let hubs = self.store.list(HUBS, None).records;
        let names = hubs.iter().map(|hub| hub.key.name.to_string());
        names.filter(|name| *name != self.own && self.is_there(name)).collect()
    }

    fn is_alone(&self) -> bool {
        self.own.is_empty()
    }

    /// The other hub, still there, that the node is connected to.
    pub fn holder(&self, node: &str) -> Option<String> {
        if self.is_alone() {
            return None;
        }
        let record = self.store.get(&Key::new(LINKS, "", node))?;
        hub_of(&record).filter(|hub| *hub != self.own && self.is_there(hub))
    }

    pub fn is_there(&self, hub: &str) -> bool {
        let Some(record) = self.store.get(&Key::new(HUBS, "", hub)) else { return false };
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let beat = beats.entry(hub.into()).or_insert((record.revision, Instant::now()));
        if beat.0 != record.revision {
            *beat = (record.revision, Instant::now());
        }
        beat.1.elapsed() < GONE_AFTER
    }

    /// The node is connected to this hub.
    pub fn connected(self: &Arc<Self>, node: &str) {
        let draft = Draft::opaque(json!({"hub": self.own}).to_string().into_bytes());
        let write = Write::Put { key: Key::new(LINKS, "", node), expect: Expect::Any, draft };
        self.note(node, write);
    }

    /// The node is not connected to this hub any more.
    pub fn disconnected(self: &Arc<Self>, node: &str) {
        let key = Key::new(LINKS, "", node);
        let Some(record) = self.store.get(&key).filter(|r| hub_of(r).as_deref() == Some(&self.own)) else { return };
        self.note(node, Write::Delete { key, expect: Expect::Revision(record.revision), last: None });
    }

    fn note(self: &Arc<Self>, node: &str, write: Write) {
        if self.is_alone() {
            return;
        }
        let (this, node) = (Arc::clone(self), node.to_owned());
        tokio::spawn(async move {
            match this.store.write(write).await {
                Ok(_) | Err(StoreError::Conflict { .. } | StoreError::NotFound(_)) => {}
                Err(error) => tracing::warn!(node, %error, "the node's link is not on record"),
            }
        });
    }

    /// Beats, and tells of links that end elsewhere, until the store is closed.
    pub async fn run(self: Arc<Self>, ends: Arc<dyn LinkEnds>) {
        if self.is_alone() {
            return;
        }
        let mut turns = tokio::time::interval(BEAT_EVERY);
        let watch = |store: &Store| store.watch(LINKS, None, store.revision()).ok();
        let mut links = watch(&self.store);
        loop {
            let Some(news) = links.as_mut() else {
                links = watch(&self.store);
                continue;
            };
            tokio::select! {
                _ = turns.tick() => {
                    self.beat().await;
                    self.clean().await;
                }
                event = news.next() => match event {
                    Some(Ok(event)) if event.is_delete() => ends.link_ended(&event.record.key.name),
                    Some(Ok(_)) => {}
                    // What ended in between is seen when its hub is gone, or the node's own object changes.
                    Some(Err(_)) => links = watch(&self.store),
                    None => return,
                },
            }
        }
    }

    async fn beat(&self) {
        let at = json!({"api": self.endpoints.api, "mqtt": self.endpoints.mqtt, "registry": self.endpoints.registry,
            "certificate": self.certificate});
        let draft = Draft::opaque(at.to_string().into_bytes());
        let write = Write::Put { key: Key::new(HUBS, "", &self.own), expect: Expect::Any, draft };
        if let Err(error) = self.store.write(write).await {
            tracing::debug!(%error, "no beat");
        }
    }

    /// Takes away what hubs that are gone left behind.
    async fn clean(&self) {
        for link in self.store.list(LINKS, None).records {
            let Some(hub) = hub_of(&link) else { continue };
            if hub == self.own || self.is_there(&hub) {
                continue;
            }
            let key = (*link.key).clone();
            // Another hub may have been faster; the event tells all.
            let _ = self.store.write(Write::Delete { key, expect: Expect::Revision(link.revision), last: None }).await;
        }
        for hub in self.store.list(HUBS, None).records {
            let name = &hub.key.name;
            let gone = !self.is_there(name) && {
                let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
                beats.get(name).is_some_and(|(_, since)| since.elapsed() > FORGOTTEN_AFTER)
            };
            if gone {
                let key = (*hub.key).clone();
                // Another hub may have been faster.
                let _ = self.store.write(Write::Delete { key, expect: Expect::Revision(hub.revision), last: None }).await;
            }
        }
    }

    /// The API of another hub.
    pub fn api_of(&self, hub: &str) -> Vec<String> {
        let record = self.store.get(&Key::new(HUBS, "", hub));
        let value = record.and_then(|r| serde_json::from_slice::<Value>(&r.bytes).ok()).unwrap_or_default();
        texts(&value["api"]).collect()
    }
}

fn hub_of(record: &Record) -> Option<String> {
    let value: Value = serde_json::from_slice(&record.bytes).ok()?;
    value["hub"].as_str().map(str::to_owned)
}

fn certificate_of(record: &Record) -> Option<String> {
    let value: Value = serde_json::from_slice(&record.bytes).ok()?;
    value["certificate"].as_str().map(str::to_owned)
}

fn fingerprint(certificate: &[u8]) -> String {
    hex(&Sha256::digest(certificate))
}

fn texts(value: &Value) -> impl Iterator<Item = String> + '_ {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
}

/// `own`, and behind it where the other hubs of the store are reached.
pub fn everywhere(store: &Store, own: &Endpoints) -> Endpoints {
    let mut all = own.clone();
    for record in store.list(HUBS, None).records {
        let Ok(value) = serde_json::from_slice::<Value>(&record.bytes) else { continue };
        for (list, name) in [(&mut all.api, "api"), (&mut all.mqtt, "mqtt"), (&mut all.registry, "registry")] {
            for text in texts(&value[name]) {
                if !list.contains(&text) {
                    list.push(text);
                }
            }
        }
    }
    all
}
