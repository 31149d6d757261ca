//! What makes one kind different from another: the trait that files under `kinds` implement.
//!
//! In: objects as JSON and the circumstances of a request (`Ctx`). Out: changed objects, field errors,
//! table rows.
//! Never: does what is the same for all kinds (see `strategy`), waits, reads the clock.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::field::FieldError;
use crate::sieve::Part;

/// The circumstances of one write. Time and chance are arguments: this crate has neither.
#[derive(Debug, Clone, Copy)]
pub struct Ctx<'a> {
    pub now: Timestamp,
    pub user: &'a str,
    pub groups: &'a [String],
    /// The uid that a new object gets (UUID v4 text).
    pub uid: &'a str,
    /// What completes `generateName` (see `names::suffix`).
    pub suffix: &'a str,
}

/// One column of a table, for `kubectl get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `date`.
    pub type_: &'static str,
    /// `name` marks the object's name.
    pub format: &'static str,
    /// Above 0: only with `-o wide`.
    pub priority: u8,
}

impl Column {
    pub const NAME: Self = Self { name: "Name", type_: "string", format: "name", priority: 0 };
    pub const AGE: Self = Self::text("Age");

    pub const fn text(name: &'static str) -> Self {
        Self { name, type_: "string", format: "", priority: 0 }
    }

    pub const fn integer(name: &'static str) -> Self {
        Self { name, type_: "integer", format: "", priority: 0 }
    }

    pub const fn boolean(name: &'static str) -> Self {
        Self { name, type_: "boolean", format: "", priority: 0 }
    }

    /// Only shown with `-o wide`.
    pub const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// Everything that a kind may do in its own way. The defaults are right for a kind of pure data.
///
/// `subresource` is empty for the object itself, else `status`, `scale`, `ephemeralcontainers`, ….
pub trait Behaviour: Send + Sync {
    /// Fills in what the user left out. Must be idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Puts a new object into its first state. Metadata is already filled in, the status already
    /// removed.
    fn prepare_create(&self, _object: &mut Value, _ctx: &Ctx<'_>) {}

    /// Carries over what this update must not change. Metadata, status and spec are already kept apart.
    fn prepare_update(&self, _new: &mut Value, _old: &Value, _subresource: &str, _ctx: &Ctx<'_>) {}

    /// Errors beyond those of metadata.
    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Errors beyond those of metadata. By default: as if created anew.
    fn validate_update(&self, new: &Value, _old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" { Vec::new() } else { self.validate_create(new) }
    }

    /// What works but should not be relied on; said to the client of a successful write.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// What a valid name is; the returned texts say what is wrong with it.
    fn validate_name(&self, name: &str) -> Vec<String> {
        crate::names::dns_subdomain(name)
    }

    /// Table columns.
    fn columns(&self) -> &'static [Column] {
        &[Column::NAME, Column { name: "Created At", type_: "date", format: "", priority: 0 }]
    }

    /// Table cells, as many as columns.
    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let metadata = &object["metadata"];
        vec![metadata["name"].clone(), metadata["creationTimestamp"].clone()]
    }

    /// What of an object `row` looks at.
    fn row_looks_at(&self) -> Part {
        Part::UNMANAGED
    }

    /// Fields for field selectors beyond `metadata.name` and `metadata.namespace`. Always all labels,
    /// also when empty:
    /// a label that is not in the list is not supported.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Turns an object of this version into the stored version (for kinds served in several versions).
    fn to_storage(&self, _object: &mut Value) {}

    /// Turns a stored object into this version.
    #[allow(clippy::wrong_self_convention)] // "from storage" is the direction, not a constructor
    fn from_storage(&self, _object: &mut Value) {}
}

/// How the registry holds a behaviour.
pub type SharedBehaviour = Arc<dyn Behaviour>;

/// A kind of pure data with nothing special.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Behaviour for Plain {}
