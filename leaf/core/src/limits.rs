//! Bounds of a leaf board, in bytes, counts and milliseconds.
//!
//! In: nothing. Out: constants. Never: one that a board with 264 KB of memory cannot hold.

use limpet_protocol::limits::LEAF_ITEM_BYTES_MAX;

/// The node's own object, its ConfigMap, and the one that takes its place while both are there.
pub const ITEMS_MAX: usize = 3;
/// Everything that is kept in flash.
pub const KEPT_BYTES_MAX: usize = 16 * 1024;
/// Sensors and other figures.
pub const READINGS_MAX: usize = 32;
pub const READING_NAME_BYTES_MAX: usize = 64;
/// Sets of readings that wait for the hub.
pub const OUTBOX_MAX: usize = 16;
/// After asking for the whole set, or sending something that has to be confirmed, before doing it again.
pub const AGAIN_MS: u64 = 15_000;
/// The hub's time is worth a write to flash when it is so much newer.
pub const FLOOR_STEP_MS: u64 = 86_400_000;
/// A write to flash that failed is tried again after so long.
pub const KEEP_AGAIN_MS: u64 = 60_000;

const _: () = assert!(ITEMS_MAX * (LEAF_ITEM_BYTES_MAX + 600) < KEPT_BYTES_MAX);
