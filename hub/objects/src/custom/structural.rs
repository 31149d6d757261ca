//! Structural schemas: what a CustomResourceDefinition says about its objects, as a tree.
//!
//! In: JSONSchemaProps as JSON, of checked JSON types but else hostile. Out: `Structural`.
//! Source: the Kubernetes page "Extend the Kubernetes API with CustomResourceDefinitions".
//! Never: judges the schema (see `definition`) or values (see `validate`).

use std::collections::BTreeMap;

use limpet_cel::re2::Regex;
use serde_json::Value;

use crate::schema::{ListType, MapType};

/// Depth at which a schema is cut off; a CRD with a deeper one is refused.
pub const DEPTH_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// No type: any value, or an int-or-string.
    #[default]
    None,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    /// A word that is no type.
    Unknown,
}

impl Kind {
    pub fn named(word: &str) -> Self {
        match word {
            "" => Self::None,
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => Self::Unknown,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::None | Self::Unknown => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `additionalProperties`.
#[derive(Debug, Clone, Default)]
pub enum Additional {
    #[default]
    None,
    Forbidden,
    Any,
    Schema(Box<Structural>),
}

/// One node of the tree. Below `all_of` and its like the nodes only judge values.
#[derive(Debug, Clone, Default)]
pub struct Structural {
    pub kind: Kind,
    pub nullable: bool,
    pub int_or_string: bool,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Structural>,
    pub additional: Additional,
    pub items: Option<Box<Structural>>,
    pub list_type: Option<ListType>,
    pub list_keys: Vec<String>,
    pub map_type: Option<MapType>,
    pub required: Vec<String>,
    pub choices: Vec<Value>,
    pub format: String,
    pub pattern: Option<(String, Option<Regex>)>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub all_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub not: Option<Box<Structural>>,
}

impl Structural {
    /// Reads a schema; what has the wrong shape counts as absent.
    pub fn read(schema: &Value) -> Self {
        read(schema, 0)
    }

    pub fn property(&self, name: &str) -> Option<&Structural> {
        self.properties.get(name)
    }

    /// The schema of a map's values.
    pub fn values(&self) -> Option<&Structural> {
        match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        }
    }

    /// Follows a path of fields: `["spec", "replicas"]`.
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Structural> {
        path.into_iter().try_fold(self, |schema, name| {
            schema.property(name).or_else(|| schema.values())
        })
    }
}

fn read(schema: &Value, depth: usize) -> Structural {
    if depth > DEPTH_MAX {
        return Structural::default();
    }
    let flag = |name: &str| schema[name] == true;
    let text = |name: &str| schema[name].as_str().unwrap_or_default();
    let below = |value: &Value| read(value, depth + 1);
    let list = |name: &str| {
        schema[name]
            .as_array()
            .into_iter()
            .flatten()
            .map(below)
            .collect::<Vec<_>>()
    };
    let words = |name: &str| -> Vec<String> {
        schema[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect()
    };
    let one = |name: &str| {
        schema
            .get(name)
            .filter(|v| v.is_object())
            .map(|v| Box::new(below(v)))
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    Structural {
        kind: Kind::named(text("type")),
        nullable: flag("nullable"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        default: schema.get("default").cloned(),
        properties: properties
            .map(|(name, value)| (name.clone(), below(value)))
            .collect(),
        additional: match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => Additional::Any,
            Some(Value::Bool(false)) => Additional::Forbidden,
            Some(value @ Value::Object(_)) => Additional::Schema(Box::new(below(value))),
            _ => Additional::None,
        },
        items: one("items"),
        list_type: ListType::named(text("x-kubernetes-list-type")),
        list_keys: words("x-kubernetes-list-map-keys"),
        map_type: MapType::named(text("x-kubernetes-map-type")),
        required: words("required"),
        choices: schema["enum"].as_array().cloned().unwrap_or_default(),
        format: text("format").to_owned(),
        pattern: schema["pattern"]
            .as_str()
            .filter(|pattern| !pattern.is_empty())
            .map(|pattern| (pattern.to_owned(), limpet_cel::re2::compile(pattern).ok())),
        minimum: schema["minimum"].as_f64(),
        maximum: schema["maximum"].as_f64(),
        exclusive_minimum: flag("exclusiveMinimum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        multiple_of: schema["multipleOf"].as_f64(),
        min_length: schema["minLength"].as_u64(),
        max_length: schema["maxLength"].as_u64(),
        min_items: schema["minItems"].as_u64(),
        max_items: schema["maxItems"].as_u64(),
        unique_items: flag("uniqueItems"),
        min_properties: schema["minProperties"].as_u64(),
        max_properties: schema["maxProperties"].as_u64(),
        all_of: list("allOf"),
        any_of: list("anyOf"),
        one_of: list("oneOf"),
        not: one("not"),
    }
}
