//! The store's doors: ensure, find, list.
//!
//! In: what pods want. Out: images, from disk where the policy and the network allow or demand it.
//! Never: holds a lock over an await that is not its own kind of lock; answers from memory what the disk does not have.

use super::error::ImageError;
use super::files::Files;
use super::index::{Index, Stored};
use super::pull::Pull;
use super::registry::{HubAccess, Keyring, Registries, RegistryOptions};
use super::settle::Queue;
use super::signature;
use super::unpack;
use limpet_oci::limits::CONFIG_BYTES_MAX;
use limpet_oci::{Digest, ImageConfig, Platform, Reference};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[derive(Clone, Debug)]
pub struct Options {
    /// `<data>/images`
    pub dir: PathBuf,
    /// What images are chosen for.
    pub platform: Platform,
    /// The agent's own program, started as `limpet-agent unpack` for every layer; None unpacks in this process (tests).
    pub program: Option<PathBuf>,
    pub registries: RegistryOptions,
    /// Images that are pulled at a time; no limit when absent.
    pub pulls_at_once: Option<usize>,
    /// Which images need whose signature.
    pub trust: Vec<Trust>,
}

/// A policy with its keys.
#[derive(Clone)]
pub struct Trust {
    pub policy: signature::Policy,
    pub keys: Vec<signature::Key>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.policy)
    }
}

/// imagePullPolicy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// What a container needs.
#[derive(Clone, Debug)]
pub struct Want {
    pub image: String,
    pub policy: Policy,
    /// `.dockerconfigjson` or `.dockercfg` documents, in the pod's order.
    pub pull_secrets: Vec<Vec<u8>>,
}

/// An image on disk.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the config.
    pub id: String,
    /// `docker.io/library/nginx@sha256:…`, for `imageID` in the status.
    pub repo_digest: String,
    /// `docker.io/library/nginx:1.27`, for `image` in the status; the id when it has no tag, as containerd has it.
    pub name: String,
    pub config: ImageConfig,
    /// Lowest first. overlayfs wants them the other way round.
    pub layers: Vec<PathBuf>,
    /// Compressed.
    pub bytes: u64,
    /// False: it was here.
    pub pulled: bool,
    /// The policy wanted to ask the registry, which could not be reached: what is here was taken.
    pub unverified: bool,
}

impl Image {
    /// A registry was asked for it, and answered.
    pub fn was_asked_for(&self, policy: Policy) -> bool {
        self.pulled || (policy == Policy::Always && !self.unverified)
    }
}

/// For `node.status.images`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub names: Vec<String>,
    pub bytes: u64,
}

fn all_of(index: &Index) -> Vec<Listed> {
    let one = |(id, stored): (&Digest, &super::index::Stored)| Listed {
        id: id.to_string(),
        names: names(stored),
        bytes: stored.bytes,
    };
    index.iter().map(one).collect()
}

/// The images of a store that this process does not work with.
pub fn listed(dir: &std::path::Path) -> Vec<Listed> {
    all_of(&Index::load(&Files::of(dir)))
}

#[derive(Clone)]
pub struct Store(pub(super) Arc<Inner>);

pub struct Inner {
    pub options: Options,
    pub files: Files,
    pub registries: Arc<Registries>,
    index: Mutex<Index>,
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Pulls hold it for reading, collection for writing.
    pub gate: tokio::sync::RwLock<()>,
    pulls: tokio::sync::Semaphore,
    /// Pulls that wait for layers of others.
    pub(super) queue: Queue,
}

impl Store {
    /// Opens or makes the store; nothing is asked over the network.
    pub fn open(options: Options) -> Result<Store, ImageError> {
        let files = Files::open(&options.dir)?;
        std::fs::create_dir_all(files.sub("empty")).map_err(ImageError::disk("making the empty layer"))?;
        let index = Index::load(&files);
        let pulls = options.pulls_at_once.unwrap_or(tokio::sync::Semaphore::MAX_PERMITS);
        let registries = Arc::new(Registries::new(options.registries.clone()));
        Ok(Store(Arc::new(Inner {
            options,
            files,
            registries,
            index: Mutex::new(index),
            locks: Mutex::default(),
            gate: tokio::sync::RwLock::new(()),
            pulls: tokio::sync::Semaphore::new(pulls),
            queue: Queue::default(),
        })))
    }

    /// Where `hub.limpet/…` comes from; after joining, renewing or leaving.
    pub fn set_hub(&self, access: Option<HubAccess>) -> Result<(), ImageError> {
        self.0.registries.set_hub(access)
    }

    /// The image, pulled if the policy says so. Dropping the future stops the pull; what was fetched stays for the next, but for
    /// layers that came just now (settle.rs).
    ///
    /// With `Always` and a registry that cannot be reached at all, an image that is here is used: a board that reboots
    /// without a network starts its pods. A registry that answers "no" is believed.
    pub async fn ensure(&self, want: &Want) -> Result<Image, ImageError> {
        let reference = Reference::parse(&want.image)?;
        let _pulling = self.0.gate.read().await;
        let lock = self.0.lock(&reference.to_string());
        let _held = lock.lock().await;
        // An image that was here before its policy, or before its key, has to be vouched for like a new one.
        let here = self.0.find(&reference).filter(|image| self.0.is_trusted(&reference, &image.id));
        match (want.policy, here) {
            (Policy::Never | Policy::IfNotPresent, Some(image)) => self.allow(&reference, want, image).await,
            (Policy::Never, None) => Err(ImageError::NeverPull(want.image.clone())),
            // A digest names the same bytes for ever: there is nothing to ask.
            (Policy::Always, Some(image)) if reference.digest.is_some() => self.allow(&reference, want, image).await,
            (Policy::Always, Some(image)) => self.refresh(&reference, want, image).await,
            (_, None) => self.pull(&reference, want).await,
        }
    }

    /// The image if it is here, whatever policies say.
    pub fn find(&self, image: &str) -> Option<Image> {
        self.0.find(&Reference::parse(image).ok()?)
    }

    /// The id under which the index has it; whether all of it is on the disk is not looked at.
    pub fn id_of(&self, image: &str) -> Option<String> {
        let reference = Reference::parse(image).ok()?;
        self.0.index().find(&reference).map(|(id, _)| id.to_string())
    }

    pub fn list(&self) -> Vec<Listed> {
        let index = self.0.index();
        all_of(&index)
    }

    /// An image that is here because its registry let another pod in is not everybody's: this pod has those credentials too, or
    /// its own are tried (kubelet's KubeletEnsureSecretPulledImages). Offline a pod that has some for this registry is believed.
    async fn allow(&self, reference: &Reference, want: &Want, here: Image) -> Result<Image, ImageError> {
        if self.0.is_open(&here.id, &[]) {
            return Ok(here);
        }
        let keyring = Keyring::new(&want.pull_secrets);
        let pull = Pull::new(&self.0, reference, &keyring);
        let own = pull.fingerprints();
        if self.0.is_open(&here.id, &own) {
            return Ok(here);
        }
        let resolved = pull.resolve().await;
        match &resolved {
            Ok(_) => self.0.opened_again(&here.id, pull.opened_with()).map(|()| here),
            Err(ImageError::Unreachable { .. }) if !own.is_empty() => Ok(offline(here, reference, &resolved)),
            Err(_) => resolved.map(|_| here),
        }
    }

    async fn refresh(&self, reference: &Reference, want: &Want, here: Image) -> Result<Image, ImageError> {
        let keyring = Keyring::new(&want.pull_secrets);
        let pull = Pull::new(&self.0, reference, &keyring);
        let own = pull.fingerprints();
        let resolved = pull.resolve().await;
        let current = match &resolved {
            Ok(Some(digest)) => self.0.has_digest(&here.id, &reference.with_digest(digest)),
            Ok(None) => false,
            Err(ImageError::Unreachable { .. }) if !own.is_empty() || self.0.is_open(&here.id, &[]) => {
                return Ok(offline(here, reference, &resolved));
            }
            Err(_) => return resolved.map(|_| here),
        };
        if current {
            return self.0.opened_again(&here.id, pull.opened_with()).map(|()| here);
        }
        match self.pull(reference, want).await {
            Err(ImageError::Unreachable { why, .. }) => {
                log::warn!("images: {reference}: {why}: using the one that is here");
                Ok(Image { unverified: true, ..here })
            }
            pulled => pulled,
        }
    }

    async fn pull(&self, reference: &Reference, want: &Want) -> Result<Image, ImageError> {
        let keyring = Keyring::new(&want.pull_secrets);
        let _turn = self.0.pulls.acquire().await;
        let id = Pull::new(&self.0, reference, &keyring).run().await?;
        let image = self.0.image(reference, &id).ok_or_else(|| ImageError::Refused {
            image: reference.to_string(),
            why: "it was pulled but cannot be read back: is the disk failing?".to_string(),
        })?;
        Ok(Image { pulled: true, ..image })
    }
}

fn offline<T>(here: Image, reference: &Reference, why: &Result<T, ImageError>) -> Image {
    if let Err(why) = why {
        log::warn!("images: {why}: using the {reference} that is here");
    }
    Image { unverified: true, ..here }
}

fn names(stored: &Stored) -> Vec<String> {
    stored.digests.iter().rev().chain(&stored.tags).cloned().collect()
}

impl Inner {
    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lock by name that exists as long as somebody holds it.
    pub fn lock(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(name.to_string(), Arc::downgrade(&lock));
        lock
    }

    /// Keys of which one must have signed this image; `None` when no policy speaks of it.
    pub fn keys_for(&self, reference: &Reference) -> Option<&[signature::Key]> {
        self.options.trust.iter().find(|t| t.policy.covers(reference)).map(|t| t.keys.as_slice())
    }

    fn is_trusted(&self, reference: &Reference, id: &str) -> bool {
        let Some(keys) = self.keys_for(reference) else { return true };
        let Ok(id) = Digest::parse(id) else { return false };
        let names: Vec<String> = keys.iter().map(signature::Key::name).collect();
        self.index().get(&id).is_some_and(|stored| names.iter().any(|name| stored.vouched.contains(name)))
    }

    /// Whether anybody may use it, or somebody with one of these credentials.
    fn is_open(&self, id: &str, credentials: &[String]) -> bool {
        let Ok(id) = Digest::parse(id) else { return false };
        let index = self.index();
        let opened = index.get(&id).and_then(|stored| stored.opened_by.as_ref());
        opened.is_none_or(|all| credentials.iter().any(|one| all.contains(one)))
    }

    /// Its registry has let these credentials in; without any: everybody.
    pub fn opened(&self, id: &Digest, is_new: bool, credentials: Option<String>) -> Result<(), ImageError> {
        let mut index = self.index();
        match index.open(id, is_new, credentials) {
            true => index.save(&self.files),
            false => Ok(()),
        }
    }

    fn opened_again(&self, id: &str, credentials: Option<String>) -> Result<(), ImageError> {
        Digest::parse(id).map_or(Ok(()), |id| self.opened(&id, false, credentials))
    }

    /// Remembers whose signature an image has.
    pub fn vouched(&self, id: &Digest, key: String) -> Result<(), ImageError> {
        let mut index = self.index();
        match index.vouch(id, key) {
            true => index.save(&self.files),
            false => Ok(()),
        }
    }

    /// Adds a complete image to the index.
    pub fn remember(
        &self,
        id: &Digest,
        reference: &Reference,
        digests: &[String],
        layers: &[Digest],
        bytes: u64,
    ) -> Result<(), ImageError> {
        let mut index = self.index();
        if index.add(id, reference, digests, layers, bytes) {
            index.save(&self.files)?;
        }
        Ok(())
    }

    fn find(&self, reference: &Reference) -> Option<Image> {
        let id = self.index().find(reference).map(|(id, _)| id.clone())?;
        self.image(reference, &id)
    }

    fn has_digest(&self, id: &str, name: &str) -> bool {
        let Ok(id) = Digest::parse(id) else { return false };
        self.index().get(&id).is_some_and(|stored| stored.digests.iter().any(|d| d == name))
    }

    /// None when something of it is missing on disk: then it is pulled again.
    fn image(&self, reference: &Reference, id: &Digest) -> Option<Image> {
        let stored = self.index().get(id)?.clone();
        let config = ImageConfig::parse(&self.files.read_blob(id, CONFIG_BYTES_MAX)?).ok()?;
        let own_name = format!("{}@", reference.name());
        let of_this_name = stored.digests.iter().rev().find(|d| d.starts_with(&own_name));
        let repo_digest = of_this_name.or(stored.digests.last()).cloned().unwrap_or_default();
        let own_tag = |tags: &std::collections::BTreeSet<String>| {
            let wanted = reference.to_string();
            let of_this_name = format!("{}:", reference.name());
            let near = tags.iter().find(|tag| tag.starts_with(&of_this_name)).or(tags.first());
            tags.get(&wanted).or(near).cloned()
        };
        Some(Image {
            id: id.to_string(),
            repo_digest,
            name: own_tag(&stored.tags).unwrap_or_else(|| id.to_string()),
            config,
            layers: self.layer_paths(&stored.layers)?,
            bytes: stored.bytes,
            pulled: false,
            unverified: false,
        })
    }

    /// Directories for overlayfs, lowest first: a layer that hides all below it comes first, and one that occurs twice
    /// stays where it is highest (overlayfs refuses the same directory twice, and the lower one could not be seen).
    fn layer_paths(&self, layers: &[Digest]) -> Option<Vec<PathBuf>> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for diff_id in layers {
            let meta = unpack::meta(&self.files, diff_id)?;
            if meta.hides_all {
                paths.clear();
            }
            let path = self.files.layer(diff_id).join("fs");
            paths.retain(|p| *p != path);
            paths.push(path);
        }
        if paths.is_empty() {
            paths.push(self.files.sub("empty"));
        }
        Some(paths)
    }
}
