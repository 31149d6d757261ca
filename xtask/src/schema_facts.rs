//! `cargo xtask schema-facts`: brings the list types, merge keys and group-version-kinds of
//! Kubernetes' schema up to date.
//!
//! In: the PyPI package `kubernetes-validate`, fetched with pip (pinned version). Out:
//! hub/objects/schema/facts-1.36.json,
//! compact and sorted: definition -> property ("" is the definition itself) -> extension -> value.
//! Never: takes descriptions, touches facts-by-hand-1.36.json, or runs anything from the package.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};

const PACKAGE: &str = "kubernetes-validate==1.37.0";
const MEMBER: &str = "kubernetes_validate/kubernetes-json-schema/v1.36.0-local/_definitions.json";
const TARGET: &str = "hub/objects/schema/facts-1.36.json";

/// Definition -> property -> facts; `BTreeMap` keeps the file sorted.
type Facts = BTreeMap<String, BTreeMap<String, Map<String, Value>>>;

/// Fetches the package and rewrites the facts file. Run from the workspace's root.
pub fn run() -> Result<(), String> {
    let work = std::env::temp_dir().join(format!("limpet-schema-facts-{}", std::process::id()));
    std::fs::create_dir_all(&work).map_err(|e| format!("cannot make {}: {e}", work.display()))?;
    let outcome = fetch(&work).and_then(|file| rewrite(&file, Path::new(TARGET)));
    // A left-over temporary folder harms nobody.
    let _ = std::fs::remove_dir_all(&work);
    outcome
}

fn fetch(work: &Path) -> Result<PathBuf, String> {
    tool(Command::new("pip").args(["download", "--quiet", "--no-deps", PACKAGE, "--dest"]).arg(work))?;
    let wheel = std::fs::read_dir(work)
        .map_err(|e| format!("cannot read {}: {e}", work.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| format!("pip download {PACKAGE} left no wheel"))?;
    tool(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(work))?;
    Ok(work.join(MEMBER))
}

fn tool(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}")) }
}

fn rewrite(source: &Path, target: &Path) -> Result<(), String> {
    let text = std::fs::read(source).map_err(|e| format!("cannot read {}: {e}", source.display()))?;
    let document: Value = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", source.display()))?;
    let definitions = document
        .get("$defs")
        .or_else(|| document.get("definitions"))
        .and_then(Value::as_object)
        .ok_or("the package's schema has no definitions")?;
    let text = print(&collect(definitions))?;
    std::fs::write(target, text).map_err(|e| format!("cannot write {}: {e}", target.display()))?;
    println!("wrote {}", target.display());
    Ok(())
}

fn collect(definitions: &Map<String, Value>) -> Facts {
    let mut facts = Facts::new();
    for (name, definition) in definitions.iter().filter(|(name, _)| stable(name)) {
        let mut rows = BTreeMap::new();
        let own = extensions(definition);
        if !own.is_empty() {
            rows.insert(String::new(), own);
        }
        for (property, schema) in definition["properties"].as_object().into_iter().flatten() {
            let found = extensions(schema);
            if !found.is_empty() {
                rows.insert(property.clone(), found);
            }
        }
        if !rows.is_empty() {
            facts.insert(name.clone(), rows);
        }
    }
    facts
}

/// Only definitions of stable API versions are served.
fn stable(name: &str) -> bool {
    !name.split('.').any(|part| part.starts_with('v') && (part.contains("alpha") || part.contains("beta")))
}

fn extensions(schema: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    for (key, value) in schema.as_object().into_iter().flatten() {
        let Some(short) = key.strip_prefix("x-kubernetes-") else { continue };
        let value = if short == "group-version-kind" { own_kinds(value) } else { value.clone() };
        found.insert(short.to_owned(), value);
    }
    found
}

/// Meta types are registered in every group (sixty rows); the core row stands for all of them.
fn own_kinds(value: &Value) -> Value {
    match value.as_array() {
        Some(rows) if rows.len() > 4 => rows.iter().filter(|row| row["group"] == "").take(1).cloned().collect(),
        _ => value.clone(),
    }
}

/// One line a definition, so that a change of one definition is a change of one line.
fn print(facts: &Facts) -> Result<String, String> {
    let mut lines = Vec::with_capacity(facts.len());
    for (name, rows) in facts {
        let rows = serde_json::to_string(rows).map_err(|e| e.to_string())?;
        lines.push(format!("\"{name}\":{rows}"));
    }
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_extensions_of_stable_definitions() {
        let definitions = serde_json::json!({
            "io.k8s.api.core.v1.Box": {"description": "prose", "x-kubernetes-map-type": "atomic", "properties": {
                "lids": {"type": ["array", "null"], "x-kubernetes-list-type": "set"}, "size": {"type": "string"}}},
            "io.k8s.api.core.v1beta1.Box": {"x-kubernetes-map-type": "atomic"},
        });
        let text = print(&collect(definitions.as_object().unwrap())).unwrap();
        assert_eq!(
            text,
            "{\n\"io.k8s.api.core.v1.Box\":{\"\":{\"map-type\":\"atomic\"},\"lids\":{\"list-type\":\"set\"}}\n}\n"
        );
    }
}
