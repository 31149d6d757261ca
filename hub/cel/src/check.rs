//! The type of every expression, before anything runs.
//!
//! In: a tree and the types of its variables. Out: the type of the whole, or all issues in cel-go's words.
//! Never: runs anything.

use super::ast::{Expr, Fold, How, Kind, Literal, Pos};
use super::authorization::RESOURCE_CHECK;
use super::issue::Issue;
use super::signatures::{self, AUTHORIZER};
use super::types::Type;

/// Variables and their types; later ones hide earlier ones.
pub type Scope = Vec<(String, Type)>;

/// Which types can be made with `Name{…}`.
pub type Messages<'a> = &'a dyn Fn(&str) -> Option<Type>;

pub fn check(expr: &Expr, variables: &Scope, messages: Messages<'_>) -> Result<Type, Vec<Issue>> {
    let mut checker = Checker {
        scope: variables.clone(),
        messages,
        issues: Vec::new(),
    };
    let type_ = checker.visit(expr);
    if checker.issues.is_empty() {
        Ok(type_)
    } else {
        Err(checker.issues)
    }
}

struct Checker<'a> {
    scope: Scope,
    messages: Messages<'a>,
    issues: Vec<Issue>,
}

const TYPE_NAMES: [&str; 13] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "optional_type",
];

impl Checker<'_> {
    fn issue(&mut self, pos: Pos, why: impl Into<String>) -> Type {
        if self.issues.len() < 20 {
            self.issues.push(Issue::new(pos, why));
        }
        Type::Dyn
    }

    fn visit(&mut self, expr: &Expr) -> Type {
        match &expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => self.ident(expr.pos, name),
            Kind::Select {
                operand,
                field,
                optional,
            } => self.select(expr, operand, field, *optional),
            Kind::Has { operand, field } => {
                let operand = self.visit(operand);
                self.field(expr.pos, &operand, field);
                Type::Bool
            }
            Kind::Call {
                function,
                target,
                args,
            } => self.call(expr.pos, function, target.as_deref(), args),
            Kind::List(items) => {
                let mut item = None;
                for (expr, optional) in items {
                    let found = self.optional_part(expr, *optional);
                    item = Some(join(item, found));
                }
                Type::list(item.unwrap_or(Type::Dyn))
            }
            Kind::Map(entries) => {
                let (mut key, mut value) = (None, None);
                for (key_expr, value_expr, optional) in entries {
                    let found = self.visit(key_expr);
                    if !matches!(
                        found,
                        Type::Dyn | Type::Bool | Type::Int | Type::Uint | Type::String
                    ) {
                        self.issue(key_expr.pos, format!("unsupported key type: {found}"));
                    }
                    key = Some(join(key, found));
                    let found = self.optional_part(value_expr, *optional);
                    value = Some(join(value, found));
                }
                Type::map(key.unwrap_or(Type::Dyn), value.unwrap_or(Type::Dyn))
            }
            Kind::Message { name, fields } => self.message(expr.pos, name, fields),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { name, init, body } => {
                let init = self.visit(init);
                self.within(vec![(name.clone(), init)], |checker| checker.visit(body))
            }
            Kind::OptMap {
                target,
                name,
                body,
                flat,
            } => {
                let found = self.visit(target);
                let inner = match &found {
                    Type::Optional(inner) => (**inner).clone(),
                    Type::Dyn => Type::Dyn,
                    other => {
                        let why =
                            format!("found no matching overload for 'optMap' applied to '{other}'");
                        self.issue(expr.pos, why)
                    }
                };
                let made = self.within(vec![(name.clone(), inner)], |checker| checker.visit(body));
                match (flat, &made) {
                    (false, _) => Type::optional(made),
                    (true, Type::Optional(_) | Type::Dyn) => made,
                    (true, other) => {
                        let why = format!(
                            "found no matching overload for 'optFlatMap' applied to '{other}'"
                        );
                        self.issue(expr.pos, why)
                    }
                }
            }
        }
    }

    fn optional_part(&mut self, expr: &Expr, optional: bool) -> Type {
        match (self.visit(expr), optional) {
            (Type::Optional(inner), true) => (*inner).clone(),
            (found, _) => found,
        }
    }

    fn within<T>(&mut self, more: Scope, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.scope.len();
        self.scope.extend(more);
        let out = act(self);
        self.scope.truncate(before);
        out
    }

    fn ident(&mut self, pos: Pos, name: &str) -> Type {
        if let Some((_, type_)) = self.scope.iter().rev().find(|(own, _)| own == name) {
            return type_.clone();
        }
        if TYPE_NAMES.contains(&name) {
            return Type::Type;
        }
        self.issue(
            pos,
            format!("undeclared reference to '{name}' (in container '')"),
        )
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, optional: bool) -> Type {
        // `google.protobuf.Timestamp` is a name, unless its first part is a variable.
        if let Some(name) = dotted(expr)
            && TYPE_NAMES.contains(&name.as_str())
        {
            return Type::Type;
        }
        let operand = self.visit(operand);
        let found = self.field(expr.pos, &operand, field);
        match (&operand, optional, &found) {
            (_, true, Type::Optional(_)) => found,
            (_, true, _) => Type::optional(found),
            // A field of an optional is optional, too.
            (Type::Optional(_), false, _) => Type::optional(found),
            _ => found,
        }
    }

    fn field(&mut self, pos: Pos, operand: &Type, field: &str) -> Type {
        match operand {
            Type::Dyn => Type::Dyn,
            Type::Optional(inner) => self.field(pos, &inner.clone(), field),
            Type::Map(_, value) => (**value).clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(type_) => type_.clone(),
                None if object.open => Type::Dyn,
                None => self.issue(pos, format!("undefined field '{field}'")),
            },
            Type::Opaque(AUTHORIZER) if field == "requestResource" => Type::Opaque(RESOURCE_CHECK),
            other => self.issue(
                pos,
                format!("type '{other}' does not support field selection"),
            ),
        }
    }

    fn call(&mut self, pos: Pos, function: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        let receiver = target.map(|target| self.visit(target));
        let types: Vec<Type> = args.iter().map(|arg| self.visit(arg)).collect();
        let overloads = signatures::of(function);
        if overloads.is_empty() {
            return self.issue(
                pos,
                format!("undeclared reference to '{function}' (in container '')"),
            );
        }
        let mut result: Option<Type> = None;
        for signature in overloads {
            if signature.receiver.is_some() != receiver.is_some()
                || signature.args.len() != types.len()
            {
                continue;
            }
            let mut bound = Bound::default();
            let fits = signature
                .all()
                .zip(receiver.iter().chain(&types))
                .all(|(want, have)| bound.fits(want, have));
            if fits {
                let found = bound.fill(&signature.result);
                match &result {
                    None => result = Some(found),
                    Some(before) if *before != found => return Type::Dyn,
                    Some(_) => {}
                }
                // Exact types have one meaning.
                if !receiver.iter().chain(&types).any(has_dyn) {
                    break;
                }
            }
        }
        if let Some(result) = result {
            return result;
        }
        let list = types
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let applied = match &receiver {
            Some(receiver) => format!("{receiver}.({list})"),
            None => format!("({list})"),
        };
        self.issue(
            pos,
            format!("found no matching overload for '{function}' applied to '{applied}'"),
        )
    }

    fn message(&mut self, pos: Pos, name: &str, fields: &[(String, Expr, bool, Pos)]) -> Type {
        let Some(type_) = (self.messages)(name) else {
            fields
                .iter()
                .for_each(|(_, value, ..)| _ = self.visit(value));
            return self.issue(
                pos,
                format!("undeclared reference to '{name}' (in container '')"),
            );
        };
        for (field, value, optional, at) in fields {
            let found = self.optional_part(value, *optional);
            let wanted = self.field(*at, &type_, field);
            if !Bound::default().fits(&wanted, &found) {
                let why = format!(
                    "expected type of field '{field}' is '{wanted}' but provided type is '{found}'"
                );
                self.issue(*at, why);
            }
        }
        type_
    }

    fn fold(&mut self, fold: &Fold) -> Type {
        let range = self.visit(&fold.range);
        let (key, value, of_list) = match &range {
            Type::Dyn => (Type::Dyn, Type::Dyn, true),
            Type::List(item) => (Type::Int, (**item).clone(), true),
            Type::Map(key, value) => ((**key).clone(), (**value).clone(), false),
            other => {
                let why = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(fold.range.pos, why);
                (Type::Dyn, Type::Dyn, true)
            }
        };
        let single = if of_list { value.clone() } else { key.clone() };
        let variables = match &fold.second {
            Some(second) => vec![(fold.name.clone(), key.clone()), (second.clone(), value)],
            None => vec![(fold.name.clone(), single.clone())],
        };
        self.within(variables, |checker| {
            if let Some(test) = &fold.test {
                let found = checker.visit(test);
                if !matches!(found, Type::Bool | Type::Dyn) {
                    let operator = match fold.how {
                        How::All => "_&&_",
                        How::Exists => "_||_",
                        _ => "_?_:_",
                    };
                    let why = format!(
                        "found no matching overload for '{operator}' applied to '(bool, {found})'"
                    );
                    checker.issue(test.pos, why);
                }
            }
            let made = fold
                .make
                .as_ref()
                .map(|make| checker.visit(make))
                .unwrap_or(Type::Dyn);
            match fold.how {
                How::All | How::Exists | How::ExistsOne => Type::Bool,
                How::Filter => Type::list(single),
                How::Map | How::TransformList => Type::list(made),
                How::TransformMap => Type::map(key, made),
                How::TransformMapEntry => match made {
                    map @ Type::Map(..) => map,
                    _ => Type::map(Type::Dyn, Type::Dyn),
                },
            }
        })
    }
}

fn dotted(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select {
            operand,
            field,
            optional: false,
        } => Some(format!("{}.{field}", dotted(operand)?)),
        _ => None,
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

fn has_dyn(type_: &Type) -> bool {
    match type_ {
        Type::Dyn => true,
        Type::List(item) | Type::Optional(item) => has_dyn(item),
        Type::Map(key, value) => has_dyn(key) || has_dyn(value),
        _ => false,
    }
}

/// The type of a collection's parts.
fn join(before: Option<Type>, found: Type) -> Type {
    match before {
        None => found,
        Some(before) if before == found => before,
        Some(before) if Bound::default().fits(&before, &found) => before,
        Some(_) => Type::Dyn,
    }
}

/// What type parameters stand for.
#[derive(Default)]
struct Bound {
    types: [Option<Type>; 2],
}

impl Bound {
    /// Whether a value of type `have` can stand where `want` is.
    fn fits(&mut self, want: &Type, have: &Type) -> bool {
        match (want, have) {
            (Type::Param(at), have) => {
                let at = usize::from(*at);
                match self.types[at].clone() {
                    None | Some(Type::Dyn) => {
                        self.types[at] = Some(have.clone());
                        true
                    }
                    Some(before) if before == *have => true,
                    // A nullable thing may be compared with null.
                    Some(Type::Null) if nullable(have) => {
                        self.types[at] = Some(have.clone());
                        true
                    }
                    Some(before) => {
                        if self.fits(&before, have) {
                            return true;
                        }
                        let other = self.fits(have, &before);
                        if other {
                            self.types[at] = Some(have.clone());
                        }
                        other
                    }
                }
            }
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (want, Type::Null) => nullable(want) || *want == Type::Null,
            (Type::List(want), Type::List(have)) | (Type::Optional(want), Type::Optional(have)) => {
                self.fits(want, have)
            }
            (Type::Map(want_key, want), Type::Map(have_key, have)) => {
                self.fits(want_key, have_key) && self.fits(want, have)
            }
            (Type::Object(want), Type::Object(have)) => want.name == have.name,
            (want, have) => want == have,
        }
    }

    fn fill(&self, type_: &Type) -> Type {
        match type_ {
            Type::Param(at) => self.types[usize::from(*at)].clone().unwrap_or(Type::Dyn),
            Type::List(item) => Type::list(self.fill(item)),
            Type::Optional(value) => Type::optional(self.fill(value)),
            Type::Map(key, value) => Type::map(self.fill(key), self.fill(value)),
            other => other.clone(),
        }
    }
}

/// Types of which null is a value.
fn nullable(type_: &Type) -> bool {
    matches!(
        type_,
        Type::Object(_) | Type::Timestamp | Type::Duration | Type::Opaque(_)
    )
}
