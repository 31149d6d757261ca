//! The blobs of build.rs: definitions and descriptions, unpacked only while they are read.
//!
//! In: compressed lines, `name<TAB>JSON`, sorted by name. Out: `Lines`, which parses one entry at a
//! time, and `Docs`.
//! Never: stays in memory after the caller drops it.

use std::io::Read;

use serde_json::Value;

static DEFINITIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/definitions.z"));
static DESCRIPTIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.z"));

/// Unpacked text with the places of its lines.
#[derive(Debug)]
pub struct Lines {
    text: String,
    starts: Vec<usize>,
}

impl Lines {
    /// The definitions: JSON without prose, references short (`{"$ref":"io.k8s…"}`).
    pub fn definitions() -> Self {
        Self::unpack(DEFINITIONS)
    }

    fn unpack(blob: &[u8]) -> Self {
        let mut text = String::new();
        // The blobs are made by build.rs and covered by tests: they cannot be wrong at run time.
        if flate2::read::ZlibDecoder::new(blob).read_to_string(&mut text).is_err() {
            text.clear();
        }
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut starts: Vec<usize> = std::iter::once(0).chain(ends).collect();
        starts.pop();
        Self { text, starts }
    }

    /// Name and JSON of each line, sorted by name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.lines().filter_map(|line| line.split_once('\t'))
    }

    /// The JSON of an entry.
    pub fn get(&self, name: &str) -> Option<&str> {
        let line = |start: usize| self.text[start..].split_once('\n').map_or("", |(line, _)| line);
        let found = self
            .starts
            .binary_search_by(|start| line(*start).split_once('\t').map_or("", |(found, _)| found).cmp(name));
        let start = *self.starts.get(found.ok()?)?;
        line(start).split_once('\t').map(|(_, json)| json)
    }

    /// The entry, parsed.
    pub fn value(&self, name: &str) -> Option<Value> {
        serde_json::from_str(self.get(name)?).ok()
    }
}

/// Descriptions of definitions and properties.
#[derive(Debug)]
pub struct Docs(Lines);

impl Docs {
    pub fn open() -> Self {
        Self(Lines::unpack(DESCRIPTIONS))
    }

    pub fn definition(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.0.get(name)?).ok()
    }

    pub fn property(&self, definition: &str, property: &str) -> Option<String> {
        self.definition(&format!("{definition}#{property}"))
    }
}
