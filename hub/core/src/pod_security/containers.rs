//! Walks over the containers of a pod, and the words in which upstream names several of them.
//!
//! In: a pod's spec. Out: containers of all three lists, in upstream's order. Never: judges.

use serde_json::Value;

/// Init containers, containers, ephemeral containers.
pub fn all(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec[list].as_array().into_iter().flatten())
}

pub fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

/// The names of those for which `is` holds.
pub fn named(spec: &Value, is: impl Fn(&Value) -> bool) -> Vec<String> {
    all(spec).filter(|c| is(c)).map(|c| name(c).to_owned()).collect()
}

/// `"a", "b"`
pub fn quoted<T: AsRef<str>>(words: &[T]) -> String {
    words.iter().map(|w| format!("\"{}\"", w.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, `containers "a", "b"`
pub fn phrase(names: &[String]) -> String {
    plural("container", "containers", names.len()).to_owned() + " " + &quoted(names)
}

pub fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// Sorted, each once.
pub fn sorted(mut words: Vec<String>) -> Vec<String> {
    words.sort();
    words.dedup();
    words
}
