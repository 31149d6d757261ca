//! Custom resources: from a CustomResourceDefinition to rows of the registry.
//!
//! In: established CustomResourceDefinitions as JSON. Out: a `Resource` for each served version, whose behaviour
//! prunes, defaults and validates by the version's structural schema.
//! Source: the Kubernetes page "Extend the Kubernetes API with CustomResourceDefinitions".
//! Never: stores, converts by webhook (the API server does), or looks at other definitions (see `names`).

mod behaviour;
pub mod columns;
pub mod definition;
mod formats;
pub mod jsonpath;
pub mod names;
pub mod openapi;
pub mod prune;
pub mod rules;
mod shape;
pub mod structural;
mod typed;
pub mod validate;

#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use crate::metadata;
use crate::patch::Place;
use crate::resource::{Resource, Subresource, api_version};
use crate::schema::{self, Schema};
use columns::Columns;
use jsonpath::Path;
use structural::Structural;

/// Where CustomResourceDefinitions are stored.
pub const STORAGE: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// What one version of a CustomResourceDefinition says about its objects.
#[derive(Debug)]
pub struct Custom {
    /// The CustomResourceDefinition's name.
    pub definition: String,
    pub schema: Structural,
    pub rules: rules::Rules,
    typed: Schema,
    pub columns: Columns,
    /// Field selectors: `spec.color` and its path.
    selectable: Vec<(String, Path)>,
    pub scale: Option<Scale>,
    /// Whether objects may be stored that were written under another schema.
    pub schema_changed: bool,
    /// Whether the definition is being deleted: nothing new is created.
    pub terminating: bool,
    /// What clients are told with each request.
    pub deprecation: Option<String>,
    /// Converts between versions; without one only `apiVersion` changes.
    converter: Option<Arc<dyn Converter>>,
    /// The version's openAPIV3Schema, for publishing.
    pub published: Value,
    pub fingerprint: u64,
}

/// The paths of the scale subresource.
#[derive(Debug, Clone)]
pub struct Scale {
    pub spec: Vec<String>,
    pub status: Vec<String>,
    pub selector: Option<Vec<String>>,
}

/// Converts objects between the versions of a definition.
pub trait Converter: Send + Sync + std::fmt::Debug {
    /// The objects in the version `api_version`, in their order; the text says why that cannot be.
    fn convert(&self, objects: &[&Value], api_version: &str) -> Result<Vec<Value>, String>;
}

/// Objects that are converted with one call.
const CONVERTED_AT_ONCE_MAX: usize = 200;

/// Makes the converter of a definition, from its `spec.conversion`.
pub type MakeConverter<'a> = &'a dyn Fn(&Value) -> Option<Arc<dyn Converter>>;

impl Custom {
    /// Brings an object into another version. Its name and its place stay what they are.
    pub fn convert(&self, object: &mut Value, api_version: &str) -> Result<(), String> {
        self.convert_all(std::slice::from_mut(object), api_version)
    }

    /// The same for many objects, with few calls of the converter.
    pub fn convert_all(&self, objects: &mut [Value], api_version: &str) -> Result<(), String> {
        let mut others: Vec<&mut Value> = objects.iter_mut().filter(|own| own["apiVersion"] != api_version).collect();
        for some in others.chunks_mut(CONVERTED_AT_ONCE_MAX) {
            if let Some(converter) = &self.converter {
                let before: Vec<&Value> = some.iter().map(|object| &**object).collect();
                let converted = converter.convert(&before, api_version)?;
                if converted.len() != some.len() {
                    let (wanted, got) = (some.len(), converted.len());
                    return Err(format!("the converter returned {got} objects for {wanted}"));
                }
                for (object, converted) in some.iter_mut().zip(converted) {
                    for field in ["name", "namespace", "uid"] {
                        if converted["metadata"][field] != object["metadata"][field] {
                            return Err(format!("the converter changed metadata.{field}"));
                        }
                    }
                    **object = converted;
                }
            }
            some.iter_mut().for_each(|object| object["apiVersion"] = api_version.into());
        }
        Ok(())
    }

    pub fn place(&self) -> Place<'_> {
        Place::of_schema(schema::table(), &self.typed)
    }

    /// Brings a stored object into today's form: it may have been written under an older schema.
    pub fn read(&self, object: &mut Value) {
        prune::prune(object, &self.schema, true);
        prune::default(object, &self.schema);
    }

    /// The values of field selectors; always all, also when empty.
    pub fn selectable(&self, object: &Value) -> Vec<(String, String)> {
        let text = |path: &Path| match path.first(object) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        self.selectable
            .iter()
            .map(|(name, path)| (name.clone(), text(path)))
            .collect()
    }
}

/// Whether a condition of a definition is true.
pub fn condition(definition: &Value, type_: &str) -> bool {
    let conditions = definition["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    conditions
        .into_iter()
        .any(|c| c["type"] == type_ && c["status"] == "True")
}

/// The resources of an established definition; none before.
pub fn resources(definition: &Value, converter: MakeConverter<'_>) -> Vec<Resource> {
    if !condition(definition, "Established") {
        return Vec::new();
    }
    let versions = definition["spec"]["versions"].as_array();
    let served = versions
        .into_iter()
        .flatten()
        .filter(|version| version["served"] == true);
    let converter = converter(&definition["spec"]["conversion"]);
    served.map(|version| resource(definition, version, converter.clone())).collect()
}

/// The name of the version that objects are stored in.
pub fn storage_version(definition: &Value) -> &str {
    let versions = definition["spec"]["versions"].as_array();
    let stored = versions
        .into_iter()
        .flatten()
        .find(|version| version["storage"] == true);
    stored
        .and_then(|version| version["name"].as_str())
        .unwrap_or_default()
}

fn resource(definition: &Value, version: &Value, converter: Option<Arc<dyn Converter>>) -> Resource {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|t| t.as_str().map(str::to_owned))
            .collect()
    };
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let (kind, name) = (text(&names["kind"]), text(&version["name"]));
    let custom = Arc::new(Custom { converter, ..custom(definition, version, &kind) });
    let has_status = version["subresources"]["status"].is_object();
    let mut subresources = Vec::new();
    if has_status {
        subresources.push(subresource(
            "status",
            &kind,
            (&group, &name),
            Some(definition_name(&group, &name, &kind)),
        ));
    }
    if custom.scale.is_some() {
        let schema = Some("io.k8s.api.autoscaling.v1.Scale".to_owned());
        subresources.push(subresource("scale", "Scale", ("autoscaling", "v1"), schema));
    }
    let verbs = [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ];
    Resource {
        singular: text(&names["singular"]),
        list_kind: text(&names["listKind"]),
        namespaced: spec["scope"] == "Namespaced",
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        verbs: verbs.map(str::to_owned).into(),
        subresources,
        schema: definition_name(&group, &name, &kind),
        storage: format!("{group}/{plural}"),
        storage_version: api_version(&group, storage_version(definition)),
        has_generation: true,
        has_status,
        behaviour: Arc::new(behaviour::ByDefinition(Arc::clone(&custom))),
        custom: Some(custom),
        group,
        version: name,
        plural,
        kind,
    }
}

fn subresource(
    name: &str,
    kind: &str,
    (group, version): (&str, &str),
    schema: Option<String>,
) -> Subresource {
    Subresource {
        name: name.to_owned(),
        kind: kind.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        verbs: ["get", "patch", "update"].map(str::to_owned).into(),
        schema,
    }
}

fn custom(definition: &Value, version: &Value, kind: &str) -> Custom {
    let spec = &definition["spec"];
    let name = version["name"].as_str().unwrap_or_default();
    let schema = Structural::read(&version["schema"]["openAPIV3Schema"]);
    let path = |value: &Value| value.as_str().and_then(Path::parse);
    let fields = |value: &Value| {
        let path = path(value)?;
        Some(
            path.fields()?
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    };
    let scale = &version["subresources"]["scale"];
    let scale = fields(&scale["specReplicasPath"])
        .zip(fields(&scale["statusReplicasPath"]))
        .map(|(of_spec, of_status)| Scale {
            spec: of_spec,
            status: of_status,
            selector: fields(&scale["labelSelectorPath"]),
        });
    let selectable = version["selectableFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|field| {
            let text = field["jsonPath"].as_str()?;
            Some((text.trim_start_matches('.').to_owned(), Path::parse(text)?))
        });
    let deprecation =
        (version["deprecated"] == true).then(|| match version["deprecationWarning"].as_str() {
            Some(words) => words.to_owned(),
            None => format!(
                "{}/{name} {kind} is deprecated",
                spec["group"].as_str().unwrap_or_default()
            ),
        });
    let mut hasher = std::hash::DefaultHasher::new();
    (
        metadata::text(definition, "uid"),
        metadata::text(definition, "resourceVersion"),
    )
        .hash(&mut hasher);
    spec.to_string().hash(&mut hasher);
    Custom {
        definition: metadata::text(definition, "name").to_owned(),
        typed: typed::root(&schema),
        columns: Columns::of(version),
        rules: rules::compile(&version["schema"]["openAPIV3Schema"], &schema, "").0,
        selectable: selectable.collect(),
        scale,
        schema_changed: definition["metadata"]["generation"].as_i64().unwrap_or(0) > 1,
        terminating: !definition["metadata"]["deletionTimestamp"].is_null(),
        deprecation,
        converter: None,
        published: version["schema"]["openAPIV3Schema"].clone(),
        fingerprint: hasher.finish(),
        schema,
    }
}

/// `com.example.stable.v1.CronTab`: the group's parts backwards, as upstream names definitions.
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let parts: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", parts.join("."))
}
