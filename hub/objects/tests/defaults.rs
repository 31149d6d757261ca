//! Every default of every built-in kind: what appears in an object in which all structs and lists are there, and no word in them.
//!
//! In: the schema table, for the objects; `defaults-1.36.txt`, a line each (kind, field, value), read against Kubernetes' own
//! `defaults.go` of each group. Out: any difference is shown; `LIMPET_UPDATE=1` writes the table anew.
//! Never: the zeros that Go writes for fields that are no pointers (see `shapes.rs`); defaults that depend on another
//! field's value (those are there, too).

use limpet_objects::registry::registry;
use limpet_objects::resource::Resource;
use limpet_objects::schema::{self, Schema, Table, Type};
use limpet_objects::strategy;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// All that is an object or a list, and nothing else. Schemas contain themselves: `around` are those that this one is in.
fn skeleton<'a>(table: &'a Table, schema: &'a Schema, around: &mut Vec<&'a Schema>) -> Option<Value> {
    let schema = table.resolve(schema);
    if around.iter().any(|outer| std::ptr::eq(*outer, schema)) {
        return None;
    }
    around.push(schema);
    let value = match &schema.kind {
        Type::Object(object) => {
            let outermost = around.len() == 1;
            let mut fields = Map::new();
            for property in object.properties.iter().filter(|property| !outermost || &*property.name != "metadata") {
                if let Some(value) = skeleton(table, &property.schema, around) {
                    fields.insert(property.name.to_string(), value);
                }
            }
            Some(Value::Object(fields))
        }
        Type::List(items) => Some(skeleton(table, items, around).into_iter().collect()),
        Type::Map(values) => skeleton(table, values, around).map(|value| json!({ "key": value })),
        _ => None,
    };
    around.pop();
    value
}

/// The leaves of an object: path -> value. An empty struct or list is a leaf.
fn leaves(value: &Value, path: &str, out: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                leaves(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                leaves(item, &format!("{path}[]"), out);
            }
        }
        leaf => _ = out.insert(path.to_owned(), leaf.clone()),
    }
}

/// What defaulting adds, beyond Go's zeros.
fn defaults(resource: &Resource) -> BTreeMap<String, Value> {
    let table = schema::table();
    let definition = table.get(&resource.schema).unwrap();
    let bare = skeleton(table, &definition.schema, &mut Vec::new()).unwrap_or_else(|| Value::Object(Map::new()));
    let mut zeros = bare.clone();
    schema::fill(&mut zeros, definition, schema::Zeros::All);
    let mut full = bare;
    strategy::default(resource, &mut full);
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    leaves(&zeros, "", &mut before);
    leaves(&full, "", &mut after);
    after.retain(|path, value| before.get(path) != Some(value) && !["apiVersion", "kind"].contains(&path.as_str()));
    after.retain(|path, _| !path.starts_with("metadata"));
    after
}

#[test]
fn each_is_known() {
    let template = registry().by_path("", "v1", "podtemplates").unwrap();
    let template: BTreeMap<String, Value> =
        defaults(template).into_iter().map(|(path, value)| (path.replacen("template.", "", 1), value)).collect();
    let mut lines = String::new();
    for resource in registry().resources().iter().filter(|r| r.is_persistent() && !r.group.ends_with("limpet.dev")) {
        let mut found = defaults(resource);
        let kind = format!("{} {}", resource.api_version(), resource.kind);
        // Templates of pods are the same everywhere.
        for holder in ["spec.template.", "spec.jobTemplate.spec.template."] {
            let inside = |path: &str| path.strip_prefix(holder).map(str::to_owned);
            let own: BTreeMap<String, Value> =
                found.iter().filter_map(|(path, value)| Some((inside(path)?, value.clone()))).collect();
            if !own.is_empty() && own == template {
                found.retain(|path, _| !path.starts_with(holder));
                writeln!(lines, "{kind} {} = as of a PodTemplate", holder.trim_end_matches('.')).unwrap();
            }
        }
        for (path, value) in &found {
            writeln!(lines, "{kind} {path} = {value}").unwrap();
        }
        if found.is_empty() && !lines.lines().last().is_some_and(|line| line.starts_with(&format!("{kind} "))) {
            writeln!(lines, "{kind} has none").unwrap();
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/defaults-1.36.txt");
    if std::env::var_os("LIMPET_UPDATE").is_some() {
        std::fs::write(&file, &lines).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap();
    let (known, found): (Vec<&str>, Vec<&str>) = (known.lines().collect(), lines.lines().collect());
    let gone: Vec<_> = known.iter().filter(|line| !found.contains(line)).collect();
    let new: Vec<_> = found.iter().filter(|line| !known.contains(line)).collect();
    assert!(gone.is_empty() && new.is_empty(), "no longer so: {gone:#?}\nnot known: {new:#?}");
}
