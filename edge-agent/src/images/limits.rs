//! Bounds of the image store.
//!
//! In: nothing. Out: constants. Never: a bound on what an image may contain (those are `limpet_oci::limits`).

use std::time::Duration;

/// Layers of one image that are fetched and unpacked at a time.
pub const LAYERS_AT_ONCE: usize = 2;
/// Redirects followed for one request.
pub const REDIRECTS_MAX: usize = 5;
/// Answers of token servers.
pub const TOKEN_BYTES_MAX: usize = 128 * 1024;
/// Error texts of registries that are read and shown.
pub const ERROR_BYTES_MAX: usize = 16 * 1024;
/// Attempts at one blob that bring nothing new before the pull fails; bytes that arrive start the count again.
pub const BLOB_ATTEMPTS_MAX: u32 = 3;
/// Chunks of a blob between the network and the disk.
pub const CHUNKS_WAITING_MAX: usize = 8;
/// Interrupted downloads that are kept.
pub const PARTIALS_MAX: usize = 16;
/// Pull secrets looked at for one image, and credentials in each.
pub const CREDENTIALS_MAX: usize = 256;
/// Of one registry, one after the other.
pub const CREDENTIALS_TRIED_MAX: usize = 8;
pub const SECRET_BYTES_MAX: usize = 1024 * 1024;
/// The content index.
pub const INDEX_BYTES_MAX: usize = 16 * 1024 * 1024;
/// One CA file.
pub const CA_FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Before an image is removed: registries are asked whether it could come again, so many at a time and for so long.
pub const ASKED_AT_ONCE: usize = 4;
pub const ASK_TIMEOUT: Duration = Duration::from_secs(4);

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// From a request to the head of its answer.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 60 });
/// A body that brings less than this in this time is given up: it would hold the pull for ever. Slower links carry no images.
pub const SLOW_WINDOW: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 300 });
pub const SLOW_BYTES_MIN: u64 = if cfg!(test) { 1024 } else { 16 * 1024 };
/// Between two pieces of a body: slow links are fine, dead ones are not.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
