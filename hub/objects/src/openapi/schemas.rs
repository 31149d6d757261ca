//! The `definitions` of a document: types with their descriptions and extensions.
//!
//! In: the raw definitions and descriptions of the schema table. Out: schemas in the form of version 2
//! or 3.
//! Never: outlives the document being written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::custom;
use crate::resource::Resource;
use crate::schema::{Docs, Lines};

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    V2,
    V3,
}

impl Form {
    /// Where references point.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }

    pub fn reference(self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.prefix())})
    }
}

/// `io.k8s.api.core.v1.PodList`
pub fn list_name(resource: &Resource) -> String {
    format!("{}List", resource.schema)
}

pub struct Schemas {
    form: Form,
    definitions: Lines,
    docs: Docs,
    /// List definitions, by name: k8s-openapi has one generic type for all.
    lists: BTreeMap<String, Arc<Resource>>,
    /// Definitions of custom resources, by name.
    custom: BTreeMap<String, Arc<Resource>>,
}

impl Schemas {
    /// `resources` are those of the document.
    pub fn open(form: Form, resources: &[Arc<Resource>]) -> Self {
        let listed = resources.iter().filter(|resource| resource.allows("list"));
        let lists = listed.map(|resource| (list_name(resource), Arc::clone(resource))).collect();
        let custom = resources.iter().filter(|resource| resource.custom.is_some());
        let custom = custom.map(|resource| (resource.schema.clone(), Arc::clone(resource))).collect();
        Self { form, definitions: Lines::definitions(), docs: Docs::open(), lists, custom }
    }

    /// A definition with short references.
    fn raw(&self, name: &str) -> Option<Value> {
        match self.custom.get(name) {
            Some(resource) => custom::openapi::definition(resource, self.form == Form::V2),
            None => self.definitions.value(name),
        }
    }

    /// The names that are reachable from the roots, sorted.
    pub fn closure(&self, roots: &[String]) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<String> = roots.to_vec();
        while let Some(name) = todo.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            match (self.lists.get(&name), self.raw(&name)) {
                (Some(resource), _) => todo.extend([resource.schema.clone(), LIST_META.to_owned()]),
                (None, Some(definition)) => references(&definition, &mut todo),
                (None, None) => _ = seen.remove(&name),
            }
        }
        seen
    }

    pub fn render(&self, name: &str) -> Value {
        if let Some(resource) = self.lists.get(name) {
            return self.list(resource);
        }
        if self.custom.contains_key(name) {
            let mut out = self.raw(name).unwrap_or_default();
            self.point_deep(&mut out);
            return out;
        }
        let mut out = match self.special(name) {
            Some(special) => special,
            None => self.definition(name),
        };
        if let Some(text) = self.docs.definition(name) {
            out["description"] = json!(text);
        }
        out
    }

    fn definition(&self, name: &str) -> Value {
        let mut out = self.definitions.value(name).unwrap_or_default();
        for (property, schema) in
            out.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
        {
            self.point(schema);
            if let Some(text) = self.docs.property(name, property)
                && let Some(fields) = schema.as_object_mut()
            {
                fields.insert("description".into(), json!(text));
                self.wrap(fields);
            }
        }
        out
    }

    /// Version 3 ignores what stands beside a `$ref`, so the reference moves into an `allOf`.
    fn wrap(&self, fields: &mut Map<String, Value>) {
        if self.form == Form::V3
            && let Some(reference) = fields.remove("$ref")
        {
            fields.insert("allOf".into(), json!([{"$ref": reference}]));
        }
    }

    /// Makes all short references of a custom resource full ones.
    fn point_deep(&self, schema: &mut Value) {
        match schema {
            Value::Object(fields) => {
                if let Some(Value::String(name)) = fields.get_mut("$ref") {
                    *name = format!("{}{name}", self.form.prefix());
                    self.wrap(fields);
                    return;
                }
                fields.values_mut().for_each(|value| self.point_deep(value));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.point_deep(item)),
            _ => {}
        }
    }

    /// Makes short references full ones.
    fn point(&self, schema: &mut Value) {
        match schema {
            Value::Object(fields) => {
                if let Some(Value::String(name)) = fields.get_mut("$ref") {
                    *name = format!("{}{name}", self.form.prefix());
                }
                for field in ["items", "additionalProperties"] {
                    if let Some(inner) = fields.get_mut(field) {
                        self.point(inner);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.point(item)),
            _ => {}
        }
    }

    /// Types whose JSON form their Go struct does not show.
    fn special(&self, name: &str) -> Option<Value> {
        let short = name.rsplit('.').next().unwrap_or(name);
        match (short, self.form) {
            ("Quantity", Form::V2) => Some(json!({"type": "string"})),
            ("Quantity", Form::V3) => Some(json!({"oneOf": [{"type": "string"}, {"type": "number"}]})),
            ("IntOrString", Form::V2) => Some(json!({"type": "string", "format": "int-or-string"})),
            ("IntOrString", Form::V3) => {
                Some(json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}))
            }
            (
                "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray",
                _,
            ) => Some(json!({})),
            _ => None,
        }
    }

    fn list(&self, resource: &Resource) -> Value {
        let text = |property: &str| self.docs.property(&resource.schema, property).unwrap_or_default();
        let mut metadata = Map::new();
        metadata.insert("$ref".into(), json!(format!("{}{LIST_META}", self.form.prefix())));
        metadata.insert(
            "description".into(),
            json!("Metadata of the list: its resourceVersion and how to continue."),
        );
        self.wrap(&mut metadata);
        json!({
            "description": format!("{} is a list of {} objects.", resource.list_kind, resource.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string", "description": text("apiVersion")},
                "kind": {"type": "string", "description": text("kind")},
                "metadata": metadata,
                "items": {
                    "type": "array",
                    "description": format!("The {}.", resource.plural),
                    "items": self.form.reference(&resource.schema),
                },
            },
            "x-kubernetes-group-version-kind": [
                {"group": resource.group, "version": resource.version, "kind": resource.list_kind}],
        })
    }
}

fn references(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.get("$ref") {
                into.push(name.clone());
            }
            fields.values().for_each(|value| references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}
