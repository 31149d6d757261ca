//! Streams between API clients and nodes: logs, exec, attach, port-forward.
//!
//! In: `open` from the API, frames from nodes. Out: handles with bytes both ways, frames to nodes or, where a node is connected
//! to another hub, to that hub. Each lane has credit in each direction (`STREAM_WINDOW_BYTES`), so that a slow reader holds up
//! nobody and memory stays bounded; a node that sends beyond its credit loses the stream.
//! Never: outlives the session that it was opened in.

mod handle;
mod inbox;
mod table;

pub use handle::StreamHandle;
pub(crate) use handle::Lanes;
pub use inbox::FromNode;
pub(crate) use inbox::LANES;
pub(crate) use table::Stream;
pub use table::{Streams, ToNode, is_bulk};

/// Why there is no stream. The API says the sentence to its client, who may try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum StreamError {
    /// The node has no session.
    #[error(
        "node {node} is offline since {since}; its containers go on, but cannot be reached from here until it returns"
    )]
    Offline { node: String, since: String },
    /// The node's session is at another hub, which cannot be asked.
    #[error("node {node} is connected to hub {hub}, which cannot be asked from here: {why}; ask that hub itself, or try again")]
    Elsewhere { node: String, hub: String, why: String },
    #[error("node {0} has too many open streams; close some and try again")]
    TooMany(String),
    #[error("node {0} did not answer in time")]
    TimedOut(String),
    /// The node refused; the sentence is its own.
    #[error("{0}")]
    Refused(String),
    /// `send` after the end.
    #[error("the stream has ended")]
    Ended,
}
