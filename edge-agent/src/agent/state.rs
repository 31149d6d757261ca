//! The agent's loop: one thing happens, the cores decide, what must be durable is made so, the rest follows.
//!
//! In: the link's events, outcomes of actions, exits of containers, time. Out: records, actions, messages, in that
//! order.
//! Never: waits for anything inside a step.

use super::{
    StartOptions,
    act::Hands,
    node,
    os_update::Systems,
    released::Removals,
    spare,
    start::{Replayed, Stop},
    update::Updating,
};
use crate::{
    device::Clock,
    journal::Journal,
    link::{Identity, Lanes, Link, METER, join},
    net::{Cidr, dns},
    plugins::lister::Ask,
    runtime::Exited,
    streams::Streams,
    views::{Counters, Samples},
};
use limpet_agent_core::{
    Input, PodManager, Sync,
    plan::HostFacts,
    pods::PodMemory,
    schedules::Schedules,
    services,
    status::{self, NodeFacts, Outbox},
};
use limpet_protocol::{Up, topic::Channel};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// Below this difference the hub's time is not worth a record.
pub(super) const FLOOR_STEP_MS: u64 = 3_600_000;
pub(super) const LOOK_AGAIN_MS: u64 = 600_000;
/// While something is wrong, so that its end is soon known.
const LOOK_AGAIN_TROUBLED_MS: u64 = 10_000;
/// After something did not fit on the disk.
pub(super) const LOOK_SOON_MS: u64 = 500;
/// After an image came: the hub's scheduler wants to know, and several that come together are said at once.
const LOOK_AT_IMAGES_MS: u64 = 10_000;

pub struct Agent {
    pub(super) options: StartOptions,
    pub(super) clock: Clock,
    pub(super) journal: Journal,
    pub(super) sync: Sync,
    pub(super) pods: PodManager,
    pub(super) schedules: Schedules,
    pub(super) outbox: Outbox,
    pub(super) removals: Removals,
    pub(super) kept: super::kept::Kept,
    pub(super) meters: super::metered::Meters,
    pub(super) messaging: super::messages::Messaging,
    pub(super) updating: Updating,
    pub(super) systems: Systems,
    pub(super) hands: Hands,
    pub(super) identity: watch::Sender<Arc<Identity>>,
    pub(super) facts: NodeFacts,
    /// Until the pods have them.
    pub(super) memories: BTreeMap<String, PodMemory>,
    pub(super) own_pods: services::Local,
    pub(super) urgent: VecDeque<Up>,
    pub(super) lanes: Option<Lanes>,
    pub(super) streams: Option<Streams>,
    pub(super) hang_up: Arc<tokio::sync::Notify>,
    pub(super) floor_ms: u64,
    /// When memory that is not needed any more is given back.
    pub(super) rest: super::rest::Rest,
    pub(super) look_at_ms: u64,
    spins: super::spins::Spins,
    /// Images were removed: the node's list of them is another.
    pub(super) images_gone: Arc<tokio::sync::Notify>,
    pub(super) watch: super::pressure::Watch,
    pub(super) cidr: Option<Cidr>,
    pub(super) names: dns::Shared,
    pub(super) renewal: super::renewal::State,
    /// Questions of programs on the board.
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) counters: Counters,
    /// So long pods have taken in this round of the loop.
    pub(super) round: Duration,
    pub(super) samples: Arc<Samples>,
    pub(super) began_ms: u64,
    events_said: usize,
    pub(super) spare: super::spare::Spare,
    pub(super) sign: crate::sign::Sign,
}

impl Agent {
    pub fn new(
        options: StartOptions,
        clock: Clock,
        journal: Journal,
        replayed: Replayed,
        hands: Hands,
        identity: watch::Sender<Arc<Identity>>,
    ) -> Agent {
        let mut hands = hands;
        let kept = super::kept::Kept::new(&options.config, &mut hands.logs);
        let mut facts = node::facts(&identity.borrow().answer, &options.config, &options.paths, &hands.runtime);
        let updating = Updating::new(&options.paths.data);
        facts.agent_version = updating.version();
        let systems = Systems::new(&options.paths.data);
        node::enforce_allocatable(&facts, &hands.runtime);
        node::load_app_armor();
        let watch = super::pressure::Watch::new(&options.config, &options.paths);
        let mut outbox = Outbox::new(replayed.version_ceiling);
        outbox.remember(replayed.events);
        Agent {
            outbox,
            removals: Removals::new(),
            kept,
            messaging: super::messages::Messaging::new(
                &options.paths.data,
                &options.paths.run,
                replayed.sync.session().saturating_mul(1 << 20),
            ),
            meters: super::metered::Meters::new(replayed.link, hands.gates.clone()),
            updating,
            systems,
            sync: replayed.sync,
            memories: replayed.memories,
            own_pods: services::Local::default(),
            floor_ms: replayed.time_floor,
            pods: PodManager::new(),
            schedules: Schedules::default(),
            urgent: VecDeque::new(),
            lanes: None,
            streams: None,
            hang_up: Arc::default(),
            rest: super::rest::Rest::default(),
            look_at_ms: 0,
            spins: super::spins::Spins::default(),
            images_gone: Arc::default(),
            watch,
            cidr: None,
            names: dns::Shared::default(),
            spare: super::spare::Spare::default(),
            sign: crate::sign::Sign::new(&options.paths.run, options.config.led.as_deref()),
            renewal: super::renewal::State::default(),
            asks: mpsc::channel(1).1,
            counters: Counters::default(),
            round: Duration::ZERO,
            samples: Arc::default(),
            began_ms: clock.wall_ms(),
            events_said: 0,
            options,
            clock,
            journal,
            hands,
            identity,
            facts,
        }
    }

    /// The loop. Ends when the agent is told to stop, or when going on makes no sense.
    pub async fn run(
        &mut self,
        mut link: Link,
        mut outcomes: mpsc::UnboundedReceiver<Input>,
        mut exited: mpsc::UnboundedReceiver<Exited>,
    ) -> Result<(), Stop> {
        let signal = |kind| tokio::signal::unix::signal(kind).map_err(|e| Stop::Again(e.to_string()));
        let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
        self.hang_up = link.hang_up.clone();
        let mut manifests = self.manifest_changes();
        let mut plugged = self.device_changes();
        let mut locks = self.lock_changes();
        self.read_locks();
        let (devices, images_gone) = (self.hands.plugins.changed(), self.images_gone.clone());
        let (renewed_tell, mut renewed) = mpsc::channel::<Result<Identity, join::JoinError>>(1);
        loop {
            self.settle();
            if self.updating.leaves() {
                self.pay();
                return Err(Stop::Update);
            }
            self.renew_if_due(&renewed_tell);
            let wake = self.clock.instant(self.wake_at());
            let waiting = self.lanes.as_ref().filter(|_| self.wants_to_send()).map(|l| l.state.clone());
            tokio::select! {
                biased;
                _ = terminate.recv() => {
                    log::info!("stopping; containers carry on");
                    self.write_link_use();
                    self.pay();
                    return Ok(());
                }
                Some(exit) = exited.recv() => self.hands.exited(exit),
                Some(fetched) = self.updating.done.recv() => self.update_fetched(fetched),
                Some(fetched) = self.systems.done.recv() => self.system_fetched(fetched),
                Some(grown) = self.kept.grown.recv() => self.log_has_grown(&grown),
                Some((whose, chunk)) = self.kept.pieces.recv() => self.piece_was_read(&whose, chunk),
                Some(volume) = self.removals.done.recv() => self.is_removed(volume),
                Some(outcome) = outcomes.recv() => {
                    if let Input::PodRemoved { uid } = &outcome {
                        self.kept.logs.gone(self.clock.now(), uid);
                        self.messaging.local.close(uid);
                    }
                    match outcome {
                        Input::AskedImage { image, error } => self.asked_image(&image, error.as_deref()),
                        outcome => self.pods_input(outcome),
                    }
                    if self.hands.take_disk_full() {
                        self.look_soon();
                    }
                }
                event = link.events.recv() => match event {
                    Some(event) => self.link_event(event),
                    None => return Err(Stop::Again("the link ended".into())),
                },
                Some(result) = renewed.recv() => self.renewed(result),
                Some(message) = self.messaging.local.up.recv() => self.message_up(&message),
                Some(ask) = self.asks.recv() => self.tell_of_devices(ask),
                () = devices.notified() => self.look_soon(),
                () = images_gone.notified() => self.look_soon(),
                () = METER.news.notified() => self.look_at_link(),
                Some(()) = manifests.recv() => self.read_manifests(),
                Some(()) = plugged.recv() => {
                    // A directory of devices may be new.
                    plugged = self.device_changes();
                    self.look_soon();
                }
                Some(()) = locks.recv() => self.read_locks(),
                // Room on the lane to the hub: `settle` uses it.
                _ = room(&waiting), if waiting.is_some() => {}
                () = tokio::time::sleep_until(wake) => self.tick(),
            }
        }
    }

    pub(super) fn pods_input(&mut self, input: Input) {
        let begun = Instant::now();
        self.count(&input);
        if let Input::ImageReady { pulled_in_ms: Some(_), .. } = input {
            self.look_at_ms = self.look_at_ms.min(self.clock.mono_ms() + LOOK_AT_IMAGES_MS);
        }
        let started = match &input {
            Input::ContainerStarted(at) if at.attempt == 0 => Some(at.clone()),
            _ => None,
        };
        self.pods.handle(self.clock.now(), self.sync.items(), input);
        if let Some(at) = started {
            self.has_started(&at);
        }
        self.round += begun.elapsed();
    }

    fn wake_at(&self) -> u64 {
        let now = self.clock.mono_ms();
        self.next_due(now).map_or(now + LOOK_AGAIN_MS, |(at, _)| at).max(now).max(self.spins.not_before())
    }

    /// When something is due, and what.
    fn next_due(&self, now: u64) -> Option<(u64, &'static str)> {
        let timers =
            [self.sync.wake_at(), self.pods.wake_at(), self.outbox.wake_at(), self.schedules.wake_at()];
        // What is due already waits for room on the lane, not for time.
        let kept = self.kept.logs.wake_at().filter(|(at, _)| *at > now);
        let others = [
            (Some(self.rest.due_at()), "give memory back"),
            (self.pressure_at(), "look for what runs short"),
            (self.update_wake_at(), "look at an update"),
            (self.meters.wake_at(self.clock.now()), "look at the link"),
            (self.messaging.wake_at(now), "messages of pods"),
            (Some(self.look_at_ms), "look around"),
        ];
        let others = others.into_iter().filter_map(|(at, what)| Some((at?, what)));
        timers.into_iter().flatten().chain(kept).chain(others).min_by_key(|(at, _)| *at)
    }

    /// Of the agent and of the system.
    fn update_wake_at(&self) -> Option<u64> {
        self.updating.wake_at().into_iter().chain(self.systems.wake_at()).min()
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        if let (Some(times), Some((_, what))) = (self.spins.woken(now.mono_ms), self.next_due(now.mono_ms)) {
            log::error!("woken {times} times within a second to {what}: a fault of this agent; it rests until the next second");
        }
        self.sync.tick(now);
        if self.pods.wake_at().is_some_and(|(at, _)| at <= now.mono_ms) {
            self.pods_input(Input::Tick);
        }
        if self.schedules.wake_at().is_some_and(|(at, _)| at <= now.mono_ms) {
            self.look_at_schedules();
        }
        if self.rest.is_due(now.mono_ms) {
            crate::device::memory::release();
        }
        self.look_at_link();
        self.messaging.tick(now);
        if self.update_wake_at().is_some_and(|at| at <= now.mono_ms) {
            self.look_at_update();
        }
        if self.look_at_ms <= now.mono_ms {
            self.look_around();
            let troubled = !self.facts.problems.is_empty();
            self.look_at_ms = now.mono_ms + if troubled { LOOK_AGAIN_TROUBLED_MS } else { LOOK_AGAIN_MS };
        }
    }

    /// Facts that change seldom: addresses, images, problems.
    pub(super) fn look_around(&mut self) {
        let answer = self.identity.borrow().answer.clone();
        let mut facts = node::facts(&answer, &self.options.config, &self.options.paths, &self.hands.runtime);
        facts.devices = self.hands.device_counts();
        facts.claimable = self.hands.claimable_devices();
        facts.agent_version = self.updating.version();
        facts.own = self.facts.own.clone();
        facts.problems.extend(self.watch.pressure.problems());
        facts.memory_kept_free_bytes = self.watch.pressure.memory_kept_free(facts.memory_bytes);
        let images = self.hands.images.list();
        facts.images = images.into_iter().map(|i| (i.names, i.bytes)).collect();
        if facts != self.facts {
            let said = status::turned(&self.facts, &facts);
            self.facts = facts;
            self.tell_host();
            self.say_of_node(&said);
        }
        self.tell_node(false);
        self.drop_spare_images();
    }

    pub(super) fn say_of_node(&mut self, said: &[(bool, String, String)]) {
        let now = self.clock.now();
        for one in said {
            // Names of Events differ by it where the time does not.
            self.events_said += 1;
            self.outbox.event(status::node_event(&self.facts.name, one, now, self.events_said));
        }
    }

    /// Offers the node's report; `again`: also when it is what was said before.
    pub(super) fn tell_node(&mut self, again: bool) {
        let mirrors = self.options.config.static_pod_dir.as_ref().map(|_| self.pods.mirrors());
        let report = status::node_report(&self.facts, mirrors);
        if again {
            self.outbox.node_again();
        }
        self.outbox.node(report);
    }

    /// Images of pods that the set wants stay, whatever their state: they may not come back over this network.
    pub(super) fn collect_images(&self) {
        self.collect(self.wanted_images());
    }

    pub(super) fn collect(&self, keep: BTreeSet<String>) {
        let (images, gone) = (self.hands.images.clone(), self.images_gone.clone());
        tokio::task::spawn_local(async move { spare::said(&images.collect(&keep).await, &gone) });
    }

    pub(super) fn tell_host(&mut self) {
        let answer = self.identity.borrow().answer.clone();
        let host: HostFacts = node::host_facts(&self.facts, &answer, &self.options.config);
        self.hands.set_network(self.cidr, self.facts.ips.clone());
        self.pods_input(Input::Host(host));
    }

    /// Drains the cores until nothing more follows from what happened.
    fn settle(&mut self) {
        self.watch_pressure();
        loop {
            if let Some(output) = self.sync.poll() {
                self.sync_output(output);
            } else if let Some(action) = self.pods.poll() {
                let begun = Instant::now();
                self.act(action);
                self.round += begun.elapsed();
            } else {
                break;
            }
        }
        let round = std::mem::take(&mut self.round);
        if !round.is_zero() {
            self.hands.took(|t| t.round(round));
        }
        self.send();
        self.compact_if_wanted();
    }
}

async fn room(lane: &Option<mpsc::Sender<(Channel, Vec<u8>)>>) {
    match lane {
        Some(lane) => {
            let _ = lane.reserve().await;
        }
        None => std::future::pending().await,
    }
}
