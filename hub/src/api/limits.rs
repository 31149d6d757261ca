//! Every bound of the API server, in one place.
//!
//! In: nothing. Out: constants, in bytes, counts or seconds as their names say.
//! Never: a bound that depends on the request.

use std::time::Duration;

/// Rendered OpenAPI documents that are kept, one a group and version.
pub const DOCUMENTS_MAX: usize = 256;
/// The body of one request: the limit of a real API server.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// All headers of one request, HTTP/1 and HTTP/2 alike.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Path and query of one request.
pub const URI_BYTES_MAX: usize = 16 * 1024;
/// Parameters in one query.
pub const QUERY_PAIRS_MAX: usize = 64;
/// Open connections; beyond it, new ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 8192;
/// Open connections from one address.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 1024;
/// Open watches, all together; beyond it, 429.
pub const WATCHES_MAX: i64 = 20_000;
/// Encoded events that are kept for further watchers, and their bytes together.
pub const ENCODINGS_MAX: usize = 64;
pub const ENCODINGS_BYTES_MAX: usize = 1024 * 1024;
/// Requests that one HTTP/2 connection may have open (client-go multiplexes all of its watches on one).
pub const STREAMS_PER_CONNECTION_MAX: u32 = 250;
/// Reset streams that a peer may have pending (rapid reset, CVE-2023-44487).
pub const PENDING_RESETS_MAX: usize = 20;
/// How long a request waits for its turn.
pub const TURN_TIME: Duration = Duration::from_secs(10);
/// Receive windows of HTTP/2: bodies are small, memory is dear.
pub const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Pings on quiet HTTP/2 connections, and how long their answer may take.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
pub const KEEP_ALIVE_TIME: Duration = Duration::from_secs(30);
/// After a failed accept.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for the TLS handshake: as long as a board that joins waits for an answer, so the hub is never the first to lose patience.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(30);
/// Time for the headers of an HTTP/1 request.
pub const HEADERS_TIME: Duration = Duration::from_secs(30);
/// How long a client may leave its answer unread, once all buffers on the way are full.
pub const STALL_TIME: Duration = Duration::from_secs(300);
/// Time for the body of a request.
pub const BODY_TIME: Duration = Duration::from_secs(60);
/// Bodies that are in memory at the same time, all together, in KiB.
pub const BODIES_KIB_MAX: u32 = 96 * 1024;
/// What bodies may take as values at the same time, all together, in KiB; one that would take more alone is read alone.
pub const VALUES_KIB_MAX: u32 = 256 * 1024;
/// One value of a parsed body: its own place, and those of copies.
pub const VALUE_BYTES: usize = 64;
/// The body of a device that wants to join: nobody has vouched for it yet.
pub const JOIN_BYTES_MAX: usize = 32 * 1024;
/// What is still read of a body after its answer is known.
pub const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
pub const DRAIN_TIME: Duration = Duration::from_secs(10);
/// Time that open requests get after the order to stop.
pub const SHUTDOWN_TIME: Duration = Duration::from_secs(5);
/// How often the `kubernetes` Service is looked after.
pub const KUBERNETES_SERVICE_EVERY: Duration = Duration::from_secs(10);
/// Bytes from which a response is compressed when the client accepts it.
pub const GZIP_BYTES_MIN: usize = 128 * 1024;
/// One chunk of a list on its way out.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Shortest life of a watch that names none; up to twice this is added at random, as upstream does.
pub const WATCH_SECONDS_MIN: u64 = 1800;
/// Between two bookmarks of a quiet watch.
pub const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Attempts of a write whose object changed underneath it; one of the writers always gets through.
pub const CONFLICT_RETRIES_MAX: usize = 64;
/// How long a write waits to see the other write that was faster.
pub const MOVED_ON_TIME: Duration = Duration::from_secs(2);
/// Attempts to find a free name for `generateName`.
pub const GENERATE_NAME_RETRIES_MAX: usize = 8;
/// Warnings in one response, and the length of each.
pub const WARNINGS_MAX: usize = 32;
pub const WARNING_BYTES_MAX: usize = 512;
/// An `Audit-ID` that a client chose.
pub const AUDIT_ID_BYTES_MAX: usize = 64;
/// A bearer token.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// YAML: parser events, nesting, and alias replays in one document.
pub const YAML_EVENTS_MAX: usize = 500_000;
pub const YAML_DEPTH_MAX: usize = 100;
pub const YAML_ALIASES_MAX: usize = 1000;

const _: () = assert!(BODIES_KIB_MAX as usize * 1024 > 8 * BODY_BYTES_MAX && JOIN_BYTES_MAX < BODY_BYTES_MAX);
const _: () = assert!(VALUES_KIB_MAX > BODIES_KIB_MAX);
const _: () = assert!(GZIP_BYTES_MIN > CHUNK_BYTES && TOKEN_BYTES_MAX < HEADER_BYTES_MAX);
