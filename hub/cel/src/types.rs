//! Types of expressions, and what is known about the sizes of variables.
//!
//! In: nothing. Out: `Type` for the checker, `Decl` for the cost estimate. Never: values.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    /// The type of types.
    Type,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    Object(Arc<Object>),
    /// `kubernetes.URL` and its like.
    Opaque(&'static str),
    /// A type parameter of a signature.
    Param(u8),
}

/// A struct: its fields by their names in expressions.
#[derive(Debug, PartialEq)]
pub struct Object {
    pub name: String,
    pub fields: BTreeMap<String, Type>,
    /// Whether other fields may be there, too (their type is dyn).
    pub open: bool,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::Type => f.write_str("type"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(value) => write!(f, "optional_type({value})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Opaque(name) => f.write_str(name),
            Self::Param(at) => write!(f, "{}", char::from(b'A' + at)),
        }
    }
}

impl Type {
    pub fn list(item: Type) -> Self {
        Self::List(Arc::new(item))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(value: Type) -> Self {
        Self::Optional(Arc::new(value))
    }

    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Type)>) -> Self {
        Self::Object(Arc::new(Object {
            name: name.to_owned(),
            fields: fields.into_iter().collect(),
            open: false,
        }))
    }
}

/// A variable's type with bounds, for the cost estimate. A request's body bounds what has no bound of its own.
#[derive(Debug, Clone)]
pub struct Decl {
    pub type_: Type,
    /// Letters of a string, bytes, items of a list, entries of a map.
    pub size_max: u64,
    pub fields: BTreeMap<String, Decl>,
    /// Items of a list, values of a map.
    pub below: Option<Box<Decl>>,
    /// Keys of a map.
    pub key_max: u64,
}

impl Decl {
    pub fn of(type_: Type, size_max: u64) -> Self {
        Self {
            type_,
            size_max,
            fields: BTreeMap::new(),
            below: None,
            key_max: 1,
        }
    }
}
