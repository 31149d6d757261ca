//! Where packets of all nodes arrive: greetings are answered, sessions begun, sealed packets opened.
//!
//! In: what anybody has published on the nodes' topics. Out: `FromNode`s; packets for the broker.
//! A session takes a node's place only once it is confirmed with the node's key; what does not fit changes nothing.
//! Never: keeps more of a node than a few unconfirmed greetings; answers for nodes that have not joined.

use super::{
    ExternalOptions, Office,
    carry::{self, Control},
};
use crate::{FromNode, connection::Setting};
use limpet_protocol::{limits::ENVELOPE_BYTES_MAX, topic};
use limpet_sealed::{
    Debt, Inside, Joiner, Key, Kind, Opener, Pending, Reset, SealError, Sealer, SessionId, SystemRandom, kind, session_of,
};
use rmqtt_codec::types::Publish;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::mpsc, time::Instant};

/// Greetings of one node that wait for their confirmation.
const PENDING_MAX: usize = 4;
/// With all of them younger than this, further ones are not answered: each costs the hub a signature.
const PENDING_YOUNG: Duration = Duration::from_secs(2);
/// A node is told at most this often that its session is not known.
const RESET_EVERY: Duration = Duration::from_secs(2);
/// What the sealed layer carries besides channels of the link: renewals of certificates.
pub(super) const RENEWAL: u8 = b'r';
const RENEWAL_BYTES_MAX: usize = 32 * 1024;
/// What a node says between two looks of its task.
const CONTROLS_MAX: usize = 64;

struct Live {
    opener: Opener,
    joiner: Joiner,
    debt: Debt,
    connection: u64,
    task: mpsc::Sender<Control>,
    heard: carry::Heard,
    /// Signs of life, and how many of them lead to an answer.
    beats: u32,
    answered_every: u32,
}

#[derive(Default)]
struct Node {
    live: Option<Live>,
    pending: VecDeque<(Instant, Pending)>,
    reset: Option<Instant>,
}

/// A session's task has ended.
pub(super) struct End {
    pub node: String,
    pub connection: u64,
}

pub(super) struct Desk {
    setting: Arc<Setting>,
    office: Arc<dyn Office>,
    key: Key,
    certificate: Vec<u8>,
    epoch: u64,
    random: SystemRandom,
    out: mpsc::Sender<(String, Vec<u8>)>,
    end: mpsc::Sender<End>,
    address: SocketAddr,
    nodes: BTreeMap<String, Node>,
}

impl Desk {
    pub fn new(
        options: &ExternalOptions,
        setting: &Arc<Setting>,
        out: mpsc::Sender<(String, Vec<u8>)>,
        address: SocketAddr,
    ) -> Result<(Desk, mpsc::Receiver<End>), String> {
        let random = SystemRandom::new();
        let (pkcs8, certificate) = (options.papers)()?;
        let key = Key::from_pkcs8(&pkcs8, &random).map_err(|e| format!("the hub's own key: {e}"))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (end, ends) = mpsc::channel(CONTROLS_MAX);
        let desk = Desk {
            setting: Arc::clone(setting),
            office: Arc::clone(&options.office),
            key,
            certificate,
            epoch: u64::try_from(since.as_millis()).unwrap_or(0),
            random,
            out,
            end,
            address,
            nodes: BTreeMap::new(),
        };
        Ok((desk, ends))
    }

    /// Tells every node that the sessions of before are over: those that are there greet at once.
    pub async fn open(&mut self) {
        for node in self.office.nodes() {
            self.reset(&node, None).await;
            tokio::task::consume_budget().await;
        }
    }

    pub fn ended(&mut self, end: &End) {
        if let Some(node) = self.nodes.get_mut(&end.node)
            && node.live.as_ref().is_some_and(|l| l.connection == end.connection)
        {
            node.live = None;
        }
    }

    pub async fn packet(&mut self, publish: Publish) {
        let Some(name) = topic::parse_sealed_up(&publish.topic) else { return };
        let packet = &publish.payload;
        // Nothing of ours is retained, and a removed node is nobody.
        if publish.retain || !self.office.knows(name) {
            return;
        }
        match kind(packet) {
            Some(Kind::Hello) => self.greeted(name, packet).await,
            Some(Kind::Sealed) => self.sealed(name, packet).await,
            _ => self.refuse(name, &SealError::Malformed),
        }
    }

    fn refuse(&self, name: &str, error: &SealError) {
        self.setting.broker.refused().note(name, error);
    }

    async fn send(&self, node: &str, packet: Vec<u8>) {
        let _ = self.out.send((topic::sealed_down(node), packet)).await;
    }

    async fn greeted(&mut self, name: &str, hello: &[u8]) {
        let node = self.nodes.entry(name.into()).or_default();
        if node.pending.len() >= PENDING_MAX {
            if node.pending.front().is_some_and(|(at, _)| at.elapsed() < PENDING_YOUNG) {
                return;
            }
            node.pending.pop_front();
        }
        match limpet_sealed::answer(name, hello, (&self.key, &self.certificate), self.epoch, &self.random) {
            Ok((packet, pending)) => {
                node.pending.push_back((Instant::now(), pending));
                self.send(name, packet).await;
            }
            Err(error) => self.refuse(name, &error),
        }
    }

    async fn sealed(&mut self, name: &str, packet: &[u8]) {
        let Some(id) = session_of(packet) else { return self.refuse(name, &SealError::Malformed) };
        let node = self.nodes.entry(name.into()).or_default();
        if node.live.as_ref().is_some_and(|l| l.opener.id() == id) {
            return self.of_session(name, packet).await;
        }
        if let Some(at) = node.pending.iter().position(|(_, p)| p.id() == id) {
            return match node.pending[at].1.confirm(packet) {
                Ok(()) => {
                    if let Some((_, pending)) = node.pending.remove(at) {
                        self.begin(name, pending).await;
                    }
                }
                Err(error) => self.refuse(name, &error),
            };
        }
        self.refuse(name, &SealError::Foreign);
        self.reset(name, Some(id)).await;
    }

    async fn reset(&mut self, name: &str, session: Option<SessionId>) {
        let node = self.nodes.entry(name.into()).or_default();
        if session.is_some() && node.reset.is_some_and(|at| at.elapsed() < RESET_EVERY) {
            return;
        }
        node.reset = session.map(|_| Instant::now());
        let reset = Reset { epoch: self.epoch, session };
        match reset.sign(name, (&self.key, &self.certificate), &self.random) {
            Ok(packet) => self.send(name, packet).await,
            Err(error) => tracing::error!(node = name, "cannot tell the node to greet again: {error}"),
        }
    }

    /// The node has proven its key in this session. Now it may be let in.
    async fn begin(&mut self, name: &str, pending: Pending) {
        let Pending { greeting, up, mut down, .. } = pending;
        if let Err(reason) = self.office.admit(name, &greeting.point, &greeting.hardware) {
            tracing::info!(node = name, "MQTT: session refused: {reason}");
            if let Ok(packet) = down.seal(&Inside::Over(reason)) {
                self.send(name, packet).await;
            }
            return;
        }
        let live = self.start(name, up, down, greeting.keepalive_s);
        let connection = live.connection;
        let node = self.nodes.entry(name.into()).or_default();
        node.live = Some(live);
        node.pending.clear();
        let connected = FromNode::Connected { node: name.into(), connection, peer: self.address };
        let _ = self.setting.inbox.send(connected).await;
    }

    fn start(&self, name: &str, opener: Opener, sealer: Sealer, keepalive_s: u16) -> Live {
        let seat = self.setting.broker.register(name);
        let connection = seat.connection;
        let (task, controls) = mpsc::channel(CONTROLS_MAX);
        let heard = carry::Heard::default();
        let carrier = carry::Carrier {
            node: name.into(),
            sealer,
            setting: Arc::clone(&self.setting),
            out: self.out.clone(),
            end: self.end.clone(),
            heard: heard.clone(),
            patience: carry::patience(keepalive_s),
        };
        tokio::spawn(carrier.run(seat, controls));
        let answered_every = limpet_sealed::answered_every(keepalive_s);
        Live { opener, joiner: Joiner::default(), debt: Debt::default(), connection, task, heard, beats: 0, answered_every }
    }

    async fn of_session(&mut self, name: &str, packet: &[u8]) {
        let Some(live) = self.nodes.get_mut(name).and_then(|n| n.live.as_mut()) else { return };
        let taken = match live.opener.open(packet) {
            Ok(inside) => {
                live.heard.now();
                take(live, inside)
            }
            Err(error) => Err(error),
        };
        let connection = live.connection;
        match taken {
            Ok(None) => {}
            Ok(Some((RENEWAL, ask))) if ask.len() <= RENEWAL_BYTES_MAX => {
                // A node that asks faster than it listens gets no second answer.
                let _ = live.task.try_send(Control::Say(RENEWAL, self.office.renew(name, &ask)));
            }
            Ok(Some((channel, payload))) => {
                let message =
                    FromNode::Message { node: name.into(), connection, channel: channel.into(), payload: payload.into() };
                let _ = self.setting.inbox.send(message).await;
            }
            Err(error @ (SealError::Lost { .. } | SealError::Broken(_) | SealError::UsedUp)) => {
                self.refuse(name, &error);
                let id = live_id(&self.nodes, name);
                if let Some(live) = self.nodes.get_mut(name).and_then(|n| n.live.take()) {
                    let _ = live.task.try_send(Control::End(format!("{error}; the session begins anew")));
                }
                self.reset(name, id).await;
            }
            Err(error) => self.refuse(name, &error),
        }
    }
}

fn live_id(nodes: &BTreeMap<String, Node>, name: &str) -> Option<SessionId> {
    nodes.get(name)?.live.as_ref().map(|l| l.opener.id())
}

/// A whole message, when this was its last part.
fn take(live: &mut Live, inside: Inside) -> Result<Option<(u8, Vec<u8>)>, SealError> {
    let full = |_| SealError::Broken("more than its session's task takes");
    match inside {
        Inside::Part { channel, last, bytes } => {
            if let Some(taken) = live.debt.taken() {
                live.task.try_send(Control::Owe(taken)).map_err(full)?;
            }
            Ok(live.joiner.part(channel, last, bytes, ENVELOPE_BYTES_MAX)?.map(|message| (channel, message)))
        }
        Inside::Credit(taken) => live.task.try_send(Control::Credit(taken)).map(|()| None).map_err(full),
        Inside::Over(_) => live.task.try_send(Control::End("the node said goodbye".into())).map(|()| None).map_err(full),
        Inside::Beat => {
            live.beats = live.beats.wrapping_add(1);
            if live.beats.is_multiple_of(live.answered_every) {
                // A session's task that is that busy says enough.
                let _ = live.task.try_send(Control::Beat);
            }
            Ok(None)
        }
        Inside::Confirm(_) | Inside::Ready => Err(SealError::Broken("a greeting within a session")),
    }
}
