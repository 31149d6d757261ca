//! What repositories have: blobs, manifests, tags, referrers.
//!
//! In: checked names. Out: links and documents. Never: a link to content that is not on disk.

use super::{Storage, names, read_small, remove};
use crate::error::{Code, RegistryError};
use crate::limits::{CATALOG_DEPTH_MAX, REFERRERS_MAX};
use limpet_oci::limits::MANIFEST_BYTES_MAX;
use limpet_oci::{Descriptor, Digest};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::PoisonError;

/// A manifest as it was pushed.
pub struct StoredManifest {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

impl Storage {
    pub fn repository(&self, name: &str) -> PathBuf {
        self.dir.join("repos").join(name)
    }

    fn link(&self, repository: &str, sub: &str, name: &str) -> PathBuf {
        self.repository(repository).join(sub).join(name)
    }

    fn changing(&self) -> std::sync::RwLockReadGuard<'_, ()> {
        self.links.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A blob of this repository.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Result<(File, u64), RegistryError> {
        if !self.has_blob(repository, digest) {
            return Err(RegistryError::new(Code::BlobUnknown, format!("{repository} has no blob {digest}")));
        }
        self.open_content(digest)
    }

    pub fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        let linked = |sub| self.link(repository, sub, &digest.to_string()).exists();
        (linked("_blobs") || linked("_manifests")) && self.blob_path(digest).exists()
    }

    /// Makes finished content a part of the repository: `temporary` becomes the blob, if it is not there yet.
    pub fn add_blob(
        &self,
        repository: &str,
        digest: &Digest,
        temporary: Option<&std::path::Path>,
    ) -> Result<(), RegistryError> {
        let _changing = self.changing();
        let path = self.blob_path(digest);
        if let Some(temporary) = temporary {
            File::open(temporary)?.sync_data()?;
            fs::rename(temporary, &path)?;
            if let Some(parent) = path.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        if !path.exists() {
            return Err(RegistryError::new(Code::BlobUnknown, format!("there is no blob {digest}")));
        }
        self.write(&self.link(repository, "_blobs", &digest.to_string()), b"")?;
        Ok(())
    }

    pub fn delete_blob(&self, repository: &str, digest: &Digest) -> Result<(), RegistryError> {
        let _changing = self.changing();
        match remove(&self.link(repository, "_blobs", &digest.to_string()))? {
            true => Ok(()),
            false => Err(RegistryError::new(Code::BlobUnknown, format!("{repository} has no blob {digest}"))),
        }
    }

    pub fn put_manifest(
        &self,
        repository: &str,
        manifest: &StoredManifest,
        tag: Option<&str>,
        refers_to: Option<(&Digest, &Descriptor)>,
    ) -> Result<(), RegistryError> {
        let _changing = self.changing();
        let digest = manifest.digest.to_string();
        let path = self.blob_path(&manifest.digest);
        if !path.exists() {
            self.write(&path, &manifest.bytes)?;
        }
        self.write(&self.link(repository, "_manifests", &digest), manifest.media_type.as_bytes())?;
        if let Some((subject, descriptor)) = refers_to {
            let path = self.link(repository, "_referrers", &subject.to_string()).join(&digest);
            let text = serde_json::to_vec(descriptor)
                .map_err(|e| RegistryError::new(Code::Unknown, format!("writing a descriptor: {e}")))?;
            self.write(&path, &text)?;
        }
        // The tag comes last: what it names is complete.
        if let Some(tag) = tag {
            self.write(&self.link(repository, "_tags", tag), digest.as_bytes())?;
        }
        Ok(())
    }

    pub fn tagged(&self, repository: &str, tag: &str) -> Result<Digest, RegistryError> {
        let unknown = || RegistryError::new(Code::ManifestUnknown, format!("{repository} has no tag {tag:?}"));
        let text = read_small(&self.link(repository, "_tags", tag))?.ok_or_else(unknown)?;
        Digest::parse(&text).map_err(|_| unknown())
    }

    pub fn manifest(&self, repository: &str, digest: &Digest) -> Result<StoredManifest, RegistryError> {
        let unknown =
            || RegistryError::new(Code::ManifestUnknown, format!("{repository} has no manifest {digest}"));
        let media_type =
            read_small(&self.link(repository, "_manifests", &digest.to_string()))?.ok_or_else(unknown)?;
        let (file, _) = self.open_content(digest).map_err(|_| unknown())?;
        let mut bytes = Vec::new();
        file.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        match digest.matches(&bytes) {
            true => Ok(StoredManifest { digest: digest.clone(), media_type, bytes }),
            false => Err(RegistryError::new(
                Code::Unknown,
                format!("manifest {digest} is damaged on the hub's disk: push it again"),
            )),
        }
    }

    /// Removes a manifest, the tags that name it, and what it says about its subject.
    pub fn delete_manifest(&self, repository: &str, digest: &Digest) -> Result<(), RegistryError> {
        let _changing = self.changing();
        let name = digest.to_string();
        for tag in self.tags(repository) {
            if self.tagged(repository, &tag).is_ok_and(|d| d == *digest) {
                remove(&self.link(repository, "_tags", &tag))?;
            }
        }
        let referrers = self.repository(repository).join("_referrers");
        for subject in names(&referrers) {
            remove(&referrers.join(subject).join(&name))?;
        }
        match remove(&self.link(repository, "_manifests", &name))? {
            true => Ok(()),
            false => {
                Err(RegistryError::new(Code::ManifestUnknown, format!("{repository} has no manifest {digest}")))
            }
        }
    }

    pub fn delete_tag(&self, repository: &str, tag: &str) -> Result<(), RegistryError> {
        match remove(&self.link(repository, "_tags", tag))? {
            true => Ok(()),
            false => Err(RegistryError::new(Code::ManifestUnknown, format!("{repository} has no tag {tag:?}"))),
        }
    }

    pub fn tags(&self, repository: &str) -> Vec<String> {
        names(&self.repository(repository).join("_tags"))
    }

    pub fn exists(&self, repository: &str) -> bool {
        self.repository(repository).join("_manifests").is_dir() || self.repository(repository).join("_blobs").is_dir()
    }

    /// Descriptors of the manifests whose subject is `digest`.
    pub fn referrers(&self, repository: &str, digest: &Digest) -> Vec<Descriptor> {
        let dir = self.link(repository, "_referrers", &digest.to_string());
        let read = |name: String| serde_json::from_str(&read_small(&dir.join(name)).ok()??).ok();
        names(&dir).into_iter().take(REFERRERS_MAX).filter_map(read).collect()
    }

    /// Names of all repositories, sorted.
    pub fn repositories(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![String::new()];
        while let Some(name) = todo.pop() {
            let dir = self.repository(&name);
            for entry in names(&dir) {
                let child = if name.is_empty() { entry.clone() } else { format!("{name}/{entry}") };
                if !entry.starts_with('_') && child.split('/').count() <= CATALOG_DEPTH_MAX {
                    todo.push(child);
                }
            }
            if !name.is_empty() && self.exists(&name) {
                found.push(name);
            }
        }
        found.sort();
        found
    }
}
