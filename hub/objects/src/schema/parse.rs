//! Reads OpenAPI-shaped definitions into a `Table`.
//!
//! In: names and schemas with short references (`{"$ref":"io.k8s…"}`). Out: `Table`.
//! Never: keeps what the table does not need (descriptions).

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;

use super::{
    DefId, Definition, GroupVersionKind, Lines, ListType, MapType, Object, PatchStrategy, Property, Schema,
    Table, Type,
};

#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Nobody retries: the document itself is wrong.
    #[error("the schema is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Nobody retries: the document itself is wrong.
    #[error("the schema refers to {0:?}, which it does not define")]
    UnknownReference(String),
}

#[derive(Deserialize, Default)]
struct Raw {
    #[serde(rename = "type")]
    type_: Option<String>,
    format: Option<String>,
    #[serde(rename = "$ref")]
    reference: Option<String>,
    items: Option<Box<Raw>>,
    #[serde(rename = "additionalProperties")]
    additional: Option<Box<Raw>>,
    properties: Option<BTreeMap<Box<str>, Raw>>,
    #[serde(default)]
    required: Vec<Box<str>>,
    default: Option<Value>,
    #[serde(default, rename = "enum")]
    choices: Vec<Box<str>>,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<String>,
    #[serde(default, rename = "x-kubernetes-list-map-keys")]
    list_keys: Vec<Box<str>>,
    #[serde(rename = "x-kubernetes-map-type")]
    map_type: Option<String>,
    #[serde(default, rename = "x-kubernetes-patch-strategy")]
    patch_strategy: String,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    patch_merge_key: Option<Box<str>>,
    #[serde(default, rename = "x-kubernetes-int-or-string")]
    int_or_string: bool,
    #[serde(default, rename = "x-kubernetes-group-version-kind")]
    kinds: Vec<RawKind>,
}

#[derive(Deserialize)]
struct RawKind {
    group: Box<str>,
    version: Box<str>,
    kind: Box<str>,
}

/// Parses definitions one after the other; every reference must lead to one of them.
pub(super) fn parse(lines: &Lines) -> Result<Table, ParseError> {
    let by_name: HashMap<Box<str>, DefId> =
        lines.entries().map(|(name, _)| Box::from(name)).zip(0..).collect();
    let mut definitions = Vec::with_capacity(by_name.len());
    for (name, json) in lines.entries() {
        let mut raw: Raw = serde_json::from_str(json)?;
        let kinds = std::mem::take(&mut raw.kinds);
        let schema = match special(name) {
            Some(kind) => Schema { kind, ..Schema::default() },
            None => schema(raw, &by_name)?,
        };
        let kinds = kinds.into_iter().map(Into::into).collect();
        definitions.push(Definition { name: name.into(), schema, kinds });
    }
    Ok(Table { definitions, by_name })
}

/// Types whose JSON form is not what their Go struct suggests.
fn special(name: &str) -> Option<Type> {
    let meta = name.strip_prefix("io.k8s.apimachinery.pkg.");
    let json = name.strip_prefix("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON");
    match (meta, json) {
        (Some("api.resource.Quantity"), _) => Some(Type::Quantity),
        (Some("util.intstr.IntOrString"), _) => Some(Type::IntOrString),
        (Some("apis.meta.v1.Time"), _) => Some(Type::Time),
        (Some("apis.meta.v1.MicroTime"), _) => Some(Type::MicroTime),
        (Some("runtime.RawExtension" | "apis.meta.v1.FieldsV1" | "apis.meta.v1.Patch"), _) => Some(Type::Any),
        (_, Some("" | "SchemaPropsOrArray" | "SchemaPropsOrBool" | "SchemaPropsOrStringArray")) => {
            Some(Type::Any)
        }
        _ => None,
    }
}

fn schema(raw: Raw, by_name: &HashMap<Box<str>, DefId>) -> Result<Schema, ParseError> {
    let list_type = raw.list_type.as_deref().and_then(ListType::named);
    let map_type = raw.map_type.as_deref().and_then(MapType::named);
    let mut out = Schema {
        kind: Type::Any,
        list_type,
        list_keys: raw.list_keys.into(),
        map_type,
        patch: PatchStrategy::named(&raw.patch_strategy),
        patch_merge_key: raw.patch_merge_key,
        always: raw.default.as_ref().is_some_and(is_zero),
        default: raw.default.filter(|value| !is_zero(value)).map(Box::new),
        choices: raw.choices.into(),
    };
    out.kind = match (raw.reference, raw.type_.as_deref(), raw.format.as_deref()) {
        (Some(reference), _, _) => match by_name.get(reference.as_str()) {
            Some(id) => Type::Ref(*id),
            None => return Err(ParseError::UnknownReference(reference)),
        },
        _ if raw.int_or_string => Type::IntOrString,
        (_, _, Some("int-or-string")) => Type::IntOrString,
        (_, Some("string"), Some("byte")) => Type::Bytes,
        (_, Some("string"), Some("date-time")) => Type::Time,
        (_, Some("string"), _) => Type::String,
        (_, Some("integer"), Some("int32")) => Type::Int32,
        (_, Some("integer"), _) => Type::Int64,
        (_, Some("number"), _) => Type::Number,
        (_, Some("boolean"), _) => Type::Boolean,
        (_, Some("array"), _) => match raw.items {
            Some(items) => Type::List(Box::new(schema(*items, by_name)?)),
            None => Type::List(Box::default()),
        },
        (_, Some("object"), _) => match (raw.properties, raw.additional) {
            (Some(properties), _) => object(properties, raw.required, by_name)?,
            (None, Some(values)) => Type::Map(Box::new(schema(*values, by_name)?)),
            (None, None) => Type::Object(Box::default()),
        },
        _ => Type::Any,
    };
    Ok(out)
}

fn object(
    properties: BTreeMap<Box<str>, Raw>,
    required: Vec<Box<str>>,
    by_name: &HashMap<Box<str>, DefId>,
) -> Result<Type, ParseError> {
    let properties = properties
        .into_iter()
        .map(|(name, raw)| Ok(Property { name, schema: schema(raw, by_name)? }))
        .collect::<Result<Vec<_>, ParseError>>()?;
    let always = properties.iter().enumerate().filter(|(_, p)| p.schema.always).map(|(at, _)| at).collect();
    let object = Object { properties: properties.into(), required: required.into(), always, open: false };
    Ok(Type::Object(Box::new(object)))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
    }
}

impl From<RawKind> for GroupVersionKind {
    fn from(raw: RawKind) -> Self {
        Self { group: raw.group, version: raw.version, kind: raw.kind }
    }
}

impl ListType {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "atomic" => Some(Self::Atomic),
            "set" => Some(Self::Set),
            "map" => Some(Self::Map),
            _ => None,
        }
    }
}

impl MapType {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "atomic" => Some(Self::Atomic),
            "granular" => Some(Self::Granular),
            _ => None,
        }
    }
}

impl PatchStrategy {
    fn named(text: &str) -> Self {
        let has = |word| text.split(',').any(|part| part.trim() == word);
        Self { merge: has("merge"), replace: has("replace"), retain_keys: has("retainKeys") }
    }
}
