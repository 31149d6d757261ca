//! Files from a registry that are no image: a small document, and a program beside it.
//!
//! In: an artifact's name. Out: its config's bytes; one of its layers as a file on the disk.
//! Never: a byte that its digest does not cover.

use super::{
    download,
    error::ImageError,
    pull::Pull,
    registry::{Failure, Keyring},
    store::Store,
};
use limpet_oci::{Descriptor, Digest, Document, Reference};
use std::{collections::BTreeMap, fs::File, path::PathBuf};
use tokio::task::spawn_blocking;

impl Store {
    /// The config of the artifact.
    pub async fn document(&self, name: &str, bytes_max: usize) -> Result<Vec<u8>, ImageError> {
        let reference = Reference::parse(name)?;
        let keyring = Keyring::new(&[]);
        let mut pull = Pull::new(&self.0, &reference, &keyring);
        let fetched = pull.first_manifest().await?;
        let refused = |why: String| ImageError::Refused { image: name.to_string(), why };
        let document = Document::parse(&fetched.bytes, fetched.content_type.as_deref()).map_err(|e| refused(e.to_string()))?;
        let Document::Manifest(manifest) = document else { return Err(refused("it is a list of images".into())) };
        let mut last = Failure::Unreachable("there is no server to ask".into());
        for session in pull.sessions() {
            match session.small_blob(&manifest.config.digest, bytes_max).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => last = failure,
            }
        }
        Err(download::failed(name, pull.sessions(), last))
    }

    /// A file of the artifact, on the disk, going on where an earlier attempt ended. It belongs to the caller.
    pub async fn file(&self, name: &str, sha256: &str, bytes: u64) -> Result<PathBuf, ImageError> {
        let reference = Reference::parse(name)?;
        let refused = |why: String| ImageError::Refused { image: name.to_string(), why };
        let digest = Digest::parse(&format!("sha256:{sha256}")).map_err(|e| refused(e.to_string()))?;
        let _pulling = self.0.gate.read().await;
        let lock = self.0.lock(name);
        let _held = lock.lock().await;
        let keyring = Keyring::new(&[]);
        let pull = Pull::new(&self.0, &reference, &keyring);
        let wanted = Descriptor {
            media_type: String::new(),
            digest,
            size: bytes,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        };
        let path = download::blob(&self.0.files, pull.sessions(), name, &wanted).await?;
        let file = path.clone();
        let synced = spawn_blocking(move || File::open(file)?.sync_data()).await;
        let synced = synced.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        synced.map_err(ImageError::disk(format!("storing {name}")))?;
        Ok(path)
    }
}
