//! Bounds of the registry.
//!
//! In: nothing. Out: constants. Sizes of manifests and blobs are `limpet_oci::limits`.

use std::time::Duration;

/// Uploads open at a time, of everybody together.
pub const UPLOADS_MAX: usize = 256;
/// An upload that nobody touched for so long is forgotten.
pub const UPLOAD_IDLE_MAX: Duration = Duration::from_secs(3600);
/// Entries of one page of tags or repositories, asked for or not.
pub const PAGE_MAX: usize = 1000;
/// Repositories looked at for one catalog page.
pub const CATALOG_DEPTH_MAX: usize = 32;
/// Referrers of one manifest in one answer.
pub const REFERRERS_MAX: usize = 1000;
/// Bytes of a file read for one piece of an answer.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Pieces of an upload between the network and the disk.
pub const CHUNKS_WAITING_MAX: usize = 8;
