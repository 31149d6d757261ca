//! Pulls one image: manifest, config, layers, each layer unpacked as soon as it is here.
//!
//! In: a reference, pull secrets. Out: the image in the index, everything that it names on disk before that.
//! Never: fetches a layer that is already unpacked.

use super::delta;
use super::download;
use super::error::ImageError;
use super::files;
use super::limits::LAYERS_AT_ONCE;
use super::registry::{Failure, FetchedManifest, Keyring, Session};
use super::settle::{self, Brought};
use super::signature;
use super::store::Inner;
use super::unpack;
use futures_util::{StreamExt, stream};
use limpet_oci::config::ConfigError;
use limpet_oci::limits::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use limpet_oci::manifest::ManifestError;
use limpet_oci::{Descriptor, Digest, Document, ImageConfig, Manifest, Reference};

/// One pull under way.
pub struct Pull<'a> {
    store: &'a Inner,
    reference: &'a Reference,
    image: String,
    /// Servers to ask, one for each credential; the one that had the manifest comes first, and its others are gone.
    sessions: Vec<Session>,
    /// Servers that could not even be asked.
    unusable: Vec<String>,
}

impl<'a> Pull<'a> {
    pub fn new(store: &'a Inner, reference: &'a Reference, keyring: &Keyring) -> Pull<'a> {
        let mut pull = Pull {
            store,
            reference,
            image: reference.to_string(),
            sessions: Vec::new(),
            unusable: Vec::new(),
        };
        for endpoint in store.registries.endpoints(reference) {
            match endpoint {
                Ok(endpoint) => {
                    pull.sessions.extend(Session::all(&store.registries, &endpoint, &reference.repository, keyring));
                }
                Err(why) => pull.unusable.push(why),
            }
        }
        pull
    }

    /// The digest that the tag names now, if a server says so.
    pub async fn resolve(&self) -> Result<Option<Digest>, ImageError> {
        let mut failures = Vec::new();
        for (n, session) in self.sessions.iter().enumerate() {
            if self.is_futile(n, &failures) {
                continue;
            }
            match session.resolve(&self.reference.target()).await {
                Ok(digest) => return Ok(digest),
                Err(failure) => failures.push(failure),
            }
        }
        Err(self.failure(failures))
    }

    /// Whether the server was just now not to be reached, with another credential.
    fn is_futile(&self, n: usize, failures: &[Failure]) -> bool {
        let away = matches!(failures.last(), Some(Failure::Unreachable(_)));
        away && n > 0 && self.sessions[n].is_beside(&self.sessions[n - 1])
    }

    /// The credentials that its pod has for its servers.
    pub fn fingerprints(&self) -> Vec<String> {
        self.sessions.iter().filter_map(Session::fingerprint).collect()
    }

    /// Those that a server asked for and was shown, so far.
    pub fn opened_with(&self) -> Option<String> {
        self.sessions.iter().find_map(Session::opened_with)
    }

    /// Whether a server has it, or has it for people who say who they are.
    pub async fn is_there(&self) -> bool {
        for session in &self.sessions {
            match session.resolve(&self.reference.target()).await {
                Ok(_) | Err(Failure::Refused(_)) => return true,
                Err(Failure::NotFound(_) | Failure::Unreachable(_)) => {}
            }
        }
        false
    }

    /// Pulls; the image's id.
    pub async fn run(mut self) -> Result<Digest, ImageError> {
        log::info!("images: pulling {}", self.image);
        let fetched = self.first_manifest().await?;
        let mut signer = self.signer(&fetched.digest).await?;
        let mut digests = vec![self.reference.with_digest(&fetched.digest)];
        let (manifest, manifest_digest, bytes) = match self.parse(&fetched)? {
            Document::Manifest(manifest) => (manifest, fetched.digest, fetched.bytes),
            Document::Index(index) => {
                let chosen = index.choose(&self.store.options.platform).map_err(|e| self.bad_manifest(e))?.clone();
                let (manifest, bytes) = self.chosen_manifest(&chosen).await?;
                // Signed as a whole, or this architecture's image alone.
                if signer.is_none() {
                    signer = self.signer(&chosen.digest).await?;
                }
                digests.insert(0, self.reference.with_digest(&chosen.digest));
                (manifest, chosen.digest, bytes)
            }
        };
        self.demand(signer.is_some())?;
        let config = self.config(&manifest).await?;
        config.check_against(&manifest).map_err(|e| self.bad_config(e))?;
        self.layers(&manifest, &config).await?;
        self.store.files.write_blob(&manifest_digest, &bytes)?;
        let size = manifest.layers.iter().map(|l| l.size).sum::<u64>() + manifest.config.size;
        let id = manifest.config.digest;
        let is_new = self.store.index().get(&id).is_none();
        self.store.remember(&id, self.reference, &digests, &config.rootfs.diff_ids, size)?;
        self.store.opened(&id, is_new, self.opened_with())?;
        if let Some(key) = signer {
            self.store.vouched(&id, key)?;
        }
        log::info!("images: {} is here: {id}, {size} bytes compressed", self.image);
        Ok(id)
    }

    /// The name of the key that has signed this digest, when a policy asks for one. A server that cannot be reached is no
    /// answer; one without a signature is.
    async fn signer(&self, digest: &Digest) -> Result<Option<String>, ImageError> {
        let Some(keys) = self.store.keys_for(self.reference) else { return Ok(None) };
        let Some(session) = self.sessions.first() else { return Ok(None) };
        let document = match session.manifest(&signature::tag(digest)).await {
            Ok(document) => document,
            Err(Failure::NotFound(_)) => return Ok(None),
            Err(failure) => return Err(download::failed(&self.image, &self.sessions, failure)),
        };
        for signed in signature::list(&document.bytes) {
            let payload = match session.small_blob(&signed.payload, signature::PAYLOAD_BYTES_MAX).await {
                Ok(payload) => payload,
                Err(Failure::Unreachable(why)) => {
                    return Err(download::failed(&self.image, &self.sessions, Failure::Unreachable(why)));
                }
                Err(_) => continue,
            };
            if let Some(key) = signature::vouches(keys, &payload, &signed.signature, digest) {
                return Ok(Some(key.name()));
            }
        }
        Ok(None)
    }

    fn demand(&self, signed: bool) -> Result<(), ImageError> {
        match self.store.keys_for(self.reference) {
            Some(keys) if !signed => Err(ImageError::Signature {
                image: self.image.clone(),
                why: format!(
                    "this board's imagePolicies ask for a signature by one of {} keys, and the registry has none for it: sign it with \
                     `cosign sign --key`",
                    keys.len()
                ),
            }),
            _ => Ok(()),
        }
    }

    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    pub async fn first_manifest(&mut self) -> Result<FetchedManifest, ImageError> {
        let mut failures = Vec::new();
        for n in 0..self.sessions.len() {
            if self.is_futile(n, &failures) {
                continue;
            }
            match self.sessions[n].manifest(&self.reference.target()).await {
                Ok(fetched) => {
                    let first = self.sessions.remove(n);
                    self.sessions.retain(|other| !other.is_beside(&first));
                    self.sessions.insert(0, first);
                    return Ok(fetched);
                }
                Err(failure) => failures.push(failure),
            }
        }
        Err(self.failure(failures))
    }

    /// The most telling failure: what a server said counts more than one that was not reached.
    fn failure(&self, failures: Vec<Failure>) -> ImageError {
        let unreachable = failures.iter().all(|f| matches!(f, Failure::Unreachable(_)));
        let texts: Vec<String> =
            failures.iter().map(ToString::to_string).chain(self.unusable.iter().cloned()).collect();
        let why = texts.join("; ");
        let only_config = failures.is_empty() && !self.unusable.is_empty();
        let combined = if unreachable && !only_config { Failure::Unreachable(why) } else { Failure::Refused(why) };
        download::failed(&self.image, &self.sessions, combined)
    }

    fn parse(&self, fetched: &FetchedManifest) -> Result<Document, ImageError> {
        Document::parse(&fetched.bytes, fetched.content_type.as_deref()).map_err(|e| self.bad_manifest(e))
    }

    async fn chosen_manifest(&self, chosen: &Descriptor) -> Result<(Manifest, Vec<u8>), ImageError> {
        let bytes = match self.store.files.read_blob(&chosen.digest, MANIFEST_BYTES_MAX) {
            Some(bytes) => bytes,
            None => {
                let mut failures = Vec::new();
                let mut found = None;
                for session in &self.sessions {
                    match session.manifest(&chosen.digest.to_string()).await {
                        Ok(fetched) => {
                            found = Some(fetched.bytes);
                            break;
                        }
                        Err(failure) => failures.push(failure),
                    }
                }
                found.ok_or_else(|| self.failure(failures))?
            }
        };
        match Document::parse(&bytes, Some(&chosen.media_type)).map_err(|e| self.bad_manifest(e))? {
            Document::Manifest(manifest) => Ok((manifest, bytes)),
            Document::Index(_) => {
                Err(self.bad_manifest(ManifestError::Invalid("an index inside an index".to_string())))
            }
        }
    }

    async fn config(&self, manifest: &Manifest) -> Result<ImageConfig, ImageError> {
        let files = &self.store.files;
        let descriptor = &manifest.config;
        let bytes = match files.read_blob(&descriptor.digest, CONFIG_BYTES_MAX) {
            Some(bytes) => {
                files.forget_partial(&descriptor.digest);
                bytes
            }
            None => {
                let path = download::blob(files, &self.sessions, &self.image, descriptor).await?;
                let bytes = files::read_bounded(&path, CONFIG_BYTES_MAX);
                let bytes = bytes.map_err(ImageError::disk("reading an image config"))?;
                files.write_blob(&descriptor.digest, &bytes)?;
                let _ = std::fs::remove_file(path);
                bytes
            }
        };
        ImageConfig::parse(&bytes).map_err(|e| self.bad_config(e))
    }

    async fn layers(&self, manifest: &Manifest, config: &ImageConfig) -> Result<(), ImageError> {
        let all = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        let coming = stream::iter(all.map(|(layer, diff_id)| self.layer(layer, diff_id))).buffer_unordered(LAYERS_AT_ONCE);
        settle::all(self.store, coming).await
    }

    /// `None`: it is here.
    async fn layer(&self, layer: &Descriptor, diff_id: &Digest) -> Result<Option<Brought>, ImageError> {
        // Images share layers: one pull fetches, the others wait and find it done.
        let turn = self.store.queue.turn(self.store.lock(&diff_id.to_string())).await;
        let files = &self.store.files;
        if unpack::meta(files, diff_id).is_some() {
            files.forget_partial(&layer.digest);
            return Ok(None);
        }
        if let Some(unpacked) = delta::layer(self.store, &self.sessions, self.reference, layer, diff_id).await? {
            return Ok(Some((unpacked, turn)));
        }
        let path = download::blob(files, &self.sessions, &self.image, layer).await?;
        let job = unpack::Job { blob: &path, digest: &layer.digest, size: layer.size, diff_id };
        let done = unpack::layer(files, self.store.options.program.as_deref(), &self.image, job).await;
        // A full disk is no reason to fetch it again; a bad layer is of no use. What is gone before the layer settles need not
        // get to the disk.
        if !done.as_ref().is_err_and(ImageError::is_no_space) {
            let _ = std::fs::remove_file(path);
        }
        done.map(|unpacked| Some((unpacked, turn)))
    }

    fn bad_manifest(&self, source: ManifestError) -> ImageError {
        ImageError::Manifest { image: self.image.clone(), source }
    }

    fn bad_config(&self, error: ConfigError) -> ImageError {
        ImageError::Refused { image: self.image.clone(), why: error.to_string() }
    }
}
