//! Whether a schema is structural, in the words of apiextensions-apiserver.
//!
//! In: an openAPIV3Schema as JSON, hostile. Out: field errors. Source: the Kubernetes page
//! "Extend the Kubernetes API with CustomResourceDefinitions", section "Specifying a structural schema".
//! Never: recurses deeper than `DEPTH_MAX`.

use serde_json::{Value, json};

use super::structural::{DEPTH_MAX, Structural};
use super::{prune, validate};
use crate::field::FieldError;

const NODES_MAX: usize = 20_000;

pub fn check(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut walk = Walk {
        errors: Vec::new(),
        nodes: 0,
    };
    match schema["type"].as_str().unwrap_or_default() {
        "" => walk.errors.push(FieldError::required(
            format!("{path}.type"),
            "must not be empty at the root",
        )),
        "object" => {}
        other => walk.errors.push(FieldError::invalid(
            format!("{path}.type"),
            other,
            "must be object at the root",
        )),
    }
    if schema["nullable"] == true {
        let at = format!("{path}.nullable");
        walk.errors.push(FieldError::forbidden(
            at,
            "nullable cannot be true at the root",
        ));
    }
    walk.node(schema, path, Place::Root, 0);
    walk.metadata(
        &schema["properties"]["metadata"],
        &format!("{path}.properties[metadata]"),
    );
    if walk.errors.is_empty() {
        walk.defaults(&Structural::read(schema), path, true);
    }
    walk.errors
}

struct Walk {
    errors: Vec<FieldError>,
    nodes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
    /// Below allOf, anyOf, oneOf or not: only values are judged.
    Logic,
    /// The same below an int-or-string, where `anyOf: [{type: integer}, {type: string}]` is usual.
    LogicOfIntOrString,
}

impl Place {
    fn is_logic(self) -> bool {
        matches!(self, Self::Logic | Self::LogicOfIntOrString)
    }
}

impl Walk {
    fn forbid(&mut self, path: String, why: impl Into<String>) {
        self.errors.push(FieldError::forbidden(path, why));
    }

    fn invalid(&mut self, path: String, value: impl Into<Value>, why: &str) {
        self.errors.push(FieldError::invalid(path, value, why));
    }

    fn node(&mut self, schema: &Value, path: &str, place: Place, depth: usize) {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            if self
                .errors
                .iter()
                .all(|error| !error.detail.starts_with("the schema is too"))
            {
                self.forbid(path.to_owned(), "the schema is too deep or too large");
            }
            return;
        }
        self.unsupported(schema, path);
        self.types(schema, path, place);
        self.bounds(schema, path);
        if place.is_logic() {
            self.only_values(schema, path, place == Place::LogicOfIntOrString);
        } else {
            self.extensions(schema, path);
        }
        self.below(schema, path, place, depth);
    }

    fn below(&mut self, schema: &Value, path: &str, place: Place, depth: usize) {
        let logic = place.is_logic();
        for (name, below) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{path}.properties[{name}]");
            self.node(
                below,
                &at,
                if logic { Place::Logic } else { Place::Field },
                depth + 1,
            );
        }
        if schema["additionalProperties"].is_object() {
            let at = format!("{path}.additionalProperties");
            let place = if logic { Place::Logic } else { Place::Field };
            self.node(&schema["additionalProperties"], &at, place, depth + 1);
        }
        match &schema["items"] {
            items @ Value::Object(_) => {
                let place = if logic { Place::Logic } else { Place::Item };
                self.node(items, &format!("{path}.items"), place, depth + 1);
            }
            Value::Array(_) => {
                self.forbid(
                    format!("{path}.items"),
                    "items must be a schema object and not an array",
                );
            }
            _ if schema["type"] == "array" && !logic => {
                self.errors.push(FieldError::required(
                    format!("{path}.items"),
                    "must be specified",
                ));
            }
            _ => {}
        }
        let mixed =
            schema["x-kubernetes-int-or-string"] == true || place == Place::LogicOfIntOrString;
        let inner = if mixed {
            Place::LogicOfIntOrString
        } else {
            Place::Logic
        };
        for group in ["allOf", "anyOf", "oneOf"] {
            for (at, below) in schema[group].as_array().into_iter().flatten().enumerate() {
                self.node(below, &format!("{path}.{group}[{at}]"), inner, depth + 1);
            }
        }
        if schema["not"].is_object() {
            self.node(
                &schema["not"],
                &format!("{path}.not"),
                Place::Logic,
                depth + 1,
            );
        }
    }

    fn unsupported(&mut self, schema: &Value, path: &str) {
        const NOT_SUPPORTED: [&str; 6] = [
            "$ref",
            "definitions",
            "dependencies",
            "patternProperties",
            "additionalItems",
            "id",
        ];
        for field in NOT_SUPPORTED {
            let there = match &schema[field] {
                Value::Null => false,
                Value::Object(fields) => !fields.is_empty(),
                Value::String(text) => !text.is_empty(),
                _ => true,
            };
            if there {
                self.forbid(
                    format!("{path}.{field}"),
                    format!("{field} is not supported"),
                );
            }
        }
        if schema["uniqueItems"] == true {
            let why =
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbid(format!("{path}.uniqueItems"), why);
        }
        if schema["additionalProperties"] == false {
            self.forbid(
                format!("{path}.additionalProperties"),
                "additionalProperties cannot be set to false",
            );
        }
        let properties = schema["properties"]
            .as_object()
            .is_some_and(|p| !p.is_empty());
        if properties
            && !matches!(
                schema["additionalProperties"],
                Value::Null | Value::Bool(false)
            )
        {
            let why = "additionalProperties and properties are mutual exclusive";
            self.forbid(format!("{path}.additionalProperties"), why);
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && let Err(why) = limpet_cel::re2::compile(pattern)
        {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            self.invalid(format!("{path}.pattern"), pattern, &why);
        }
    }

    fn types(&mut self, schema: &Value, path: &str, place: Place) {
        let word = schema["type"].as_str().unwrap_or_default();
        let any = schema["x-kubernetes-int-or-string"] == true
            || schema["x-kubernetes-preserve-unknown-fields"] == true;
        let at = || format!("{path}.type");
        match (word, place) {
            ("", Place::Field) if !any => {
                self.errors.push(FieldError::required(
                    at(),
                    "must not be empty for specified object fields",
                ));
            }
            ("", Place::Item) if !any => {
                self.errors.push(FieldError::required(
                    at(),
                    "must not be empty for specified array items",
                ));
            }
            ("", _) | ("object" | "array" | "string" | "integer" | "number" | "boolean", _) => {}
            (other, _) => {
                let known = ["array", "boolean", "integer", "number", "object", "string"];
                self.errors
                    .push(FieldError::not_supported(at(), other, &known));
            }
        }
    }

    fn bounds(&mut self, schema: &Value, path: &str) {
        for field in [
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
        ] {
            if let Some(number) = schema[field].as_i64().filter(|number| *number < 0) {
                self.invalid(
                    format!("{path}.{field}"),
                    number,
                    "must be greater than or equal to 0",
                );
            }
        }
        if let Some(step) = schema["multipleOf"].as_f64().filter(|step| *step <= 0.0) {
            self.invalid(format!("{path}.multipleOf"), step, "must be greater than 0");
        }
    }

    /// What only structural places may say.
    fn only_values(&mut self, schema: &Value, path: &str, mixed: bool) {
        for field in [
            "type",
            "title",
            "description",
            "default",
            "nullable",
            "additionalProperties",
        ] {
            let there = !matches!(schema[field], Value::Null | Value::Bool(false))
                && schema[field].as_str() != Some("");
            if there && !(field == "type" && mixed && is_number_or_string(schema)) {
                self.forbid(format!("{path}.{field}"), "must be empty to be structural");
            }
        }
        for field in EXTENSIONS {
            if schema[field] == true || schema[field].is_string() {
                self.forbid(format!("{path}.{field}"), "must be false to be structural");
            }
        }
    }

    fn extensions(&mut self, schema: &Value, path: &str) {
        let word = schema["type"].as_str().unwrap_or_default();
        let preserve = "x-kubernetes-preserve-unknown-fields";
        if schema[preserve] == false {
            self.invalid(
                format!("{path}.{preserve}"),
                false,
                "must be true or undefined",
            );
        }
        if schema["x-kubernetes-int-or-string"] == true && !word.is_empty() {
            let why = "must be empty if x-kubernetes-int-or-string is true";
            self.invalid(format!("{path}.type"), word, why);
        }
        if schema["x-kubernetes-embedded-resource"] == true {
            if word != "object" {
                let why = "must be object if x-kubernetes-embedded-resource is true";
                self.errors.push(if word.is_empty() {
                    FieldError::required(format!("{path}.type"), why)
                } else {
                    FieldError::invalid(format!("{path}.type"), word, why)
                });
            }
            let empty = schema["properties"]
                .as_object()
                .is_none_or(|p| p.is_empty());
            if schema[preserve] != true && empty {
                let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
                self.errors
                    .push(FieldError::required(format!("{path}.properties"), why));
            }
            self.metadata(
                &schema["properties"]["metadata"],
                &format!("{path}.properties[metadata]"),
            );
        }
        self.list_type(schema, path);
        if let Some(kind) = schema["x-kubernetes-map-type"].as_str() {
            let at = format!("{path}.x-kubernetes-map-type");
            if !matches!(kind, "atomic" | "granular") {
                self.errors
                    .push(FieldError::not_supported(at, kind, &["atomic", "granular"]));
            } else if word != "object" {
                self.invalid(
                    format!("{path}.type"),
                    word,
                    "must be object if x-kubernetes-map-type is specified",
                );
            }
        }
    }

    fn list_type(&mut self, schema: &Value, path: &str) {
        let at = format!("{path}.x-kubernetes-list-type");
        let keys = schema["x-kubernetes-list-map-keys"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let keys_at = format!("{path}.x-kubernetes-list-map-keys");
        let kind = schema["x-kubernetes-list-type"].as_str();
        let Some(kind) = kind else {
            if !keys.is_empty() {
                let why = "must be map if x-kubernetes-list-map-keys is non-empty";
                self.errors.push(FieldError::required(at, why));
            }
            return;
        };
        if !matches!(kind, "atomic" | "set" | "map") {
            self.errors.push(FieldError::not_supported(
                at,
                kind,
                &["atomic", "set", "map"],
            ));
            return;
        }
        let word = schema["type"].as_str().unwrap_or_default();
        if word != "array" {
            let why = "must be array if x-kubernetes-list-type is specified";
            self.errors.push(if word.is_empty() {
                FieldError::required(format!("{path}.type"), why)
            } else {
                FieldError::invalid(format!("{path}.type"), word, why)
            });
        }
        let items = &schema["items"];
        if kind != "map" {
            if !keys.is_empty() {
                self.invalid(
                    at,
                    kind,
                    "must be map if x-kubernetes-list-map-keys is non-empty",
                );
            }
            let granular = match items["type"].as_str() {
                Some("object") => items["x-kubernetes-map-type"] != "atomic",
                Some("array") => !matches!(
                    items["x-kubernetes-list-type"].as_str(),
                    None | Some("atomic")
                ),
                _ => false,
            };
            if kind == "set" && granular {
                let at = format!("{path}.items.x-kubernetes-map-type");
                self.invalid(
                    at,
                    items["x-kubernetes-map-type"].clone(),
                    "must be atomic as item of a list with x-kubernetes-list-type=set",
                );
            }
            return;
        }
        if items["type"] != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            self.invalid(format!("{path}.items.type"), items["type"].clone(), why);
        }
        if keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(keys_at, why));
            return;
        }
        self.list_keys(items, keys, path, &keys_at);
    }

    fn list_keys(&mut self, items: &Value, keys: &[Value], path: &str, keys_at: &str) {
        let mut seen = std::collections::BTreeSet::new();
        for (index, key) in keys.iter().enumerate() {
            let key = key.as_str().unwrap_or_default();
            let at = format!("{keys_at}[{index}]");
            if !seen.insert(key) {
                self.errors.push(FieldError::duplicate(at.as_str(), key));
            }
            let property = &items["properties"][key];
            if property.is_null() {
                self.invalid(at, key, "entries must all be names of item properties");
                continue;
            }
            if matches!(property["type"].as_str(), Some("array" | "object")) {
                let at = format!("{path}.items.properties[{key}].type");
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.invalid(at, property["type"].clone(), why);
            }
            let required = items["required"]
                .as_array()
                .is_some_and(|r| r.iter().any(|name| name == key));
            if !required && property.get("default").is_none() {
                let at = format!("{path}.items.properties[{key}].default");
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.errors.push(FieldError::required(at, why));
            }
        }
    }

    /// `metadata` is what it is everywhere: only names may be restricted.
    fn metadata(&mut self, metadata: &Value, path: &str) {
        let Some(fields) = metadata.as_object() else {
            return;
        };
        let other = |name: &String| {
            !matches!(
                name.as_str(),
                "type" | "properties" | "description" | "title"
            )
        };
        let names = metadata["properties"].as_object().into_iter().flatten();
        let wrong = names
            .into_iter()
            .any(|(name, _)| !matches!(name.as_str(), "name" | "generateName"));
        if wrong || fields.keys().any(other) {
            let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbid(path.to_owned(), why);
        }
        if !matches!(metadata["type"].as_str(), Some("object")) {
            self.invalid(
                format!("{path}.type"),
                metadata["type"].clone(),
                "must be object",
            );
        }
    }

    /// Defaults are complete, known and valid.
    fn defaults(&mut self, schema: &Structural, path: &str, root: bool) {
        if let Some(default) = &schema.default {
            let at = format!("{path}.default");
            let mut kept = default.clone();
            prune::prune(&mut kept, schema, false);
            if kept != *default {
                self.invalid(at.clone(), default.clone(), "must not have unknown fields");
            }
            let mut full = default.clone();
            prune::default(&mut full, schema);
            for error in validate::validate(schema, &full, None, "") {
                let field = if error.field.is_empty() {
                    at.clone()
                } else {
                    format!("{at}.{}", error.field)
                };
                self.errors.push(FieldError { field, ..error });
            }
        }
        for (name, below) in &schema.properties {
            let at = format!("{path}.properties[{name}]");
            if root && matches!(name.as_str(), "metadata" | "apiVersion" | "kind") {
                if below.default.is_some() || prune::has_defaults(below) {
                    self.forbid(
                        format!("{at}.default"),
                        "must not be set in top-level apiVersion, kind or metadata",
                    );
                }
                continue;
            }
            self.defaults(below, &at, below.embedded);
        }
        if let Some(values) = schema.values() {
            self.defaults(
                values,
                &format!("{path}.additionalProperties"),
                values.embedded,
            );
        }
        if let Some(items) = &schema.items {
            self.defaults(items, &format!("{path}.items"), items.embedded);
        }
    }
}

const EXTENSIONS: [&str; 5] = [
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-int-or-string",
];

/// `{"type": "integer"}` and `{"type": "string"}` beside int-or-string.
fn is_number_or_string(schema: &Value) -> bool {
    let fields = schema
        .as_object()
        .map_or(0, |fields| fields.values().filter(|v| !v.is_null()).count());
    fields == 1 && (*schema == json!({"type": "integer"}) || *schema == json!({"type": "string"}))
}
