//! The descriptions of the schema table and its raw JSON, unpacked only while a document is being written.
//!
//! In: the compressed blobs of build.rs. Out: `Docs` (lookup of prose) and raw definitions.
//! Never: stays in memory after the caller drops it.

use serde_json::{Map, Value};

use super::{DEFINITIONS, inflate};

static DESCRIPTIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.json.z"));

/// Descriptions of definitions and properties.
#[derive(Debug)]
pub struct Docs(Map<String, Value>);

impl Docs {
    pub fn open() -> Self {
        Self(parse(DESCRIPTIONS))
    }

    pub fn definition(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    pub fn property(&self, definition: &str, property: &str) -> Option<&str> {
        self.0.get(&format!("{definition}#{property}")).and_then(Value::as_str)
    }
}

/// The definitions as JSON without prose, references short.
pub fn raw_definitions() -> Map<String, Value> {
    parse(DEFINITIONS)
}

fn parse(blob: &[u8]) -> Map<String, Value> {
    // The blobs are made by build.rs and covered by tests: they cannot be wrong at run time.
    inflate(blob).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}
