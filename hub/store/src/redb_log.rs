//! The file: current objects in redb, one row of state beside them.
//!
//! In: changes by key. Out: all records at the start; durable commits. A new file is made under another name,
//! committed, fsynced and renamed, because a power cut during redb's first commit leaves a file that never opens.
//! Integrity: redb's own `check_integrity` can panic on a damaged file and release builds abort on panic, so it is not
//! used. Every record has a CRC over key and value, and the state row holds the count and a digest of all records,
//! so a flipped bit, and a lost, doubled or stale record are all noticed when the file is read.
//! A file of an older format, or one with records that should be sealed and are not, is written anew as a whole.
//! Never: returns a record whose checksum does not match.

use crate::{Key, Record, ResourceId, Revision, StoreError, record, seal::Sealer};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
const STATE_ROW: &str = "state";
/// 1: digest made from checksums, nothing sealed. 2: sealed records.
const FORMAT: u64 = 2;
pub(crate) const FILE: &str = "store.redb";
const FILE_NEW: &str = "store.redb.new";
const FILL_CACHE_BYTES: usize = 2 * 1024 * 1024;

/// What the file says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct State {
    /// Grows by one with each commit: tells whether a commit that failed happened after all.
    pub commit: u64,
    /// Newest revision that is in the file.
    pub revision: Revision,
    /// Relaxed writes may have been given revisions up to here without being in the file.
    pub ceiling: Revision,
    pub count: u64,
    pub digest: u64,
}

impl State {
    fn encode(&self) -> Vec<u8> {
        let numbers = [FORMAT, self.commit, self.revision, self.ceiling, self.count, self.digest];
        let mut out: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<(u64, State), &'static str> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or("the state row is cut short")?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err("the state row's checksum does not match");
        }
        let numbers: Vec<u64> = body
            .chunks_exact(8)
            .map(|c| c.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
            .collect();
        let &[format, commit, revision, ceiling, count, digest] = &numbers[..] else {
            return Err("the state row has an unknown shape");
        };
        Ok((format, State { commit, revision, ceiling, count, digest }))
    }
}

pub(crate) struct Log {
    db: Database,
    path: PathBuf,
    format: u64,
    sealer: Option<Arc<Sealer>>,
    pub state: State,
}

pub(crate) struct Opened {
    pub log: Log,
    pub records: Vec<Record>,
    pub revision: Revision,
}

/// One key's change on disk: what is there now, and what shall be.
pub(crate) type Changes = BTreeMap<Arc<Key>, (Option<Record>, Option<Record>)>;

impl Log {
    pub fn open(dir: &Path, cache_bytes: usize, sealer: Option<Arc<Sealer>>) -> Result<Opened, StoreError> {
        let path = dir.join(FILE);
        std::fs::create_dir_all(dir).map_err(|e| StoreError::io("make the data directory", e))?;
        if !path.exists() {
            write_file(&path, sealer.as_deref(), State::default(), &[])?;
        }
        guarded(&path, || {
            let mut log = Log::attach(&path, cache_bytes, sealer)?;
            let (records, unsealed) = log.read_all()?;
            if log.format < FORMAT || unsealed > 0 {
                tracing::info!(format = log.format, unsealed, "the store's file is written anew");
                log = log.rewritten(cache_bytes, &records)?;
            }
            let revision = log.state.revision.max(log.state.ceiling);
            Ok(Opened { log, records, revision })
        })
    }

    /// The same content in a new file, which takes this one's place.
    fn rewritten(self, cache_bytes: usize, records: &[Record]) -> Result<Log, StoreError> {
        let Log { db, path, sealer, state, .. } = self;
        // The old file stays open, and so locked, until the new one has its name.
        write_file(&path, sealer.as_deref(), state, records)?;
        drop(db);
        Log::attach(&path, cache_bytes, sealer)
    }

    /// Opens the file without reading the objects: for use after a failed commit.
    pub fn attach(path: &Path, cache_bytes: usize, sealer: Option<Arc<Sealer>>) -> Result<Log, StoreError> {
        let db = Database::builder()
            .set_cache_size(cache_bytes)
            .open(path)
            .map_err(|e| StoreError::redb(path, "open the store", e.into()))?;
        let mut log = Log { db, path: path.into(), format: 0, sealer, state: State::default() };
        (log.format, log.state) = log.read_state()?;
        Ok(log)
    }

    pub fn sealer(&self) -> Option<&Arc<Sealer>> {
        self.sealer.as_ref()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn damaged(&self, why: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), why: why.into() }
    }

    fn failed(&self, what: &'static str) -> impl Fn(redb::Error) -> StoreError + '_ {
        move |e| StoreError::redb(&self.path, what, e)
    }

    fn read_state(&self) -> Result<(u64, State), StoreError> {
        let read = || -> Result<Vec<u8>, redb::Error> {
            let table = self.db.begin_read()?.open_table(STATE)?;
            Ok(table.get(STATE_ROW)?.map(|row| row.value().to_vec()).unwrap_or_default())
        };
        let row = read().map_err(self.failed("read the store"))?;
        let (format, state) = State::decode(&row).map_err(|why| self.damaged(why))?;
        if format > FORMAT {
            return Err(StoreError::Format { path: self.path.clone(), found: format, known: FORMAT });
        }
        Ok((format, state))
    }

    /// All records, and how many of them should be sealed and are not.
    fn read_all(&self) -> Result<(Vec<Record>, usize), StoreError> {
        let failed = self.failed("read the store");
        let transaction = self.db.begin_read().map_err(|e| failed(e.into()))?;
        let table = transaction.open_table(OBJECTS).map_err(|e| failed(e.into()))?;
        let (mut records, mut digest, mut unsealed) = (Vec::new(), 0u64, 0);
        let mut resources: HashSet<ResourceId> = HashSet::new();
        for row in table.iter().map_err(|e| failed(e.into()))? {
            let (key, value) = row.map_err(|e| failed(e.into()))?;
            let key = key.value();
            let stored = record::decode(key, value.value()).map_err(|why| self.damaged(why))?;
            let bytes = stored.json(key, self.sealer.as_deref()).map_err(|why| self.damaged(why))?;
            let (created, revision) = (stored.created, stored.revision);
            digest = digest.wrapping_add(match self.format {
                1 => stored.share_1(),
                _ => record::share(key, created, revision),
            });
            let (resource, namespace, name) = Key::decode(key).ok_or_else(|| self.damaged("a key is malformed"))?;
            let resource = match resources.get(resource) {
                Some(known) => Arc::clone(known),
                None => {
                    let id = ResourceId::from(resource);
                    resources.insert(Arc::clone(&id));
                    id
                }
            };
            unsealed += usize::from(!stored.is_sealed && self.sealer.as_ref().is_some_and(|s| s.seals(&resource)));
            let key = Arc::new(Key { resource, namespace: namespace.into(), name: name.into() });
            records.push(Record { key, revision, created, bytes });
        }
        if records.len() as u64 != self.state.count || digest != self.state.digest {
            return Err(self.damaged(format!(
                "it should hold {} objects and {} were read, or some are not the last version",
                self.state.count,
                records.len()
            )));
        }
        Ok((records, unsealed))
    }

    /// Commits with fsync. After an error the log must be dropped and attached again.
    pub fn commit(&mut self, changes: &Changes, revision: Revision, ceiling: Revision) -> Result<(), StoreError> {
        let mut next = State { commit: self.state.commit + 1, revision, ceiling, ..self.state };
        let mut rows = Vec::with_capacity(changes.len());
        for (key, (old, new)) in changes {
            let key = key.encode();
            if let Some(old) = old {
                next.digest = next.digest.wrapping_sub(record::share(&key, old.created, old.revision));
                next.count -= 1;
            }
            if let Some(new) = new {
                next.digest = next.digest.wrapping_add(record::share(&key, new.created, new.revision));
                next.count += 1;
            }
            let value = new.as_ref().map(|new| record::encode(&key, new, self.sealer.as_deref())).transpose()?;
            rows.push((key, value));
        }
        self.apply(&rows, &next).map_err(self.failed("write to the store"))?;
        self.state = next;
        Ok(())
    }

    fn apply(&self, rows: &[(Vec<u8>, Option<Vec<u8>>)], next: &State) -> Result<(), redb::Error> {
        let transaction = self.db.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for (key, value) in rows {
                match value {
                    Some(value) => drop(objects.insert(&key[..], &value[..])?),
                    None => drop(objects.remove(&key[..])?),
                }
            }
            transaction.open_table(STATE)?.insert(STATE_ROW, &next.encode()[..])?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Writes a whole store under another name and moves it into place, all of it durable.
pub(crate) fn write_file(
    path: &Path,
    sealer: Option<&Sealer>,
    state: State,
    records: &[Record],
) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let temporary = dir.join(FILE_NEW);
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove an unfinished store", e));
        }
        _ => {}
    }
    fill(&temporary, sealer, state, records)?;
    let io = |e| StoreError::io("make the store", e);
    let file = File::open(&temporary).map_err(io)?;
    file.sync_all().map_err(io)?;
    std::fs::rename(&temporary, path).map_err(io)?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(io)
}

fn fill(
    path: &Path,
    sealer: Option<&Sealer>,
    state: State,
    records: &[Record],
) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |e: redb::Error| StoreError::redb(path, "make the store", e);
    // Only the hub's user reads the store: it holds Secrets.
    let options = std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = options.map_err(|e| StoreError::io("make the store", e))?;
    let backend = redb::backends::FileBackend::new(file).map_err(|e| failed(e.into()))?;
    let db = Database::builder().set_cache_size(FILL_CACHE_BYTES).create_with_backend(backend);
    let db = db.map_err(|e| failed(e.into()))?;
    let transaction = db.begin_write().map_err(|e| failed(e.into()))?;
    let mut state = State { count: 0, digest: 0, ..state };
    {
        let mut objects = transaction.open_table(OBJECTS).map_err(|e| failed(e.into()))?;
        for record in records {
            let key = record.key.encode();
            let value = record::encode(&key, record, sealer)?;
            objects.insert(&key[..], &value[..]).map_err(|e| failed(e.into()))?;
            state.count += 1;
            state.digest = state.digest.wrapping_add(record::share(&key, record.created, record.revision));
        }
        let mut row = transaction.open_table(STATE).map_err(|e| failed(e.into()))?;
        row.insert(STATE_ROW, &state.encode()[..]).map_err(|e| failed(e.into()))?;
    }
    transaction.commit().map_err(|e| failed(e.into()))
}

/// redb may panic on a damaged file. Where panics unwind that becomes an error; where they abort, the words of the
/// panic follow the log line that names the file.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    tracing::info!(path = %path.display(), "opening the store");
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Damaged { path: path.into(), why: "reading it failed in the database engine".into() })
    })
}
