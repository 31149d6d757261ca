//! Names of objects in the store.
//!
//! In: resource ("group/resource", core: "/pods"), namespace (empty: cluster-scoped) and name.
//! Out: an ordered key and its bytes in redb. Never: a key with a NUL byte on disk.

use crate::{StoreError, limits::KEY_PART_BYTES_MAX};
use std::{fmt, sync::Arc};

/// `<group>/<resource>`: "/pods", "apps/deployments".
pub type ResourceId = Arc<str>;

/// Ordered by resource, namespace, name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    pub resource: ResourceId,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(resource: impl Into<ResourceId>, namespace: &str, name: &str) -> Key {
        Key { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }

    /// Refuses what cannot be encoded unambiguously.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let parts = [&*self.resource, &self.namespace, &self.name];
        if parts.iter().any(|p| p.len() > KEY_PART_BYTES_MAX) {
            return Err(StoreError::TooLarge("key"));
        }
        let empty = self.resource.is_empty() || self.name.is_empty();
        if empty || parts.iter().any(|p| p.contains('\0')) {
            return Err(StoreError::BadKey);
        }
        Ok(())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.resource.len() + self.namespace.len() + self.name.len() + 2);
        out.extend_from_slice(self.resource.as_bytes());
        out.push(0);
        out.extend_from_slice(self.namespace.as_bytes());
        out.push(0);
        out.extend_from_slice(self.name.as_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<(&str, &str, &str)> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.split('\0');
        let (resource, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some((resource, namespace, name))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => write!(f, "{} {}", self.resource, self.name),
            false => write!(f, "{} {}/{}", self.resource, self.namespace, self.name),
        }
    }
}
