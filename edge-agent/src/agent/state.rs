//! The agent's loop: one thing happens, the cores decide, what must be durable is made so, the rest follows.
//!
//! In: the link's events, outcomes of actions, exits of containers, time. Out: records, actions, messages, in that
//! order.
//! Never: waits for anything inside a step.

use super::{
    StartOptions,
    act::{Extras, Hands, container_id},
    manifests, node,
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
    runtime::{self, Exited},
    streams::Streams,
    views::{Counters, Samples},
};
use limpet_agent_core::{
    Action, Input, PodManager, Record, Sync,
    plan::{self, HostFacts},
    schedules::{Due, Schedules},
    pods::{AdoptedContainer, AdoptedPod, ContainerRef, Exit, PodMemory},
    services,
    status::{self, NodeFacts, Outbox},
    sync::SyncOutput,
};
use limpet_protocol::{ItemKey, ItemKind, TokenAsk, Up, topic::Channel};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// Below this difference the hub's time is not worth a record.
const FLOOR_STEP_MS: u64 = 3_600_000;
pub(super) const LOOK_AGAIN_MS: u64 = 600_000;
/// While something is wrong, so that its end is soon known.
const LOOK_AGAIN_TROUBLED_MS: u64 = 10_000;
/// After something did not fit on the disk.
const LOOK_SOON_MS: u64 = 500;
/// After an image came: the hub's scheduler wants to know, and several that come together are said at once.
const LOOK_AT_IMAGES_MS: u64 = 10_000;

pub struct Agent {
    pub(super) options: StartOptions,
    pub(super) clock: Clock,
    pub(super) journal: Journal,
    pub(super) sync: Sync,
    pub(super) pods: PodManager,
    schedules: Schedules,
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
    memories: BTreeMap<String, PodMemory>,
    own_pods: services::Local,
    pub(super) urgent: VecDeque<Up>,
    pub(super) lanes: Option<Lanes>,
    pub(super) streams: Option<Streams>,
    pub(super) hang_up: Arc<tokio::sync::Notify>,
    floor_ms: u64,
    /// When code that is not needed any more is given back.
    pub(super) code_at_ms: Option<u64>,
    look_at_ms: u64,
    pub(super) watch: super::pressure::Watch,
    cidr: Option<Cidr>,
    names: dns::Shared,
    pub(super) renewal: super::renewal::State,
    /// Questions of programs on the board.
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) counters: Counters,
    /// So long pods have taken in this round of the loop.
    round: Duration,
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
            code_at_ms: None,
            look_at_ms: 0,
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

    /// Before the loop: what the journal remembers and what still runs.
    pub fn begin(&mut self, cidr: Option<Cidr>) {
        self.set_cidr(cidr);
        self.tell_host();
        self.read_manifests();
        self.refresh_names();
        for memory in std::mem::take(&mut self.memories).into_values() {
            self.pods_input(Input::Remembered(memory));
        }
        self.look_at_left();
        for found in self.find_pods() {
            self.pods_input(Input::Adopted(found));
        }
        self.pods_input(Input::Begin);
        self.sync.rest();
        for found in self.hands.runtime.list() {
            let (uid, container) = (found.pod_uid.as_str().into(), found.name.as_str().into());
            let at = ContainerRef { uid, container, attempt: found.attempt };
            self.pods_input(Input::ContainerUser { at, user: super::act::ran_as(&found.user) });
        }
        self.look_at_own_pods();
        self.look_at_kept();
        self.reopen_brokers();
        self.read_link_policy();
        self.look_at_schedules();
        self.look_at_released();
        self.say_of_node(&status::beginning());
        self.look_at_update();
        self.look_at_asked_images();
        self.waits_for_hub();
    }

    /// What lies in the directory of static pods.
    fn read_manifests(&mut self) {
        if let Some(dir) = self.options.config.static_pod_dir.clone() {
            let pods = manifests::read(&dir, &self.facts.name);
            self.pods_input(Input::Static(pods));
        }
    }

    /// Changes in that directory; never anything when there is none.
    fn manifest_changes(&self) -> mpsc::Receiver<()> {
        if let Some(dir) = &self.options.config.static_pod_dir {
            match manifests::watch(dir) {
                Ok(changes) => return changes,
                Err(e) => log::error!("static pods: {} is not watched, changes count at the next start: {e}", dir.display()),
            }
        }
        mpsc::channel(1).1
    }

    fn find_pods(&mut self) -> Vec<AdoptedPod> {
        let runtime = self.hands.runtime.clone();
        let mut pods: BTreeMap<String, AdoptedPod> = BTreeMap::new();
        let pod_of = |uid: &str| AdoptedPod { uid: uid.into(), ..AdoptedPod::default() };
        for uid in runtime.list_sandboxes() {
            let mut pod = pod_of(&uid);
            if runtime.sandbox_exists(&uid) {
                let ip = runtime.pod_ip(&uid).map(|ip| vec![ip.to_string()]);
                pod.sandbox = Some(ip.unwrap_or_else(|| self.facts.ips.clone()));
            }
            pods.insert(uid, pod);
        }
        let mut found = runtime.list();
        found.sort_by_key(|f| f.attempt);
        for f in found {
            let pod = pods.entry(f.pod_uid.clone()).or_insert_with(|| pod_of(&f.pod_uid));
            // Only the newest attempt of a container counts.
            let (older, kept): (Vec<_>, Vec<_>) = pod.containers.drain(..).partition(|c| c.name == f.name);
            pod.containers = kept;
            for old in older {
                self.hands.remove_container(plan::container_id(&f.pod_uid, &old.name, old.attempt));
            }
            let at = ContainerRef {
                uid: f.pod_uid.as_str().into(),
                container: f.name.as_str().into(),
                attempt: f.attempt,
            };
            let from_log = f.annotations.contains_key(super::convert::MESSAGE_FROM_LOG);
            let exit = match f.state {
                runtime::State::Running => None,
                runtime::State::Exited(ended) => Some(Exit {
                    code: ended.code,
                    oom_killed: ended.oom_killed,
                    message: self.hands.last_words_of(&at, from_log, ended.code),
                    finished_ms: u64::try_from(ended.at_ms).unwrap_or(0),
                    unknown: ended.unseen,
                }),
            };
            if exit.is_none() {
                log::info!("pod {}/{}: container {} still runs and is adopted", f.namespace, f.pod_name, f.name);
            }
            let kept = self.keeps(&f.pod_uid, &f.name);
            self.hands.adopt(&f.id, at, &f.annotations, kept);
            pod.containers.push(AdoptedContainer {
                name: f.name,
                attempt: f.attempt,
                started_ms: u64::try_from(f.started_ms).unwrap_or(0),
                exit,
            });
        }
        pods.into_values().collect()
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
        let mut locks = self.lock_changes();
        self.read_locks();
        let devices = self.hands.plugins.changed();
        let (renewed_tell, mut renewed) = mpsc::channel::<Result<Identity, join::JoinError>>(1);
        loop {
            self.settle();
            if self.updating.leaves() {
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
                () = METER.news.notified() => self.look_at_link(),
                Some(()) = manifests.recv() => self.read_manifests(),
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
        let timers =
            [self.sync.wake_at(), self.pods.wake_at(), self.outbox.wake_at(), self.schedules.wake_at()];
        // What is due already waits for room on the lane, not for time.
        let kept = self.kept.logs.wake_at().filter(|(at, _)| *at > now);
        let core = timers.into_iter().flatten().chain(kept).map(|(at, _)| at);
        let link = self.meters.wake_at(self.clock.now());
        let others = self.code_at_ms.into_iter().chain(self.pressure_at()).chain(self.update_wake_at());
        let others = others.chain(link).chain(self.messaging.wake_at(now)).chain([self.look_at_ms]);
        core.chain(others).min().unwrap_or(now + LOOK_AGAIN_MS).max(now)
    }

    /// Of the agent and of the system.
    fn update_wake_at(&self) -> Option<u64> {
        self.updating.wake_at().into_iter().chain(self.systems.wake_at()).min()
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.sync.tick(now);
        if self.pods.wake_at().is_some_and(|(at, _)| at <= now.mono_ms) {
            self.pods_input(Input::Tick);
        }
        if self.schedules.wake_at().is_some_and(|(at, _)| at <= now.mono_ms) {
            self.look_at_schedules();
        }
        if self.code_at_ms.is_some_and(|at| at <= now.mono_ms) {
            // Nothing was said for a while: what starting and joining needed can go.
            self.code_at_ms = None;
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
        let images = self.hands.images.clone();
        tokio::task::spawn_local(async move { spare::said(&images.collect(&keep).await) });
    }

    fn tell_host(&mut self) {
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

    fn sync_output(&mut self, output: SyncOutput) {
        match output {
            SyncOutput::Persist(records) => {
                let mut records = self.pods.with_sizes(records);
                // Only what the hub said counts: a clock that is wrong in the future must not stay so for ever.
                let floor = self.clock.floor_ms();
                let later = floor > self.floor_ms + FLOOR_STEP_MS;
                if later {
                    records.push(Record::TimeFloor(floor));
                }
                let good = self.remember(&records);
                if good && later {
                    self.floor_ms = floor;
                }
                self.sync.persisted(good);
            }
            SyncOutput::Send(up) => self.urgent.push_back(up),
            SyncOutput::Changed(keys) => self.changed(keys),
            SyncOutput::HubTime(ms) => {
                self.clock.told(ms);
                self.look_at_link();
                if ms > self.floor_ms + 24 * FLOOR_STEP_MS {
                    self.remember(&[Record::TimeFloor(ms)]);
                    self.floor_ms = ms;
                }
                self.pods.linked(self.clock.now());
            }
        }
    }

    pub(super) fn remember(&mut self, records: &[Record]) -> bool {
        match self.journal.append(records) {
            Ok(()) => true,
            Err(e) => {
                log::error!("{e}");
                self.look_soon();
                false
            }
        }
    }

    pub(super) fn look_soon(&mut self) {
        self.watch.at_ms = self.watch.at_ms.min(self.clock.mono_ms() + LOOK_SOON_MS);
        self.look_at_ms = self.look_at_ms.min(self.clock.mono_ms() + LOOK_SOON_MS);
    }

    fn changed(&mut self, keys: Vec<ItemKey>) {
        if keys.iter().any(|k| k.kind == ItemKind::Node) {
            let name = self.identity.borrow().answer.node_name.clone();
            self.set_cidr(node::pod_cidr(self.sync.items(), &name));
            self.read_link_policy();
            self.look_at_update();
            self.look_at_asked_images();
        }
        if keys.iter().any(|k| matches!(k.kind, ItemKind::Service | ItemKind::EndpointSlice)) {
            self.refresh_names();
        }
        let schedules = keys.iter().any(|k| k.kind == ItemKind::Schedule);
        let pods = keys.iter().any(|k| k.kind == ItemKind::Pod);
        let released = keys.iter().any(|k| k.kind == ItemKind::Claim && k.namespace.is_empty());
        self.pods_input(Input::Changed(keys));
        if pods {
            self.look_at_kept();
        }
        if released {
            self.look_at_released();
        }
        if schedules {
            self.look_at_schedules();
        }
    }

    /// Runs that are due while the hub is away become items of the set, as if the hub had sent them: so they survive what
    /// pods survive, and the hub, which makes the same runs, takes them over when it is back.
    fn look_at_schedules(&mut self) {
        let there = self.sync.welcomed();
        for due in self.schedules.look(self.clock.now(), self.sync.items(), &self.pods, there) {
            let (key, record) = match due {
                Due::Start(item) => (item.key.clone(), Record::Put(item)),
                Due::Remove(key) => (key.clone(), Record::Remove(key)),
            };
            log::info!("schedule: {} while the hub is away", key.name);
            if self.remember(std::slice::from_ref(&record)) {
                self.sync.replay(record);
                self.pods_input(Input::Changed(vec![key]));
                self.sync.rest();
            }
        }
    }

    fn set_cidr(&mut self, cidr: Option<Cidr>) {
        let Some(cidr) = cidr.filter(|c| Some(*c) != self.cidr) else { return };
        log::info!("pods of this node have addresses in {cidr}");
        self.cidr = Some(cidr);
        self.hands.set_network(Some(cidr), self.facts.ips.clone());
        if let Err(e) = self.hands.runtime.set_pod_cidr(cidr) {
            log::error!("the pods' network cannot be set up: {e}");
        }
        dns::start(cidr.gateway(), self.names.clone());
    }

    /// A pod of this node has another address, or is ready or not: its Services hear of it before the hub does.
    fn look_at_own_pods(&mut self) {
        let own = services::Local::new(&self.identity.borrow().answer.node_name, self.pods.pods());
        if own != self.own_pods {
            self.own_pods = own;
            self.refresh_names();
        }
    }

    fn refresh_names(&mut self) {
        let table = services::table(self.sync.items(), &self.own_pods);
        let name = self.identity.borrow().answer.node_name.clone();
        if let Err(e) = self.hands.runtime.set_services(node::rules(&table, &name)) {
            log::error!("the rules for Services cannot be set: {e}");
        }
        self.names.replace(services::Names::new(&self.options.config.cluster_domain, table));
    }

    fn act(&mut self, action: Action) {
        if matches!(action, Action::Report { .. } | Action::PodGone { .. }) {
            self.look_at_own_pods();
        }
        match action {
            Action::SetupVolumes { uid, volumes, .. } => self.hands.set_up_volumes(uid, volumes),
            Action::UpdateVolumes { uid, volumes } => self.hands.update_volumes(&uid, &volumes),
            Action::CreateSandbox { uid, plan } => self.hands.create_sandbox(uid, *plan),
            Action::PullImage { uid, container, image, policy, secrets } => {
                self.hands.pull_image(uid, container, (image, policy), secrets);
            }
            Action::ReadEnvFiles { uid, container, files } => self.hands.read_env_files(uid, container, files),
            Action::StartContainer { uid, plan } => {
                self.look_at_kept();
                let kept = self.keeps(&uid, &plan.name);
                let broker = self.open_broker(&uid);
                self.hands.start_container(uid, *plan, Extras { kept, broker });
            }
            Action::Signal { at, signal } => self.hands.signal(&container_id(&at), &signal),
            Action::RunHook { at, hook, check, timeout_ms } => {
                let ip = self.ip_of(&at.uid);
                self.hands.hook(at, hook, check, ip, Duration::from_millis(timeout_ms));
            }
            Action::RunProbe { at, kind, check, timeout_ms } => {
                let ip = self.ip_of(&at.uid);
                self.hands.probe(at, kind, check, ip, Duration::from_millis(timeout_ms));
            }
            Action::Resize { at, resources } => self.hands.resize(at, &resources),
            Action::ResizePod { uid, resources, last } => self.hands.resize_pod(uid, &resources, last),
            Action::RemoveSandbox { uid } => self.hands.remove_sandbox(uid),
            Action::RemovePod { uid } => {
                let left = self.left_of(&uid);
                self.hands.remove_pod(uid, left);
            }
            Action::RemoveContainer { at } => self.hands.remove_container(container_id(&at)),
            Action::Report { uid, namespace, name, status } => self.outbox.pod(uid, namespace, name, status),
            Action::PodGone { uid, namespace, name } => self.outbox.gone(uid, namespace, name),
            Action::Event(event) => self.outbox.event(event),
            Action::Remember(memory) => {
                // Not worth a wait for the card: what a power cut loses here is a restart count.
                let lazily = memory.terminal.is_none();
                let records = [Record::Pod(memory)];
                let result = if lazily { self.journal.append_lazily(&records) } else { self.journal.append(&records) };
                if let Err(e) = result {
                    log::error!("{e}");
                }
            }
            Action::Forget { uid } => {
                self.outbox.forget(&uid);
                let record = Record::ForgetPod(uid.to_string());
                if let Err(e) = self.journal.append_lazily(&[record]) {
                    log::error!("{e}");
                }
            }
            Action::Remirror => self.tell_node(true),
            Action::AskToken(key) => self.urgent.push_back(Up::TokenAsk(TokenAsk { key })),
        }
    }

    fn ip_of(&self, uid: &str) -> String {
        let pod = self.pods.pods().find(|p| **p.uid == *uid);
        match pod {
            Some(pod) if pod.object.spec.host_network => "127.0.0.1".into(),
            Some(pod) => pod.ips.first().cloned().unwrap_or_default(),
            None => String::new(),
        }
    }

    fn compact_if_wanted(&mut self) {
        if !self.journal.wants_compaction() {
            return;
        }
        let mut records: Vec<Record> = self.sync.snapshot().collect();
        records.extend(self.pods.snapshot().map(Record::Pod));
        records.extend(self.outbox.snapshot());
        records.extend([Record::TimeFloor(self.floor_ms), self.meters.core.record()]);
        if let Err(e) = self.journal.compact(&records) {
            log::error!("{e}");
        }
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
