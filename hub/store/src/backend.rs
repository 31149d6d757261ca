//! What remembers the objects: the one interface that redb and etcd have in common.
//!
//! In: transactions whose keys are valid and differ. Out: their records, once they are durable and visible to readers.
//! Never: read from; every read is answered from memory.

use crate::{Check, Record, Revision, StoreError, Write};
use std::{future::Future, pin::Pin};

pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

pub(crate) trait Backend: Send + Sync {
    /// All or nothing. A refusal because of somebody's faster write comes when that write is visible to readers, or will be.
    fn write(&self, checks: Vec<Check>, writes: Vec<Write>) -> Answer<'_, Vec<Record>>;
    /// Returns when memory holds every write that was acknowledged before the call.
    fn catch_up(&self) -> Answer<'_, ()>;
    /// A new key for sealed records; says how many were sealed again.
    fn rotate(&self) -> Answer<'_, usize>;
    /// Forgets the history before this revision, where there is one.
    fn compact(&self, before: Revision) -> Answer<'_, ()>;
    /// Later writes answer `Closed`.
    fn close(&self) -> Answer<'_, ()>;
    /// Whether others may write, too.
    fn is_shared(&self) -> bool;
}
