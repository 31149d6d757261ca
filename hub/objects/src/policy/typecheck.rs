//! Whether the expressions of a policy fit the kinds that it is about.
//!
//! In: a ValidatingAdmissionPolicy and the registry. Out: `status.typeChecking`, in upstream's words. A finding is a
//! warning only: the policy holds all the same. Source: the Kubernetes page "Validating Admission Policy", section
//! "Type checking". Never: more than `KINDS_MAX` kinds.

use limpet_cel::{Decl, Program, Type};
use serde_json::{Value, json};

use super::compile;
use crate::custom::rules::declaration;
use crate::kinds::fill::{list, text};
use crate::registry::Registry;
use crate::resource::Resource;
use crate::schema::{self, Schema, Table, Type as Known};

const KINDS_MAX: usize = 10;
/// Deeper fields are of any type.
const DEPTH_MAX: usize = 14;

/// The status of a policy at its present generation.
pub fn status(policy: &Value, registry: &Registry) -> Value {
    let mut status = json!({"observedGeneration": policy["metadata"]["generation"], "typeChecking": {}});
    let mut warnings: Vec<Value> = Vec::new();
    for (field, expression) in expressions(&policy["spec"]) {
        let findings: Vec<String> = kinds(&policy["spec"], registry)
            .into_iter()
            .filter_map(|resource| {
                let why = finding(policy, resource, expression)?;
                Some(format!(
                    "{}, Kind={}: {why}",
                    resource.api_version(),
                    resource.kind
                ))
            })
            .collect();
        if !findings.is_empty() {
            warnings.push(json!({"fieldRef": field, "warning": findings.join("\n")}));
        }
    }
    if !warnings.is_empty() {
        status["typeChecking"]["expressionWarnings"] = json!(warnings);
    }
    status
}

fn expressions(spec: &Value) -> Vec<(String, &str)> {
    let mut all = Vec::new();
    for (at, validation) in list(spec, "validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let expression = text(validation, field);
            if !expression.trim().is_empty() {
                all.push((format!("spec.validations[{at}].{field}"), expression));
            }
        }
    }
    all
}

/// The kinds that the rules name without wildcards.
fn kinds<'r>(spec: &Value, registry: &'r Registry) -> Vec<&'r Resource> {
    let mut found: Vec<&Resource> = Vec::new();
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        list(rule, field)
            .iter()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    for rule in list(&spec["matchConstraints"], "resourceRules") {
        for group in texts(rule, "apiGroups") {
            for version in texts(rule, "apiVersions") {
                for plural in texts(rule, "resources") {
                    let resource = registry.by_path(&group, &version, &plural);
                    found.extend(resource.map(AsRef::as_ref));
                }
            }
        }
    }
    found.truncate(KINDS_MAX);
    found
}

/// What is wrong with an expression when the object is of this kind.
fn finding(policy: &Value, resource: &Resource, expression: &str) -> Option<String> {
    let type_ = match &resource.custom {
        Some(custom) => declaration(&custom.schema, true).type_,
        None => {
            let table = schema::table();
            of(table, &table.get(&resource.schema)?.schema, &resource.kind, 0)
        }
    };
    let mut env = compile::env(policy["spec"]["paramKind"].is_object(), true);
    // What policies define for themselves is not followed here.
    env = env.with("variables", Decl::of(Type::Dyn, 1));
    for name in ["object", "oldObject"] {
        env = env.with(name, Decl::of(type_.clone(), 1));
    }
    Program::compile(expression.trim(), &env).err()
}

fn of(table: &Table, place: &Schema, name: &str, depth: usize) -> Type {
    if depth > DEPTH_MAX {
        return Type::Dyn;
    }
    match &table.resolve(place).kind {
        Known::String => Type::String,
        Known::Bytes => Type::Bytes,
        Known::Time | Known::MicroTime => Type::Timestamp,
        Known::Int32 | Known::Int64 => Type::Int,
        Known::Number => Type::Double,
        Known::Boolean => Type::Bool,
        Known::List(items) => Type::list(of(table, items, name, depth + 1)),
        Known::Map(values) => Type::map(Type::String, of(table, values, name, depth + 1)),
        Known::Object(object) if !object.properties.is_empty() && !object.open => {
            let own = table.type_name(place).unwrap_or(name);
            let fields = object.properties.iter().filter_map(|property| {
                let key = crate::custom::rules::escape(&property.name)?;
                Some((key, of(table, &property.schema, &property.name, depth + 1)))
            });
            Type::object(own, fields)
        }
        Known::Object(_)
        | Known::Any
        | Known::Deduced
        | Known::Quantity
        | Known::IntOrString
        | Known::Ref(_) => Type::Dyn,
    }
}
