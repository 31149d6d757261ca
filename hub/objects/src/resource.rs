//! A resource of the API: its names, verbs, subresources and behaviour.
//!
//! In: rows of `registry`, CustomResourceDefinitions. Out: what routing, discovery, OpenAPI and
//! tables ask.
//! Never: holds objects.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::behaviour::SharedBehaviour;
use crate::custom::Custom;
use crate::patch::Place;
use crate::schema;

pub use crate::registry::{Registry, registry};

/// One row of the registry.
#[derive(Clone)]
pub struct Resource {
    /// Empty for core.
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    /// Sorted: `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`.
    pub verbs: Vec<String>,
    pub subresources: Vec<Subresource>,
    /// Name of the definition in the schema table.
    pub schema: String,
    /// Where objects live: `group/resource` of the stored version (`/pods`, `apps/deployments`).
    pub storage: String,
    /// apiVersion of the stored form; differs from `api_version()` for a second served version.
    pub storage_version: String,
    /// Whether spec changes count up `metadata.generation`.
    pub has_generation: bool,
    /// Whether the object has a `status` that only the status subresource may write.
    pub has_status: bool,
    pub behaviour: SharedBehaviour,
    /// What a CustomResourceDefinition says about it; nothing for built-in resources.
    pub custom: Option<Arc<Custom>>,
}

/// `pods/log`, `deployments/scale`, ….
#[derive(Debug, Clone)]
pub struct Subresource {
    pub name: String,
    pub kind: String,
    /// Group and version of `kind`; the resource's own where Kubernetes names none.
    pub group: String,
    pub version: String,
    pub verbs: Vec<String>,
    /// Definition of the body, where there is one.
    pub schema: Option<String>,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|allowed| allowed == verb)
    }

    /// Whether this version is the stored one: then bytes need no conversion.
    pub fn is_stored_form(&self) -> bool {
        self.api_version() == self.storage_version
    }

    /// Whether stored bytes can go out as they are. Those of custom resources cannot once the schema has
    /// changed: they may have been written under an older one.
    pub fn is_served_as_stored(&self) -> bool {
        self.is_stored_form() && self.custom.as_ref().is_none_or(|custom| !custom.schema_changed)
    }

    /// Turns an object of this version into the stored one.
    pub fn to_stored(&self, object: &mut Value) -> Result<(), String> {
        match &self.custom {
            Some(custom) => custom.convert(object, &self.storage_version),
            None if self.is_stored_form() => Ok(()),
            None => {
                self.behaviour.to_storage(object);
                object["apiVersion"] = self.storage_version.clone().into();
                Ok(())
            }
        }
    }

    /// Turns a stored object into this version, in the form that its schema has today.
    pub fn from_stored(&self, object: &mut Value) -> Result<(), String> {
        match &self.custom {
            Some(custom) => {
                custom.convert(object, &self.api_version())?;
                custom.read(object);
                Ok(())
            }
            None if self.is_stored_form() => Ok(()),
            None => {
                self.behaviour.from_storage(object);
                object["apiVersion"] = self.api_version().into();
                Ok(())
            }
        }
    }

    /// The same for many objects: a converter of custom resources is called for many at once.
    pub fn all_from_stored(&self, objects: &mut [Value]) -> Result<(), String> {
        match &self.custom {
            Some(custom) => {
                custom.convert_all(objects, &self.api_version())?;
                objects.iter_mut().for_each(|object| custom.read(object));
                Ok(())
            }
            None => objects.iter_mut().try_for_each(|object| self.from_stored(object)),
        }
    }

    /// The values of field selectors beyond name and namespace; always all, also when empty.
    pub fn selectable(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        match &self.custom {
            Some(custom) => custom.selectable(object).into_iter().map(|(name, v)| (name.into(), v)).collect(),
            None => {
                let own = self.behaviour.selectable_fields(object);
                own.into_iter().map(|(name, v)| (name.into(), v)).collect()
            }
        }
    }

    /// The types of the object, for patches and server-side apply.
    pub fn place(&self) -> Place<'_> {
        match &self.custom {
            Some(custom) => custom.place(),
            None => Place::of(schema::table(), &self.schema),
        }
    }

    /// Whether objects are kept at all (reviews are only answered).
    pub fn is_persistent(&self) -> bool {
        self.allows("get") && self.allows("create")
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resource({}/{})", self.api_version(), self.plural)
    }
}

/// `v1`, `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Splits an apiVersion: (`apps`, `v1`); core has an empty group.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}
