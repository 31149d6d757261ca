//! One task that owns every node's session.
//!
//! In: the broker's messages, dirty nodes, stream frames, outcomes of writes and tokens, timers. Out: what the
//! sessions ask for. Writes of one node are applied one after the other, those of different nodes side by side.
//! Never: waits for the disk or for a node.

use super::{Offline, Presence, arrival::{self, Arrivals}};
use crate::{
    enroll::Enroll,
    kept::{About, KeptLogs},
    messages::Messages,
    run::{Applier, Listener, Streams, clock, streams, tokens},
};
use bytes::Bytes;
use limpet_broker::{Broker, FromNode, SendError};
use limpet_hub_core::{
    Change, Changed, EventType, ObjectStore, Regarding, Timestamp,
    nodes::{
        desired::{TokenWanted, nodes_for},
        ipam::Ranges,
        session::{Session, SessionInput, SessionOutput},
    },
    view::Node,
};
use limpet_protocol::{BoardMessage, Down, Envelope, ItemKey, LogPiece, LogTaken, PROTOCOL_VERSION, Up, topic::Channel};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{Notify, Semaphore, mpsc};

const COMPONENT: &str = "limpet-node";
/// A report is worked out anew when the view has had time to learn of what it collided with.
const CONFLICT_AGAIN_MS: i64 = 50;
const REFUSED_AGAIN_MS: i64 = 2000;
/// Writes and tokens of all nodes that are under way at the same time.
const UNDER_WAY_MAX: usize = 256;
/// Messages kept while a new node's object is made.
const EARLY_MAX: usize = 64;
/// Messages of people to boards that wait for this task.
const SAYS_MAX: usize = 1024;
/// Messages of one node's workloads that wait for the disk; the node says again what is not confirmed.
const MESSAGES_MAX: usize = 256;

/// The outcome of something that a session asked for.
enum Outcome {
    Written { node: String, ticket: u64, result: Result<(), (Option<i64>, String)> },
    Token { node: String, key: ItemKey, result: Result<(u64, Vec<u8>), String> },
    /// A piece of a log is on the disk, or is not to be; `None`: the disk failed.
    Kept { node: String, taken: Option<LogTaken> },
    /// Messages up to a number are on the disk; `None`: they are not.
    Stored { node: String, number: Option<u64> },
    /// The Node object of this connection exists.
    Arrived { node: String, connection: u64 },
}

struct One {
    session: Session,
    wake: Option<Timestamp>,
    /// Writes that wait for the one that is under way.
    writes: VecDeque<(u64, Vec<Change>)>,
    writing: bool,
    /// A piece of a log is being written.
    keeping: bool,
    row: MessageRow,
    /// What a connection said whose Node object is still being made.
    early: Option<(u64, Vec<SessionInput>)>,
}

/// Messages of a node's workloads on their way to the disk.
#[derive(Default)]
struct MessageRow {
    /// Number of the newest one of an unbroken row.
    last: u64,
    waiting: Vec<BoardMessage>,
    writing: bool,
}

#[derive(Default)]
struct Marks {
    dirty: BTreeSet<String>,
    removed: BTreeSet<String>,
    /// Removed nodes whose keys are not forgotten yet: the gate is closed to them.
    leaving: BTreeSet<String>,
    /// Copies of cards that were kept out: hardware and address, by node.
    copies: BTreeMap<String, (String, String)>,
    /// Nodes that another device is from now on.
    repaired: BTreeSet<String>,
    /// What is to be said to nodes, in order.
    says: VecDeque<(String, Down)>,
}

/// Collects which nodes a change concerns; the task takes them from here.
pub struct Nodes {
    marks: Mutex<Marks>,
    news: Notify,
}

/// What the sessions work with.
pub struct Links {
    pub broker: Broker,
    pub from_nodes: mpsc::Receiver<FromNode>,
    pub streams: Streams,
    pub to_nodes: mpsc::Receiver<streams::ToNode>,
    pub applier: Arc<Applier>,
    pub offline: Arc<Offline>,
    pub enroll: Arc<Enroll>,
    pub presence: Arc<Presence>,
    pub(crate) kept: Arc<KeptLogs>,
    pub(crate) messages: Arc<Messages>,
    /// Where new nodes get their ranges of pod addresses from.
    pub ranges: Ranges,
}

struct Task {
    nodes: Arc<Nodes>,
    sessions: BTreeMap<String, One>,
    wakes: BTreeSet<(Timestamp, String)>,
    broker: Broker,
    applier: Arc<Applier>,
    offline: Arc<Offline>,
    enroll: Arc<Enroll>,
    presence: Arc<Presence>,
    kept: Arc<KeptLogs>,
    messages: Arc<Messages>,
    streams: Streams,
    outcomes: mpsc::UnboundedSender<Outcome>,
    under_way: Arc<Semaphore>,
    arrivals: Arc<Arrivals>,
}

impl Nodes {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Arc<Nodes> {
        Arc::new(Nodes { marks: Mutex::default(), news: Notify::new() })
    }

    /// Starts the task; it ends when the broker does.
    pub fn start(self: &Arc<Self>, links: Links) {
        let (outcomes, outcome_queue) = mpsc::unbounded_channel();
        let task = Task {
            nodes: Arc::clone(self),
            sessions: BTreeMap::new(),
            wakes: BTreeSet::new(),
            broker: links.broker,
            applier: links.applier,
            offline: links.offline,
            enroll: links.enroll,
            presence: links.presence,
            kept: links.kept,
            messages: links.messages,
            streams: links.streams,
            outcomes,
            under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            arrivals: Arc::new(Arrivals::new(links.ranges)),
        };
        tokio::spawn(task.run(links.from_nodes, links.to_nodes, outcome_queue));
    }

    /// Whether the node was removed a moment ago.
    pub fn is_leaving(&self, node: &str) -> bool {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).leaving.contains(node)
    }

    /// Says something to a node, should it be there. `false`: too much waits already.
    pub fn say(&self, node: &str, down: Down) -> bool {
        let mut fits = false;
        self.mark(|marks| {
            fits = marks.says.len() < SAYS_MAX;
            if fits {
                marks.says.push_back((node.into(), down));
            }
        });
        fits
    }

    /// A second device with the key of a node was kept out.
    pub(super) fn copy_noticed(&self, node: &str, hardware: &str, address: &str) {
        self.mark(|marks| {
            marks.copies.insert(node.into(), (hardware.into(), address.into()));
        });
    }

    /// Another device is the node from now on. To be said before its connection is.
    pub(super) fn other_device(&self, node: &str) {
        self.mark(|marks| _ = marks.repaired.insert(node.into()));
    }

    /// What was marked since the last time; `leaving` stays.
    fn take(&self) -> Marks {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let leaving = marks.leaving.clone();
        std::mem::replace(&mut *marks, Marks { leaving, ..Marks::default() })
    }

    fn mark(&self, change: impl FnOnce(&mut Marks)) {
        change(&mut self.marks.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.notify_one();
    }
}

impl Listener for Nodes {
    fn changed(&self, view: &ObjectStore, changed: &Changed) {
        let removed = changed.is::<Node>() && changed.new.is_none();
        let replaced = changed.is::<Node>()
            && matches!((&changed.old, &changed.new), (Some(o), Some(n)) if o.meta().uid != n.meta().uid);
        let concerned = nodes_for(view, changed);
        if removed || replaced || !concerned.is_empty() {
            self.mark(|marks| {
                marks.dirty.extend(concerned);
                if removed || replaced {
                    marks.removed.insert(changed.key.name.to_string());
                    marks.leaving.insert(changed.key.name.to_string());
                }
            });
        }
    }
}

impl Task {
    async fn run(
        mut self,
        mut from_nodes: mpsc::Receiver<FromNode>,
        mut to_nodes: mpsc::Receiver<streams::ToNode>,
        mut outcomes: mpsc::UnboundedReceiver<Outcome>,
    ) {
        let nodes = Arc::clone(&self.nodes);
        loop {
            let wake = self.wakes.first().map(|(at, _)| clock::steady_instant(*at));
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(outcome) = outcomes.recv() => self.outcome(outcome),
                () = nodes.news.notified() => self.marks(),
                from = from_nodes.recv() => match from {
                    Some(from) => self.take_in(from),
                    None => return,
                },
                Some((node, frame)) = to_nodes.recv() => self.input(&node, SessionInput::Stream(frame)),
                () = sleep => self.tick(),
            }
            // Let others run; a burst of one sort does not starve the rest of the process.
            tokio::task::consume_budget().await;
        }
    }

    fn take_in(&mut self, from: FromNode) {
        match from {
            FromNode::Connected { node, connection, peer, .. } => {
                tracing::info!(node, %peer, connection, "node connected");
                self.offline.connected(&node);
                self.sessions.entry(node.clone()).or_insert_with(|| One {
                    session: Session::new(&node),
                    wake: None,
                    writes: VecDeque::new(),
                    writing: false,
                    keeping: false,
                    row: MessageRow::default(),
                    early: None,
                });
                self.arrive(node, connection);
            }
            FromNode::Disconnected { node, connection, reason, silent } => {
                tracing::info!(node, connection, "node disconnected: {reason}");
                if !self.broker.is_connected(&node) {
                    self.presence.left(&node);
                    self.offline.disconnected(&node, silent);
                }
                self.input(&node, SessionInput::Disconnected { connection });
            }
            FromNode::Message { node, connection, payload, .. } => {
                self.offline.heard(&node);
                match Envelope::<Up>::decode(&payload) {
                    Ok(envelope) => self.message(&node, connection, envelope),
                    Err(error) => {
                        tracing::warn!(node, connection, "message refused: {error}");
                        self.broker.disconnect_one(&node, connection, &format!("message refused: {error}"));
                    }
                }
            }
        }
    }

    fn marks(&mut self) {
        let Marks { dirty, removed, copies, repaired, says, .. } = self.nodes.take();
        for node in repaired {
            self.input(&node, SessionInput::OtherDevice);
        }
        for (node, down) in says {
            self.input(&node, SessionInput::Say(down));
        }
        for (node, (hardware, address)) in copies {
            self.copy_noticed(&node, &hardware, &address);
        }
        for node in removed {
            let reason = "the node was deleted from the cluster";
            self.input(&node, SessionInput::Removed { reason: reason.into() });
            self.broker.disconnect(&node, reason);
            self.streams.forget(&node);
            self.presence.forget(&node);
            if let Some(one) = self.sessions.remove(&node)
                && let Some(at) = one.wake
            {
                self.wakes.remove(&(at, node.clone()));
            }
            let (enroll, nodes) = (Arc::clone(&self.enroll), Arc::clone(&self.nodes));
            tokio::spawn(async move {
                arrival::forget(&enroll, &node).await;
                nodes.mark(|marks| {
                    marks.leaving.remove(&node);
                });
            });
        }
        for node in dirty {
            self.offline.look_at_away(&node);
            self.input(&node, SessionInput::Dirty);
        }
    }

    /// Both are shown, and the node is asked for a sign of life: should it be gone, its kernel's silence ends its connection
    /// within a minute, and the other device is a repair some time later.
    fn copy_noticed(&self, node: &str, hardware: &str, address: &str) {
        let sign = Envelope { session: 0, message: limpet_protocol::Down::EventsTaken { number: 0 } };
        let _ = self.broker.send(node, Channel::Event.letter(), Bytes::from(sign.encode(PROTOCOL_VERSION)));
        let message = format!(
            "device {hardware} at {address} uses a copy of this node's card and is kept out; `limpet node list` shows both. \
             To make it a node of its own, remove its data directory and join it again"
        );
        self.notice(node, "DuplicateIdentity", message);
    }

    fn tick(&mut self) {
        let now = clock::steady();
        while let Some((at, node)) = self.wakes.first().cloned() {
            if at > now {
                return;
            }
            self.wakes.pop_first();
            if let Some(one) = self.sessions.get_mut(&node) {
                one.wake = None;
            }
            self.input(&node, SessionInput::Tick);
        }
    }

    /// The session begins once the Node object is in the view.
    fn arrive(&mut self, node: String, connection: u64) {
        if self.applier.world().read().node(&node).is_some() {
            return self.input(&node, SessionInput::Connected { connection });
        }
        if let Some(one) = self.sessions.get_mut(&node) {
            one.early = Some((connection, Vec::new()));
        }
        let (applier, outcomes) = (Arc::clone(&self.applier), self.outcomes.clone());
        let enroll = Arc::clone(&self.enroll);
        let arrivals = Arc::clone(&self.arrivals);
        tokio::spawn(async move {
            arrivals.ensure(&applier, &enroll, &node).await;
            let _ = outcomes.send(Outcome::Arrived { node, connection });
        });
    }

    fn arrived(&mut self, node: &str, connection: u64) {
        let Some(one) = self.sessions.get_mut(node) else { return };
        let Some((_, early)) = one.early.take_if(|(of, _)| *of == connection) else { return };
        self.input(node, SessionInput::Connected { connection });
        for input in early {
            self.input(node, input);
        }
    }

    fn message(&mut self, node: &str, connection: u64, envelope: Envelope<Up>) {
        let input = SessionInput::Message { connection, envelope };
        if let Some(One { early: Some((of, early)), .. }) = self.sessions.get_mut(node)
            && *of == connection
        {
            // The agent speaks once and then waits for an answer; more is resent after the first session's end.
            if early.len() < EARLY_MAX {
                early.push(input);
            }
            return;
        }
        self.input(node, input);
    }

    fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Arrived { node, connection } => self.arrived(&node, connection),
            Outcome::Written { node, ticket, result } => {
                if let Some(one) = self.sessions.get_mut(&node) {
                    one.writing = false;
                }
                let input = match result {
                    Ok(()) => SessionInput::Durable { ticket },
                    Err((again_ms, reason)) => SessionInput::Refused { ticket, again_ms, reason },
                };
                self.input(&node, input);
                self.write_next(&node);
            }
            Outcome::Kept { node, taken } => {
                if let Some(one) = self.sessions.get_mut(&node) {
                    one.keeping = false;
                }
                if let Some(taken) = taken {
                    self.input(&node, SessionInput::Say(Down::LogTaken(taken)));
                }
            }
            Outcome::Stored { node, number } => {
                if let Some(one) = self.sessions.get_mut(&node) {
                    one.row.writing = false;
                }
                match number {
                    Some(number) => self.input(&node, SessionInput::Say(Down::MessagesTaken { number })),
                    // The row is broken: the node begins it again.
                    None => self.sessions.get_mut(&node).into_iter().for_each(|one| one.row.last = 0),
                }
                self.store_messages(&node);
            }
            Outcome::Token { node, key, result } => {
                let input = match result {
                    Ok((generation, body)) => SessionInput::Token { key, generation, body },
                    Err(error) => SessionInput::TokenRefused { key, error },
                };
                self.input(&node, input);
            }
        }
    }

    /// One input to one session, and everything that it asks for.
    fn input(&mut self, node: &str, input: SessionInput) {
        let Some(one) = self.sessions.get_mut(node) else { return };
        let mut outputs = Vec::new();
        {
            let view = self.applier.world().read();
            one.session.handle(clock::steady(), &view, input);
            while let Some(output) = one.session.poll() {
                outputs.push(output);
            }
        }
        let wake = one.session.wake_at().map(|(at, _)| at);
        if wake != one.wake {
            if let Some(at) = one.wake {
                self.wakes.remove(&(at, node.into()));
            }
            if let Some(at) = wake {
                self.wakes.insert((at, node.into()));
            }
            one.wake = wake;
        }
        for output in outputs {
            self.output(node, output);
        }
    }

    fn output(&mut self, node: &str, output: SessionOutput) {
        match output {
            SessionOutput::Send { channel, version, mut envelope, .. } => {
                if let limpet_protocol::Down::Welcome(welcome) = &mut envelope.message {
                    // The session's own time never goes back; a board's clock follows the right one.
                    welcome.time_ms = u64::try_from(clock::now().as_millisecond()).unwrap_or(0);
                }
                let stream = match (&envelope.message, channel) {
                    (limpet_protocol::Down::Stream(frame), Channel::Stream) => Some(frame.id()),
                    _ => None,
                };
                let bytes = Bytes::from(envelope.encode(version));
                let sent = match stream {
                    Some(id) if streams::is_bulk(id) => self.broker.send_last(node, channel.letter(), bytes),
                    _ => self.broker.send(node, channel.letter(), bytes),
                };
                match (sent, stream) {
                    (Err(SendError::QueueFull), Some(id)) => {
                        self.streams.torn(node, id, "the node takes data too slowly");
                    }
                    // State is compared on each connection and sent again when it is not acknowledged.
                    (Err(error), _) => tracing::debug!(node, "not sent: {error}"),
                    (Ok(()), _) => {}
                }
            }
            SessionOutput::Close { connection, reason } => self.broker.disconnect_one(node, connection, &reason),
            SessionOutput::Write { ticket, changes } => {
                if let Some(one) = self.sessions.get_mut(node) {
                    one.writes.push_back((ticket, changes));
                }
                self.write_next(node);
            }
            SessionOutput::Token(wanted) => self.token(node, wanted),
            SessionOutput::Stream(frame) => {
                if let Some(answer) = self.streams.deliver(node, frame) {
                    self.input(node, SessionInput::Stream(answer));
                }
            }
            SessionOutput::Log(piece) => self.keep(node, piece),
            SessionOutput::Message(message) => self.message_came(node, message),
            SessionOutput::Opened { session } => {
                tracing::info!(node, session, "node session opened");
                if let Some(one) = self.sessions.get_mut(node) {
                    (one.row.last, one.row.waiting) = (0, Vec::new());
                }
                self.streams.node_opened(node);
            }
            SessionOutput::Closed { reason } => {
                tracing::info!(node, "node session closed: {reason}");
                self.streams.node_closed(node);
            }
            SessionOutput::Notice { reason, message } => self.notice(node, reason, message),
        }
    }

    fn write_next(&mut self, node: &str) {
        let Some(one) = self.sessions.get_mut(node) else { return };
        if one.writing {
            return;
        }
        let Some((ticket, changes)) = one.writes.pop_front() else { return };
        one.writing = true;
        let (applier, outcomes, room) = (self.applier.clone(), self.outcomes.clone(), self.under_way.clone());
        let node = node.to_string();
        tokio::spawn(async move {
            let _room = room.acquire_owned().await;
            let result = match applier.apply(COMPONENT, changes).await {
                Ok(_) => Ok(()),
                Err(status) => {
                    // 404 and 422 stay so; full disks and overload pass. Whoever looked at an older version looks again.
                    let again_ms = match status.code {
                        409 => Some(CONFLICT_AGAIN_MS),
                        429 | 500.. => Some(REFUSED_AGAIN_MS),
                        _ => None,
                    };
                    Err((again_ms, status.message))
                }
            };
            let _ = outcomes.send(Outcome::Written { node, ticket, result });
        });
    }

    fn token(&mut self, node: &str, wanted: TokenWanted) {
        let (applier, outcomes, room) = (self.applier.clone(), self.outcomes.clone(), self.under_way.clone());
        let node = node.to_string();
        tokio::spawn(async move {
            let _room = room.acquire_owned().await;
            let generation = applier.world().read().revision();
            let result = match tokens::issue(&**applier.api(), &wanted).await {
                Ok(body) => Ok((generation, body)),
                Err(status) => Err(status.message),
            };
            let _ = outcomes.send(Outcome::Token { node, key: wanted.key, result });
        });
    }

    /// One piece of a node at a time; it waits for the answer before it sends the next.
    fn keep(&mut self, node: &str, piece: LogPiece) {
        let bound = {
            let view = self.applier.world().read();
            let pod = view.pod(&piece.namespace, &piece.pod).filter(|pod| *pod.meta.uid == *piece.uid);
            pod.map(|pod| pod.node.as_deref() == Some(node))
        };
        let own = bound.unwrap_or_else(|| self.kept.is_known(node, &piece.uid));
        if !own {
            let refused = LogTaken { uid: piece.uid, container: piece.container, refused: true, ..LogTaken::default() };
            return self.input(node, SessionInput::Say(Down::LogTaken(refused)));
        }
        let Some(one) = self.sessions.get_mut(node).filter(|one| !one.keeping) else { return };
        one.keeping = true;
        let device = self.presence.device(node, one.session.instance());
        let (kept, outcomes, world) = (Arc::clone(&self.kept), self.outcomes.clone(), Arc::clone(self.applier.world()));
        let (node, room) = (node.to_string(), self.under_way.clone());
        tokio::spawn(async move {
            let _room = room.acquire_owned().await;
            let whose = node.clone();
            let taken = tokio::task::spawn_blocking(move || {
                let now_ms = u64::try_from(clock::now().as_millisecond()).unwrap_or(0);
                let lives = |uid: &str, about: &About| {
                    world.read().pod(&about.namespace, &about.pod).is_some_and(|p| *p.meta.uid == *uid)
                };
                kept.take((&whose, &device), &piece, now_ms, lives)
            });
            let taken = match taken.await {
                Ok(Ok(taken)) => Some(taken),
                Ok(Err(error)) => {
                    tracing::error!(node, %error, "a kept log cannot be written");
                    None
                }
                Err(_) => None,
            };
            let _ = outcomes.send(Outcome::Kept { node, taken });
        });
    }

    /// One of a row. What does not follow the one before was preceded by something lost: the node says it again.
    fn message_came(&mut self, node: &str, mut message: BoardMessage) {
        let own = {
            let view = self.applier.world().read();
            // Of a pod that has gone meanwhile it is history, and welcome.
            view.pod(&message.namespace, &message.pod).is_none_or(|pod| pod.node.as_deref() == Some(node))
        };
        let Some(one) = self.sessions.get_mut(node) else { return };
        let row = &mut one.row;
        if (message.after != 0 && message.after != row.last) || row.waiting.len() >= MESSAGES_MAX {
            return;
        }
        row.last = message.number;
        if !own {
            tracing::warn!(node, "a message of pod {}/{}, which is not its own", message.namespace, message.pod);
            // Confirmed with the others, and kept from everybody.
            message.namespace = String::new();
        }
        row.waiting.push(message);
        self.store_messages(node);
    }

    /// What waits is written together, one batch of a node at a time.
    fn store_messages(&mut self, node: &str) {
        let Some(one) = self.sessions.get_mut(node).filter(|one| !one.row.writing && !one.row.waiting.is_empty()) else { return };
        one.row.writing = true;
        let device = self.presence.device(node, one.session.instance());
        let row = std::mem::take(&mut one.row.waiting);
        let (messages, outcomes, room) = (Arc::clone(&self.messages), self.outcomes.clone(), self.under_way.clone());
        let node = node.to_string();
        tokio::spawn(async move {
            let _room = room.acquire_owned().await;
            let whose = node.clone();
            let number = row.last().map(|m| m.number);
            let own: Vec<BoardMessage> = row.into_iter().filter(|m| !m.namespace.is_empty()).collect();
            let stored = tokio::task::spawn_blocking(move || messages.take(&whose, &device, &own)).await;
            let number = match stored {
                Ok(Ok(())) => number,
                Ok(Err(error)) => {
                    tracing::error!(node, %error, "messages of workloads cannot be written");
                    None
                }
                Err(_) => None,
            };
            let _ = outcomes.send(Outcome::Stored { node, number });
        });
    }

    fn notice(&self, node: &str, reason: &'static str, message: String) {
        tracing::warn!(node, reason, "{message}");
        let regarding = match self.applier.world().read().node(node) {
            Some(node) => Regarding::of(&**node),
            None => return,
        };
        let applier = Arc::clone(&self.applier);
        tokio::spawn(async move {
            applier.events().record(&regarding, EventType::Warning, reason, &message, COMPONENT).await;
        });
    }
}
