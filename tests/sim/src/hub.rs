//! The hub of the simulation: a store that survives crashes, the real sessions and controllers, which do not.
//!
//! In: connections, bytes, verdicts, an operator's wishes. Out: bytes for boards and writes to apply later.
//! The hub may die before and after every single write.
//! Never: more API than sessions, controllers and the operator need.

use crate::{Sabotage, clock::HubClock, control::Control, policies::OF_BOARDS, promises::Promises, watcher::Watcher, wire::Wire};
use limpet_hub_core::{
    Change, Changed, Key, Timestamp,
    nodes::{
        desired,
        holder::{self, Seen, Verdict},
        offline::Liveness,
        session::{Session, SessionInput, SessionOutput},
    },
    schedule::Scheduler,
    view::Node,
    world::Api,
};
use limpet_protocol::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub struct Hub {
    /// Its objects are on the disk, its view is not.
    pub api: Api,
    pub control: Control,
    pub promises: Promises,
    pub watcher: Watcher,
    pub wire: Wire,
    pub sessions: BTreeMap<String, Session>,
    pub liveness: Liveness,
    /// Grows with each crash: answers to the life before are void.
    pub life: u64,
    pub up: bool,
    /// The store cannot be written at the moment.
    pub disk_bad: bool,
    /// What sessions want done, in order.
    pub out: Vec<(String, SessionOutput)>,
    tokens: u64,
    /// Simulated milliseconds, set by the world before each step.
    clock_ms: u64,
    /// How wrong the wall clock is, and what sessions take the time to be: never less than it was.
    skew_ms: i64,
    steady_ms: i64,
    pub clock: Arc<HubClock>,
    /// How often it was known to have been set.
    pub times_set: u64,
    /// When each session wants to be woken, simulated milliseconds; by time, and by node.
    wakes: BTreeSet<(u64, String)>,
    wake_of: BTreeMap<String, u64>,
    /// Writes of one node are applied one after the other: when its last one is.
    pub written_until: BTreeMap<String, u64>,
    /// Oldest and newest protocol version of this hub.
    pub versions: (u8, u8),
    /// Since when nodes are without a connection.
    pub away: BTreeMap<String, u64>,
    /// The broker's connections, by node.
    pub open: BTreeMap<String, u64>,
    /// Objects whose key contains this are told of.
    pub follow: Option<String>,
    /// Names of the Events that are in the store.
    pub events: BTreeSet<String>,
    pub broken: Option<String>,
    /// Writes, without those that only say that a node is alive.
    pub writes: u64,
    /// Points at which the hub can die, so far: two a write, before and after it is durable.
    pub points: u64,
    /// It dies at this one.
    pub dies_at: Option<u64>,
    started: Timestamp,
    /// Hardware on record, by node; on the disk.
    records: BTreeMap<String, String>,
    seen: BTreeMap<String, Seen>,
    /// Copies of cards that were kept out.
    pub kept_out: u64,
    pub mistake: Sabotage,
    /// An object as it was before its last write.
    before: Option<(Key, Value)>,
}

impl Hub {
    pub fn new(boards: usize, (with_control, policies): (bool, bool), mistake: Sabotage) -> Hub {
        let mut api = Api::new(now(0), Scheduler::default());
        (api.strict, api.unlimited) = (false, mistake == Sabotage::IgnoresQuotas);
        let clock = Arc::new(HubClock::new(now(0), now(0)));
        let mut hub = Hub {
            api,
            control: Control::new(with_control, &clock, mistake),
            clock,
            times_set: 0,
            promises: Promises::default(),
            watcher: Watcher::default(),
            wire: Wire::default(),
            sessions: BTreeMap::new(),
            liveness: Liveness::new(now(0)),
            life: 0,
            up: true,
            disk_bad: false,
            out: Vec::new(),
            tokens: 0,
            clock_ms: 0,
            skew_ms: 0,
            steady_ms: 0,
            wakes: BTreeSet::new(),
            wake_of: BTreeMap::new(),
            written_until: BTreeMap::new(),
            versions: (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION),
            away: BTreeMap::new(),
            open: BTreeMap::new(),
            follow: None,
            events: BTreeSet::new(),
            broken: None,
            writes: 0,
            points: 0,
            dies_at: None,
            started: now(0),
            records: BTreeMap::new(),
            seen: BTreeMap::new(),
            kept_out: 0,
            mistake,
            before: None,
        };
        for namespace in ["default", "kube-node-lease"].into_iter().chain(policies.then_some(OF_BOARDS)) {
            hub.put("/namespaces", json!({"metadata": {"name": namespace, "uid": namespace}, "status": {"phase": "Active"}}));
        }
        for i in 0..boards {
            let name = format!("board-{i}");
            let labels = json!({"kubernetes.io/hostname": name, "half": (i % 2).to_string()});
            hub.put("/nodes", json!({"metadata": {"name": name, "uid": format!("node-{i}"), "labels": labels}, "spec": {}}));
        }
        hub.settle();
        hub
    }

    pub fn set_clock(&mut self, ms: u64) {
        let (ms_i, passed) = (ms as i64, ms.saturating_sub(self.clock_ms) as i64);
        self.clock_ms = ms;
        self.steady_ms = (self.steady_ms + passed).max(ms_i + self.skew_ms);
        self.api.now = wall(ms_i + self.skew_ms);
        self.api.steady = Some(self.steady());
        self.clock.ticks(self.even());
    }

    /// Somebody sets the hub's clock; waits that have begun stay as long as they were.
    pub fn jump(&mut self, skew_ms: i64) {
        let by = skew_ms - self.skew_ms;
        self.skew_ms = skew_ms;
        self.set_clock(self.clock_ms);
        self.control.shift(by);
    }

    /// In peace the clock is right; whether it was not.
    pub fn jump_back(&mut self) -> bool {
        let wrong = self.skew_ms != 0;
        if wrong {
            self.jump(0);
        }
        wrong
    }

    /// The clock of the sessions and the scheduler.
    pub fn steady(&self) -> Timestamp {
        wall(self.steady_ms)
    }

    /// The clock that silence is measured with.
    pub fn even(&self) -> Timestamp {
        now(self.clock_ms)
    }

    /// When a moment of the wall clock, or of the steady one, comes; simulated milliseconds.
    pub fn comes(&self, at: Timestamp, by: Timestamp) -> u64 {
        let left = at.duration_since(by);
        let late = i64::from(left.subsec_nanos() % 1_000_000 > 0);
        self.clock_ms + u64::try_from(left.as_millis() as i64 + late).unwrap_or(0)
    }

    /// Writes an object as it is.
    pub fn put(&mut self, resource: &str, object: Value) {
        let text = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = Key::new(resource, &text("/metadata/namespace"), &text("/metadata/name"));
        self.api.put(key, object);
    }

    /// Tells everybody what has changed.
    pub fn settle(&mut self) {
        let mut dirty = BTreeSet::new();
        for changed in std::mem::take(&mut self.api.changed) {
            if &*changed.key.resource != "coordination.k8s.io/leases" {
                self.writes += 1;
            }
            if let Err(e) = self.watch(&changed).and_then(|()| self.promises.changed(&self.api, &changed)) {
                self.broken.get_or_insert(e);
            }
            self.tell(&changed);
            self.control.changed(&self.api.view, &changed);
            self.watch_over(&changed);
            if !desired::looks_the_same(&changed) {
                dirty.extend(desired::nodes_for(&self.api.view, &changed));
            }
        }
        for node in dirty {
            if !self.liveness.is_connected(&node) {
                self.control.look_at(&node);
            }
            if self.sessions.contains_key(&node) {
                self.give(&node, SessionInput::Dirty);
            }
        }
    }

    fn watch(&mut self, changed: &Changed) -> Result<(), String> {
        match self.mistake {
            Sabotage::WatchSkips if self.writes.is_multiple_of(100) => return Ok(()),
            Sabotage::WatchRepeats if self.writes.is_multiple_of(100) => self.watcher.saw(changed)?,
            Sabotage::FallsBack => {
                let raw = changed.old.as_ref().filter(|_| changed.new.is_some()).map(|o| o.raw());
                self.before = raw.and_then(|raw| Some((changed.key.clone(), serde_json::from_slice(raw).ok()?)));
            }
            _ => {}
        }
        self.watcher.saw(changed)
    }

    /// Says what happens to the objects that somebody wants to follow.
    fn tell(&self, changed: &Changed) {
        if self.follow.as_ref().is_some_and(|part| changed.key.to_string().contains(part)) {
            let now = self.api.objects.get(&changed.key).map_or("gone".into(), ToString::to_string);
            println!("{} {}: {now}", self.clock_ms, changed.key);
        }
    }

    pub fn give(&mut self, node: &str, input: SessionInput) {
        let versions = self.versions;
        let session = self.sessions.entry(node.to_string()).or_insert_with(|| Session::speaking(node, versions));
        session.handle(wall(self.steady_ms), &self.api.view, input);
        while let Some(output) = session.poll() {
            self.out.push((node.to_string(), output));
        }
        let wake = session.wake_at().map(|(at, _)| at);
        let wake = wake.map(|at| self.comes(at, self.steady()));
        if self.wake_of.get(node).copied() == wake {
            return;
        }
        if let Some(old) = self.wake_of.remove(node) {
            self.wakes.remove(&(old, node.to_string()));
        }
        if let Some(at) = wake {
            self.wakes.insert((at, node.to_string()));
            self.wake_of.insert(node.to_string(), at);
        }
    }

    /// The door of the broker: whether this device may connect under this name.
    pub fn admits(&mut self, node: &str, hardware: &str) -> bool {
        let record = self.records.get(node).cloned().unwrap_or_default();
        let verdict = holder::verdict(&record, self.seen.get(node), hardware, self.started, self.even());
        if verdict == Verdict::KeepOut {
            self.kept_out += 1;
            return false;
        }
        if verdict == Verdict::AdmitAndRecord {
            self.records.insert(node.into(), hardware.into());
            self.give(node, SessionInput::OtherDevice);
        }
        self.seen.insert(node.into(), Seen { hardware: hardware.into(), connected: true, at: self.even() });
        true
    }

    /// The hardware that a node's name belongs to.
    pub fn holder(&self, node: &str) -> &str {
        self.records.get(node).map_or("", String::as_str)
    }

    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    pub fn connected(&mut self, node: &str, connection: u64) {
        self.away.remove(node);
        self.heard(node);
        self.give(node, SessionInput::Connected { connection });
    }

    pub fn heard(&mut self, node: &str) {
        if !self.liveness.is_connected(node) {
            self.control.look_at(node);
        }
        self.liveness.heard(node, self.even());
    }

    pub fn disconnected(&mut self, node: &str, connection: u64) {
        let even = self.even();
        if let Some(seen) = self.seen.get_mut(node) {
            (seen.connected, seen.at) = (false, even);
        }
        self.liveness.disconnected(node, self.even());
        self.away.insert(node.into(), self.clock_ms);
        self.control.look_at(node);
        self.give(node, SessionInput::Disconnected { connection });
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
        self.written_until.clear();
        self.seen.clear();
        self.open.clear();
        self.out.clear();
        self.api.changed.clear();
        if let Some((key, old)) = self.before.take() {
            self.api.objects.insert(key, old);
        }
    }

    pub fn start(&mut self) {
        self.up = true;
        self.started = self.even();
        self.clock.starts(self.api.now);
        self.times_set = 0;
        self.control = Control::new(self.control.is_on(), &self.clock, self.mistake);
        self.liveness = Liveness::new(self.even());
        self.steady_ms = self.clock_ms as i64 + self.skew_ms;
        let nodes: Vec<String> = self.list("/nodes").map(|(k, _)| k.name.to_string()).collect();
        for node in nodes {
            self.away.entry(node).or_insert(self.clock_ms);
        }
        self.api.reload(Scheduler::default());
        let loaded = std::mem::take(&mut self.api.changed);
        if let Err(e) = self.watcher.listed(&loaded) {
            self.broken.get_or_insert(e);
        }
        for changed in &loaded {
            self.control.changed(&self.api.view, changed);
            self.watch_over(changed);
        }
    }

    fn watch_over(&mut self, changed: &Changed) {
        if changed.is::<Node>() {
            self.control.look_at(&changed.key.name);
        }
        if let Some(node) = changed.new_as::<Node>() {
            self.liveness.observe(node, (self.api.now, now(self.clock_ms)));
        }
    }

    /// One of the points at which power can fail; true when it does.
    pub fn point(&mut self) -> bool {
        self.points += 1;
        let dies = self.dies_at.is_some_and(|at| at < self.points);
        if dies {
            self.dies_at = None;
        }
        dies
    }

    /// One change of a node's session, by way of the API. Deletes only what somebody wanted deleted. False: it was made of an
    /// older version of its object, and is to be worked out anew.
    pub fn take(&mut self, change: Change) -> bool {
        self.spoil(&change);
        if let Change::Delete { uid, .. } = &change {
            self.promises.ended(uid);
        }
        match &change {
            Change::Create { resource, object, .. } if resource == "/events" => {
                self.events.extend(object["metadata"]["name"].as_str().map(String::from));
            }
            Change::Event { .. } => {}
            Change::Delete { resource, namespace, name, uid, .. } => {
                let key = Key::new(resource, namespace, name);
                let there = self.api.objects.get(&key).filter(|o| o["metadata"]["uid"] == **uid);
                if there.is_some_and(|o| o["metadata"]["deletionTimestamp"].is_null()) {
                    self.broken.get_or_insert(format!("the hub deletes {key} although nobody had asked for that"));
                }
                let _ = self.api.apply(&change);
            }
            _ => {
                // Else its object is gone, or another one has its name.
                return self.api.apply(&change).err().is_none_or(|why| !why.starts_with("conflict on"));
            }
        }
        true
    }

    /// What goes wrong with a pod of which its board says that it runs.
    fn spoil(&mut self, change: &Change) {
        let Change::Patch { resource, namespace, name, merge, .. } = change else { return };
        if resource != "/pods" || merge["status"]["phase"] != "Running" {
            return;
        }
        let key = Key::new(resource, namespace, name);
        match self.mistake {
            Sabotage::MovesPods if self.api.objects.contains_key(&key) => {
                self.api.edit(&key, &json!({"spec": {"nodeName": "board-0"}}));
            }
            Sabotage::DeletesUnasked => {
                let uid = self.api.objects.get(&key).and_then(|o| o["metadata"]["uid"].as_str()).unwrap_or_default().into();
                let (resource, namespace, name) = (resource.clone(), namespace.clone(), name.clone());
                self.take(Change::Delete { resource, namespace, name, uid, grace: None, propagation: None });
            }
            _ => {}
        }
    }

    pub fn next_token(&mut self) -> Vec<u8> {
        self.tokens += 1;
        let expires = "2100-01-01T00:00:00Z";
        json!({"token": format!("t{}", self.tokens), "expirationTimestamp": expires, "audience": ""})
            .to_string()
            .into_bytes()
    }

    /// All objects of a resource.
    pub fn list<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = (&'a Key, &'a Value)> {
        self.api.objects.range(Key::new(resource, "", "")..).take_while(move |(k, _)| &*k.resource == resource)
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

fn wall(ms: i64) -> Timestamp {
    let since_1970 = i64::try_from(hub_ms(0)).unwrap_or(0) + ms;
    Timestamp::from_millisecond(since_1970).unwrap_or(Timestamp::UNIX_EPOCH)
}
