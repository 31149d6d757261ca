//! Layers as recipes: what a device has already need not travel again.
//!
//! In: a layer on the hub, unpacked layers on the device. Out: a recipe (pieces of the layer's archive in order), a pack
//! (the pieces themselves, each compressed alone), and on the device the archive put together again.
//! Never: trusts a piece because of its name. Names only say where to look; what counts is the digest of the whole archive,
//! which the image's config gives, and a layer that comes out differently is fetched as a whole.
//!
//! Boundaries of pieces follow the content of each file (`cut`), so that a file that is changed in the middle, or moved
//! to another layer, is found again piece by piece.

pub mod base;
pub mod cut;
pub mod make;
pub mod rebuild;
pub mod recipe;

pub use base::Base;
pub use make::make;
pub use rebuild::Rebuild;
pub use recipe::{Piece, Recipe};

use sha2::Digest as _;

/// The first eight bytes of a SHA-256: enough to find a piece by, and small beside it.
pub type Name = u64;

/// Layers below this size are fetched as a whole.
pub const LAYER_BYTES_MIN: u64 = 1 << 20;
/// Above this a layer has no recipe.
pub const ARCHIVE_BYTES_MAX: u64 = 8 << 30;
/// Of a recipe as it travels, and unfolded.
pub const RECIPE_BYTES_MAX: u64 = 32 << 20;
pub const RECIPE_UNFOLDED_BYTES_MAX: u64 = 128 << 20;
/// Files shorter than this travel in the recipe itself.
pub const PIECE_BYTES_MIN: u64 = 256;

/// The name of a piece.
pub fn name(piece: &[u8]) -> Name {
    let digest = sha2::Sha256::digest(piece);
    digest.iter().take(8).fold(0, |name, byte| (name << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests;
