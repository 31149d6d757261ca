//! Admission policies, compiled.
//!
//! In: ValidatingAdmissionPolicy and MutatingAdmissionPolicy as JSON. Out: programs, or what is wrong with each
//! expression in upstream's words. Never: runs them (see `run`).

use limpet_cel::{AUTHORIZER, Decl, Env, Program, Type};
use serde_json::Value;

use crate::field::FieldError;
use crate::kinds::fill::{list, text};

/// Expressions of one policy are bounded by its size; their number is bounded here.
const VARIABLES_MAX: usize = 64;

#[derive(Debug)]
pub struct Policy {
    pub name: String,
    pub fails: bool,
    /// apiVersion and kind of the parameters, where there are any.
    pub param_kind: Option<(String, String)>,
    pub constraints: Value,
    pub conditions: Vec<(String, Program)>,
    pub variables: Vec<(String, Program)>,
    pub validations: Vec<Validation>,
    pub mutations: Vec<Mutation>,
    pub audit: Vec<(String, Program)>,
    pub again: bool,
}

#[derive(Debug)]
pub struct Validation {
    pub program: Program,
    pub message: String,
    pub message_program: Option<Program>,
    pub reason: String,
}

#[derive(Debug)]
pub struct Mutation {
    /// `ApplyConfiguration` or `JSONPatch`.
    pub json_patch: bool,
    pub program: Program,
}

/// The variables that every expression of admission has. `params`: whether there are parameters.
pub fn env(params: bool, authorizer: bool) -> Env {
    let any = || Decl::of(Type::Dyn, 1);
    let kind = |name| {
        Type::object(
            name,
            ["group", "version", "kind", "resource"].map(|field| (field.to_owned(), Type::String)),
        )
    };
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username".to_owned(), Type::String),
            ("uid".to_owned(), Type::String),
            ("groups".to_owned(), Type::list(Type::String)),
            (
                "extra".to_owned(),
                Type::map(Type::String, Type::list(Type::String)),
            ),
        ],
    );
    let request = Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind".to_owned(), kind("kubernetes.GroupVersionKind")),
            ("resource".to_owned(), kind("kubernetes.GroupVersionResource")),
            ("requestKind".to_owned(), kind("kubernetes.GroupVersionKind")),
            (
                "requestResource".to_owned(),
                kind("kubernetes.GroupVersionResource"),
            ),
            ("subResource".to_owned(), Type::String),
            ("requestSubResource".to_owned(), Type::String),
            ("uid".to_owned(), Type::String),
            ("name".to_owned(), Type::String),
            ("namespace".to_owned(), Type::String),
            ("operation".to_owned(), Type::String),
            ("userInfo".to_owned(), user),
            ("dryRun".to_owned(), Type::Bool),
            ("options".to_owned(), Type::Dyn),
        ],
    );
    let mut env = Env::default()
        .with("object", any())
        .with("oldObject", any())
        .with("namespaceObject", any())
        .with("request", Decl::of(request, 1));
    if params {
        env = env.with("params", any());
    }
    if authorizer {
        env = env.with("authorizer", Decl::of(Type::Opaque(AUTHORIZER), 1));
    }
    env
}

/// `Object{…}`, `Object.spec{…}`, `JSONPatch{…}`: what mutations make. Their fields are checked with the object.
fn messages(name: &str) -> Option<Type> {
    let known = name == "JSONPatch" || name == "Object" || name.starts_with("Object.");
    known.then_some(Type::Dyn)
}

/// Compiles match conditions of webhooks and policies.
pub fn conditions(conditions: &Value, env: &Env, path: &str) -> (Vec<(String, Program)>, Vec<FieldError>) {
    let mut compiler = Compiler {
        errors: Vec::new(),
        mutating: false,
    };
    let mut made = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let all = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.len() > 64 {
        compiler.errors.push(FieldError::too_many(path, all.len(), 64));
        return (made, compiler.errors);
    }
    for (at, condition) in all.iter().enumerate() {
        let at = format!("{path}[{at}]");
        let name = text(condition, "name");
        if name.is_empty() {
            compiler
                .errors
                .push(FieldError::required(format!("{at}.name"), ""));
        } else if !seen.insert(name) {
            compiler
                .errors
                .push(FieldError::duplicate(format!("{at}.name"), name));
        }
        let program = compiler.program(condition, "expression", env, &at, Some(&Type::Bool));
        made.extend(program.map(|program| (name.to_owned(), program)));
    }
    (made, compiler.errors)
}

struct Compiler {
    errors: Vec<FieldError>,
    mutating: bool,
}

impl Compiler {
    fn program(
        &mut self,
        owner: &Value,
        field: &str,
        env: &Env,
        path: &str,
        wanted: Option<&Type>,
    ) -> Option<Program> {
        let expression = text(owner, field).trim();
        let at = format!("{path}.{field}");
        if expression.is_empty() {
            self.errors
                .push(FieldError::required(at, format!("{field} is not specified")));
            return None;
        }
        let known = |name: &str| if self.mutating { messages(name) } else { None };
        match Program::compile_with(expression, env, &known) {
            Ok(program) if wanted.is_none_or(|wanted| program.gives(wanted)) => Some(program),
            Ok(_) => {
                let wanted = wanted.map(ToString::to_string).unwrap_or_default();
                self.errors.push(FieldError::invalid(
                    at,
                    expression,
                    format!("must evaluate to {wanted}"),
                ));
                None
            }
            Err(why) => {
                self.errors.push(FieldError::invalid(
                    at,
                    expression,
                    format!("compilation failed: {why}"),
                ));
                None
            }
        }
    }

    /// Compiles variables; each may read those before it.
    fn variables(&mut self, spec: &Value, env: Env) -> (Vec<(String, Program)>, Env) {
        let mut made: Vec<(String, Program)> = Vec::new();
        let mut types = Vec::new();
        let with = |types: &Vec<(String, Type)>| {
            let type_ = Type::object("kubernetes.variables", types.iter().cloned());
            env.clone().with("variables", Decl::of(type_, 1))
        };
        for (at, variable) in list(spec, "variables").iter().enumerate().take(VARIABLES_MAX) {
            let path = format!("spec.variables[{at}]");
            let name = text(variable, "name");
            if name.is_empty() {
                self.errors.push(FieldError::required(format!("{path}.name"), ""));
            } else if made.iter().any(|(own, _)| own == name) {
                self.errors
                    .push(FieldError::duplicate(format!("{path}.name"), name));
            }
            if let Some(program) = self.program(variable, "expression", &with(&types), &path, None) {
                types.push((name.to_owned(), program.type_.clone()));
                made.push((name.to_owned(), program));
            }
        }
        let env = with(&types);
        (made, env)
    }
}

/// Compiles a policy; the errors are those of its expressions and of what they need.
pub fn policy(object: &Value, mutating: bool) -> (Policy, Vec<FieldError>) {
    let spec = &object["spec"];
    let has_params = spec["paramKind"].is_object();
    let base = env(has_params, true);
    let (conditions, mut errors) = conditions(&spec["matchConditions"], &base, "spec.matchConditions");
    let mut compiler = Compiler {
        errors: Vec::new(),
        mutating,
    };
    let (variables, env) = compiler.variables(spec, base);
    let validations = list(spec, "validations").iter().enumerate();
    let validations = validations.filter_map(|(at, validation)| {
        let path = format!("spec.validations[{at}]");
        let program = compiler.program(validation, "expression", &env, &path, Some(&Type::Bool))?;
        let message_program = match text(validation, "messageExpression").trim() {
            "" => None,
            _ => compiler.program(validation, "messageExpression", &env, &path, Some(&Type::String)),
        };
        let message = text(validation, "message").trim().to_owned();
        if message.contains('\n') {
            let why = "message must not contain line breaks";
            compiler.errors.push(FieldError::invalid(
                format!("{path}.message"),
                message.as_str(),
                why,
            ));
        }
        let reason = text(validation, "reason").to_owned();
        let known = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
        if !reason.is_empty() && !known.contains(&reason.as_str()) {
            compiler.errors.push(FieldError::not_supported(
                format!("{path}.reason"),
                reason.as_str(),
                &known,
            ));
        }
        Some(Validation {
            program,
            message,
            message_program,
            reason,
        })
    });
    let validations = validations.collect();
    let audit = list(spec, "auditAnnotations")
        .iter()
        .enumerate()
        .filter_map(|(at, annotation)| {
            let path = format!("spec.auditAnnotations[{at}]");
            let program = compiler.program(annotation, "valueExpression", &env, &path, None)?;
            Some((text(annotation, "key").to_owned(), program))
        });
    let audit = audit.collect();
    let mutations = list(spec, "mutations")
        .iter()
        .enumerate()
        .filter_map(|(at, mutation)| {
            let path = format!("spec.mutations[{at}]");
            let (json_patch, field) = match text(mutation, "patchType") {
                "JSONPatch" => (true, "jsonPatch"),
                "ApplyConfiguration" => (false, "applyConfiguration"),
                other => {
                    let known = ["ApplyConfiguration", "JSONPatch"];
                    let at = format!("{path}.patchType");
                    compiler.errors.push(match other {
                        "" => FieldError::required(at, ""),
                        other => FieldError::not_supported(at, other, &known),
                    });
                    return None;
                }
            };
            let path = format!("{path}.{field}");
            if !mutation[field].is_object() {
                let why = format!(
                    "must be specified when patchType is {}",
                    text(mutation, "patchType")
                );
                compiler.errors.push(FieldError::required(path, why));
                return None;
            }
            let program = compiler.program(&mutation[field], "expression", &env, &path, None)?;
            Some(Mutation { json_patch, program })
        });
    let mutations = mutations.collect();
    errors.append(&mut compiler.errors);
    let made = Policy {
        name: crate::metadata::text(object, "name").to_owned(),
        fails: spec["failurePolicy"] != "Ignore",
        param_kind: has_params.then(|| {
            let kind = &spec["paramKind"];
            (text(kind, "apiVersion").to_owned(), text(kind, "kind").to_owned())
        }),
        constraints: spec["matchConstraints"].clone(),
        conditions,
        variables,
        validations,
        mutations,
        audit,
        again: spec["reinvocationPolicy"] == "IfNeeded",
    };
    (made, errors)
}
