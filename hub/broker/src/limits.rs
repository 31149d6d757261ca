//! Bounds of the broker, before and after a client has shown who it is.
//!
//! In: nothing. Out: constants. Never: a read, a queue or a wait without one of these.

use std::time::Duration;

/// TCP accept to the end of the TLS handshake, and from there to a whole CONNECT: as long as a board waits for both together, so
/// the hub is never the first to lose patience.
pub const HANDSHAKE: Duration = Duration::from_secs(30);
/// The same where half of the places for strangers are taken: whoever holds places for nothing gets them for less time.
pub const HANDSHAKE_CROWDED: Duration = Duration::from_secs(10);
/// A CONNECT packet. Ours is about 60 bytes.
pub const CONNECT_BYTES_MAX: u32 = 1024;
/// Connections that have not finished CONNECT. Above it, new ones wait in the kernel's backlog.
pub const UNAUTHENTICATED_MAX: usize = 512;
/// With fewer places left than these, `HANDSHAKE_CROWDED` holds for who comes.
pub const UNAUTHENTICATED_ROOM: usize = UNAUTHENTICATED_MAX / 2;
/// Connections in all.
pub const CONNECTIONS_MAX: usize = 120_000;
/// Topic filters in one SUBSCRIBE.
pub const FILTERS_MAX: usize = 16;
/// Messages waiting for one client's socket. A full queue is told to the sender, and holds up nobody else.
pub const QUEUE_MESSAGES_MAX: usize = 256;
/// Acknowledgements waiting for one client's socket.
pub const ANSWERS_MAX: usize = 1024;
/// Bytes waiting for one client's socket, besides streams.
pub const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Frames of streams waiting for one client's socket; their credit bounds them first.
pub const BULK_MESSAGES_MAX: usize = 4096;
/// Bytes of streams waiting for one client's socket.
pub const BULK_BYTES_MAX: usize = 32 * 1024 * 1024;
/// One write to a socket: a client that takes nothing for so long is cut off.
pub const WRITE: Duration = Duration::from_secs(60);
/// What was sent and is not acknowledged by the client's kernel for so long: the connection is dead.
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(60);
/// User name of clients that want no answer to their pings.
pub const QUIET: &str = "quiet";
/// When the hub ends a connection, what it said before is still written for so long.
pub const LAST_WORDS: Duration = Duration::from_secs(1);
/// Keep-alive used when a client asks for none or for more.
pub const KEEP_ALIVE_MAX: Duration = Duration::from_secs(3600);
/// Messages of all clients that wait for the hub. When it is full, sockets are not read.
pub const INBOX_MESSAGES: usize = 1024;
/// Bytes read from a socket at a time.
pub const READ_BYTES: usize = 4096;
/// Messages that wait are written together up to about one record of TLS.
pub const BATCH_BYTES: usize = 16 * 1024;
/// What the kernel takes of a client's bytes before it can send them: more would wait there before something urgent.
pub const UNSENT_BYTES: u32 = 16 * 1024;
