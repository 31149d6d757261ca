//! The file: current objects in redb, one row of state beside them.
//!
//! In: changes by key. Out: all records at the start; durable commits. A new file is made under another name,
//! committed, fsynced and renamed, because a power cut during redb's first commit leaves a file that never opens.
//! Integrity: redb's own `check_integrity` can panic on a damaged file and release builds abort on panic, so it is not
//! used. Every record has a CRC over key and value, and the state row holds the count and a digest of all records,
//! so a flipped bit, and a lost, doubled or stale record are all noticed when the file is read.
//! Never: returns a record whose checksum does not match.

use crate::{Key, Record, ResourceId, Revision, StoreError, record};
use bytes::Bytes;
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
const FORMAT: u64 = 1;
const FILE: &str = "store.redb";
const FILE_NEW: &str = "store.redb.new";

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
    pub fn open(dir: &Path, cache_bytes: usize) -> Result<Opened, StoreError> {
        let path = dir.join(FILE);
        std::fs::create_dir_all(dir).map_err(|e| StoreError::io("make the data directory", e))?;
        if !path.exists() {
            create(dir, &path, cache_bytes)?;
        }
        guarded(&path, || {
            let log = Log::attach(&path, cache_bytes)?;
            let records = log.read_all()?;
            let revision = log.state.revision.max(log.state.ceiling);
            Ok(Opened { log, records, revision })
        })
    }

    /// Opens the file without reading the objects: for use after a failed commit.
    pub fn attach(path: &Path, cache_bytes: usize) -> Result<Log, StoreError> {
        let db = Database::builder()
            .set_cache_size(cache_bytes)
            .open(path)
            .map_err(|e| StoreError::redb(path, "open the store", e.into()))?;
        let mut log = Log { db, path: path.into(), state: State::default() };
        log.state = log.read_state()?;
        Ok(log)
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

    fn read_state(&self) -> Result<State, StoreError> {
        let read = || -> Result<Vec<u8>, redb::Error> {
            let table = self.db.begin_read()?.open_table(STATE)?;
            Ok(table.get(STATE_ROW)?.map(|row| row.value().to_vec()).unwrap_or_default())
        };
        let row = read().map_err(self.failed("read the store"))?;
        let (format, state) = State::decode(&row).map_err(|why| self.damaged(why))?;
        if format > FORMAT {
            return Err(StoreError::Format { path: self.path.clone(), found: format, known: FORMAT });
        }
        Ok(state)
    }

    fn read_all(&self) -> Result<Vec<Record>, StoreError> {
        let failed = self.failed("read the store");
        let transaction = self.db.begin_read().map_err(|e| failed(e.into()))?;
        let table = transaction.open_table(OBJECTS).map_err(|e| failed(e.into()))?;
        let (mut records, mut digest) = (Vec::new(), 0u64);
        let mut resources: HashSet<ResourceId> = HashSet::new();
        for row in table.iter().map_err(|e| failed(e.into()))? {
            let (key, value) = row.map_err(|e| failed(e.into()))?;
            let (created, revision, bytes, share) =
                record::decode(key.value(), value.value()).map_err(|why| self.damaged(why))?;
            let (resource, namespace, name) =
                Key::decode(key.value()).ok_or_else(|| self.damaged("a key is malformed"))?;
            let resource = match resources.get(resource) {
                Some(known) => Arc::clone(known),
                None => {
                    let id = ResourceId::from(resource);
                    resources.insert(Arc::clone(&id));
                    id
                }
            };
            digest = digest.wrapping_add(share);
            let key = Arc::new(Key { resource, namespace: namespace.into(), name: name.into() });
            records.push(Record { key, revision, created, bytes: Bytes::copy_from_slice(bytes) });
        }
        if records.len() as u64 != self.state.count || digest != self.state.digest {
            return Err(self.damaged(format!(
                "it should hold {} objects and {} were read, or some are not the last version",
                self.state.count,
                records.len()
            )));
        }
        Ok(records)
    }

    /// Commits with fsync. After an error the log must be dropped and attached again.
    pub fn commit(&mut self, changes: &Changes, revision: Revision, ceiling: Revision) -> Result<(), StoreError> {
        let mut next = State { commit: self.state.commit + 1, revision, ceiling, ..self.state };
        self.apply(changes, &mut next).map_err(self.failed("write to the store"))?;
        self.state = next;
        Ok(())
    }

    fn apply(&self, changes: &Changes, next: &mut State) -> Result<(), redb::Error> {
        let transaction = self.db.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for (key, (old, new)) in changes {
                let key = key.encode();
                if let Some(old) = old {
                    next.digest = next.digest.wrapping_sub(record::encode(&key, old).1);
                    next.count -= 1;
                }
                match new {
                    Some(new) => {
                        let (value, share) = record::encode(&key, new);
                        objects.insert(&key[..], &value[..])?;
                        next.digest = next.digest.wrapping_add(share);
                        next.count += 1;
                    }
                    None => drop(objects.remove(&key[..])?),
                }
            }
            transaction.open_table(STATE)?.insert(STATE_ROW, &next.encode()[..])?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Makes an empty store under another name and moves it into place, all of it durable.
fn create(dir: &Path, path: &Path, cache_bytes: usize) -> Result<(), StoreError> {
    let temporary = dir.join(FILE_NEW);
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove an unfinished store", e));
        }
        _ => {}
    }
    let make = || -> Result<(), redb::Error> {
        let db = Database::builder().set_cache_size(cache_bytes).create(&temporary)?;
        let transaction = db.begin_write()?;
        transaction.open_table(OBJECTS)?;
        transaction.open_table(STATE)?.insert(STATE_ROW, &State::default().encode()[..])?;
        transaction.commit()?;
        Ok(())
    };
    make().map_err(|e| StoreError::redb(&temporary, "make the store", e))?;
    let io = |e| StoreError::io("make the store", e);
    let file = File::open(&temporary).map_err(io)?;
    restrict(&file).map_err(io)?;
    file.sync_all().map_err(io)?;
    std::fs::rename(&temporary, path).map_err(io)?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(io)
}

/// Only the hub's user reads the store: it holds Secrets.
fn restrict(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

/// redb may panic on a damaged file. Where panics unwind that becomes an error; where they abort, the words of the
/// panic follow the log line that names the file.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    tracing::debug!(path = %path.display(), "opening the store");
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Damaged { path: path.into(), why: "reading it failed in the database engine".into() })
    })
}
