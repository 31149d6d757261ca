//! docs/FIELDS.md has every field that a pod can have, and the tests that it names are there.
//!
//! In: the page, the recorded schema, the tests' sources. Out: fails for a field without a row, a row without a field, and a
//! row that acts or says something without a test that shows it.

use limpet_objects::schema::{self, Object, Property};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

struct Row {
    verdict: String,
    proof: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// By type and field.
fn rows() -> BTreeMap<(String, String), Row> {
    let text = std::fs::read_to_string(root().join("docs/FIELDS.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| type |")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [types, fields, verdict, proof] = cells[..] else { panic!("not four cells: {line}") };
        assert!(["acts", "cluster", "said", "none"].contains(&verdict), "{line}");
        assert_eq!(proof.is_empty(), verdict == "none", "a proof where something happens, and only there: {line}");
        for (kind, field) in types.split(", ").flat_map(|t| fields.split(", ").map(move |f| (t, f))) {
            let row = Row { verdict: verdict.into(), proof: proof.into() };
            assert!(rows.insert((kind.into(), field.into()), row).is_none(), "{kind}.{field} stands twice");
        }
    }
    rows
}

/// The struct that a place holds, through lists and maps, by its short name.
fn held<'a>(table: &'a schema::Table, schema: &'a schema::Schema) -> Option<(&'a str, &'a Object)> {
    match &schema.kind {
        schema::Type::Ref(id) => {
            let definition = table.at(*id)?;
            match &definition.schema.kind {
                schema::Type::Object(object) => Some((definition.short_name(), object)),
                _ => None,
            }
        }
        schema::Type::List(inner) | schema::Type::Map(inner) => held(table, inner),
        _ => None,
    }
}

#[test]
fn every_field_of_a_pod_is_on_the_page() {
    let (rows, table) = (rows(), schema::table());
    let mut todo = vec![("PodSpec", table.object(&table.get("io.k8s.api.core.v1.PodSpec").unwrap().schema).unwrap())];
    let (mut seen, mut fields) = (BTreeSet::new(), BTreeSet::new());
    let mut missing = Vec::new();
    while let Some((kind, object)) = todo.pop() {
        if !seen.insert(kind) {
            continue;
        }
        for Property { name, schema } in &object.properties {
            let key = (kind.to_string(), name.to_string());
            match rows.get(&key) {
                None => missing.push(format!("{kind}.{name}")),
                Some(row) if row.verdict == "acts" => todo.extend(held(table, schema)),
                Some(_) => {}
            }
            fields.insert(key);
        }
    }
    assert!(missing.is_empty(), "docs/FIELDS.md lacks {missing:?}");
    let more: Vec<_> = rows.keys().filter(|key| !fields.contains(*key)).collect();
    assert!(more.is_empty(), "docs/FIELDS.md has fields that a pod of this version does not have: {more:?}");
}

#[test]
fn the_tests_that_the_page_names_are_there() {
    let mut sources: BTreeMap<PathBuf, String> = BTreeMap::new();
    for (key, row) in rows() {
        for proof in row.proof.split("; ").filter(|p| !p.is_empty()) {
            let (file, names) = proof.split_once(": ").unwrap_or_else(|| panic!("{key:?}: {proof:?} names no test"));
            let path = [root().join("tests/e2e/tests").join(file), root().join(file)].into_iter().find(|p| p.is_file());
            let path = path.unwrap_or_else(|| panic!("{key:?}: there is no {file}"));
            let text = sources.entry(path.clone()).or_insert_with(|| std::fs::read_to_string(&path).unwrap());
            for name in names.split(", ") {
                assert!(text.contains(&format!("fn {name}(")), "{key:?}: {file} has no fn {name}");
            }
        }
    }
}
