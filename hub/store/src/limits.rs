//! Bounds of the store.
//!
//! In: nothing. Out: constants in bytes or counts. Never: a bound that depends on the platform.

/// One object. The API refuses bodies over 3 MiB; managed fields and status come on top.
pub const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Resource, namespace and name, each.
pub const KEY_PART_BYTES_MAX: usize = 512;
/// Writes of one `write_all`.
pub const WRITES_PER_TRANSACTION_MAX: usize = 4096;
/// Requests that may wait for the writer; more wait for room.
pub const QUEUE_WRITES_MAX: usize = 4096;
/// Requests that share one fsync.
pub const GROUP_REQUESTS_MAX: usize = 256;
/// Revisions reserved ahead for relaxed writes, so that none is reused after a crash.
pub const REVISIONS_AHEAD: u64 = 4096;
/// Relaxed writes that may wait for their flush.
pub const RELAXED_WAITING_MAX: usize = 4096;
/// Events that a watch takes from the window at a time.
pub const WATCH_TAKE_MAX: usize = 64;

const _: () = assert!(GROUP_REQUESTS_MAX <= QUEUE_WRITES_MAX);
