//! Every bound of the link, in one place, asserted against each other at compile time.
//!
//! In: nothing. Out: constants, in bytes or counts as their names say.
//! Never: a bound that depends on the platform.

/// One MQTT packet on the wire, and so one envelope.
pub const ENVELOPE_BYTES_MAX: usize = 1024 * 1024 * 4;
/// The JSON of one item of the desired set (Kubernetes allows 1 MiB of data in a Secret, base64 makes it 1.4).
pub const ITEM_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Items in one `SetChange` message; the sender also keeps the sum under `SET_CHANGE_BYTES_TARGET`.
pub const ITEMS_PER_CHANGE_MAX: usize = 512;
/// A sender starts a new `SetChange` once the bodies in this one reach this many bytes.
pub const SET_CHANGE_BYTES_TARGET: usize = 256 * 1024;
/// Items a node may hold in its desired set.
pub const ITEMS_PER_NODE_MAX: usize = 16_384;
/// Payload bytes of one stream frame.
pub const STREAM_FRAME_BYTES_MAX: usize = 16 * 1024;
/// Bytes that a stream's sender may have in flight before it needs a `Window`.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Streams open at a time on one node.
pub const STREAMS_PER_NODE_MAX: usize = 256;
/// Arguments of an exec command, and bytes of each.
pub const EXEC_ARGS_MAX: usize = 1024;
/// Length of a node name (RFC 1123 subdomain).
pub const NODE_NAME_BYTES_MAX: usize = 253;
/// Pod status JSON in one report.
pub const STATUS_BYTES_MAX: usize = 256 * 1024;
/// One Kubernetes Event as JSON.
pub const EVENT_BYTES_MAX: usize = 8 * 1024;
/// Text of one piece of a kept log; the longest line of a log fits.
pub const LOG_PIECE_BYTES_MAX: usize = 32 * 1024;
/// Payload of one message of a workload's own, and its topic.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
pub const MESSAGE_TOPIC_BYTES_MAX: usize = 256;
/// Extensions of a greeting, and bytes of each.
pub const EXTENSIONS_MAX: usize = 16;
pub const EXTENSION_BYTES_MAX: usize = 1024;
/// Messages below this are not worth squeezing.
pub const SQUEEZE_BYTES_MIN: usize = 64;
/// One item of a leaf board's set, and one envelope to it: such a board has some hundred kilobytes of memory in all.
pub const LEAF_ITEM_BYTES_MAX: usize = 4096;
pub const LEAF_ENVELOPE_BYTES_MAX: usize = 12 * 1024;
/// Join token as text.
pub const JOIN_TOKEN_BYTES_MAX: usize = 2048;

const _: () = assert!(ITEM_BYTES_MAX + 4096 < ENVELOPE_BYTES_MAX);
const _: () = assert!(2 * LEAF_ITEM_BYTES_MAX + 2048 < LEAF_ENVELOPE_BYTES_MAX);
const _: () = assert!(SET_CHANGE_BYTES_TARGET + ITEM_BYTES_MAX < ENVELOPE_BYTES_MAX);
const _: () = assert!(STREAM_FRAME_BYTES_MAX < STREAM_WINDOW_BYTES as usize);
const _: () = assert!(STATUS_BYTES_MAX < ENVELOPE_BYTES_MAX);
