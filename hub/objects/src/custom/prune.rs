//! Pruning and defaulting of custom resources by their structural schema.
//!
//! In: an object and its schema. Out: the object without unknown fields, with the defaults that its schema
//! names; the paths of what was unknown.
//! Never: judges values (see `validate`).

use serde_json::Value;

use super::structural::{Additional, Structural};
use crate::schema;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Unknown fields that are named; more are dropped all the same.
const UNKNOWN_MAX: usize = 100;

/// Drops what the schema does not know. `root`: the value is an object with apiVersion, kind and metadata.
pub fn prune(value: &mut Value, schema: &Structural, root: bool) -> Vec<String> {
    let mut walk = Walk {
        unknown: Vec::new(),
        path: String::new(),
    };
    walk.visit(value, schema, root);
    walk.unknown
}

struct Walk {
    unknown: Vec<String>,
    path: String,
}

impl Walk {
    fn visit(&mut self, value: &mut Value, schema: &Structural, root: bool) {
        let root = root || schema.embedded;
        match value {
            Value::Object(fields) => {
                let keep_all =
                    schema.preserve_unknown || matches!(schema.additional, Additional::Any);
                fields.retain(|name, _| {
                    let known = keep_all
                        || schema.values().is_some()
                        || schema.properties.contains_key(name)
                        || (root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
                    if !known && self.unknown.len() < UNKNOWN_MAX {
                        self.unknown.push(join(&self.path, name));
                    }
                    known
                });
                for (name, field) in fields.iter_mut() {
                    if root && name == "metadata" {
                        self.within(join(&self.path, name), |walk| walk.metadata(field));
                        continue;
                    }
                    let below = schema.property(name).or_else(|| schema.values());
                    if let Some(below) = below {
                        self.within(join(&self.path, name), |walk| {
                            walk.visit(field, below, false)
                        });
                    }
                }
            }
            Value::Array(items) => {
                let Some(below) = &schema.items else { return };
                for (at, item) in items.iter_mut().enumerate() {
                    self.within(format!("{}[{at}]", self.path), |walk| {
                        walk.visit(item, below, false)
                    });
                }
            }
            _ => {}
        }
    }

    /// ObjectMeta is the same everywhere.
    fn metadata(&mut self, metadata: &mut Value) {
        let Some(definition) = schema::table().get(OBJECT_META) else {
            return;
        };
        if !metadata.is_object() || !schema::check(metadata, definition).is_empty() {
            return;
        }
        for path in schema::prune(metadata, definition) {
            self.unknown.push(join(&self.path, &path));
        }
    }

    fn within(&mut self, path: String, act: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.path, path);
        act(self);
        self.path = before;
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Fills in defaults. A null where null is not allowed and a default is there counts as absent.
pub fn default(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(fields) => {
            for (name, below) in &schema.properties {
                let Some(wanted) = &below.default else {
                    continue;
                };
                let absent = match fields.get(name) {
                    None => true,
                    Some(Value::Null) => !below.nullable,
                    Some(_) => false,
                };
                if absent {
                    fields.insert(name.clone(), wanted.clone());
                }
            }
            for (name, field) in fields.iter_mut() {
                match (schema.property(name), schema.values()) {
                    (Some(below), _) => default(field, below),
                    (None, Some(below)) => {
                        if field.is_null()
                            && !below.nullable
                            && let Some(wanted) = &below.default
                        {
                            *field = wanted.clone();
                        }
                        default(field, below);
                    }
                    (None, None) => {}
                }
            }
        }
        Value::Array(items) => {
            let Some(below) = &schema.items else { return };
            for item in items {
                if item.is_null()
                    && !below.nullable
                    && let Some(wanted) = &below.default
                {
                    *item = wanted.clone();
                }
                default(item, below);
            }
        }
        _ => {}
    }
}

/// Whether a schema has defaults anywhere.
pub fn has_defaults(schema: &Structural) -> bool {
    let below = schema
        .properties
        .values()
        .chain(schema.values())
        .chain(schema.items.as_deref());
    schema.default.is_some() || below.into_iter().any(has_defaults)
}
