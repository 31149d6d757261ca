//! The registry's files.
//!
//! In: checked names and digests. Out: files under one directory, each written under a temporary name, synced and renamed.
//! Never: async; a caller runs it off the event loop.
//!
//! `blobs/<algorithm>/<hex>` has every content once, manifests too. `repos/<name>/` says what a repository has:
//! `_blobs/<digest>`, `_manifests/<digest>` (the file has the media type), `_tags/<tag>` (the digest),
//! `_referrers/<subject>/<digest>` (a descriptor).
//! `recipes/` has what `limpet_oci::delta` makes of layers. Repository components never begin with an underscore.

mod recipes;
mod repos;
mod uploads;

pub use recipes::Part;
pub use repos::StoredManifest;
pub use uploads::UploadHandle;

use crate::error::{Code, RegistryError};
use limpet_oci::Digest;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use uploads::Uploads;

pub struct Storage {
    dir: PathBuf,
    uploads: Uploads,
    /// Changes of links hold it for reading, a sweep for writing: a blob that is being linked is not swept away.
    links: RwLock<()>,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub blobs: usize,
    pub bytes: u64,
    pub uploads: usize,
}

impl Storage {
    pub fn open(dir: &Path) -> io::Result<Storage> {
        for sub in ["blobs/sha256", "blobs/sha512", "recipes", "repos"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        for sub in ["tmp", "uploads"] {
            let path = dir.join(sub);
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
            fs::create_dir(&path)?;
        }
        let uploads = Uploads::new(dir.join("uploads"));
        Ok(Storage { dir: dir.to_path_buf(), uploads, links: RwLock::new(()) })
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn temporary(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.dir.join("tmp").join(NEXT.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Writes a small file durably.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let parent = path.parent().unwrap_or(&self.dir);
        make_directories(parent)?;
        let temporary = self.temporary();
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    }

    /// Opens a blob's content.
    fn open_content(&self, digest: &Digest) -> Result<(File, u64), RegistryError> {
        let file = match File::open(self.blob_path(digest)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(RegistryError::new(Code::BlobUnknown, format!("there is no blob {digest}")));
            }
            Err(e) => return Err(e.into()),
        };
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    pub fn sweep(&self) -> io::Result<Swept> {
        let _alone = self.links.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut swept = Swept { uploads: self.uploads.forget_idle(), ..Swept::default() };
        let mut linked = BTreeSet::new();
        for repository in self.repositories() {
            for sub in ["_blobs", "_manifests"] {
                linked.extend(names(&self.repository(&repository).join(sub)));
            }
        }
        for algorithm in ["sha256", "sha512"] {
            for hex in names(&self.dir.join("blobs").join(algorithm)) {
                if !linked.contains(&format!("{algorithm}:{hex}")) {
                    let path = self.dir.join("blobs").join(algorithm).join(&hex);
                    swept.bytes += fs::metadata(&path).map_or(0, |m| m.len());
                    fs::remove_file(&path)?;
                    swept.blobs += 1;
                }
            }
        }
        swept.bytes += self.sweep_recipes()?;
        Ok(swept)
    }
}

/// Makes directories and syncs every parent that got a new one.
fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
    make_directories(parent)?;
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

/// Sorted names in a directory; none when it is missing.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn read_small(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut text = String::new();
    file.take(64 * 1024).read_to_string(&mut text)?;
    Ok(Some(text))
}

fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}
