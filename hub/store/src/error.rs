//! What can go wrong in the store.
//!
//! In: redb and I/O errors. Out: one enum that says who retries. Never: hides a damaged file.

use crate::{Key, Revision};
use std::{io, path::PathBuf, sync::Arc};

/// Each variant says who retries.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller: with another name.
    #[error("{0} exists already")]
    Exists(Arc<Key>),
    /// Nobody.
    #[error("{0} does not exist")]
    NotFound(Arc<Key>),
    /// The caller: after it read the object again.
    #[error("{key} was changed meanwhile: it is at revision {current}")]
    Conflict { key: Arc<Key>, current: Revision },
    /// The caller: when there is room again; nothing was changed.
    #[error("the disk of the hub's data directory is full; nothing was changed, free some space and try again")]
    Full,
    /// Nobody: one transaction writes a key once.
    #[error("{0} is written twice in one transaction")]
    Twice(Arc<Key>),
    /// The caller: when the operator has made room in etcd; nothing was changed.
    #[error(
        "etcd has used up its space quota; nothing was changed. Compact and defragment it, then: etcdctl alarm disarm"
    )]
    Quota,
    /// The caller: again, later. Nothing was changed.
    #[error("etcd cannot be asked: {0}; nothing was changed, try again")]
    Away(String),
    /// The caller: looks first. The write may have been made.
    #[error("etcd's answer did not come: {0}; whether the write was made is not known, look before you try again")]
    Doubt(String),
    /// The operator: what is in etcd is not what this hub can go on with.
    #[error("etcd at {prefix} holds something that cannot be used: {why}")]
    Foreign { prefix: String, why: String },
    /// The operator: another way.
    #[error("{0}")]
    NotHere(&'static str),
    /// Nobody: the hub is stopping.
    #[error("the store is closed because the hub is stopping")]
    Closed,
    /// Nobody: the input is over a bound.
    #[error("{0} is over its limit")]
    TooLarge(&'static str),
    /// Nobody: a key with a NUL byte or an empty part.
    #[error("a key must have a resource and a name, without NUL bytes")]
    BadKey,
    /// The operator: another process has the file open.
    #[error("{} is in use by another process; is a hub running with the same --data-dir?", .0.display())]
    InUse(PathBuf),
    /// The operator: restore a snapshot.
    #[error("{} is damaged: {why}; the file is left as it is, restore a snapshot or move it away", path.display())]
    Damaged { path: PathBuf, why: String },
    /// The operator: a newer Limpet wrote the file.
    #[error("{} has format {found}, this version reads up to {known}; use a newer limpet", path.display())]
    Format { path: PathBuf, found: u64, known: u64 },
    /// The operator: put the right key file back.
    #[error("the key file {} cannot be used: {why}", path.display())]
    Keys { path: PathBuf, why: String },
    /// The caller may try again: the disk refused.
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: Arc<io::Error> },
}

/// A watch cannot start there: events behind `from` have left the window (HTTP 410).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {from} ({oldest})")]
pub struct TooOld {
    pub from: Revision,
    pub oldest: Revision,
}

impl StoreError {
    pub(crate) fn io(what: &'static str, source: io::Error) -> StoreError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
            _ => StoreError::Io { what, source: Arc::new(source) },
        }
    }

    /// A redb error. redb's own words on corruption become `Damaged`.
    pub(crate) fn redb(path: &std::path::Path, what: &'static str, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Io(source)
                if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                StoreError::Damaged { path: path.into(), why: source.to_string() }
            }
            redb::Error::Io(source) => StoreError::io(what, source),
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse(path.into()),
            other @ (redb::Error::UpgradeRequired(_)
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => {
                let why = format!("it is not a file that a hub wrote ({other})");
                StoreError::Damaged { path: path.into(), why }
            }
            redb::Error::Corrupted(why) => StoreError::Damaged { path: path.into(), why },
            other => StoreError::io(what, io::Error::other(other.to_string())),
        }
    }
}
