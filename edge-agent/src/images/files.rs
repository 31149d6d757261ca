//! The store's directories, and writing files so that a power cut leaves the old or the new one.
//!
//! In: bytes and digests. Out: paths, files. Never: a name that comes from outside unchecked (digests are hexadecimal).

use super::error::ImageError;
use crate::device::unnoted;
use limpet_oci::Digest;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// A store that another process works with: nothing is made, and nothing cleared.
    pub fn of(dir: &Path) -> Files {
        Files { dir: dir.to_path_buf() }
    }

    /// Makes the directories and clears what was under way when the agent last ended.
    pub fn open(dir: &Path) -> Result<Files, ImageError> {
        let files = Files::of(dir);
        for sub in ["blobs", "layers", "partial", "tmp"] {
            let path = dir.join(sub);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(ImageError::disk(format!("making {}", path.display())))?;
        }
        files.clear_temporary();
        Ok(files)
    }

    pub fn index(&self) -> PathBuf {
        self.dir.join("index")
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(file_name(digest))
    }

    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.dir.join("partial").join(file_name(digest))
    }

    /// What it was for is here. A power cut may have kept it from going.
    pub fn forget_partial(&self, digest: &Digest) {
        let _ = fs::remove_file(self.partial(digest));
    }

    /// The name is cut to 128 bits: overlayfs' mount options have to fit into a page.
    pub fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join("layers").join(&diff_id.hex()[..32])
    }

    pub fn sub(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A name in `tmp/` that nobody else has.
    pub fn temporary(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        self.dir.join("tmp").join(format!("{}-{n}", std::process::id()))
    }

    fn clear_temporary(&self) {
        for entry in fs::read_dir(self.dir.join("tmp")).into_iter().flatten().flatten() {
            if let Err(e) = remove_all(&entry.path()) {
                log::warn!("images: cannot remove left-over {}: {e}", entry.path().display());
            }
        }
    }

    /// A small blob whose bytes were checked. One that is here is left, unless a failing card has spoiled it.
    pub fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        let path = self.blob(digest);
        if self.read_blob(digest, bytes.len()).is_some() {
            return Ok(());
        }
        replace(&path, &self.temporary(), bytes).map_err(ImageError::disk(format!("writing blob {digest}")))
    }

    /// None when it is not here or not what its name says.
    pub fn read_blob(&self, digest: &Digest, bytes_max: usize) -> Option<Vec<u8>> {
        let bytes = read_bounded(&self.blob(digest), bytes_max).ok()?;
        digest.matches(&bytes).then_some(bytes)
    }
}

fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

pub fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    unnoted::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > bytes_max {
        true => Err(io::Error::other("the file is larger than expected")),
        false => Ok(bytes),
    }
}

/// Writes `bytes` to `path` by way of `temporary`: after a power cut the file is the old or the new one.
pub fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(temporary, path)?;
    sync_parent(path)
}

pub fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
}

pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub fn remove_all(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}
