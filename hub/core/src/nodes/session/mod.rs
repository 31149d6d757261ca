//! One node's session: reconciles the node's set with the desired one, and takes in its reports.
//!
//! In: what the shell saw (`SessionInput`), with the view and the time. Out: `SessionOutput`, to be drained with
//! `poll` after every `handle`. The shell keeps one `Session` a node for as long as the hub runs.
//! Never: answers a report before its change is durable; listens to an old session.

mod few;
mod reports;
mod set;

use super::desired::{self, TokenWanted};
use crate::{Change, ObjectStore, Timestamp};
use limpet_protocol::{
    BoardMessage, Down, Envelope, Hello, Item, ItemKey, ItemKind, LogPiece, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
    SetChange, SetStep,
    StreamFrame, TokenAnswer, Up, Welcome, common_version, topic::Channel,
};
use reports::Reports;
use set::SetState;
use std::collections::VecDeque;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionInput {
    /// The broker admitted a connection of this node.
    Connected {
        connection: u64,
    },
    Disconnected {
        connection: u64,
    },
    /// Another device is this node from now on: a repair or a copied card (`holder::Verdict::AdmitAndRecord`), or a card that
    /// joined anew under the name.
    OtherDevice,
    /// A decoded message (`Envelope::<Up>::decode`).
    Message {
        connection: u64,
        envelope: Envelope<Up>,
    },
    /// The view changed in a way that may concern this node (`desired::nodes_for`).
    Dirty,
    /// All changes of a `Write` are durable, and the view has them.
    Durable {
        ticket: u64,
    },
    /// The changes of a `Write` were not accepted; `again_ms`: after how long that may be different; `None`: never.
    Refused {
        ticket: u64,
        again_ms: Option<i64>,
        reason: String,
    },
    /// An issued token: `body` is `{"token","expirationTimestamp","audience"}`, `generation` the store's revision.
    Token {
        key: ItemKey,
        generation: u64,
        body: Vec<u8>,
    },
    TokenRefused {
        key: ItemKey,
        error: String,
    },
    /// A frame for the node on the stream channel (dropped when not connected).
    Stream(StreamFrame),
    /// Something to say to the node on the channel of Events (dropped when it is not there or does not know the message).
    Say(Down),
    /// The time asked for by `wake_at` has come.
    Tick,
    /// The node's certificate was revoked or its object deleted.
    Removed {
        reason: String,
    },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionOutput {
    Send {
        connection: u64,
        channel: Channel,
        /// The protocol version to write it in.
        version: u8,
        envelope: Envelope<Down>,
    },
    /// Close this connection.
    Close {
        connection: u64,
        reason: String,
    },
    /// Apply these, then answer `Durable` or `Refused` with the ticket.
    Write {
        ticket: u64,
        changes: Vec<Change>,
    },
    /// Issue this token.
    Token(TokenWanted),
    /// A frame from the node, for the open stream of that id.
    Stream(StreamFrame),
    /// Lines of a log for the hub to keep, from a node that may say so of this pod if the pod is its own.
    Log(LogPiece),
    /// A message of a workload.
    Message(BoardMessage),
    /// The session began (after `Hello`): streams of the one before are over.
    Opened {
        session: u64,
    },
    /// The node is without a session: open streams end.
    Closed {
        reason: String,
    },
    /// Something that people should know (log and Event on the Node).
    Notice {
        reason: &'static str,
        message: String,
    },
}

/// The hub's side of one node's session.
#[derive(Debug)]
pub struct Session {
    node: String,
    out: VecDeque<SessionOutput>,
    connection: Option<u64>,
    /// Number of the open session on the current connection.
    open: Option<u64>,
    /// `Hello::instance` of the last session: a change means another device with the same identity.
    instance: Option<[u8; 16]>,
    set: SetState,
    reports: Reports,
    /// Oldest and newest protocol version of this hub.
    versions: (u8, u8),
    /// What the present session speaks.
    speak: u8,
}

impl Session {
    pub fn new(node: &str) -> Session {
        Session::speaking(node, (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION))
    }

    /// As a hub of another age: oldest and newest version that it speaks.
    pub fn speaking(node: &str, versions: (u8, u8)) -> Session {
        Session {
            versions,
            speak: versions.0,
            node: node.into(),
            out: VecDeque::new(),
            connection: None,
            open: None,
            instance: None,
            set: SetState::default(),
            reports: Reports::default(),
        }
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// The installation that greeted last.
    pub fn instance(&self) -> Option<[u8; 16]> {
        self.instance
    }

    /// Whether a session is open: a `Hello` was answered on the current connection.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the node has acknowledged all that it should know.
    pub fn in_sync(&self) -> bool {
        self.is_open() && self.set.in_sync()
    }

    pub fn handle(&mut self, now: Timestamp, view: &ObjectStore, input: SessionInput) {
        match input {
            SessionInput::Connected { connection } => {
                self.close("replaced by a newer connection");
                self.connection = Some(connection);
            }
            SessionInput::Disconnected { connection } => {
                if self.connection == Some(connection) {
                    self.connection = None;
                    self.close("the connection was lost");
                }
            }
            SessionInput::Message { connection, envelope } => {
                if self.connection == Some(connection) {
                    self.message(now, view, envelope);
                }
            }
            // Cards of one installation have counted by themselves since; another installation is nobody's copy.
            SessionInput::OtherDevice => {
                self.reports.forget();
                self.instance = None;
            }
            SessionInput::Dirty => self.set.dirty(),
            SessionInput::Durable { ticket } => self.reports.durable(now, view, &self.node, ticket),
            SessionInput::Refused { ticket, again_ms, reason } => {
                self.reports.refused(now, view, &self.node, (ticket, again_ms, reason));
            }
            SessionInput::Token { key, generation, body } => self.set.token(key, generation, body),
            SessionInput::TokenRefused { key, error } => {
                self.set.token_refused(now, &key);
                self.send(Channel::State, Down::TokenAnswer(TokenAnswer { key, error }));
            }
            SessionInput::Stream(frame) => self.send(Channel::Stream, Down::Stream(frame)),
            SessionInput::Say(down) if down.since() > self.speak => {}
            SessionInput::Say(down) => self.send(Channel::Event, down),
            SessionInput::Tick => self.reports.tick(now, view, &self.node),
            SessionInput::Removed { reason } => self.goodbye(reason),
        }
        self.settle(now, view);
    }

    pub fn poll(&mut self) -> Option<SessionOutput> {
        let next = self.out.pop_front();
        if self.out.is_empty() {
            // Nearly always there is nothing, of thousands of nodes.
            self.out = VecDeque::new();
        }
        next
    }

    /// When `Tick` is wanted, and what for.
    pub fn wake_at(&self) -> Option<(Timestamp, &'static str)> {
        let reports = self.reports.wake_at().map(|at| (at, "a report is to be written again"));
        let tokens = self.set.wake_at().map(|at| (at, "the set is to be asked after"));
        [reports, tokens].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn message(&mut self, now: Timestamp, view: &ObjectStore, envelope: Envelope<Up>) {
        let current = self.open == Some(envelope.session);
        match envelope.message {
            // A greeting that comes twice must not make the hub forget what it has learned since.
            Up::Hello(hello) if !current => return self.hello(now, view, envelope.session, hello),
            _ if !current => return,
            _ => {}
        }
        match envelope.message {
            Up::Hello(_) => {}
            Up::Inventory(inventory) => self.set.inventory(inventory),
            Up::Ack(ack) => self.set.acknowledged(ack.seq),
            Up::PodReport(report) => self.reports.pod(now, view, &self.node, report),
            Up::PodGone(gone) => self.reports.gone(now, view, &self.node, gone),
            Up::NodeReport(report) => self.reports.node(now, view, &self.node, report),
            Up::Event(json) => self.reports.event(view, &self.node, None, &json),
            Up::NumberedEvent(event) => self.reports.numbered_event(view, &self.node, &event),
            Up::TokenAsk(ask) => self.set.renew_token(&ask.key),
            Up::Stream(frame) => self.out.push_back(SessionOutput::Stream(frame)),
            Up::LogPiece(piece) => self.out.push_back(SessionOutput::Log(piece)),
            Up::Message(message) => self.out.push_back(SessionOutput::Message(message)),
        }
    }

    fn hello(&mut self, now: Timestamp, view: &ObjectStore, session: u64, hello: Hello) {
        if self.instance.is_some_and(|before| before != hello.instance) {
            self.out.push_back(SessionOutput::Notice {
                reason: "DuplicateIdentity",
                message: format!(
                    "another device uses the certificate of node {}: two devices may be running from copies of one \
                     card; give one of them a name of its own (remove its data directory and join it again)",
                    self.node
                ),
            });
        }
        let Some(speak) = common_version(hello.speaks, self.versions) else {
            let ((from, to), (own_from, own_to)) = (hello.speaks, self.versions);
            return self.goodbye(format!(
                "agent {} speaks protocol versions {from} to {to}, this hub {own_from} to {own_to}: update the older one",
                hello.agent_version
            ));
        };
        if self.instance.replace(hello.instance).is_some_and(|before| before != hello.instance) {
            // Another installation counts its versions anew.
            self.reports.forget();
        }
        (self.open, self.speak) = (Some(session), speak);
        self.reports.opened();
        self.out.push_back(SessionOutput::Opened { session });
        let digest = self.set.opened(desired::wanted(view, &self.node), hello.digest, speak >= 3);
        let welcome = Welcome {
            time_ms: u64::try_from(now.as_millisecond()).unwrap_or(0),
            digest,
            speak,
            extensions: Vec::new(),
        };
        self.send(Channel::State, Down::Welcome(welcome));
    }

    /// Sends what there is to send after any input.
    fn settle(&mut self, now: Timestamp, view: &ObjectStore) {
        for output in self.reports.drain() {
            match output {
                reports::Out::Write { ticket, changes } => {
                    self.out.push_back(SessionOutput::Write { ticket, changes });
                }
                reports::Out::Reported { uid, version } => {
                    self.send(Channel::Status, Down::Reported { uid, version });
                }
                reports::Out::EventsTaken { number } => {
                    self.send(Channel::Event, Down::EventsTaken { number });
                }
                reports::Out::Notice { reason, message } => {
                    self.out.push_back(SessionOutput::Notice { reason, message });
                }
            }
        }
        if !self.is_open() {
            return;
        }
        for step in self.set.steps(now, view, &self.node) {
            let message = if self.speak >= 3 { Down::Step(step) } else { Down::Change(plain(step)) };
            self.send(Channel::State, message);
        }
        for wanted in self.set.tokens_to_issue() {
            self.out.push_back(SessionOutput::Token(wanted));
        }
    }

    fn send(&mut self, channel: Channel, message: Down) {
        if let (Some(connection), Some(session)) = (self.connection, self.open) {
            let (version, envelope) = (self.speak, Envelope { session, message });
            self.out.push_back(SessionOutput::Send { connection, channel, version, envelope });
        }
    }

    fn close(&mut self, reason: &str) {
        if self.open.take().is_some() {
            self.out.push_back(SessionOutput::Closed { reason: reason.into() });
        }
        self.set.closed();
    }

    fn goodbye(&mut self, reason: String) {
        let connection = self.connection;
        // A stranger to this session still hears why.
        self.open = self.open.or(Some(0));
        self.send(Channel::State, Down::Goodbye { reason: reason.clone() });
        self.close(&reason);
        if let Some(connection) = connection {
            self.out.push_back(SessionOutput::Close { connection, reason });
        }
    }
}

/// A step without differences, for nodes that do not take them.
fn plain(step: SetStep) -> SetChange {
    let puts = step.puts.into_iter().map(|p| Item { key: p.key, generation: p.generation, body: p.body });
    SetChange { seq: step.seq, puts: puts.collect(), removals: step.removals, digest: step.digest }
}

/// Tokens are not objects of the store; what is known of them is what was issued or what the node holds.
fn is_token(key: &ItemKey) -> bool {
    key.kind == ItemKind::Token
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod hostile;
