//! Values of expressions.
//!
//! In: JSON, or what functions make. Out: values that are cheap to copy, equal and ordered as CEL has it.
//! Never: schemas (whoever turns an object into a value knows them).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::library::{Cidr, Quantity, Semver, Url};

#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Arc<Vec<Value>>, ListKind),
    Map(Arc<BTreeMap<Key, Value>>),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    Type(Arc<str>),
    Optional(Option<Arc<Value>>),
    Ip(std::net::IpAddr),
    Cidr(Cidr),
    Url(Arc<Url>),
    Quantity(Quantity),
    Semver(Arc<Semver>),
    Format(&'static str),
    /// An object that only its host understands: the authorizer and its steps.
    Host(Arc<dyn Host>),
}

/// How lists of a schema are compared and added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    Plain,
    Set,
    /// Names of the keys.
    Map(Arc<[String]>),
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    /// Beyond what an int holds.
    Uint(u64),
    String(Arc<str>),
}

/// What the world outside gives to expressions: methods of an opaque value.
pub trait Host: Send + Sync + std::fmt::Debug {
    fn type_name(&self) -> &'static str;
    /// Calls a method. The text of an error becomes the expression's error.
    fn call(&self, method: &str, args: &[Value]) -> Result<Value, String>;
}

impl Value {
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::String(Arc::from(text.as_ref()))
    }

    pub fn quantity(text: &str) -> Option<Self> {
        Quantity::parse(text).map(Self::Quantity)
    }

    /// A strict semantic version.
    pub fn semver(text: &str) -> Option<Self> {
        Semver::parse(text, false).map(|version| Self::Semver(Arc::new(version)))
    }

    pub fn list(items: Vec<Value>) -> Self {
        Self::List(Arc::new(items), ListKind::Plain)
    }

    pub fn map(entries: impl IntoIterator<Item = (Key, Value)>) -> Self {
        Self::Map(Arc::new(entries.into_iter().collect()))
    }

    /// Plain JSON without a schema.
    pub fn from_json(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Self::Int(int),
                (None, Some(uint)) => Self::Uint(uint),
                (None, None) => Self::Double(number.as_f64().unwrap_or_default()),
            },
            serde_json::Value::String(text) => Self::text(text),
            serde_json::Value::Array(items) => {
                Self::list(items.iter().map(Self::from_json).collect())
            }
            serde_json::Value::Object(fields) => {
                Self::map(fields.iter().map(|(name, value)| {
                    (Key::String(name.as_str().into()), Self::from_json(value))
                }))
            }
        }
    }

    /// JSON of values that have a JSON form.
    pub fn to_json(&self) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => serde_json::Number::from_f64(*value).map(Json::Number)?,
            Self::String(text) => Json::String(text.to_string()),
            Self::Bytes(bytes) => Json::String(base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                bytes,
            )),
            Self::List(items, _) => {
                Json::Array(items.iter().map(Self::to_json).collect::<Option<_>>()?)
            }
            Self::Map(entries) => {
                let entry =
                    |(key, value): (&Key, &Value)| Some((key.to_string(), value.to_json()?));
                Json::Object(entries.iter().map(entry).collect::<Option<_>>()?)
            }
            Self::Timestamp(time) => Json::String(time.to_string()),
            Self::Duration(nanos) => Json::String(super::duration::print(*nanos)),
            Self::Quantity(quantity) => Json::String(quantity.to_string()),
            Self::Optional(Some(value)) => return value.to_json(),
            _ => return None,
        })
    }

    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(..) => "list",
            Self::Map(_) => "map",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Ip(_) => super::signatures::IP,
            Self::Cidr(_) => super::signatures::CIDR,
            Self::Url(_) => super::signatures::URL,
            Self::Quantity(_) => super::signatures::QUANTITY,
            Self::Semver(_) => super::signatures::SEMVER,
            Self::Format(_) => super::signatures::FORMAT,
            Self::Host(host) => host.type_name(),
        }
    }

    /// Letters, bytes, items or entries; 1 for everything else. The measure of costs.
    pub fn size(&self) -> u64 {
        match self {
            // Bytes are a bound of letters, and known at once.
            Self::String(text) => text.len() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(items, _) => items.len() as u64,
            Self::Map(entries) => entries.len() as u64,
            _ => 1,
        }
    }

    pub fn as_key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(value) => Key::Bool(*value),
            Self::Int(value) => Key::Int(*value),
            Self::Uint(value) => i64::try_from(*value).map_or(Key::Uint(*value), Key::Int),
            Self::Double(value) if value.fract() == 0.0 && value.abs() < 9e18 => {
                Key::Int(*value as i64)
            }
            Self::String(text) => Key::String(Arc::clone(text)),
            _ => return None,
        })
    }

    /// Whether it is what its type has when nothing is said.
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Null | Self::Optional(None) => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::String(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::List(items, _) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
            Self::Duration(nanos) => *nanos == 0,
            _ => false,
        }
    }

    /// `None` where there is no order.
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Self::String(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Int(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(a), Self::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Uint(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(a), Self::Uint(b)) => a.partial_cmp(&(*b as f64)),
            _ => None,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::List(a, kind), Self::List(b, _)) => {
                a.len() == b.len() && lists_equal(a, b, kind)
            }
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .all(|(key, value)| b.get(key).is_some_and(|other| other == value))
            }
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a == b,
            (Self::Format(a), Self::Format(b)) => a == b,
            (a, b) => a.order(b) == Some(Ordering::Equal),
        }
    }
}

fn lists_equal(a: &[Value], b: &[Value], kind: &ListKind) -> bool {
    match kind {
        ListKind::Plain => a.iter().zip(b).all(|(a, b)| a == b),
        ListKind::Set | ListKind::Map(_) => a.iter().all(|item| b.contains(item)),
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Uint(value) => value.fmt(f),
            Self::String(text) => f.write_str(text),
        }
    }
}

impl Key {
    pub fn value(&self) -> Value {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::String(text) => Value::String(Arc::clone(text)),
        }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::String(Arc::from(text))
    }
}
