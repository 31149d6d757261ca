//! From hub to hub: what only the hub can do that a board is connected to.
//!
//! In: questions of this hub's parts about boards elsewhere; connections of other hubs, on the API's port. Out: streams, figures,
//! kept logs, new keys for Secrets. A hub is one whose certificate is of the cluster's CA and the one that its beat in the
//! shared store names.
//! Never: passes on what was passed on: who is asked answers for its own connections only, so there are no loops.

mod bridge;
mod door;
mod road;
mod rotate;
#[cfg(test)]
mod tests;
mod wire;

pub use door::Door;
pub use road::Road;
pub use rotate::rotate;

use crate::run::{streams::StreamError, usage::NodeUsage};
use limpet_protocol::StreamOpen;
use serde::{Deserialize, Serialize};

/// The protocol's name in TLS; another version gets another name.
pub const ALPN: &str = "limpet-hub/1";
/// Streams and questions that one hub has under way at the others.
const ASKED_MAX: usize = 1024;
/// Streams and questions of all other hubs that one hub serves.
const SERVED_MAX: usize = 4096;
/// Nodes in one question about figures.
const NODES_MAX: usize = 256;

/// The first frame of a connection.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Stream { node: String, open: StreamOpen },
    Usage { nodes: Vec<String> },
    Kept(KeptAsk),
    Key(KeyWord),
}

/// A step of a change of the key that seals Secrets (`KeyStep`).
#[derive(Clone, Debug, Serialize, Deserialize)]
enum KeyWord {
    Learn { id: u32, hex: String },
    Seal { id: u32 },
    Retire { id: u32 },
}

/// Whose kept log is meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptAsk {
    pub namespace: String,
    pub pod: String,
    /// None: the pod of this name that was heard of last.
    pub uid: Option<String>,
    /// None: the only one.
    pub container: Option<String>,
    pub previous: bool,
}

/// What another hub has of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFound {
    pub node: String,
    /// When something came last, milliseconds since 1970.
    pub at_ms: u64,
    pub containers: Vec<String>,
    /// Whether a frame with the lines follows.
    pub has_lines: bool,
}

/// The first frame of an answer. Of figures there is one a node, and `Done`.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// Frames of the stream follow, both ways.
    Opened,
    Refused(StreamError),
    Usage(String, NodeUsage),
    Kept(Option<KeptFound>),
    Done,
}
