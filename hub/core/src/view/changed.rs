//! What one event of the store changed in the view.
//!
//! In: the object before and after. Out: typed looks at both. Never: both missing.

use super::{Key, Kind, Meta, Object};
use std::sync::Arc;

/// One change, as controllers see it in `keys_for`.
#[derive(Clone, Debug)]
pub struct Changed {
    pub key: Key,
    pub old: Option<Object>,
    pub new: Option<Object>,
}

impl Changed {
    pub fn old_as<K: Kind>(&self) -> Option<&Arc<K>> {
        K::of(self.old.as_ref()?)
    }

    pub fn new_as<K: Kind>(&self) -> Option<&Arc<K>> {
        K::of(self.new.as_ref()?)
    }

    pub fn is<K: Kind>(&self) -> bool {
        &*self.key.resource == K::RESOURCE
    }

    /// Metadata before and after, whichever exist.
    pub fn metas(&self) -> impl Iterator<Item = &Meta> {
        [&self.old, &self.new].into_iter().flatten().map(Object::meta)
    }
}
