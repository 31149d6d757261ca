//! Rules of schemas: `x-kubernetes-validations`.
//!
//! In: schemas as JSON and as trees; later objects, at an update also as they were. Out: compiled rules with what is
//! wrong with them; field errors of objects. Source: the Kubernetes page "Extend the Kubernetes API with
//! CustomResourceDefinitions", section "Validation rules".
//! Never: takes a rule that may cost too much.

mod run;
mod types;

use std::collections::BTreeMap;

use limpet_cel::{Decl, Env, Program, Type};
use serde_json::Value;

use super::structural::Structural;
use crate::field::{FieldError, Problem};
use crate::schema::ListType;

pub use run::validate;
pub use types::{declaration, escape};
use types::{BODY_BYTES_MAX, entries_max, items_max};

/// Cost of one rule, as estimated from the bounds in the schema.
const RULE_COST_MAX: u64 = 10_000_000;
/// Cost of all rules of one version, each as often as it can run.
const SCHEMA_COST_MAX: u64 = 100_000_000;

/// One compiled rule.
#[derive(Debug, Clone)]
pub struct Rule {
    program: Program,
    text: String,
    message: String,
    message_program: Option<Program>,
    reason: Problem,
    /// Below the place of the rule: `.spec.x`.
    field: String,
    /// Whether it compares with what was there before.
    transition: bool,
    /// `oldSelf` is an optional, so that the rule also runs without it.
    optional_old: bool,
}

/// Rules of one node and the nodes below it; nothing where there are none.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    own: Vec<Rule>,
    properties: BTreeMap<String, Rules>,
    values: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.own.is_empty()
            && self.properties.is_empty()
            && self.values.is_none()
            && self.items.is_none()
    }
}

/// Compiles all rules of a version's schema. `path` is that of the schema in its definition.
pub fn compile(raw: &Value, schema: &Structural, path: &str) -> (Rules, Vec<FieldError>) {
    let mut compiler = Compiler {
        errors: Vec::new(),
        total: 0,
    };
    let rules = compiler.node(
        raw,
        schema,
        path,
        &At {
            root: true,
            times: 1,
            loose: String::new(),
        },
    );
    if compiler.total > SCHEMA_COST_MAX && compiler.errors.is_empty() {
        let words = format!(
            "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema, x-kubernetes-validations \
             estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of {} (try simplifying the rule, \
             or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
            factor(compiler.total, SCHEMA_COST_MAX)
        );
        compiler.errors.push(FieldError::forbidden(path, words));
    }
    (rules, compiler.errors)
}

fn factor(cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    if factor > 100.0 {
        "more than 100x".to_owned()
    } else {
        format!("{factor:.1}x")
    }
}

/// Where a node is.
#[derive(Clone)]
struct At {
    root: bool,
    /// How often the node can be there in one object.
    times: u64,
    /// The list around it whose items cannot be told apart, so that they have no past of their own.
    loose: String,
}

impl At {
    fn below(&self, schema: &Structural, times: u64) -> At {
        At {
            root: schema.embedded,
            times: self.times.saturating_mul(times),
            loose: self.loose.clone(),
        }
    }
}

struct Compiler {
    errors: Vec<FieldError>,
    total: u64,
}

impl Compiler {
    fn node(&mut self, raw: &Value, schema: &Structural, path: &str, place: &At) -> Rules {
        let mut rules = Rules::default();
        for (at, rule) in raw["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let at = format!("{path}.x-kubernetes-validations[{at}]");
            rules.own.extend(self.rule(rule, schema, &at, place));
        }
        for (name, below) in &schema.properties {
            let at = format!("{path}.properties[{name}]");
            let below = self.node(&raw["properties"][name], below, &at, &place.below(below, 1));
            if !below.is_empty() {
                rules.properties.insert(name.clone(), below);
            }
        }
        if let Some(values) = schema.values() {
            let at = format!("{path}.additionalProperties");
            let inner = place.below(values, entries_max(schema));
            let below = self.node(&raw["additionalProperties"], values, &at, &inner);
            rules.values = (!below.is_empty()).then(|| Box::new(below));
        }
        if let Some(items) = &schema.items {
            let mut inner = place.below(items, items_max(schema));
            if schema.list_type != Some(ListType::Map) && inner.loose.is_empty() {
                inner.loose = path.to_owned();
            }
            let below = self.node(&raw["items"], items, &format!("{path}.items"), &inner);
            rules.items = (!below.is_empty()).then(|| Box::new(below));
        }
        rules
    }

    fn rule(&mut self, rule: &Value, schema: &Structural, path: &str, place: &At) -> Option<Rule> {
        let text = rule["rule"].as_str().unwrap_or_default();
        if text.trim().is_empty() {
            self.errors.push(FieldError::required(
                format!("{path}.rule"),
                "rule is not specified",
            ));
            return None;
        }
        let before = self.errors.len();
        let optional_old = rule["optionalOldSelf"] == true;
        let own = declaration(schema, place.root);
        let old = match optional_old {
            true => Decl {
                type_: Type::optional(own.type_.clone()),
                ..own.clone()
            },
            false => own.clone(),
        };
        let env = Env::default().with("self", own).with("oldSelf", old);
        let program = self.program(text, &env, &format!("{path}.rule"), &Type::Bool, rule)?;
        if program.reads("oldSelf") && !place.loose.is_empty() {
            let words = format!(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within {}",
                place.loose
            );
            self.errors
                .push(FieldError::invalid(format!("{path}.rule"), text, words));
        }
        self.cost(&program, &env, &format!("{path}.rule"), place.times);
        let message_program = rule["messageExpression"]
            .as_str()
            .filter(|text| !text.trim().is_empty())
            .and_then(|text| {
                let at = format!("{path}.messageExpression");
                let program = self.program(text, &env, &at, &Type::String, rule)?;
                self.cost(&program, &env, &at, place.times);
                Some(program)
            });
        let message = rule["message"]
            .as_str()
            .unwrap_or_default()
            .trim()
            .to_owned();
        if message.contains('\n') {
            let at = format!("{path}.message");
            self.errors.push(FieldError::invalid(
                at,
                message.as_str(),
                "message must not contain line breaks",
            ));
        }
        if message.len() > 2048 {
            self.errors
                .push(FieldError::too_long(format!("{path}.message"), 2048));
        }
        if message.is_empty() && text.contains('\n') && message_program.is_none() {
            let words =
                "message or messageExpression must be specified if rule contains line breaks";
            self.errors
                .push(FieldError::required(format!("{path}.message"), words));
        }
        let reason = self.reason(rule, path);
        let field = self.field_path(rule, schema, path);
        if self.errors.len() > before {
            return None;
        }
        let transition = program.reads("oldSelf");
        let text = text.to_owned();
        Some(Rule {
            program,
            text,
            message,
            message_program,
            reason,
            field,
            transition,
            optional_old,
        })
    }

    fn program(
        &mut self,
        text: &str,
        env: &Env,
        path: &str,
        wanted: &Type,
        rule: &Value,
    ) -> Option<Program> {
        match Program::compile(text, env) {
            Ok(program) if program.gives(wanted) => Some(program),
            Ok(_) => {
                let words = match wanted {
                    Type::Bool => "cel expression must evaluate to a bool".to_owned(),
                    _ => "messageExpression must evaluate to a string".to_owned(),
                };
                self.errors
                    .push(FieldError::invalid(path, rule.clone(), words));
                None
            }
            Err(why) => {
                let words = match wanted {
                    Type::Bool => format!("compilation failed: {why}"),
                    _ => format!("messageExpression compilation failed: {why}"),
                };
                self.errors
                    .push(FieldError::invalid(path, rule.clone(), words));
                None
            }
        }
    }

    fn cost(&mut self, program: &Program, env: &Env, path: &str, times: u64) {
        let cost = program.estimate(env, BODY_BYTES_MAX).saturating_mul(times);
        if cost > RULE_COST_MAX {
            let words = format!(
                "estimated rule cost exceeds budget by factor of {} (try simplifying the rule, or adding maxItems, maxProperties, \
                 and maxLength where arrays, maps, and strings are declared)",
                factor(cost, RULE_COST_MAX)
            );
            self.errors.push(FieldError::forbidden(path, words));
        }
        self.total = self.total.saturating_add(cost);
    }

    fn reason(&mut self, rule: &Value, path: &str) -> Problem {
        match rule["reason"].as_str() {
            None | Some("" | "FieldValueInvalid") => Problem::Invalid,
            Some("FieldValueForbidden") => Problem::Forbidden,
            Some("FieldValueRequired") => Problem::Required,
            Some("FieldValueDuplicate") => Problem::Duplicate,
            Some(other) => {
                let known = [
                    "FieldValueDuplicate",
                    "FieldValueForbidden",
                    "FieldValueInvalid",
                    "FieldValueRequired",
                ];
                self.errors.push(FieldError::not_supported(
                    format!("{path}.reason"),
                    other,
                    &known,
                ));
                Problem::Invalid
            }
        }
    }

    fn field_path(&mut self, rule: &Value, schema: &Structural, path: &str) -> String {
        let Some(text) = rule["fieldPath"].as_str().filter(|text| !text.is_empty()) else {
            return String::new();
        };
        let parsed = super::jsonpath::Path::parse(text).filter(|_| text.starts_with(['.', '[']));
        let found = parsed
            .as_ref()
            .and_then(|parsed| schema.at(parsed.fields()?));
        if found.is_none() {
            let words = "fieldPath must be a valid path";
            self.errors.push(FieldError::invalid(
                format!("{path}.fieldPath"),
                text,
                words,
            ));
        }
        let names = parsed
            .as_ref()
            .and_then(super::jsonpath::Path::fields)
            .unwrap_or_default();
        names.join(".")
    }
}

#[cfg(test)]
mod tests;
