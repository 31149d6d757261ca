//! The way of every write: decode, default, admit, prepare, validate, store. HTTP and the hub's own parts
//! share it.
//!
//! In: an `Ask` (who, what, how) and an object or a change. Out: the stored bytes, durable; or a Status.
//! Never: authorizes; skips a step for somebody.

pub mod create;
pub mod delete;
pub mod form;
pub mod update;

pub use create::create;
pub use delete::{DeleteOptions, Deleted, delete};
pub use update::{Made, update};

use super::{Api, Target, limits, object};
use crate::{admission::Held, audit::Trail, auth::User};
use bytes::Bytes;
use jiff::Timestamp;
use limpet_objects::{custom, behaviour::Ctx, managed::Writer, patch::Place, status::Status};
use limpet_store::{Check, Draft, Key, Record, Revision, StoreError, Write};
use serde_json::Value;
use std::sync::Arc;

/// One write: who asks for what, and how.
#[derive(Clone)]
pub struct Ask {
    pub api: Arc<Api>,
    pub user: Arc<User>,
    pub target: Target,
    /// Empty for the object itself.
    pub subresource: String,
    pub dry_run: bool,
    /// For managedFields.
    pub manager: String,
    pub warnings: Vec<String>,
    /// The audit log's record of the request.
    pub trail: Option<Arc<Trail>>,
    /// What must be true when it is stored, besides what concerns the object.
    pub checks: Vec<Check>,
}

/// What came of a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object in the resource's version.
    pub bytes: Bytes,
    /// Revision after which the object is so; the current one when nothing needed writing.
    pub revision: Revision,
    pub created: bool,
}

/// Chance and time of one attempt, which outlive the `Ctx` that borrows them.
pub(super) struct Chance {
    pub now: Timestamp,
    pub uid: String,
    pub suffix: String,
}

impl Chance {
    pub fn new(api: &Api) -> Chance {
        Chance { now: api.now(), uid: super::new_uid(), suffix: super::new_suffix() }
    }

    pub fn ctx<'a>(&'a self, user: &'a User) -> Ctx<'a> {
        Ctx { now: self.now, user: &user.name, groups: &user.groups, uid: &self.uid, suffix: &self.suffix }
    }
}

impl Ask {
    pub(super) fn place(&self) -> Place<'_> {
        self.target.resource.place()
    }

    /// After a write of a definition its kinds are served at once.
    pub(super) fn stored(&self) {
        if self.target.resource.storage == custom::STORAGE {
            self.api.kinds.refresh(&self.api.store);
        }
    }

    /// Calls `act` with who writes, for managedFields.
    pub(super) fn with_writer<T>(&self, now: Timestamp, act: impl FnOnce(&Writer<'_>) -> T) -> T {
        let reset: &[&str] = match self.subresource.as_str() {
            "status" => &["spec", "metadata.labels", "metadata.ownerReferences"],
            "" if self.target.resource.has_status => &["status"],
            _ => &[],
        };
        act(&Writer {
            manager: &self.manager,
            api_version: &self.target.resource.api_version(),
            subresource: &self.subresource,
            now,
            reset,
        })
    }

    /// After a conflict: waits until readers see the write that was faster (it may still be on its way to the
    /// disk).
    pub(super) async fn moved_on(&self, conflict: &Key, from: Revision) {
        let key = self.target.key();
        if *conflict != key {
            // A guard moved; the store answered when readers could see it.
            return;
        }
        let Ok(mut watch) = self.api.store.watch(&key.resource, Some(&key.namespace), from) else { return };
        let seen = async {
            while self.api.store.get(&key).is_some_and(|r| r.revision == from) {
                if !matches!(watch.next().await, Some(Ok(_))) {
                    return;
                }
            }
        };
        // A write that fails after all leaves nothing to wait for.
        let _ = tokio::time::timeout(limits::MOVED_ON_TIME, seen).await;
    }

    /// Stores it with what is held for it, all or nothing.
    pub(super) async fn write(&self, held: &Held<'_>, write: Write) -> Result<Record, StoreError> {
        let writes = std::iter::once(write).chain(held.guards()).collect();
        let records = self.api.store.write_if(self.checks.clone(), writes).await?;
        records.into_iter().next().ok_or(StoreError::Closed)
    }

    /// The stored form of an object, with the place of its revision marked.
    pub(super) fn draft(&self, mut stored: Value) -> Result<Draft, Status> {
        let resource = &self.target.resource;
        resource.to_stored(&mut stored).map_err(|why| super::target::unconverted(resource, &why))?;
        object::set_meta(&mut stored, "resourceVersion", self.api.marker.clone().into());
        let json = serde_json::to_vec(&stored).map_err(|e| Status::internal(e.to_string()))?;
        Draft::from_marked(&json, &self.api.marker)
            .ok_or_else(|| Status::internal("the place of the resourceVersion is not unique"))
    }

    /// Stored bytes as the client sees them.
    pub(super) fn seen(&self, stored: &Bytes) -> Result<Bytes, Status> {
        if self.target.resource.is_served_as_stored() {
            return Ok(stored.clone());
        }
        to_bytes(&super::target::parse(&self.target.resource, stored)?)
    }
}

pub(super) fn to_bytes(value: &Value) -> Result<Bytes, Status> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| Status::internal(e.to_string()))
}
