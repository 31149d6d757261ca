//! The conversation with the hub: sessions, reports, streams.
//!
//! In: the link's events. Out: inputs for the cores, messages for the lanes.
//! Never: acts on a message of another session, or sends before the journal has what the message tells of.

use super::{act::container_id, state::Agent};
use crate::{
    device,
    link::LinkEvent,
    streams::{Context, Streams, Target},
};
use limpet_agent_core::{Record, metered::Traffic, pods::ContainerRef, status::OutboxOutput};
use limpet_protocol::{Down, Envelope, Hello, StreamKind, StreamOpen, topic::Channel};

impl Agent {
    pub(super) fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(lanes) => {
                // The way may be another one than before, and so the board's address.
                self.look_soon();
                let hello = Hello {
                    agent_version: self.updating.version(),
                    boot_id: device::boot_id(),
                    instance: self.identity.borrow().instance,
                    clock_ms: self.clock.wall_ms(),
                    ..Hello::default()
                };
                self.urgent.clear();
                self.sync.connected(hello);
                let context = Context {
                    runtime: self.hands.runtime.clone(),
                    logs: self.hands.logs.clone(),
                    data_dir: self.options.paths.data.clone(),
                    run_dir: self.options.paths.run.clone(),
                    clock: self.clock.clone(),
                    samples: self.samples.clone(),
                };
                (self.counters.connected, self.counters.sessions) = (true, self.counters.sessions + 1);
                self.streams = Some(Streams::new(self.sync.session(), lanes.clone(), context));
                self.lanes = Some(lanes);
                self.look_at_link();
                self.renewal_has_link();
                self.sign.nothing();
            }
            LinkEvent::Message(bytes) => match Envelope::<Down>::decode(&bytes) {
                Ok(envelope) => self.message(envelope),
                Err(e) => log::warn!("link: a message of the hub is refused: {e}"),
            },
            LinkEvent::Renewed(answer) => self.renewed_by_link(&answer),
            LinkEvent::Astray => self.astray(),
            LinkEvent::Down => {
                if self.lanes.as_ref().is_some_and(|l| l.renewal.is_some()) {
                    self.renewal_cut();
                }
                self.counters.connected = false;
                self.lanes = None;
                self.streams = None;
                self.urgent.clear();
                self.sync.disconnected();
                self.outbox.disconnected();
                self.kept.logs.disconnected();
                self.kept.ready.clear();
                self.messaging.disconnected(self.clock.now());
                self.waits_for_hub();
            }
        }
    }

    /// For whoever stands before the board.
    pub(super) fn waits_for_hub(&mut self) {
        let identity = self.identity.borrow().clone();
        let (name, hubs) = (&identity.answer.node_name, identity.answer.mqtt.join(", "));
        let text = format!("this board is the node {name} and waits for its hub ({hubs}); what it was given to run runs meanwhile");
        self.sign.waits(crate::sign::For::Hub, &text);
    }

    fn message(&mut self, envelope: Envelope<Down>) {
        if let Down::Goodbye { reason } = &envelope.message {
            log::warn!("link: the hub ends the session: {reason}");
            self.hang_up.notify_one();
            return;
        }
        if envelope.session != self.sync.session() {
            return;
        }
        let now = self.clock.now();
        match envelope.message {
            Down::Welcome(welcome) => {
                log::info!("link: welcome at the hub; protocol version {}", welcome.speak);
                self.sync.welcome(now, &welcome);
                self.outbox.connected(self.sync.speaks());
                self.kept.logs.connected(self.sync.speaks());
                self.messaging.store.connected(self.sync.speaks());
                self.look_at_update();
            }
            Down::Change(change) => self.sync.change(now, change),
            Down::Step(step) => self.sync.step(now, step),
            Down::EventsTaken { number } => self.outbox.events_taken(number),
            Down::LogTaken(taken) => self.kept.logs.taken(now, &taken),
            Down::Reported { uid, version } => {
                if uid.is_empty() {
                    self.update_heard();
                }
                self.outbox.reported(&uid, version);
            }
            Down::TokenAnswer(answer) => {
                log::warn!("the hub gives no token for {}: {}", answer.key.name, answer.error);
            }
            Down::Stream(frame) => {
                if let Some(mut streams) = self.streams.take() {
                    streams.frame(frame, |open| self.find(open));
                    self.streams = Some(streams);
                }
            }
            Down::MessagesTaken { number } => self.messaging.taken(number),
            Down::Message(message) => self.message_down(&message),
            Down::Goodbye { .. } => {}
        }
    }

    /// What a stream means, or a sentence why that is not there.
    fn find(&self, open: &StreamOpen) -> Result<Target, String> {
        if let Some(why) = self.link_holds(Traffic::Streams) {
            return Err(why);
        }
        if let StreamKind::NodeGet { path } = &open.kind {
            return self.node_get(path);
        }
        let (name, namespace) = (&open.pod, &open.namespace);
        let pod = self.pods.pods().find(|p| {
            p.object.metadata.name == *name
                && p.object.metadata.namespace == *namespace
                && (open.uid.is_empty() || self.pods.is_at_hub(p, &open.uid))
        });
        let pod = pod.ok_or_else(|| format!("pod \"{name}\" in namespace \"{namespace}\" is not on this node"))?;
        let mut target = Target {
            uid: pod.uid.to_string(),
            host_network: pod.object.spec.host_network,
            ..Target::default()
        };
        let (container, previous) = match &open.kind {
            StreamKind::Logs { container, previous, .. } => (container, *previous),
            StreamKind::Exec { container, .. } | StreamKind::Attach { container, .. } => (container, false),
            StreamKind::PortForward { .. } | StreamKind::NodeGet { .. } => return Ok(target),
        };
        let spec = &pod.object.spec;
        let found = spec.all_containers().find(|c| c.name == *container);
        let found = found.ok_or_else(|| format!("container {container} is not valid for pod {name}"))?;
        let view = self.pods.container(pod.uid, container).ok_or("the container is not known yet")?;
        let attempt = match open.kind {
            StreamKind::Logs { .. } => self.pods.logged(pod.uid, container, previous)?,
            _ => view.attempt.unwrap_or(0),
        };
        target.running = view.running;
        if !view.running && !matches!(open.kind, StreamKind::Logs { .. }) {
            return Err(format!("container not found (\"{container}\")"));
        }
        target.container.clone_from(container);
        target.attempt = attempt;
        target.stdin_once = found.stdin_once;
        target.container_id =
            container_id(&ContainerRef { uid: pod.uid.clone(), container: container.as_str().into(), attempt });
        Ok(target)
    }

    pub(super) fn wants_to_send(&self) -> bool {
        !self.urgent.is_empty()
            || (self.sync.welcomed() && self.something_waits())
    }

    fn something_waits(&self) -> bool {
        let now = self.clock.now();
        let logs = !self.kept.ready.is_empty() || self.kept.logs.wake_at().is_some_and(|(at, _)| at <= now.mono_ms);
        self.outbox.wants(now) || logs || self.messaging.store.wants(now)
    }

    /// Without a connection: what should outlive a reboot goes to the journal.
    fn keep_reports(&mut self) {
        let now = self.clock.now();
        while let Some(output) = self.outbox.poll(now) {
            match output {
                OutboxOutput::Persist(record) => {
                    if !self.remember(&[record]) {
                        return self.outbox.unpersisted(now);
                    }
                }
                OutboxOutput::Keep(record) => self.keep(&record),
                OutboxOutput::Send(..) => return,
            }
        }
    }

    fn keep(&mut self, record: &Record) {
        if let Err(e) = self.journal.append_lazily(std::slice::from_ref(record)) {
            log::error!("{e}");
        }
    }

    /// Sends what there is room for: the session's own messages first, then reports, then Events.
    pub(super) fn send(&mut self) {
        let now = self.clock.now();
        if self.lanes.is_none() {
            return self.keep_reports();
        }
        while let Some(lanes) = self.lanes.clone() {
            let Ok(permit) = lanes.state.try_reserve() else { return };
            let (channel, message) = if let Some(up) = self.urgent.pop_front() {
                (Channel::State, up)
            } else {
                match self.outbox.poll(now) {
                    Some(OutboxOutput::Persist(record)) => {
                        if !self.remember(&[record]) {
                            // Without the record versions could fall: rather say nothing for now.
                            self.outbox.unpersisted(now);
                            return;
                        }
                        continue;
                    }
                    Some(OutboxOutput::Keep(record)) => {
                        self.keep(&record);
                        continue;
                    }
                    Some(OutboxOutput::Send(channel, up)) => (channel, up),
                    None => match self.next_of_logs(now).or_else(|| self.messaging.store.poll(now)) {
                        Some(up) => (Channel::Event, up),
                        None => return,
                    },
                }
            };
            let envelope = Envelope { session: self.sync.session(), message };
            permit.send((channel, envelope.encode(self.sync.speaks())));
            self.rest.said(now.mono_ms);
        }
    }
}
