//! The hub of the simulation: a store that survives crashes, the real sessions, which do not.
//!
//! In: connections, bytes, verdicts. Out: bytes for boards and writes to apply later.
//! Never: more API than the sessions and the operator need.

use limpet_hub_core::{
    Change, Key, ObjectStore, Timestamp, json_merge,
    nodes::{
        desired,
        session::{Session, SessionInput, SessionOutput},
    },
};
use limpet_protocol::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Hub {
    pub objects: BTreeMap<Key, Value>,
    pub revision: u64,
    pub view: ObjectStore,
    pub sessions: BTreeMap<String, Session>,
    /// Grows with each crash: answers to the life before are void.
    pub life: u64,
    pub up: bool,
    /// What sessions want done, in order.
    pub out: Vec<(String, SessionOutput)>,
    tokens: u64,
    /// Simulated milliseconds, set by the world before each step.
    pub clock_ms: u64,
    /// When each session wants to be woken, simulated milliseconds; by time, and by node.
    wakes: BTreeSet<(u64, String)>,
    wake_of: BTreeMap<String, u64>,
    /// Oldest and newest protocol version of this hub.
    pub versions: (u8, u8),
    /// Names of the Events that are in the store.
    pub events: BTreeSet<String>,
    /// Pods that the hub deleted although nobody had asked for that.
    pub evicted: Vec<String>,
}

impl Hub {
    pub fn new(boards: usize) -> Hub {
        let versions = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION);
        let mut hub = Hub { up: true, versions, ..Hub::default() };
        for i in 0..boards {
            let name = format!("board-{i}");
            hub.put("/nodes", json!({"metadata": {"name": name, "uid": format!("node-{i}")}, "spec": {}}));
        }
        hub
    }

    /// Writes an object and tells the sessions that it concerns.
    pub fn put(&mut self, resource: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let text = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = Key::new(resource, &text("/metadata/namespace"), &text("/metadata/name"));
        let raw = object.to_string().into_bytes();
        let changed = self.view.apply(self.revision, resource, &key.namespace, &key.name, Some(raw.into()));
        self.objects.insert(key, object);
        self.tell(&changed);
    }

    pub fn delete(&mut self, key: &Key) {
        if self.objects.remove(key).is_some() {
            self.revision += 1;
            let changed = self.view.apply(self.revision, &key.resource, &key.namespace, &key.name, None);
            self.tell(&changed);
        }
    }

    fn tell(&mut self, changed: &limpet_hub_core::Changed) {
        if desired::looks_the_same(changed) {
            return;
        }
        for node in desired::nodes_for(&self.view, changed) {
            self.give(&node, now(self.clock_ms), SessionInput::Dirty);
        }
    }

    pub fn give(&mut self, node: &str, now: Timestamp, input: SessionInput) {
        let versions = self.versions;
        let session = self.sessions.entry(node.to_string()).or_insert_with(|| Session::speaking(node, versions));
        session.handle(now, &self.view, input);
        while let Some(output) = session.poll() {
            self.out.push((node.to_string(), output));
        }
        let wake = session.wake_at().map(|(at, _)| sim_ms(at));
        if let Some(old) = self.wake_of.remove(node) {
            self.wakes.remove(&(old, node.to_string()));
        }
        if let Some(at) = wake {
            self.wakes.insert((at, node.to_string()));
            self.wake_of.insert(node.to_string(), at);
        }
    }

    pub fn wake_at(&self) -> Option<u64> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Sessions whose time has come.
    pub fn due(&self) -> Vec<String> {
        self.wakes.iter().take_while(|(at, _)| *at <= self.clock_ms).map(|(_, node)| node.clone()).collect()
    }

    /// All that is not on disk is gone.
    pub fn crash(&mut self) {
        self.up = false;
        self.life += 1;
        self.sessions.clear();
        self.wakes.clear();
        self.wake_of.clear();
        self.out.clear();
    }

    pub fn start(&mut self) {
        self.up = true;
        self.view = ObjectStore::new();
        for (key, object) in &self.objects {
            let revision = object["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok()).unwrap_or(0);
            let raw = object.to_string().into_bytes();
            self.view.apply(revision.max(1), &key.resource, &key.namespace, &key.name, Some(raw.into()));
        }
        // The newest revision may have been a deletion.
        self.view.apply(self.revision, "sim/marker", "", "start", None);
    }

    /// The API's part: uid preconditions, merge, deletion.
    pub fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Patch { resource, namespace, name, uid, merge, .. } => {
                    let key = Key::new(&resource, &namespace, &name);
                    let Some(old) = self.objects.get(&key).filter(|o| o["metadata"]["uid"] == uid.as_str()) else {
                        continue;
                    };
                    let mut new = old.clone();
                    json_merge(&mut new, &merge);
                    self.put(&resource, new);
                }
                Change::Delete { resource, namespace, name, uid, .. } => {
                    let key = Key::new(&resource, &namespace, &name);
                    if let Some(object) = self.objects.get(&key).filter(|o| o["metadata"]["uid"] == uid.as_str()) {
                        if object["metadata"]["deletionTimestamp"].is_null() {
                            self.evicted.push(key.to_string());
                        }
                        self.delete(&key);
                    }
                }
                Change::Create { resource, object, .. } if resource == "/events" => {
                    self.events.extend(object["metadata"]["name"].as_str().map(String::from));
                }
                Change::Create { .. } | Change::Event { .. } | Change::Bind { .. } => {}
            }
        }
    }

    pub fn next_token(&mut self) -> Vec<u8> {
        self.tokens += 1;
        let expires = "2100-01-01T00:00:00Z";
        json!({"token": format!("t{}", self.tokens), "expirationTimestamp": expires, "audience": ""})
            .to_string()
            .into_bytes()
    }

    pub fn pods(&self) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(|(k, _)| &*k.resource == "/pods").map(|(_, v)| v)
    }
}

/// Simulated milliseconds as milliseconds since 1970.
pub fn hub_ms(ms: u64) -> u64 {
    1_795_000_000_000 + ms
}

/// Simulated milliseconds as the hub's wall clock.
pub fn now(ms: u64) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(hub_ms(ms)).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The hub's wall clock as simulated milliseconds.
fn sim_ms(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond() - now(0).as_millisecond()).unwrap_or(0)
}
