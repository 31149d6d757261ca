//! A small, strict tar reader: ustar, PAX, GNU long names and sparse files, as found in image layers.
//!
//! In: a byte stream. Out: entries in order, and the data of each, read piece by piece.
//! Never: trusts two sizes that differ (CVE-2025-62518), reads past an entry, or allocates what a header asks for.
//! Where tar readers are known to disagree about an archive, this one refuses it: an archive means one thing or nothing.

mod header;
mod pax;
mod reader;
mod sparse;

pub use reader::{Entry, Kind, Reader, Time};
pub use sparse::Area;

pub(crate) const BLOCK: usize = 512;

/// Nobody retries except for `Io`: the archive is wrong.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("cannot read the archive: {0}")]
    Io(#[from] std::io::Error),
    #[error("the archive is malformed at byte {offset}: {why}")]
    Malformed { offset: u64, why: &'static str },
    #[error("the archive ends in the middle of an entry, at byte {offset}")]
    Truncated { offset: u64 },
}
