//! One board: the agent's link and cores, a journal in memory, a pretend runtime; or the link alone, with nothing that runs.
//!
//! In: the link's events, outcomes of the runtime. Out: messages by the link's lanes, what the fleet wants to know.
//! Never: says in sync before the set is equal to the hub's.

use crate::{
    device::Clock,
    fleet::{self, Fleet},
    link::{self, Identity, Lanes, LinkEvent, LinkOptions},
    runtime::{Pretend, host, node_facts},
};
use limpet_agent_core::{
    Action, Input, Now, PodManager, Sync,
    status::{self, Outbox, OutboxOutput},
    sync::{Items, SyncOutput},
};
use limpet_protocol::{Down, Envelope, Hello, ItemKey, ItemKind, TokenAsk, Up, topic::Channel};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};
use tokio::sync::watch;

/// As the agent's default.
const BACKOFF_S_MAX: u64 = 60;
/// The ConfigMap whose `round` the fleet watches.
pub const COMMON: (&str, &str) = ("fleet", "common");

/// What runs on a board.
pub trait Life: Send + 'static {
    fn new() -> Self;
    fn handle(&mut self, now: Now, items: &Items, input: Input);
    fn poll(&mut self) -> Option<Action>;
    fn wake_at(&self) -> Option<u64>;
}

impl Life for PodManager {
    fn new() -> PodManager {
        PodManager::new()
    }

    fn handle(&mut self, now: Now, items: &Items, input: Input) {
        self.handle(now, items, input);
    }

    fn poll(&mut self) -> Option<Action> {
        self.poll()
    }

    fn wake_at(&self) -> Option<u64> {
        self.wake_at().map(|(at, _)| at)
    }
}

/// Nothing: a board that is its link and what it says of itself.
pub struct Nothing;

impl Life for Nothing {
    fn new() -> Nothing {
        Nothing
    }

    fn handle(&mut self, _: Now, _: &Items, _: Input) {}

    fn poll(&mut self) -> Option<Action> {
        None
    }

    fn wake_at(&self) -> Option<u64> {
        None
    }
}

struct Board<L> {
    at: usize,
    instance: [u8; 16],
    clock: Clock,
    fleet: Fleet,
    sync: Sync,
    pods: L,
    outbox: Outbox,
    urgent: VecDeque<Up>,
    lanes: Option<Lanes>,
    runtime: Pretend,
    /// Outcomes by the time at which they come.
    later: BTreeMap<(u64, u64), Input>,
    later_next: u64,
    round: u64,
}

pub fn start<L: Life>(at: usize, identity: Identity, clock: Clock, fleet: Fleet) {
    let instance = identity.instance;
    let (keep, identity) = watch::channel(Arc::new(identity));
    let options = LinkOptions {
        // As over a router: the boards of a fleet are not in the hub's own network.
        keepalive_s: Some(340),
        probe_s: None,
        backoff_s_max: BACKOFF_S_MAX,
        mqtt: Vec::new(),
        broker: Vec::new(),
        proxy: None,
        hold: Arc::default(),
        hardware: format!("{at:016x}"),
    };
    let mut link = link::session::start(identity, clock.clone(), options);
    let mut board = Board {
        at,
        instance,
        clock,
        fleet,
        sync: Sync::new(),
        pods: L::new(),
        outbox: Outbox::new(0),
        urgent: VecDeque::new(),
        lanes: None,
        runtime: Pretend,
        later: BTreeMap::new(),
        later_next: 0,
        round: 0,
    };
    tokio::spawn(async move {
        let _keep = keep;
        board.begin();
        loop {
            board.settle();
            let wake = board.wake_at().map(|at| board.clock.instant(at));
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let waiting = board.lanes.as_ref().filter(|_| board.wants_to_send()).map(|l| l.state.clone());
            let room = async {
                match &waiting {
                    Some(lane) => drop(lane.reserve().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = link.events.recv() => match event {
                    Some(event) => board.link_event(event),
                    None => return,
                },
                () = room => {}
                () = sleep => board.tick(),
            }
        }
    });
}

impl<L: Life> Board<L> {
    fn begin(&mut self) {
        let name = fleet::name(self.at);
        self.input(Input::Host(host(&name)));
        self.input(Input::Begin);
        self.outbox.node(status::node_report(&node_facts(&name, self.at), None));
    }

    fn input(&mut self, input: Input) {
        self.pods.handle(self.clock.now(), self.sync.items(), input);
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(lanes) => {
                self.urgent.clear();
                self.sync.connected(Hello { instance: self.instance, ..Hello::default() });
                self.lanes = Some(lanes);
                self.fleet.note(self.at, |seen| seen.connects += 1);
            }
            LinkEvent::Message(bytes) => {
                if let Ok(envelope) = Envelope::<Down>::decode(&bytes)
                    && envelope.session == self.sync.session()
                {
                    self.message(envelope.message);
                }
            }
            // These boards neither renew nor look for their hub.
            LinkEvent::Renewed(_) | LinkEvent::Astray => {}
            LinkEvent::Down => {
                self.lanes = None;
                self.urgent.clear();
                self.sync.disconnected();
                self.outbox.disconnected();
                self.fleet.note(self.at, |seen| seen.in_sync = None);
            }
        }
    }

    fn message(&mut self, message: Down) {
        let now = self.clock.now();
        match message {
            Down::Welcome(welcome) => {
                self.sync.welcome(now, &welcome);
                self.outbox.connected(self.sync.speaks());
            }
            Down::Change(change) => self.sync.change(now, change),
            Down::Step(step) => self.sync.step(now, step),
            Down::EventsTaken { number } => self.outbox.events_taken(number),
            Down::Reported { uid, version } => self.outbox.reported(&uid, version),
            // What boards of this kind never ask for.
            Down::TokenAnswer(_) | Down::Stream(_) | Down::Goodbye { .. } => {}
            Down::LogTaken(_) | Down::MessagesTaken { .. } | Down::Message(_) => {}
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.sync.tick(now);
        while let Some(first) = self.later.first_entry().filter(|e| e.key().0 <= now.mono_ms) {
            let input = first.remove();
            self.input(input);
        }
        if self.pods.wake_at().is_some_and(|at| at <= now.mono_ms) {
            self.input(Input::Tick);
        }
    }

    fn wake_at(&self) -> Option<u64> {
        let cores = [self.sync.wake_at(), self.outbox.wake_at()].into_iter().flatten().map(|(at, _)| at);
        let later = self.later.first_key_value().map(|(at, _)| at.0);
        cores.chain(self.pods.wake_at()).chain(later).min()
    }

    fn wants_to_send(&self) -> bool {
        !self.urgent.is_empty() || (self.sync.welcomed() && self.outbox.wants(self.clock.now()))
    }

    /// Drains the cores until nothing more follows from what happened.
    fn settle(&mut self) {
        loop {
            if let Some(output) = self.sync.poll() {
                self.sync_output(output);
            } else if let Some(action) = self.pods.poll() {
                self.act(action);
            } else {
                break;
            }
        }
        self.send();
        let (equal, told, round) = (self.sync.in_sync(), self.outbox.idle(), self.round);
        self.fleet.note(self.at, |seen| {
            seen.told = told;
            match (equal, seen.in_sync) {
                (true, None) => seen.in_sync = Some(Instant::now()),
                (false, Some(_)) => seen.in_sync = None,
                _ => {}
            }
            if round != 0 && seen.round.is_none_or(|(known, _)| known != round) {
                seen.round = Some((round, Instant::now()));
            }
        });
    }

    fn sync_output(&mut self, output: SyncOutput) {
        match output {
            // The pretend disk is always quick and good.
            SyncOutput::Persist(_) => self.sync.persisted(true),
            SyncOutput::Send(up) => self.urgent.push_back(up),
            SyncOutput::Changed(keys) => {
                self.look_at_round(&keys);
                self.input(Input::Changed(keys));
            }
            SyncOutput::HubTime(ms) => self.clock.told(ms),
        }
    }

    fn look_at_round(&mut self, keys: &[ItemKey]) {
        let common = ItemKey::new(ItemKind::ConfigMap, COMMON.0, COMMON.1);
        if !keys.contains(&common) {
            return;
        }
        let Some(held) = self.sync.items().by_key(&common) else { return };
        let value: serde_json::Value = serde_json::from_slice(&held.body()).unwrap_or_default();
        self.round = value["data"]["round"].as_str().and_then(|r| r.parse().ok()).unwrap_or(0);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Report { uid, namespace, name, status } => self.outbox.pod(uid, namespace, name, status),
            Action::PodGone { uid, namespace, name } => self.outbox.gone(uid, namespace, name),
            Action::Event(event) => self.outbox.event(event),
            Action::AskToken(key) => self.urgent.push_back(Up::TokenAsk(TokenAsk { key })),
            Action::Forget { uid } => self.outbox.forget(&uid),
            other => {
                let now = self.clock.now();
                if let Some((after_ms, input)) = self.runtime.act(other, now, self.at) {
                    self.later_next += 1;
                    self.later.insert((now.mono_ms + after_ms, self.later_next), input);
                }
            }
        }
    }

    /// As the agent: the session's own messages first, then reports, then Events, as far as there is room.
    fn send(&mut self) {
        let now = self.clock.now();
        while let Some(lanes) = &self.lanes {
            let Ok(permit) = lanes.state.try_reserve() else { return };
            let (channel, message) = match self.urgent.pop_front() {
                Some(up) => (Channel::State, up),
                None => match self.outbox.poll(now) {
                    Some(OutboxOutput::Send(channel, up)) => (channel, up),
                    Some(OutboxOutput::Persist(_) | OutboxOutput::Keep(_)) => continue,
                    None => return,
                },
            };
            let envelope = Envelope { session: self.sync.session(), message };
            permit.send((channel, envelope.encode(self.sync.speaks())));
        }
    }
}
