//! What the cores decided, carried out one by one: records, actions, what follows from a change of the set.
//!
//! In: outputs of `Sync` and `PodManager`. Out: the journal, the hands, the outbox, names and rules of Services.
//! Never: sends what is not on record, but a renewed token's acknowledgement.

use super::{
    act::{Extras, container_id},
    node, notes,
    state::{Agent, FLOOR_STEP_MS, LOOK_SOON_MS},
};
use crate::net::{Cidr, dns};
use limpet_agent_core::{Action, Input, Record, schedules::Due, services, sync::SyncOutput};
use limpet_protocol::{ItemKey, ItemKind, TokenAsk, Up};
use std::time::Duration;

impl Agent {
    pub(super) fn sync_output(&mut self, output: SyncOutput) {
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

    /// Durable when this says so, and with it what waited for an occasion.
    pub(super) fn remember(&mut self, records: &[Record]) -> bool {
        let owed = self.sync.owed();
        let paid = owed.is_empty() || self.journal.append_lazily(&owed).is_ok();
        match self.journal.append(records) {
            Ok(()) if paid => {
                self.sync.recorded();
                true
            }
            Ok(()) => true,
            Err(e) => {
                log::error!("{e}");
                self.look_soon();
                false
            }
        }
    }

    /// Before an orderly end: who comes next begins with the tokens that pods have.
    pub(super) fn pay(&mut self) {
        let owed = self.sync.owed();
        if owed.is_empty() {
            return;
        }
        match self.journal.append(&owed) {
            Ok(()) => self.sync.recorded(),
            Err(e) => log::error!("{e}"),
        }
    }

    pub(super) fn look_soon(&mut self) {
        self.watch.at_ms = self.watch.at_ms.min(self.clock.mono_ms() + LOOK_SOON_MS);
        self.look_at_ms = self.look_at_ms.min(self.clock.mono_ms() + LOOK_SOON_MS);
    }

    pub(super) fn changed(&mut self, keys: Vec<ItemKey>) {
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
    pub(super) fn look_at_schedules(&mut self) {
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

    pub(super) fn set_cidr(&mut self, cidr: Option<Cidr>) {
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
    pub(super) fn look_at_own_pods(&mut self) {
        let own = services::Local::new(&self.identity.borrow().answer.node_name, self.pods.pods());
        if own != self.own_pods {
            self.own_pods = own;
            self.refresh_names();
        }
    }

    pub(super) fn refresh_names(&mut self) {
        let table = services::table(self.sync.items(), &self.own_pods);
        let name = self.identity.borrow().answer.node_name.clone();
        if let Err(e) = self.hands.runtime.set_services(node::rules(&table, &name)) {
            log::error!("the rules for Services cannot be set: {e}");
        }
        self.names.replace(services::Names::new(&self.options.config.cluster_domain, table));
    }

    pub(super) fn act(&mut self, action: Action) {
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
            Action::Note(note) => {
                if let Err(e) = notes::write(&self.hands.paths.run, &note) {
                    log::warn!("pod {}: its state is not noted for the next agent: {e}", note.uid);
                }
            }
            Action::Forget { uid } => {
                notes::remove(&self.hands.paths.run, &uid);
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

    pub(super) fn ip_of(&self, uid: &str) -> String {
        let pod = self.pods.pods().find(|p| **p.uid == *uid);
        match pod {
            // A board that has no address is itself all the same.
            Some(pod) if pod.object.spec.host_network => {
                self.facts.ips.first().cloned().unwrap_or_else(|| "127.0.0.1".into())
            }
            Some(pod) => pod.ips.first().cloned().unwrap_or_default(),
            None => String::new(),
        }
    }

    pub(super) fn compact_if_wanted(&mut self) {
        if !self.journal.wants_compaction() {
            return;
        }
        let mut records: Vec<Record> = self.sync.snapshot().collect();
        records.extend(self.pods.snapshot().map(Record::Pod));
        records.extend(self.outbox.snapshot());
        records.extend([Record::TimeFloor(self.floor_ms), self.meters.core.record()]);
        match self.journal.compact(&records) {
            Ok(()) => self.sync.recorded(),
            Err(e) => log::error!("{e}"),
        }
    }
}
