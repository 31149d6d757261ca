//! What one request is about: a resource of the registry, a namespace, a name.
//!
//! In: the parts of a path. Out: keys of the store, and failures that name the target.
//! Never: whether it exists.

use super::route::RequestInfo;
use crate::run::lead::is_term;
use limpet_objects::{
    resource::{Registry, Resource},
    status::Status,
};
use limpet_store::{Key, Record, StoreError};
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Target {
    pub resource: Arc<Resource>,
    /// Empty for cluster-scoped resources, and for lists of all namespaces.
    pub namespace: String,
    pub name: String,
}

impl Target {
    /// `None` when there is no such resource.
    pub fn of(kinds: &Registry, info: &RequestInfo) -> Option<Target> {
        let resource = kinds.by_path(&info.group, &info.version, &info.resource)?;
        let namespaced = resource.namespaced;
        if !namespaced && !info.namespace.is_empty() && info.resource != "namespaces" {
            return None;
        }
        let namespace = if namespaced { info.namespace.clone() } else { String::new() };
        Some(Target { resource: Arc::clone(resource), namespace, name: info.name.clone() })
    }

    /// By storage id (`/pods`, `apps/deployments`), as the hub's own parts name resources.
    pub fn stored(
        kinds: &Registry,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Target, Status> {
        let found = kinds.by_storage(resource);
        let resource = found.ok_or_else(|| Status::internal(format!("there is no resource {resource:?}")))?;
        let namespace = if resource.namespaced { namespace } else { "" };
        Ok(Target { resource: Arc::clone(resource), namespace: namespace.into(), name: name.into() })
    }

    pub fn named(&self, name: &str) -> Target {
        Target { name: name.to_owned(), ..self.clone() }
    }

    pub fn key(&self) -> Key {
        Key::new(self.resource.storage.as_str(), &self.namespace, &self.name)
    }

    /// The namespace for lists; `None` is all.
    pub fn namespace(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(self.namespace.as_str())
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.resource.group, &self.resource.plural, &self.name)
    }

    pub fn conflict(&self) -> Status {
        Status::conflict(&self.resource.group, &self.resource.plural, &self.name)
    }

    pub fn conflict_because(&self, why: &str) -> Status {
        Status::conflict_because(&self.resource.group, &self.resource.plural, &self.name, why)
    }

    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.resource.group, &self.resource.plural, &self.name, why)
    }

    /// What a refusal of the store means to a client.
    pub fn refused(&self, error: &StoreError) -> Status {
        match error {
            StoreError::Conflict { key, .. } | StoreError::NotFound(key) if is_term(key) => {
                Status::unavailable("another hub leads; this one does not act for the leader any more")
            }
            StoreError::Exists(_) => {
                Status::already_exists(&self.resource.group, &self.resource.plural, &self.name)
            }
            StoreError::NotFound(_) => self.not_found(),
            StoreError::Conflict { .. } => self.conflict(),
            StoreError::TooLarge(_) => {
                Status::new(413, "RequestEntityTooLarge", format!("the object is too large: {error}"))
            }
            StoreError::Full | StoreError::Closed | StoreError::Quota | StoreError::Away(_) => {
                Status::unavailable(error.to_string())
            }
            StoreError::Doubt(_) => Status::timeout(&error.to_string(), 1),
            other => Status::internal(other.to_string()),
        }
    }

    /// The stored object in the version of this resource.
    pub fn parse(&self, record: &Record) -> Result<Value, Status> {
        parse(&self.resource, &record.bytes)
    }
}

/// What a client is told when objects cannot be had in its version.
pub fn unconverted(resource: &Resource, why: &str) -> Status {
    Status::internal(format!("conversion webhook for {}, Kind={} failed: {why}", resource.api_version(), resource.kind))
}

/// Stored bytes as an object of the resource's version.
pub fn parse(resource: &Resource, bytes: &[u8]) -> Result<Value, Status> {
    let mut value: Value = serde_json::from_slice(bytes)
        .map_err(|e| Status::internal(format!("a stored object cannot be read: {e}")))?;
    resource.from_stored(&mut value).map_err(|why| unconverted(resource, &why))?;
    Ok(value)
}
