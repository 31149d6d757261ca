//! Every bound on what an image may ask for, in one place.
//!
//! In: nothing. Out: constants, in bytes or counts as their names say.

/// A manifest or an index (the distribution spec asks registries to take 4 MiB).
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// An image config.
pub const CONFIG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Layers of one image; overlayfs on Linux takes 500 lower directories, a mount option page holds fewer.
pub const LAYERS_MAX: usize = 127;
/// Manifests in one index.
pub const INDEX_ENTRIES_MAX: usize = 1024;
/// One compressed blob.
pub const BLOB_BYTES_MAX: u64 = 32 * 1024 * 1024 * 1024;
/// A reference as text.
pub const REFERENCE_BYTES_MAX: usize = 512;
/// A repository name (the distribution spec's advice for host and name together).
pub const REPOSITORY_BYTES_MAX: usize = 255;

/// A path in a layer.
pub const PATH_BYTES_MAX: usize = 4095;
/// Components of a path in a layer, links resolved. Walking holds one file descriptor a level.
pub const PATH_DEPTH_MAX: usize = 128;
/// One PAX header or GNU long name.
pub const PAX_BYTES_MAX: u64 = 1024 * 1024;
/// Extended attributes of one entry.
pub const XATTRS_MAX: usize = 64;
/// Data areas of one sparse file.
pub const SPARSE_AREAS_MAX: usize = 64 * 1024;
/// Symbolic links followed (inside the layer) on the way to one entry.
pub const LINKS_FOLLOWED_MAX: usize = 40;
/// What a zstd frame may ask its reader to remember (RFC 8878 asks for 8 MiB at least; level 19 uses that).
pub const ZSTD_WINDOW_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What one layer may unpack to. The defaults suit a board; the image store may tighten them to its free space.
#[derive(Clone, Copy, Debug)]
pub struct LayerLimits {
    /// Entries of the archive.
    pub entries_max: u64,
    /// Bytes of the uncompressed archive.
    pub unpacked_bytes_max: u64,
    /// Length of one file, holes included.
    pub file_bytes_max: u64,
    /// Uncompressed bytes per compressed byte, once `ratio_free_bytes` have been written.
    pub ratio_max: u64,
    /// Uncompressed bytes that are fine at any ratio.
    pub ratio_free_bytes: u64,
}

impl Default for LayerLimits {
    fn default() -> LayerLimits {
        LayerLimits {
            entries_max: 1_000_000,
            unpacked_bytes_max: 64 * 1024 * 1024 * 1024,
            file_bytes_max: 64 * 1024 * 1024 * 1024,
            ratio_max: 250,
            ratio_free_bytes: 256 * 1024 * 1024,
        }
    }
}

const _: () = assert!(PAX_BYTES_MAX as usize > PATH_BYTES_MAX);
const _: () = assert!(REPOSITORY_BYTES_MAX < REFERENCE_BYTES_MAX);
