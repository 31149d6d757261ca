//! The `paths` of a document, derived from the registry: the same rows that route requests.
//!
//! In: resources. Out: path items with operations in the form of version 2 or 3.
//! Never: copies paths from anywhere.

use serde_json::{Map, Value, json};

use super::schemas::{Form, list_name};
use crate::resource::{Resource, Subresource, api_version};

const JSON_TYPES: [&str; 2] = ["application/json", "application/yaml"];
/// What built-in kinds come as; lists also as streams of changes.
const OBJECT_TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const LIST_TYPES: [&str; 5] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const LOG_TYPES: [&str; 4] =
    ["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const ANY_TYPE: [&str; 1] = ["*/*"];
/// kubectl asks for the strategic type before it sends such a patch.
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Writes operations in one form.
pub struct Operations {
    form: Form,
}

/// One operation before it takes a form.
struct Operation<'a> {
    /// `get`, `put`, `post`, `patch`, `delete`.
    method: &'static str,
    /// `x-kubernetes-action`.
    action: &'static str,
    /// Start of the operationId: `read`, `list`, ….
    verb: &'static str,
    description: String,
    body: Option<String>,
    body_types: &'a [&'static str],
    answer: String,
    query: &'a [(&'static str, &'static str)],
}

const LIST_QUERY: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE_QUERY: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH_QUERY: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE_QUERY: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const DELETE_COLLECTION_QUERY: &[(&str, &str)] = &[
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("propagationPolicy", "string"),
];

impl Operations {
    pub fn new(form: Form) -> Self {
        Self { form }
    }

    /// Adds all path items of a resource.
    pub fn add(&self, resource: &Resource, paths: &mut Map<String, Value>) {
        let root = if resource.group.is_empty() { "/api" } else { "/apis" };
        let base = format!("{root}/{}", api_version(&resource.group, &resource.version));
        let collection = match resource.namespaced {
            true => format!("{base}/namespaces/{{namespace}}/{}", resource.plural),
            false => format!("{base}/{}", resource.plural),
        };
        if resource.namespaced && resource.allows("list") {
            let all = format!("{base}/{}", resource.plural);
            paths.insert(all, self.item(resource, None, false, vec![list(resource, "list")]));
        }
        let many = of_collection(resource);
        if !many.is_empty() {
            paths.insert(collection.clone(), self.item(resource, None, resource.namespaced, many));
        }
        let one = format!("{collection}/{{name}}");
        let operations = of_object(resource);
        if !operations.is_empty() {
            paths.insert(one.clone(), self.item(resource, None, resource.namespaced, operations));
        }
        for sub in &resource.subresources {
            let operations = of_subresource(resource, sub);
            let path = format!("{one}/{}", sub.name);
            paths.insert(path, self.item(resource, Some(sub), resource.namespaced, operations));
        }
    }

    fn item(
        &self,
        resource: &Resource,
        sub: Option<&Subresource>,
        in_namespace: bool,
        operations: Vec<Operation<'_>>,
    ) -> Value {
        let mut item = Map::new();
        let named =
            sub.is_some() || operations.iter().any(|operation| matches!(operation.method, "put" | "patch"));
        let single = named || operations.iter().any(|operation| operation.verb == "read");
        let mut parameters = Vec::new();
        if single {
            parameters.push(self.parameter(
                "name",
                "path",
                "string",
                &format!("name of the {}", resource.kind),
            ));
        }
        if in_namespace {
            parameters.push(self.parameter("namespace", "path", "string", "namespace of the objects"));
        }
        for operation in operations {
            let method = operation.method.to_owned();
            item.insert(method, self.operation(resource, sub, in_namespace, operation));
        }
        parameters.push(self.parameter("pretty", "query", "string", "'true' for output with line breaks"));
        item.insert("parameters".into(), json!(parameters));
        Value::Object(item)
    }

    fn parameter(&self, name: &str, place: &str, type_: &str, description: &str) -> Value {
        let mut value = json!({"name": name, "in": place, "description": description});
        match self.form {
            Form::V2 => {
                value["type"] = json!(type_);
                value["uniqueItems"] = json!(true);
            }
            Form::V3 => value["schema"] = json!({"type": type_, "uniqueItems": true}),
        }
        if place == "path" {
            value["required"] = json!(true);
        }
        value
    }

    fn operation(
        &self,
        resource: &Resource,
        sub: Option<&Subresource>,
        in_namespace: bool,
        operation: Operation<'_>,
    ) -> Value {
        let (group, version, kind) = match sub {
            Some(sub) => (&sub.group, &sub.version, &sub.kind),
            None => (&resource.group, &resource.version, &resource.kind),
        };
        let mut parameters: Vec<Value> = operation
            .query
            .iter()
            .map(|(name, type_)| self.parameter(name, "query", type_, query_text(name)))
            .collect();
        let mut value = json!({
            "tags": [tag(resource)],
            "description": operation.description,
            "operationId": operation_id(resource, sub, in_namespace, operation.verb),
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let codes: &[&str] = match operation.method {
            "post" => &["200", "201", "202"],
            "put" | "patch" => &["200", "201"],
            _ => &["200"],
        };
        match self.form {
            Form::V2 => {
                if let Some(body) = &operation.body {
                    let required = operation.method != "delete";
                    let schema = self.form.reference(body);
                    parameters
                        .push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
                }
                let patch = operation.method == "patch";
                value["consumes"] = if patch { json!(PATCH_TYPES) } else { json!(["*/*"]) };
                value["produces"] = json!(answers_as(resource, sub, &operation));
                value["responses"] = self.responses(
                    codes,
                    |schema| json!({"description": "OK", "schema": schema}),
                    &operation.answer,
                );
            }
            Form::V3 => {
                if let Some(body) = &operation.body {
                    value["requestBody"] = json!({
                        "content": self.content(operation.body_types, body),
                        "required": operation.method != "delete",
                    });
                }
                let content = self.content(answers_as(resource, sub, &operation), &operation.answer);
                value["responses"] = self.responses(
                    codes,
                    |_| json!({"description": "OK", "content": content}),
                    &operation.answer,
                );
            }
        }
        if !parameters.is_empty() {
            value["parameters"] = json!(parameters);
        }
        value
    }

    fn content(&self, types: &[&str], definition: &str) -> Value {
        let schema =
            if definition.is_empty() { json!({"type": "string"}) } else { self.form.reference(definition) };
        let entries = types.iter().map(|type_| ((*type_).to_owned(), json!({"schema": schema})));
        Value::Object(entries.collect())
    }

    fn responses(&self, codes: &[&str], answer: impl Fn(Value) -> Value, definition: &str) -> Value {
        let schema =
            if definition.is_empty() { json!({"type": "string"}) } else { self.form.reference(definition) };
        let mut out = Map::new();
        for code in codes {
            out.insert((*code).to_owned(), answer(schema.clone()));
        }
        out.insert("401".into(), json!({"description": "Unauthorized"}));
        Value::Object(out)
    }
}

/// The media types that an operation answers in.
fn answers_as(resource: &Resource, sub: Option<&Subresource>, operation: &Operation<'_>) -> &'static [&'static str] {
    match operation.action {
        "connect" => &ANY_TYPE,
        _ if resource.custom.is_some() => &JSON_TYPES,
        "list" => &LIST_TYPES,
        _ if sub.is_some_and(|sub| sub.name == "log") => &LOG_TYPES,
        _ => &OBJECT_TYPES,
    }
}

fn list(resource: &Resource, action: &'static str) -> Operation<'static> {
    Operation {
        method: "get",
        action,
        verb: "list",
        description: format!("list or watch objects of kind {}", resource.kind),
        body: None,
        body_types: &[],
        answer: list_name(resource),
        query: LIST_QUERY,
    }
}

fn write(
    method: &'static str,
    verb: &'static str,
    what: String,
    body: &str,
    answer: &str,
) -> Operation<'static> {
    let patch = method == "patch";
    Operation {
        method,
        action: method,
        verb,
        description: what,
        body: Some(if patch { format!("{META}Patch") } else { body.to_owned() }),
        body_types: if patch { &PATCH_TYPES } else { &["*/*"] },
        answer: answer.to_owned(),
        query: if patch { PATCH_QUERY } else { WRITE_QUERY },
    }
}

/// Custom resources take no strategic merge patch.
fn for_resource(resource: &Resource, mut patch: Operation<'static>) -> Operation<'static> {
    if resource.custom.is_some() {
        patch.body_types = &PATCH_TYPES[..3];
    }
    patch
}

fn delete(method_action: &'static str, verb: &'static str, kind: &str) -> Operation<'static> {
    let collection = method_action == "deletecollection";
    Operation {
        method: "delete",
        action: method_action,
        verb,
        description: if collection {
            format!("delete a collection of {kind}")
        } else {
            format!("delete a {kind}")
        },
        body: Some(format!("{META}DeleteOptions")),
        body_types: &["*/*"],
        answer: format!("{META}Status"),
        query: if collection { DELETE_COLLECTION_QUERY } else { DELETE_QUERY },
    }
}

fn of_collection(resource: &Resource) -> Vec<Operation<'static>> {
    let mut operations = Vec::new();
    if resource.allows("list") {
        operations.push(list(resource, "list"));
    }
    if resource.allows("create") {
        let what = format!("create a {}", resource.kind);
        operations.push(write("post", "create", what, &resource.schema, &resource.schema));
    }
    if resource.allows("deletecollection") {
        operations.push(delete("deletecollection", "deleteCollection", &resource.kind));
    }
    operations
}

fn of_object(resource: &Resource) -> Vec<Operation<'static>> {
    let (kind, schema) = (&resource.kind, &resource.schema);
    let mut operations = Vec::new();
    if resource.allows("get") {
        operations.push(read(kind, schema));
    }
    if resource.allows("update") {
        operations.push(write("put", "replace", format!("replace the specified {kind}"), schema, schema));
    }
    if resource.allows("patch") {
        let what = format!("partially update the specified {kind}");
        operations.push(for_resource(resource, write("patch", "patch", what, schema, schema)));
    }
    if resource.allows("delete") {
        operations.push(delete("delete", "delete", kind));
    }
    operations
}

fn read(kind: &str, schema: &str) -> Operation<'static> {
    Operation {
        method: "get",
        action: "get",
        verb: "read",
        description: format!("read the specified {kind}"),
        body: None,
        body_types: &[],
        answer: schema.to_owned(),
        query: &[],
    }
}

fn of_subresource(resource: &Resource, sub: &Subresource) -> Vec<Operation<'static>> {
    let Some(schema) = &sub.schema else { return connections(resource, sub) };
    let what = format!("{} of the specified {}", sub.name, resource.kind);
    let mut operations = Vec::new();
    for verb in &sub.verbs {
        operations.push(match verb.as_str() {
            // The log is text.
            "get" if sub.name == "log" => {
                Operation { description: format!("read {what}"), ..read(&sub.kind, "") }
            }
            "get" => Operation { description: format!("read {what}"), ..read(&sub.kind, schema) },
            "create" => write("post", "create", format!("create {what}"), schema, schema),
            "update" => write("put", "replace", format!("replace {what}"), schema, schema),
            _ => {
                let what = format!("partially update {what}");
                for_resource(resource, write("patch", "patch", what, schema, schema))
            }
        });
    }
    operations
}

/// exec, attach, port-forward and proxy: streams without a schema.
fn connections(resource: &Resource, sub: &Subresource) -> Vec<Operation<'static>> {
    let mut operations = Vec::new();
    for verb in &sub.verbs {
        let (method, verb) = match verb.as_str() {
            "get" => ("get", "connectGet"),
            "create" => ("post", "connectPost"),
            "update" => ("put", "connectPut"),
            "patch" => ("patch", "connectPatch"),
            _ => ("delete", "connectDelete"),
        };
        operations.push(Operation {
            method,
            action: "connect",
            verb,
            description: format!("connect requests to {} of {}", sub.name, resource.kind),
            body: None,
            body_types: &[],
            answer: String::new(),
            query: &[],
        });
    }
    operations
}

fn tag(resource: &Resource) -> String {
    let group = resource.group.split('.').next().unwrap_or_default();
    format!("{}_{}", if group.is_empty() { "core" } else { group }, resource.version)
}

/// `readAppsV1NamespacedDeployment`, `listCoreV1PodForAllNamespaces`,
/// `patchAppsV1NamespacedDeploymentScale`.
fn operation_id(resource: &Resource, sub: Option<&Subresource>, in_namespace: bool, verb: &str) -> String {
    let group = resource.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    let scope = if in_namespace { "Namespaced" } else { "" };
    let all = if resource.namespaced && !in_namespace { "ForAllNamespaces" } else { "" };
    let version = capital(&resource.version);
    let sub = sub.map_or(String::new(), |sub| capital(&sub.name));
    let (verb, collection) = match verb {
        "deleteCollection" => ("delete", "Collection"),
        verb => (verb, ""),
    };
    format!("{verb}{}{version}{collection}{scope}{}{sub}{all}", capital(group), resource.kind)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

fn query_text(name: &str) -> &'static str {
    match name {
        "allowWatchBookmarks" => "whether a watch may send events of type BOOKMARK",
        "continue" => "token of the previous answer when a list is read in pieces",
        "fieldSelector" => "restricts the list by fields",
        "labelSelector" => "restricts the list by labels",
        "limit" => "how many objects an answer has at most",
        "resourceVersion" => "from which state the answer may be",
        "resourceVersionMatch" => "how resourceVersion is applied to a list",
        "sendInitialEvents" => "whether a watch starts with the present objects",
        "timeoutSeconds" => "how long a list or watch may take",
        "watch" => "whether to send changes as they happen",
        "dryRun" => "'All': do everything but store",
        "fieldManager" => "who makes the change",
        "fieldValidation" => "what unknown and duplicate fields do: Ignore, Warn or Strict",
        "force" => "whether an apply takes fields from other managers",
        "gracePeriodSeconds" => "seconds before the object is deleted",
        "orphanDependents" => "deprecated: use propagationPolicy",
        "propagationPolicy" => "what becomes of dependents: Orphan, Background or Foreground",
        _ => "",
    }
}
