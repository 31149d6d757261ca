//! One node's session: reconciles the node's set with the desired one, and takes in its reports.
//!
//! In: what the shell saw (`SessionInput`), with the view and the time. Out: `SessionOutput`, to be drained with
//! `poll` after every `handle`. The shell keeps one `Session` a node for as long as the hub runs.
//! Never: answers a report before its change is durable; listens to an old session.

use super::desired::TokenWanted;
use crate::{Change, ObjectStore, Timestamp};
use limpet_protocol::{Down, Envelope, ItemKey, StreamFrame, Up, topic::Channel};
use std::collections::VecDeque;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionInput {
    /// The broker admitted a connection of this node.
    Connected { connection: u64 },
    Disconnected { connection: u64 },
    /// A decoded message (`Envelope::<Up>::decode`).
    Message { connection: u64, envelope: Envelope<Up> },
    /// The view changed in a way that may concern this node (`desired::nodes_for`).
    Dirty,
    /// All changes of a `Write` are durable, and the view has them.
    Durable { ticket: u64 },
    /// The changes of a `Write` were not accepted; `retry` says whether that may be different later.
    Refused { ticket: u64, retry: bool, reason: String },
    /// An issued token: `body` is `{"token","expirationTimestamp","audience"}`, `generation` the store's revision.
    Token { key: ItemKey, generation: u64, body: Vec<u8> },
    TokenRefused { key: ItemKey, error: String },
    /// A frame for the node on the stream channel (dropped when not connected).
    Stream(StreamFrame),
    /// The time asked for by `wake_at` has come.
    Tick,
    /// The node's certificate was revoked or its object deleted.
    Removed { reason: String },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionOutput {
    Send { connection: u64, channel: Channel, envelope: Envelope<Down> },
    /// Close this connection.
    Close { connection: u64, reason: String },
    /// Apply these, then answer `Durable` or `Refused` with the ticket.
    Write { ticket: u64, changes: Vec<Change> },
    /// Issue this token.
    Token(TokenWanted),
    /// A frame from the node, for the open stream of that id.
    Stream(StreamFrame),
    /// The session began (after `Hello`): streams of the one before are over.
    Opened { session: u64 },
    /// The node is without a session: open streams end.
    Closed { reason: String },
    /// Something that people should know (log and Event on the Node).
    Notice { reason: &'static str, message: String },
}

/// The hub's side of one node's session.
#[derive(Debug)]
pub struct Session {
    node: String,
    out: VecDeque<SessionOutput>,
}

impl Session {
    pub fn new(node: &str) -> Session {
        Session { node: node.into(), out: VecDeque::new() }
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether a session is open: a `Hello` was answered on the current connection.
    pub fn is_open(&self) -> bool {
        false
    }

    pub fn handle(&mut self, now: Timestamp, view: &ObjectStore, input: SessionInput) {
        let _ = (now, view, input);
    }

    pub fn poll(&mut self) -> Option<SessionOutput> {
        self.out.pop_front()
    }

    /// When `Tick` is wanted, and what for.
    pub fn wake_at(&self) -> Option<(Timestamp, &'static str)> {
        None
    }
}
