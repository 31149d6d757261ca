//! SPDY/3.1: what kubectl's port-forward speaks inside a WebSocket, and older clients speak on the bare
//! connection.
//!
//! In: a `Wire`. Out: the streams that the client opens, with their headers, each readable and writable by
//! itself.
//! Never: opens streams, counts windows (no Kubernetes client does).

mod connection;
mod dictionary;
mod frame;
mod headers;

pub use connection::{Connection, Incoming, Piece, Stream, StreamWriter};
#[cfg(test)]
pub use frame::{Decoder, Encoder, Frame};
#[cfg(test)]
pub use headers::Headers;

/// The client broke the protocol; its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpdyError(pub &'static str);
