//! What remembers the objects: the one interface that redb and etcd have in common.
//!
//! In: transactions whose keys are valid and differ. Out: their records, once they are durable and visible to readers.
//! Never: read from; every read is answered from memory.

use crate::{Check, KeyStep, Record, Revision, StoreError, Write};
use std::{future::Future, pin::Pin};

const ALONE: &str = "this hub shares its keys with no other hub";

pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

pub(crate) trait Backend: Send + Sync {
    /// All or nothing. A refusal because of somebody's faster write comes when that write is visible to readers, or will be.
    fn write(&self, checks: Vec<Check>, writes: Vec<Write>) -> Answer<'_, Vec<Record>>;
    /// Returns when memory holds every write that was acknowledged before the call.
    fn catch_up(&self) -> Answer<'_, ()>;
    /// A new key for sealed records; says how many were sealed again.
    fn rotate(&self) -> Answer<'_, usize>;
    /// A new key that other hubs have to learn before it seals; number and hexadecimal digits.
    fn make_key(&self) -> Result<(u32, String), StoreError> {
        Err(StoreError::NotHere(ALONE))
    }
    /// A step of a change of keys that another hub, or this one, leads.
    fn key_step(&self, _step: KeyStep) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Err(StoreError::NotHere(ALONE))))
    }
    /// Seals all sealed records again; says how many.
    fn seal_again(&self, _resources: Vec<&'static str>) -> Answer<'_, usize> {
        Box::pin(std::future::ready(Err(StoreError::NotHere(ALONE))))
    }
    /// Forgets the history before this revision, where there is one.
    fn compact(&self, before: Revision) -> Answer<'_, ()>;
    /// Later writes answer `Closed`.
    fn close(&self) -> Answer<'_, ()>;
    /// Whether others may write, too.
    fn is_shared(&self) -> bool;
}
