//! One board of the simulation: the agent's real cores, a journal that survives, a pretend runtime.
//!
//! In: bytes from the hub, outcomes of actions. Out: bytes for the hub, outcomes to come.
//! The agent may die before and after every single record that it writes.
//! Never: sends what the journal should hold first; that is said in `broken`.

use crate::{Rng, Sabotage, hub::hub_ms, journal::Journal, runtime::Runtime};
use limpet_agent_core::{
    Action, Input, Now, PodManager, Record, Sync,
    plan::HostFacts,
    pods::{ContainerRef, PodMemory},
    status::{NodeFacts, Outbox, OutboxOutput, node_report},
    sync::SyncOutput,
};
use limpet_hub_core::view::pick::pick;
use limpet_protocol::{Down, Envelope, Hello, Item, ItemKey, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, TokenAsk, Up};
use std::collections::BTreeMap;

const CPU_MILLI: u32 = 4;
const MEMORY_BYTES: u64 = 1 << 30;
const PODS_MAX: u32 = 40;

pub struct Board {
    pub name: String,
    /// Tells devices with one name apart.
    pub hardware: String,
    pub journal: Journal,
    pub runtime: Runtime,
    pub agent: Option<Agent>,
    /// Grows with each agent's death: outcomes for the life before are void, except exits.
    pub life: u64,
    pub boot: u64,
    pub connection: Option<u64>,
    /// Attempts to connect since the last welcome.
    pub tries: u32,
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
    /// Points at which the agent can die, so far: two a record, before and after it is written.
    pub points: u64,
    /// It dies at this one.
    pub dies_at: Option<u64>,
    /// Began a session that the journal does not know, for want of a disk.
    pub session_unsaved: bool,
    pub broken: Option<String>,
    /// Items that changed, to be looked at.
    pub fresh: Vec<ItemKey>,
    /// Somebody copied the card of this device; or it is the copy.
    pub copied: bool,
    /// Taken away for good.
    pub gone: bool,
    /// The installation, made anew with each new card.
    pub instance: u8,
    pub mistake: Sabotage,
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

/// The agent died on the way.
struct Dead;

impl Board {
    pub fn new(index: usize) -> Board {
        Board {
            name: format!("board-{index}"),
            hardware: format!("{index:016x}"),
            journal: Journal::default(),
            runtime: Runtime::default(),
            agent: None,
            life: 0,
            boot: 0,
            connection: None,
            tries: 0,
            cut_off: false,
            versions: (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION),
            disk_bad: false,
            skew_ms: 0,
            floor_ms: 0,
            events: Vec::new(),
            points: 0,
            dies_at: None,
            session_unsaved: false,
            broken: None,
            fresh: Vec::new(),
            copied: false,
            gone: false,
            instance: 0,
            mistake: Sabotage::None,
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
        for record in self.journal.records() {
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
                Record::Put(item) if self.mistake == Sabotage::GenerationsFall => {
                    sync.replay(Record::Put(Item { generation: item.generation - 1, ..item.clone() }));
                }
                other => sync.replay(other.clone()),
            }
        }
        if self.mistake == Sabotage::SpoolGrows {
            events.extend((0..600).map(|number| (number, b"{}".to_vec())));
        }
        self.session_unsaved = false;
        let items = sync.items();
        let host = HostFacts {
            node_name: self.name.clone(),
            ips: vec!["192.0.2.1".into()],
            allocatable_cpu_milli: i64::from(CPU_MILLI) * 1000,
            allocatable_memory_bytes: MEMORY_BYTES as i64,
            pods_max: PODS_MAX,
            ..HostFacts::default()
        };
        pods.handle(now, items, Input::Host(host));
        for memory in memories.into_values() {
            pods.handle(now, items, Input::Remembered(memory));
        }
        let found = if self.mistake == Sabotage::ForgetsContainers { Vec::new() } else { self.runtime.found() };
        for found in found {
            pods.handle(now, items, Input::Adopted(found));
        }
        pods.handle(now, items, Input::Begin);
        sync.rest();
        let mut outbox = Outbox::new(ceiling);
        outbox.remember(events);
        outbox.node(node_report(&self.facts(), None));
        self.agent = Some(Agent { sync, pods, outbox });
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            name: self.name.clone(),
            architecture: "arm64".into(),
            boot_id: self.boot.to_string(),
            agent_version: "0.1.0".into(),
            cpus: CPU_MILLI,
            memory_bytes: MEMORY_BYTES,
            disk_bytes: 8 << 30,
            pods_max: PODS_MAX,
            ips: vec!["192.0.2.1".into()],
            ..NodeFacts::default()
        }
    }

    /// kill -9 of the agent; containers go on.
    pub fn crash(&mut self) {
        self.agent = None;
        self.life += 1;
        self.connection = None;
        self.tries = 0;
        self.events.clear();
    }

    /// Power cut.
    pub fn reboot(&mut self, rng: &mut Rng) {
        self.crash();
        self.boot += 1;
        self.journal.power_cut(rng);
        self.runtime.reboot();
    }

    /// The card was bad; somebody puts in a new one, and the board joins again under its name.
    pub fn new_card(&mut self, rng: &mut Rng) {
        self.reboot(rng);
        (self.journal, self.disk_bad) = (Journal::default(), false);
        self.instance = self.instance.wrapping_add(1);
    }

    pub fn connected(&mut self, connection: u64) {
        self.connection = Some(connection);
        if let Some(agent) = &mut self.agent {
            agent.sync.connected(Hello { boot_id: self.boot.to_string(), instance: [self.instance; 16], ..Hello::default() });
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
        let envelope = match Envelope::<Down>::decode(bytes) {
            Ok(envelope) => envelope,
            Err(e) => return self.breaks(format!("the hub's message cannot be read: {e}")),
        };
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
            Down::TokenAnswer(_)
            | Down::Stream(_)
            | Down::LogTaken(_)
            | Down::MessagesTaken { .. }
            | Down::Message(_) => {}
            Down::Goodbye { .. } => self.disconnected(),
        }
    }

    fn breaks(&mut self, what: String) {
        self.broken.get_or_insert_with(|| format!("{}: {what}", self.name));
    }

    pub fn input(&mut self, now: Now, input: Input) {
        if let Some(agent) = &mut self.agent {
            agent.pods.handle(now, agent.sync.items(), input);
        }
    }

    /// Does everything that waits, until nothing is left or the agent dies.
    pub fn pump(&mut self, now: Now, rng: &mut Rng) -> Vec<Wish> {
        let mut wishes = Vec::new();
        loop {
            let before = (wishes.len(), self.journal.written());
            let Some(mut agent) = self.agent.take() else { return wishes };
            let outcome = self
                .pump_sync(&mut agent, now, &mut wishes)
                .and_then(|()| self.pump_pods(&mut agent, now, rng, &mut wishes))
                .and_then(|()| self.pump_outbox(&mut agent, now, &mut wishes));
            if outcome.is_err() {
                self.crash();
                return wishes;
            }
            self.agent = Some(agent);
            if (wishes.len(), self.journal.written()) == before {
                return wishes;
            }
        }
    }

    /// As on a real board: a long journal becomes a new one with the present state.
    pub fn compact_if_long(&mut self) {
        if !self.journal.is_long() || self.disk_bad || self.mistake == Sabotage::JournalGrows {
            return;
        }
        let Some(agent) = &mut self.agent else { return };
        let mut records: Vec<Record> = agent.sync.snapshot().collect();
        records.extend(agent.pods.snapshot().map(Record::Pod));
        records.extend(agent.outbox.snapshot());
        agent.sync.recorded();
        self.journal.compact(records);
    }

    /// One of the points at which power can fail.
    fn point(&mut self) -> Result<(), Dead> {
        self.points += 1;
        match self.dies_at {
            Some(at) if at < self.points => {
                self.dies_at = None;
                Err(Dead)
            }
            _ => Ok(()),
        }
    }

    fn persist(&mut self, record: Record) -> Result<(), Dead> {
        if self.mistake == Sabotage::NeverSyncs {
            return self.keep(record);
        }
        self.point()?;
        self.journal.append(record);
        self.point()
    }

    /// What waited for an occasion is written before what is one.
    fn pay(&mut self, agent: &mut Agent) -> Result<(), Dead> {
        if self.mistake != Sabotage::ForgetsTokens {
            agent.sync.owed().into_iter().try_for_each(|record| self.keep(record))?;
        }
        agent.sync.recorded();
        Ok(())
    }

    fn keep(&mut self, record: Record) -> Result<(), Dead> {
        self.point()?;
        self.journal.append_lazily(record);
        self.point()
    }

    fn send(&mut self, agent: &Agent, message: Up, wishes: &mut Vec<Wish>) {
        let silent = self.mistake == Sabotage::NeverAsks && matches!(message, Up::Inventory(_));
        if self.connection.is_none() || silent {
            return;
        }
        self.check_promise(agent, &message);
        wishes.push(Wish::Send(Envelope { session: agent.sync.session(), message }.encode(agent.sync.speaks())));
    }

    /// What a message promises must be in the journal before it goes.
    fn check_promise(&mut self, agent: &Agent, message: &Up) {
        let version = match message {
            Up::PodReport(r) => r.version,
            Up::PodGone(r) => r.version,
            Up::NodeReport(r) => r.version,
            Up::NumberedEvent(e) => e.number,
            _ => 0,
        };
        if version > self.journal.version_ceiling() {
            let ceiling = self.journal.version_ceiling();
            self.breaks(format!("sends version {version}, the journal's ceiling is {ceiling}"));
        }
        if matches!(message, Up::Ack(_)) && self.journal.digest(&agent.sync.owed()) != agent.sync.items().digest() {
            self.breaks("acknowledges what the journal does not hold".into());
        }
        let session = agent.sync.session();
        if session > self.journal.session_ceiling() && !self.session_unsaved {
            self.breaks(format!("session {session} is not in the journal"));
        }
    }

    fn pump_sync(&mut self, agent: &mut Agent, now: Now, wishes: &mut Vec<Wish>) -> Result<(), Dead> {
        while let Some(output) = agent.sync.poll() {
            match output {
                SyncOutput::Persist(records) if self.disk_bad => {
                    self.session_unsaved |= records.iter().any(|r| matches!(r, Record::SessionCeiling(_)));
                    agent.sync.persisted(false);
                }
                SyncOutput::Persist(records) if self.mistake == Sabotage::AckFirst && is_of_the_set(&records) => {
                    agent.sync.persisted(true);
                }
                SyncOutput::Persist(records) => {
                    self.pay(agent)?;
                    for record in agent.pods.with_sizes(records) {
                        if self.mistake == Sabotage::SessionsUnwritten && matches!(record, Record::SessionCeiling(_)) {
                            continue;
                        }
                        self.persist(record)?;
                    }
                    agent.sync.persisted(true);
                }
                SyncOutput::Send(up) => self.send(agent, up, wishes),
                SyncOutput::Changed(keys) => {
                    self.fresh.extend(keys.iter().cloned());
                    agent.pods.handle(now, agent.sync.items(), Input::Changed(keys));
                }
                SyncOutput::HubTime(ms) => self.floor_ms = self.floor_ms.max(ms),
            }
        }
        Ok(())
    }

    fn pump_outbox(&mut self, agent: &mut Agent, now: Now, wishes: &mut Vec<Wish>) -> Result<(), Dead> {
        while let Some(output) = agent.outbox.poll(now) {
            match output {
                OutboxOutput::Persist(_) if self.disk_bad => agent.outbox.unpersisted(now),
                OutboxOutput::Keep(_) if self.disk_bad => {}
                OutboxOutput::Persist(_) if self.mistake == Sabotage::VersionsUnwritten => {}
                OutboxOutput::Persist(record) => {
                    self.pay(agent)?;
                    self.persist(record)?;
                }
                OutboxOutput::Keep(record) => self.keep(record)?,
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
        Ok(())
    }

    fn pump_pods(&mut self, agent: &mut Agent, now: Now, rng: &mut Rng, wishes: &mut Vec<Wish>) -> Result<(), Dead> {
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
                Action::Remember(memory) => self.persist(Record::Pod(memory))?,
                Action::Forget { uid } => {
                    agent.outbox.forget(&uid);
                    if !self.disk_bad {
                        self.persist(Record::ForgetPod(uid.to_string()))?;
                    }
                }
                other => self.runtime.act(other, now, rng, wishes),
            }
        }
        Ok(())
    }

    pub fn wake_at(&self) -> Option<u64> {
        let agent = self.agent.as_ref()?;
        let all = [agent.sync.wake_at(), agent.pods.wake_at(), agent.outbox.wake_at()];
        all.into_iter().flatten().map(|(at, _)| at).min()
    }

    pub fn tick(&mut self, now: Now) {
        let Some(agent) = &mut self.agent else { return };
        agent.sync.tick(now);
        if agent.pods.wake_at().is_some_and(|(at, _)| at <= now.mono_ms) {
            agent.pods.handle(now, agent.sync.items(), Input::Tick);
        }
    }
}

fn is_of_the_set(records: &[Record]) -> bool {
    records.iter().any(|r| matches!(r, Record::Put(_) | Record::Remove(_)))
}

/// Name of an Event, as the hub keeps it.
pub fn event_name(json: &[u8]) -> Option<String> {
    pick(json, "/metadata/name").as_str().map(String::from)
}
