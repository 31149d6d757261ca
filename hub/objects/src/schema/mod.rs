//! The schema table: what Kubernetes' types look like, as rows of compact data.
//!
//! In: the definitions that build.rs made of k8s-openapi's schemas and the facts under schema/. Out:
//! `table()`, parsed once.
//! Never: keeps descriptions in memory (see `docs`), or knows what a kind means (see `kinds`).

mod check;
mod docs;
mod parse;
mod tidy;
mod zeros;

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::Value;

pub use check::check;
pub use docs::{Docs, Lines};
pub use parse::ParseError;
pub use tidy::{prune, tidy};
pub use zeros::{Zeros, fill};

/// Index of a definition in its table.
pub type DefId = u32;

/// All definitions, by id and by name (`io.k8s.api.core.v1.Pod`).
#[derive(Debug, Default)]
pub struct Table {
    definitions: Vec<Definition>,
    by_name: HashMap<Box<str>, DefId>,
}

/// One named type.
#[derive(Debug)]
pub struct Definition {
    pub name: Box<str>,
    /// What a value of this type is. `Type::Object` for structs, a scalar for `Time`, `Quantity` and
    /// their like.
    pub schema: Schema,
    pub kinds: Box<[GroupVersionKind]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupVersionKind {
    pub group: Box<str>,
    pub version: Box<str>,
    pub kind: Box<str>,
}

/// The type of a place, with the facts that patches and server-side apply need about that place.
#[derive(Debug, Default)]
pub struct Schema {
    pub kind: Type,
    pub list_type: Option<ListType>,
    /// Keys of a `ListType::Map`.
    pub list_keys: Box<[Box<str>]>,
    pub map_type: Option<MapType>,
    pub patch: PatchStrategy,
    pub patch_merge_key: Option<Box<str>>,
    /// Only defaults that are not the type's zero value.
    pub default: Option<Box<Value>>,
    /// Written even when it is empty: a struct that is no pointer, or a required scalar.
    pub always: bool,
    pub choices: Box<[Box<str>]>,
}

#[derive(Debug, Default)]
pub enum Type {
    /// Anything goes and is kept (`RawExtension`, `JSON`, `FieldsV1`, preserve-unknown-fields).
    #[default]
    Any,
    /// No schema: what the value is says how it is owned (below preserve-unknown-fields).
    Deduced,
    String,
    /// Base64 text (`[]byte`).
    Bytes,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    Quantity,
    IntOrString,
    Int32,
    Int64,
    Number,
    Boolean,
    List(Box<Schema>),
    Map(Box<Schema>),
    Object(Box<Object>),
    /// Another definition of the same table.
    Ref(DefId),
}

/// A struct: its properties sorted by name.
#[derive(Debug, Default)]
pub struct Object {
    pub properties: Box<[Property]>,
    pub required: Box<[Box<str>]>,
    /// Places in `properties` of those that are written even when they are empty.
    pub always: Box<[usize]>,
    /// Whether unknown properties are kept too.
    pub open: bool,
}

#[derive(Debug)]
pub struct Property {
    pub name: Box<str>,
    pub schema: Schema,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapType {
    Atomic,
    Granular,
}

/// `x-kubernetes-patch-strategy`, for strategic merge patches.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PatchStrategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

impl Object {
    pub fn property(&self, name: &str) -> Option<&Property> {
        let found = self.properties.binary_search_by(|property| property.name.as_ref().cmp(name)).ok()?;
        self.properties.get(found)
    }
}

impl Definition {
    /// The struct's property; nothing for scalars.
    pub fn property(&self, name: &str) -> Option<&Property> {
        match &self.schema.kind {
            Type::Object(object) => object.property(name),
            _ => None,
        }
    }

    /// The last part of the name: `Pod`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

impl Table {
    pub fn get(&self, name: &str) -> Option<&Definition> {
        self.by_name.get(name).and_then(|id| self.at(*id))
    }

    pub fn id(&self, name: &str) -> Option<DefId> {
        self.by_name.get(name).copied()
    }

    pub fn at(&self, id: DefId) -> Option<&Definition> {
        self.definitions.get(id as usize)
    }

    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// Follows references to the schema that says what the value is. The facts of the place stay with
    /// the place.
    pub fn resolve<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        let mut schema = schema;
        // Definitions that only point to definitions do not exist; the bound keeps a wrong table from
        // looping.
        for _ in 0..4 {
            match schema.kind {
                Type::Ref(id) => match self.at(id) {
                    Some(definition) => schema = &definition.schema,
                    None => return schema,
                },
                _ => return schema,
            }
        }
        schema
    }

    /// The struct behind a schema, references followed.
    pub fn object<'a>(&'a self, schema: &'a Schema) -> Option<&'a Object> {
        match &self.resolve(schema).kind {
            Type::Object(object) => Some(object),
            _ => None,
        }
    }

    /// `Definition::name` of a referenced struct, for messages.
    pub fn type_name<'a>(&'a self, schema: &Schema) -> Option<&'a str> {
        match schema.kind {
            Type::Ref(id) => self.at(id).map(Definition::short_name),
            _ => None,
        }
    }
}

/// The table of all built-in types. The first call parses it (some milliseconds); it stays.
pub fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        // The blob is made by build.rs and covered by tests: it cannot be wrong at run time.
        parse::parse(&Lines::definitions()).unwrap_or_default()
    })
}

/// Changes whenever a served OpenAPI document changes.
pub fn fingerprint() -> &'static str {
    include_str!(concat!(env!("OUT_DIR"), "/fingerprint"))
}

#[cfg(test)]
mod tests;
