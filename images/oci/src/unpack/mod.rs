//! Unpacks one layer into a directory that overlayfs can use as a lower layer.
//!
//! In: the blob as a reader, what the manifest and the config say about it, an empty directory. Out: the directory filled,
//! whiteouts in overlayfs' form, blob digest, size and diff id checked while streaming.
//! Never: touches anything outside the directory, whatever the archive says, or keeps a layer whose digests differ.
//! The source of the behaviour is the OCI image spec's layer.md; where it is silent, Docker's and containerd's unpackers.
//!
//! On an error the directory holds rubbish: the caller works on a temporary one and removes it.

mod apply;
mod counted;
mod names;
mod tree;

use crate::decompress::Decompressed;
use crate::digest::Digest;
use crate::limits::LayerLimits;
use crate::tar::{Reader, TarError};
use counted::{Blob, Unpacked as UnpackedBytes};
use std::io::Read;
use std::path::Path;

/// What manifest and config promise about a layer.
#[derive(Clone, Debug)]
pub struct Expect {
    pub digest: Digest,
    pub size: u64,
    pub diff_id: Digest,
}

/// What came out of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unpacked {
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// The layer hides everything below it (an opaque marker at its top): leave the lower layers away.
    pub hides_all: bool,
    /// Extended attributes that the file system does not take.
    pub xattrs_dropped: u64,
}

/// `NoSpace` and `Io` may pass with time; everything else is wrong with the image.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("no space left while unpacking the layer ({0}): free some and try again")]
    NoSpace(String),
    #[error("cannot unpack the layer: {what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("the layer is not valid: {0}")]
    Archive(TarError),
    #[error("the layer's digest is {got}, the manifest says {want}")]
    Digest { want: Digest, got: Digest },
    #[error("the layer has {got} bytes, the manifest says {want}")]
    Size { want: u64, got: u64 },
    #[error("the unpacked layer's digest is {got}, the image config says {want}")]
    DiffId { want: Digest, got: Digest },
    #[error("the layer is refused: entry {path:?}: {why}")]
    Refused { path: String, why: &'static str },
    #[error("the layer is refused: {0}")]
    TooLarge(String),
}

/// Unpacks `blob` into `into`, an empty directory that nobody else writes to.
pub fn unpack<R: Read>(
    blob: R,
    expect: &Expect,
    into: &Path,
    limits: &LayerLimits,
) -> Result<Unpacked, UnpackError> {
    let blob = Blob::new(blob, expect);
    let compressed = blob.count();
    let stream = Decompressed::new(blob).map_err(read_error)?;
    let bytes = UnpackedBytes::new(stream, expect.diff_id.hasher(), compressed, limits);
    let mut reader = Reader::new(bytes);
    let applied = apply::apply(&mut reader, into, limits)?;
    let mut bytes = reader.into_inner();
    std::io::copy(&mut bytes, &mut std::io::sink()).map_err(read_error)?;
    let total = bytes.count();
    let (diff_id, stream) = bytes.finish();
    stream.drain().map_err(read_error)?;
    if diff_id != expect.diff_id {
        return Err(UnpackError::DiffId { want: expect.diff_id.clone(), got: diff_id });
    }
    Ok(Unpacked { bytes: total, ..applied })
}

/// Waits until everything that was written to the file system of `file` is on disk.
pub fn sync_file_system(file: &std::fs::File) -> std::io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

/// An error of the stream; ours travel inside `io::Error` through the decoders.
fn read_error(error: std::io::Error) -> UnpackError {
    match error.downcast::<counted::Stop>() {
        Ok(stop) => stop.0,
        Err(source) => UnpackError::Io { what: "reading the layer".to_string(), source },
    }
}

fn tar_error(error: TarError) -> UnpackError {
    match error {
        TarError::Io(e) => read_error(e),
        other => UnpackError::Archive(other),
    }
}

fn file_error(what: String, error: rustix::io::Errno) -> UnpackError {
    match error {
        rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => UnpackError::NoSpace(what),
        error => UnpackError::Io { what, source: error.into() },
    }
}

#[cfg(test)]
mod tests;
