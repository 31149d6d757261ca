//! Uploads under way.
//!
//! In: pieces of blobs. Out: finished temporary files with their digests. In memory only the hash and the length of each: after a
//! restart of the hub clients start again, as the distribution spec lets them.
//! Never: two writers on one upload, or an upload that stays for ever.

use crate::error::{Code, RegistryError};
use crate::limits::{UPLOAD_IDLE_MAX, UPLOADS_MAX};
use limpet_oci::Digest;
use limpet_oci::digest::{Algorithm, Hasher};
use limpet_oci::limits::BLOB_BYTES_MAX;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::OwnedMutexGuard;

pub struct Uploads {
    dir: PathBuf,
    open: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    repository: String,
    touched: Instant,
    upload: Arc<tokio::sync::Mutex<Upload>>,
}

pub struct Upload {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    length: u64,
}

/// One request's exclusive hold of an upload.
pub type UploadHandle = OwnedMutexGuard<Upload>;

impl Uploads {
    pub fn new(dir: PathBuf) -> Uploads {
        Uploads { dir, open: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new upload's id.
    pub fn begin(&self, repository: &str) -> Result<String, RegistryError> {
        self.forget_idle();
        let mut entries = self.entries();
        if entries.len() >= UPLOADS_MAX {
            return Err(RegistryError::new(Code::TooManyRequests, "too many uploads are under way: try again later"));
        }
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|e| RegistryError::new(Code::Unknown, format!("no randomness: {e}")))?;
        let id: String = random.iter().map(|b| format!("{b:02x}")).collect();
        let path = self.dir.join(&id);
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let upload = Upload { path, file, hasher: Hasher::new(Algorithm::Sha256), length: 0 };
        let entry = Entry {
            repository: repository.to_string(),
            touched: now(),
            upload: Arc::new(tokio::sync::Mutex::new(upload)),
        };
        entries.insert(id.clone(), entry);
        Ok(id)
    }

    /// Takes hold of an upload; another request that has it is an error.
    pub fn take(&self, repository: &str, id: &str) -> Result<UploadHandle, RegistryError> {
        let mut entries = self.entries();
        let entry = entries.get_mut(id).filter(|e| e.repository == repository).ok_or_else(|| {
            RegistryError::new(Code::BlobUploadUnknown, "there is no such upload: start a new one")
        })?;
        entry.touched = now();
        entry.upload.clone().try_lock_owned().map_err(|_| {
            RegistryError::new(Code::BlobUploadInvalid, "another request is writing to this upload")
        })
    }

    pub fn end(&self, id: &str) {
        if let Some(entry) = self.entries().remove(id) {
            drop(entry);
        }
        let _ = fs::remove_file(self.dir.join(id));
    }

    pub fn forget_idle(&self) -> usize {
        let idle: Vec<String> = self
            .entries()
            .iter()
            .filter(|(_, e)| e.touched.elapsed() > UPLOAD_IDLE_MAX && e.upload.try_lock().is_ok())
            .map(|(id, _)| id.clone())
            .collect();
        idle.iter().for_each(|id| self.end(id));
        idle.len()
    }
}

/// Idle uploads are measured on the monotonic clock.
fn now() -> Instant {
    Instant::now()
}

impl Upload {
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn append(&mut self, chunk: &[u8]) -> Result<(), RegistryError> {
        if self.length + chunk.len() as u64 > BLOB_BYTES_MAX {
            return Err(RegistryError::new(Code::SizeInvalid, format!("a blob may have {BLOB_BYTES_MAX} bytes")));
        }
        if let Err(e) = self.file.write_all(chunk) {
            // What counts is what was hashed.
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(e.into());
        }
        self.hasher.update(chunk);
        self.length += chunk.len() as u64;
        Ok(())
    }

    /// Whether what was uploaded is `digest`.
    pub fn is(&mut self, digest: &Digest) -> io::Result<bool> {
        if digest.algorithm() == Algorithm::Sha256 {
            return Ok(self.hasher.clone().finish() == *digest);
        }
        let mut hasher = digest.hasher();
        self.file.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(hasher.finish() == *digest),
                got => hasher.update(&buffer[..got]),
            }
        }
    }
}

impl super::Storage {
    pub fn begin_upload(&self, repository: &str) -> Result<String, RegistryError> {
        self.uploads.begin(repository)
    }

    pub fn take_upload(&self, repository: &str, id: &str) -> Result<UploadHandle, RegistryError> {
        self.uploads.take(repository, id)
    }

    pub fn end_upload(&self, id: &str) {
        self.uploads.end(id);
    }
}
