//! Bounds of everything that streams take from API clients.
//!
//! In: nothing. Out: numbers, with the reason for each.
//! Never: changes at run time.

use std::time::Duration;

/// A WebSocket message: `kubectl cp` sends 32 KiB pieces, other clients send a whole stdin at once.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A SPDY data frame; clients use 32 KiB.
pub const SPDY_DATA_BYTES_MAX: usize = 1024 * 1024;
/// A SPDY control frame, compressed.
pub const SPDY_CONTROL_BYTES_MAX: usize = 64 * 1024;
/// A SPDY header block, inflated.
pub const SPDY_HEADERS_BYTES_MAX: usize = 64 * 1024;
/// Pairs in one header block.
pub const SPDY_HEADERS_MAX: usize = 64;
/// SPDY streams of one client connection at the same time; a forwarded connection takes two.
pub const SPDY_STREAMS_MAX: usize = 256;
/// Data frames of one SPDY stream that wait for the node.
pub const SPDY_QUEUE: usize = 8;
/// Frames that wait to be written to the client.
pub const SPDY_OUT_QUEUE: usize = 32;
/// A client that opened some of its streams must open the rest in this time (upstream: 30 s).
pub const STREAMS_TIME: Duration = Duration::from_secs(30);
/// Signs of life to quiet clients. kubectl gives up after 60 s without one.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(20);
/// A client that answers no ping is sent its first data after this time all the same.
pub const LISTENS_TIME: Duration = Duration::from_secs(1);
/// From a client's first answer until its streams are there.
pub const STREAMS_MADE_TIME: Duration = Duration::from_millis(10);
/// Time for the last frames to reach a client.
pub const CLOSE_TIME: Duration = Duration::from_secs(10);
/// Ports of one port-forward over WebSocket channels: two channels each, numbered in one byte.
pub const PORTS_MAX: usize = 100;
/// Words and bytes of a command.
pub const COMMAND_WORDS_MAX: usize = 1024;

const _: () = assert!(PORTS_MAX * 2 <= 255);
const _: () = assert!(SPDY_DATA_BYTES_MAX < 1 << 24 && SPDY_CONTROL_BYTES_MAX < 1 << 24);
const _: () = assert!(HEARTBEAT_EVERY.as_secs() < 60);
