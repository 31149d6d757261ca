//! One board of the simulation: the agent's real cores, a journal that survives, a pretend runtime.
//!
//! In: bytes from the hub, outcomes of actions. Out: bytes for the hub, outcomes to come.
//! The runtime outlives the agent (the keeper does that on a real board) but not a reboot.
//! Never: loses a journal record that was persisted.

use crate::Rng;
use limpet_agent_core::{
    Action, Input, Now, PodManager, Record, Sync,
    plan::{HostFacts, ImageFacts},
    pods::{AdoptedContainer, AdoptedPod, ContainerRef, Exit, PodMemory, Uid},
    status::{Outbox, OutboxOutput},
    sync::SyncOutput,
};
use crate::hub::hub_ms;
use limpet_protocol::{Down, Envelope, Hello, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, TokenAsk, Up};
use std::collections::{BTreeMap, BTreeSet};

const JOURNAL_RECORDS_MAX: usize = 1000;

/// A container of the pretend runtime.
#[derive(Clone, Debug)]
pub struct Running {
    pub attempt: u32,
    pub started_ms: u64,
    /// It ended while the agent may not have been told.
    pub exit: Option<Exit>,
}

pub struct Board {
    pub name: String,
    pub journal: Vec<Record>,
    pub agent: Option<Agent>,
    /// Grows with each agent's death: outcomes for the life before are void, except exits.
    pub life: u64,
    pub boot: u64,
    pub sandboxes: BTreeSet<String>,
    pub containers: BTreeMap<(String, String), Running>,
    pub connection: Option<u64>,
    pub started: u64,
    pub twice: Vec<ContainerRef>,
    pub cut_off: bool,
    /// Oldest and newest protocol version of the agent that starts next.
    pub versions: (u8, u8),
    /// The journal cannot be written at the moment.
    pub disk_bad: bool,
    /// How wrong the board's clock is, milliseconds.
    pub skew_ms: i64,
    /// The hub's time as last heard: the clock never shows less.
    pub floor_ms: u64,
    /// Names of Events of the agent's present life.
    pub events: Vec<String>,
    appended: u64,
}

/// What dies with the agent's process.
pub struct Agent {
    pub sync: Sync,
    pub pods: PodManager,
    pub outbox: Outbox,
}

/// What the world has to do for the board.
pub enum Wish {
    Send(Vec<u8>),
    Later(u64, Input),
    /// A container ends on its own or by a signal.
    End(u64, ContainerRef, i32),
}

impl Board {
    pub fn new(index: usize) -> Board {
        Board {
            name: format!("board-{index}"),
            journal: Vec::new(),
            agent: None,
            life: 0,
            boot: 0,
            sandboxes: BTreeSet::new(),
            containers: BTreeMap::new(),
            connection: None,
            started: 0,
            twice: Vec::new(),
            cut_off: false,
            versions: (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION),
            disk_bad: false,
            skew_ms: 0,
            floor_ms: 0,
            events: Vec::new(),
            appended: 0,
        }
    }

    /// What the board takes the time to be.
    pub fn clock(&self, now_ms: u64) -> Now {
        let right = i64::try_from(hub_ms(now_ms)).unwrap_or(i64::MAX);
        let wall = u64::try_from(right.saturating_add(self.skew_ms)).unwrap_or(0);
        Now { mono_ms: now_ms, wall_ms: wall.max(self.floor_ms) }
    }

    /// The agent's process starts: journal, then what the runtime still has.
    pub fn start(&mut self, now: Now) {
        let mut sync = Sync::speaking(self.versions);
        let mut pods = PodManager::new();
        let mut memories: BTreeMap<String, PodMemory> = BTreeMap::new();
        let mut ceiling = 0;
        let mut events: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for record in &self.journal {
            match record {
                Record::VersionCeiling(n) => ceiling = ceiling.max(*n),
                Record::Pod(memory) => {
                    memories.insert(memory.uid.clone(), memory.clone());
                }
                Record::ForgetPod(uid) => {
                    memories.remove(uid);
                }
                Record::Event(number, json) => {
                    events.insert(*number, json.clone());
                }
                Record::EventsTaken(number) => events = events.split_off(&(number + 1)),
                other => sync.replay(other.clone()),
            }
        }
        let items = sync.items().clone();
        let host = HostFacts { node_name: self.name.clone(), ips: vec!["192.0.2.1".into()], ..HostFacts::default() };
        pods.handle(now, &items, Input::Host(host));
        for memory in memories.into_values() {
            pods.handle(now, &items, Input::Remembered(memory));
        }
        for found in self.adopted() {
            pods.handle(now, &items, Input::Adopted(found));
        }
        pods.handle(now, &items, Input::Begin);
        let mut outbox = Outbox::new(ceiling);
        outbox.remember(events);
        self.agent = Some(Agent { sync, pods, outbox });
    }

    fn adopted(&self) -> Vec<AdoptedPod> {
        let mut found: BTreeMap<String, AdoptedPod> = BTreeMap::new();
        for uid in &self.sandboxes {
            let sandbox = Some(vec!["10.42.0.2".to_string()]);
            found.insert(uid.clone(), AdoptedPod { uid: uid.clone(), sandbox, containers: Vec::new() });
        }
        for ((uid, name), running) in &self.containers {
            let pod = found.entry(uid.clone()).or_insert_with(|| AdoptedPod { uid: uid.clone(), ..AdoptedPod::default() });
            pod.containers.push(AdoptedContainer {
                name: name.clone(),
                attempt: running.attempt,
                started_ms: running.started_ms,
                exit: running.exit.clone(),
            });
        }
        found.into_values().collect()
    }

    /// kill -9 of the agent; containers go on.
    pub fn crash(&mut self) {
        self.agent = None;
        self.life += 1;
        self.connection = None;
        self.events.clear();
    }

    /// Power cut.
    pub fn reboot(&mut self) {
        self.crash();
        self.boot += 1;
        self.sandboxes.clear();
        self.containers.clear();
    }

    pub fn connected(&mut self, connection: u64) {
        self.connection = Some(connection);
        if let Some(agent) = &mut self.agent {
            agent.sync.connected(Hello { boot_id: self.boot.to_string(), ..Hello::default() });
        }
    }

    pub fn disconnected(&mut self) {
        self.connection = None;
        if let Some(agent) = &mut self.agent {
            agent.sync.disconnected();
            agent.outbox.disconnected();
        }
    }

    pub fn receive(&mut self, now: Now, bytes: &[u8]) {
        let Some(agent) = &mut self.agent else { return };
        let Ok(envelope) = Envelope::<Down>::decode(bytes) else { return };
        if envelope.session != agent.sync.session() {
            return;
        }
        match envelope.message {
            Down::Welcome(welcome) => {
                agent.sync.welcome(now, &welcome);
                agent.outbox.connected(agent.sync.speaks());
            }
            Down::Change(change) => agent.sync.change(now, change),
            Down::Step(step) => agent.sync.step(now, step),
            Down::EventsTaken { number } => agent.outbox.events_taken(number),
            Down::Reported { uid, version } => agent.outbox.reported(&uid, version),
            Down::TokenAnswer(_) | Down::Stream(_) => {}
            Down::Goodbye { .. } => self.disconnected(),
        }
    }

    pub fn input(&mut self, now: Now, input: Input) {
        if let Some(agent) = &mut self.agent {
            agent.pods.handle(now, agent.sync.items(), input);
        }
    }

    /// Does everything that waits, until nothing is left. `crash_in`: dies after so many persisted records.
    pub fn pump(&mut self, now: Now, rng: &mut Rng, crash_in: &mut Option<u64>) -> Vec<Wish> {
        let mut wishes = Vec::new();
        loop {
            let before = wishes.len() + self.journal.len();
            let Some(mut agent) = self.agent.take() else { return wishes };
            let dead = self.pump_sync(&mut agent, now, crash_in, &mut wishes)
                || self.pump_pods(&mut agent, now, rng, crash_in, &mut wishes)
                || self.pump_outbox(&mut agent, now, crash_in, &mut wishes);
            if dead {
                self.crash();
                return wishes;
            }
            self.agent = Some(agent);
            if wishes.len() + self.journal.len() == before {
                return wishes;
            }
        }
    }

    /// As on a real board: a long journal becomes a new one with the present state.
    pub fn compact_if_long(&mut self) {
        if self.journal.len() < JOURNAL_RECORDS_MAX || self.disk_bad {
            return;
        }
        let Some(agent) = &self.agent else { return };
        let mut records: Vec<Record> = agent.sync.snapshot().collect();
        records.extend(agent.pods.snapshot().cloned().map(Record::Pod));
        records.extend(agent.outbox.snapshot());
        self.appended += self.journal.len() as u64;
        self.journal = records;
    }

    /// Records written in all.
    pub fn written(&self) -> u64 {
        self.appended + self.journal.len() as u64
    }

    /// Appends to the journal; true when the power of decision ends right after (or before) it.
    fn persist(&mut self, record: Record, crash_in: &mut Option<u64>) -> bool {
        if *crash_in == Some(0) {
            *crash_in = None;
            return true;
        }
        self.journal.push(record);
        if let Some(n) = crash_in {
            *n -= 1;
        }
        false
    }

    fn send(&self, agent: &Agent, message: Up, wishes: &mut Vec<Wish>) {
        if self.connection.is_some() {
            wishes.push(Wish::Send(Envelope { session: agent.sync.session(), message }.encode(agent.sync.speaks())));
        }
    }

    fn pump_sync(&mut self, agent: &mut Agent, now: Now, crash_in: &mut Option<u64>, wishes: &mut Vec<Wish>) -> bool {
        while let Some(output) = agent.sync.poll() {
            match output {
                SyncOutput::Persist(_) if self.disk_bad => agent.sync.persisted(false),
                SyncOutput::Persist(records) => {
                    for record in records {
                        if self.persist(record, crash_in) {
                            return true;
                        }
                    }
                    agent.sync.persisted(true);
                }
                SyncOutput::Send(up) => self.send(agent, up, wishes),
                SyncOutput::Changed(keys) => agent.pods.handle(now, agent.sync.items(), Input::Changed(keys)),
                SyncOutput::HubTime(ms) => self.floor_ms = self.floor_ms.max(ms),
            }
        }
        false
    }

    fn pump_outbox(&mut self, agent: &mut Agent, now: Now, crash_in: &mut Option<u64>, wishes: &mut Vec<Wish>) -> bool {
        while let Some(output) = agent.outbox.poll(now) {
            match output {
                OutboxOutput::Persist(_) if self.disk_bad => agent.outbox.unpersisted(now),
                OutboxOutput::Keep(_) if self.disk_bad => {}
                OutboxOutput::Persist(record) => {
                    if self.persist(record, crash_in) {
                        return true;
                    }
                }
                OutboxOutput::Keep(record) => {
                    if self.persist(record, crash_in) {
                        return true;
                    }
                }
                OutboxOutput::Send(_, up) => {
                    if let Up::Event(json) = &up {
                        // Older protocols do not confirm Events: they may be lost.
                        let name = event_name(json);
                        self.events.retain(|e| Some(e) != name.as_ref());
                    }
                    self.send(agent, up, wishes);
                }
            }
        }
        false
    }

    fn pump_pods(
        &mut self,
        agent: &mut Agent,
        now: Now,
        rng: &mut Rng,
        crash_in: &mut Option<u64>,
        wishes: &mut Vec<Wish>,
    ) -> bool {
        while let Some(action) = agent.pods.poll() {
            match action {
                Action::Report { uid, namespace, name, status } => agent.outbox.pod(uid, namespace, name, status),
                Action::PodGone { uid, namespace, name } => agent.outbox.gone(uid, namespace, name),
                Action::Event(event) => {
                    self.events.extend(event_name(&event));
                    agent.outbox.event(event);
                }
                Action::AskToken(key) => self.send(agent, Up::TokenAsk(TokenAsk { key }), wishes),
                // As on a real board: what could not be written is only said in the log.
                Action::Remember(_) if self.disk_bad => {}
                Action::Forget { uid } if self.disk_bad => agent.outbox.forget(&uid),
                Action::Remember(memory) => {
                    if self.persist(Record::Pod(memory), crash_in) {
                        return true;
                    }
                }
                Action::Forget { uid } => {
                    agent.outbox.forget(&uid);
                    if self.persist(Record::ForgetPod(uid.to_string()), crash_in) {
                        return true;
                    }
                }
                other => self.act(other, now, rng, wishes),
            }
        }
        false
    }

    /// The pretend runtime.
    fn act(&mut self, action: Action, now: Now, rng: &mut Rng, wishes: &mut Vec<Wish>) {
        let soon = rng.between(1, 80);
        let mut later = |input| wishes.push(Wish::Later(soon, input));
        match action {
            Action::SetupVolumes { uid, .. } => later(Input::VolumesReady { uid }),
            Action::CreateSandbox { uid, .. } => {
                self.sandboxes.insert(uid.to_string());
                later(Input::SandboxReady { uid, ips: vec!["10.42.0.2".into()] });
            }
            Action::PullImage { uid, container, .. } => {
                let image = ImageFacts { id: "sha256:0".into(), cmd: vec!["run".into()], ..ImageFacts::default() };
                later(Input::ImageReady { uid, container, image, pulled_in_ms: None });
            }
            Action::StartContainer { uid, plan } => {
                let container: std::sync::Arc<str> = plan.name.as_str().into();
                let at = ContainerRef { uid: uid.clone(), container, attempt: plan.attempt };
                let key = (uid.to_string(), plan.name.clone());
                if self.containers.get(&key).is_some_and(|r| r.exit.is_none()) {
                    self.twice.push(at.clone());
                }
                self.started += 1;
                let running = Running { attempt: plan.attempt, started_ms: now.wall_ms, exit: None };
                self.containers.insert(key, running);
                later(Input::ContainerStarted(at));
            }
            Action::Signal { at, signal } => {
                let (after, code) = match signal.as_str() {
                    "SIGKILL" => (soon, 137),
                    _ => (rng.between(10, 2500), 143),
                };
                wishes.push(Wish::End(after, at, code));
            }
            Action::RunHook { at, hook, .. } => later(Input::HookDone { at, hook, error: None }),
            Action::RunProbe { at, kind, .. } => later(Input::Probed { at, kind, ok: true, output: String::new() }),
            Action::RemoveSandbox { uid } => {
                self.clear(&uid);
                later(Input::SandboxRemoved { uid });
            }
            Action::RemovePod { uid } => {
                self.clear(&uid);
                later(Input::PodRemoved { uid });
            }
            _ => {}
        }
    }

    fn clear(&mut self, uid: &Uid) {
        self.sandboxes.remove(&**uid);
        self.containers.retain(|(owner, _), _| **owner != **uid);
    }

    /// A container ends. Returns the news for the agent, when it was that attempt and it ran.
    pub fn end(&mut self, now: Now, at: &ContainerRef, code: i32) -> Option<Input> {
        let running = self.containers.get_mut(&(at.uid.to_string(), at.container.to_string()))?;
        if running.attempt != at.attempt || running.exit.is_some() {
            return None;
        }
        let exit = Exit { code, finished_ms: now.wall_ms, ..Exit::default() };
        running.exit = Some(exit.clone());
        Some(Input::ContainerExited { at: at.clone(), exit })
    }

    pub fn wake_at(&self) -> Option<u64> {
        let agent = self.agent.as_ref()?;
        let all = [agent.sync.wake_at(), agent.pods.wake_at(), agent.outbox.wake_at()];
        all.into_iter().flatten().map(|(at, _)| at).min()
    }

    pub fn tick(&mut self, now: Now) {
        let Some(agent) = &mut self.agent else { return };
        agent.sync.tick(now);
        agent.pods.handle(now, agent.sync.items(), Input::Tick);
    }

    /// Uids of pods of which a container runs.
    pub fn running(&self) -> BTreeSet<String> {
        self.containers.iter().filter(|(_, r)| r.exit.is_none()).map(|((uid, _), _)| uid.clone()).collect()
    }
}

/// Name of an Event, as the hub keeps it.
pub fn event_name(json: &[u8]) -> Option<String> {
    let event: serde_json::Value = serde_json::from_slice(json).ok()?;
    event["metadata"]["name"].as_str().map(String::from)
}
