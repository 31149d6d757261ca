//! Durable objects with one revision.
//!
//! In: writes with an expectation, from the API. Out: records as bytes, lists, and watches in revision order.
//! Reads come from memory. What remembers is a `Backend`: a file of redb on this machine, or an etcd that hubs share.
//! Every acknowledged write is durable there, save those of resources named in `Options::relaxed` with redb.
//! Never: looks into the bytes, waits for the disk while a reader waits, or keeps a redb transaction open.

mod backend;
mod error;
mod etcd;
mod key;
mod limits;
mod local;
mod memory;
mod options;
mod record;
mod redb_log;
mod seal;
mod watch;
mod writer;

pub use error::{StoreError, TooOld};
pub use etcd::{EtcdFiles, EtcdOptions};
pub use key::{Key, ResourceId};
pub use limits::{KEY_PART_BYTES_MAX, RECORD_BYTES_MAX};
pub use memory::Listing;
pub use options::Options;
pub use record::{Check, Draft, Event, EventKind, Expect, Record, Write};
pub use watch::{Lagged, Watch};

use backend::Backend;
use memory::Shared;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A number that grows with every write, for all resources together. Never reused, also across restarts.
pub type Revision = u64;

/// How hubs that share an etcd change the key of sealed records: each step is done at all of them before the next one begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyStep {
    /// Opens with this key, too.
    Learn { id: u32, hex: String },
    /// Seals with it; what was sealed before is written when this is answered.
    Seal { id: u32 },
    /// Forgets all others.
    Retire { id: u32 },
}

/// Handle to the store; clones share it. What works behind it ends when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    backend: Arc<dyn Backend>,
    place: Arc<Place>,
}

struct Place {
    dir: PathBuf,
    sealed: Vec<&'static str>,
}

/// Opens the store of `dir`, reads every record, and leaves out so many revisions: those that were given after the snapshot from
/// which it comes are not given again. Returns the revision at which it goes on.
pub fn skip_revisions(dir: &Path, options: Options, count: u64) -> Result<Revision, StoreError> {
    let sealer = options.keys.as_deref().map(|keys| seal::Sealer::open(keys, &options.sealed)).transpose()?;
    let mut opened = redb_log::Log::open(dir, options.cache_bytes, sealer.map(Arc::new))?;
    let (revision, ceiling) = (opened.log.state.revision, opened.revision.saturating_add(count));
    opened.log.commit(&redb_log::Changes::new(), revision, ceiling)?;
    Ok(ceiling)
}

impl Store {
    /// Opens or creates `dir/store.redb`. Reads and verifies every record, so this blocks; call it at start only.
    pub fn open(dir: &Path, options: Options) -> Result<Store, StoreError> {
        std::fs::create_dir_all(dir).map_err(|e| StoreError::io("make the data directory", e))?;
        let sealer = options.keys.as_deref().map(|keys| seal::Sealer::open(keys, &options.sealed)).transpose()?;
        let opened = redb_log::Log::open(dir, options.cache_bytes, sealer.map(Arc::new))?;
        let shared = Arc::new(Shared::new(&options, opened.records, opened.revision));
        let place = Arc::new(Place { dir: dir.into(), sealed: options.sealed.clone() });
        let backend = Arc::new(local::Local::start(opened.log, Arc::clone(&shared), options)?);
        Ok(Store { shared, backend, place })
    }

    /// Reads everything from an etcd and follows it. `dir` holds the key file and copies; other hubs may write at the same time.
    pub async fn connect(dir: &Path, etcd: EtcdOptions, options: Options) -> Result<Store, StoreError> {
        std::fs::create_dir_all(dir).map_err(|e| StoreError::io("make the data directory", e))?;
        let sealer = options.keys.as_deref().map(|keys| seal::Sealer::open(keys, &options.sealed)).transpose()?;
        let place = Arc::new(Place { dir: dir.into(), sealed: options.sealed.clone() });
        let shared = Arc::new(Shared::new(&options, Vec::new(), 0));
        let backend = Arc::new(etcd::Etcd::start(etcd, sealer, Arc::clone(&shared)).await?);
        Ok(Store { shared, backend, place })
    }

    /// Whether other hubs may write to the same objects.
    pub fn is_shared(&self) -> bool {
        self.backend.is_shared()
    }

    /// Waits until reads show every write that was acknowledged before this call, by whatever hub.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        self.backend.catch_up().await
    }

    /// Waits until reads show this revision; whoever named it got it from another hub, or it never existed.
    pub async fn reached(&self, revision: Revision) {
        self.shared.reached(revision).await;
    }

    /// Writes one object. `Ok` means durable.
    pub async fn write(&self, write: Write) -> Result<Record, StoreError> {
        let mut records = self.write_all(vec![write]).await?;
        records.pop().ok_or(StoreError::Closed)
    }

    /// Writes all or nothing, in one transaction, every key once; the records come back in the order of the writes.
    pub async fn write_all(&self, writes: Vec<Write>) -> Result<Vec<Record>, StoreError> {
        self.write_if(Vec::new(), writes).await
    }

    /// As `write_all`, if each of `checks` holds too at that moment.
    pub async fn write_if(&self, checks: Vec<Check>, writes: Vec<Write>) -> Result<Vec<Record>, StoreError> {
        if checks.len() + writes.len() > limits::WRITES_PER_TRANSACTION_MAX {
            return Err(StoreError::TooLarge("number of writes in one transaction"));
        }
        for (at, write) in writes.iter().enumerate() {
            write.key().check()?;
            if writes[..at].iter().any(|earlier| earlier.key() == write.key()) {
                return Err(StoreError::Twice(Arc::new(write.key().clone())));
            }
        }
        checks.iter().try_for_each(|check| check.key.check())?;
        self.backend.write(checks, writes).await
    }

    pub fn get(&self, key: &Key) -> Option<Record> {
        self.shared.get(key)
    }

    /// All objects of a resource (of one namespace), sorted by (namespace, name), at one revision.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Listing {
        self.shared.list(resource, namespace, None, usize::MAX)
    }

    /// As `list`, at most `limit` objects behind `after` = (namespace, name). `Listing::remaining` counts the rest.
    pub fn list_from(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Listing {
        self.shared.list(resource, namespace, after, limit)
    }

    /// As `list_from`, but as it was at the revision `at`, as far back as watches can start.
    pub fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
        at: Revision,
    ) -> Result<Listing, TooOld> {
        let listing = self.shared.list_at(resource, namespace, after, limit, at);
        listing.map_err(|oldest| TooOld { from: at, oldest })
    }

    /// Number of objects of a resource.
    pub fn count(&self, resource: &str) -> usize {
        self.shared.count(resource)
    }

    /// Resources that have or had objects since the start, with the number of objects each.
    pub fn resources(&self) -> Vec<(ResourceId, usize)> {
        self.shared.resources()
    }

    pub fn revision(&self) -> Revision {
        self.shared.revision()
    }

    /// Newest revision at which something of a resource changed, or an older one of a resource that nothing touched yet. What
    /// a watch has told is never newer.
    pub fn newest_of(&self, resource: &str) -> Revision {
        self.shared.newest_of(resource)
    }

    /// Oldest revision from which every watch can start.
    pub fn oldest(&self) -> Revision {
        self.shared.oldest()
    }

    /// Events of a resource (of one namespace) with a revision greater than `from`.
    pub fn watch(&self, resource: &str, namespace: Option<&str>, from: Revision) -> Result<Watch, TooOld> {
        Watch::start(&self.shared, Some(resource), namespace, from)
    }

    /// Events of all resources with a revision greater than `from`.
    pub fn watch_all(&self, from: Revision) -> Result<Watch, TooOld> {
        Watch::start(&self.shared, None, None, from)
    }

    /// Everything at one revision, and a watch that goes on from there without a gap.
    pub fn snapshot(&self) -> (Listing, Watch) {
        let listing = self.shared.list_everything();
        let watch = Watch::start_at_head(&self.shared, listing.revision);
        (listing, watch)
    }

    /// Seals with a new key from now on, seals again what older keys sealed, and forgets those. Says how many records.
    pub async fn rotate_key(&self) -> Result<usize, StoreError> {
        self.backend.rotate().await
    }

    /// The beginning of a change of keys among hubs on one etcd: a key that nobody knows yet, number and hexadecimal digits.
    pub fn make_key(&self) -> Result<(u32, String), StoreError> {
        self.backend.make_key()
    }

    /// The next step of such a change.
    pub async fn key_step(&self, step: KeyStep) -> Result<(), StoreError> {
        self.backend.key_step(step).await
    }

    /// Seals everything again that is sealed; with an etcd each record gets a new revision. Says how many.
    pub async fn seal_again(&self) -> Result<usize, StoreError> {
        self.backend.seal_again(self.place.sealed.clone()).await
    }

    /// Lets etcd forget what was before this revision. Watches here do not need it.
    pub async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.backend.compact(before).await
    }

    /// The directory of `open`.
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// Writes everything as it is at one revision into a directory that `open` can open; what is sealed here is sealed there,
    /// with a key file `store.keys` of its own. Blocks.
    pub fn copy_into(&self, dir: &Path) -> Result<Revision, StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(dir);
        made.map_err(|e| StoreError::io("make a directory for the copy", e))?;
        let keys = dir.join("store.keys");
        let sealer = (!self.place.sealed.is_empty()).then(|| seal::Sealer::open(&keys, &self.place.sealed));
        let listing = self.shared.list_everything();
        let state = redb_log::State { commit: 1, revision: listing.revision, ..Default::default() };
        redb_log::write_file(&dir.join(redb_log::FILE), sealer.transpose()?.as_ref(), state, &listing.records)?;
        Ok(listing.revision)
    }

    /// Flushes what is relaxed and closes the file. Later writes answer `Closed`; reads go on.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.backend.close().await
    }
}
