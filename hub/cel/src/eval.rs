//! Runs expressions within a budget.
//!
//! In: a tree, variables, a budget. Out: a value, an error, or that the budget is spent.
//! Source: the CEL language definition's evaluation; costs as cel-go counts them.
//! Never: runs longer than the budget allows; nests deeper than the parser lets through.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Expr, Fold, How, Kind, Literal};
use super::library;
use super::value::{Key, ListKind, Value};

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The expression's own error; `true || error` is true all the same.
    #[error("{0}")]
    Error(String),
    /// The budget is spent; nothing saves the expression.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
}

pub type Outcome = Result<Value, Failure>;

pub fn error<T>(why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Error(why.into()))
}

/// What may still be spent.
#[derive(Debug, Clone)]
pub struct Meter {
    pub used: u64,
    pub limit: u64,
}

impl Meter {
    pub fn new(limit: u64) -> Self {
        Self { used: 0, limit }
    }

    pub fn charge(&mut self, cost: u64) -> Result<(), Failure> {
        self.used = self.used.saturating_add(cost);
        if self.used > self.limit {
            Err(Failure::Cost)
        } else {
            Ok(())
        }
    }

    /// The cost of walking over so many letters: a tenth each.
    pub fn walk(&mut self, letters: u64) -> Result<(), Failure> {
        self.charge(letters.div_ceil(10))
    }
}

/// Where variables come from; a lazy one is evaluated when it is first read.
pub trait Variables {
    fn look_up(&self, name: &str, meter: &mut Meter) -> Option<Outcome>;
}

impl Variables for [(&str, Value)] {
    fn look_up(&self, name: &str, _meter: &mut Meter) -> Option<Outcome> {
        self.iter()
            .find(|(own, _)| *own == name)
            .map(|(_, value)| Ok(value.clone()))
    }
}

impl<const N: usize> Variables for [(&str, Value); N] {
    fn look_up(&self, name: &str, meter: &mut Meter) -> Option<Outcome> {
        self.as_slice().look_up(name, meter)
    }
}

impl Variables for Vec<(&str, Value)> {
    fn look_up(&self, name: &str, meter: &mut Meter) -> Option<Outcome> {
        self.as_slice().look_up(name, meter)
    }
}

pub fn run(expr: &Expr, variables: &dyn Variables, meter: &mut Meter) -> Outcome {
    let mut run = Run {
        variables,
        locals: Vec::new(),
        meter,
    };
    run.visit(expr)
}

struct Run<'a> {
    variables: &'a dyn Variables,
    locals: Vec<(&'a str, Value)>,
    meter: &'a mut Meter,
}

impl<'a> Run<'a> {
    fn visit(&mut self, expr: &'a Expr) -> Outcome {
        match &expr.kind {
            Kind::Literal(literal) => Ok(of_literal(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select {
                operand,
                field,
                optional,
            } => self.select(expr, operand, field, *optional),
            Kind::Has { operand, field } => self.has(operand, field),
            Kind::Call {
                function,
                target,
                args,
            } => self.call(function, target.as_deref(), args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Message { fields, .. } => self.message(fields),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { name, init, body } => {
                let value = self.visit(init)?;
                self.with(vec![(name, value)], |run| run.visit(body))
            }
            Kind::OptMap {
                target,
                name,
                body,
                flat,
            } => self.opt_map(target, name, body, *flat),
        }
    }

    fn with<T>(&mut self, more: Vec<(&'a str, Value)>, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.locals.len();
        self.locals.extend(more);
        let out = act(self);
        self.locals.truncate(before);
        out
    }

    fn ident(&mut self, name: &str) -> Outcome {
        self.meter.charge(1)?;
        if let Some((_, value)) = self.locals.iter().rev().find(|(own, _)| *own == name) {
            return Ok(value.clone());
        }
        if let Some(outcome) = self.variables.look_up(name, self.meter) {
            return outcome;
        }
        match name {
            "bool" | "int" | "uint" | "double" | "string" | "bytes" | "list" | "map"
            | "null_type" | "type" | "optional_type" => Ok(Value::Type(name.into())),
            _ => error(format!("no such attribute(s): {name}")),
        }
    }

    fn select(
        &mut self,
        expr: &'a Expr,
        operand: &'a Expr,
        field: &str,
        optional: bool,
    ) -> Outcome {
        if let Some(name) = type_name(expr) {
            return Ok(Value::Type(name.into()));
        }
        self.meter.charge(1)?;
        let value = self.visit(operand)?;
        if let Value::Optional(inner) = value {
            let Some(inner) = inner else {
                return Ok(Value::Optional(None));
            };
            return Ok(Value::Optional(field_of(&inner, field)?.map(Arc::new)));
        }
        match (field_of(&value, field)?, optional) {
            (found, true) => Ok(Value::Optional(found.map(Arc::new))),
            (Some(found), false) => Ok(found),
            (None, false) => error(format!("no such key: {field}")),
        }
    }

    fn has(&mut self, operand: &'a Expr, field: &str) -> Outcome {
        self.meter.charge(1)?;
        let value = match self.visit(operand)? {
            Value::Optional(None) => return Ok(Value::Bool(false)),
            Value::Optional(Some(inner)) => (*inner).clone(),
            value => value,
        };
        Ok(Value::Bool(field_of(&value, field)?.is_some()))
    }

    fn list(&mut self, items: &'a [(Expr, bool)]) -> Outcome {
        self.meter.charge(10)?;
        let mut list = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.visit(item)?, optional) {
                (Value::Optional(None), true) => {}
                (Value::Optional(Some(value)), true) => list.push((*value).clone()),
                (value, _) => list.push(value),
            }
        }
        Ok(Value::list(list))
    }

    fn map(&mut self, entries: &'a [(Expr, Expr, bool)]) -> Outcome {
        self.meter.charge(30)?;
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.visit(key)?;
            let Some(key) = key.as_key() else {
                return error(format!("unsupported key type: {}", key.type_name()));
            };
            let value = match (self.visit(value)?, optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(value)), true) => (*value).clone(),
                (value, _) => value,
            };
            if map.insert(key.clone(), value).is_some() {
                return error(format!("insert failed: key {key} already exists"));
            }
        }
        Ok(Value::Map(Arc::new(map)))
    }

    fn message(&mut self, fields: &'a [(String, Expr, bool, u32)]) -> Outcome {
        self.meter.charge(40)?;
        let mut map = BTreeMap::new();
        for (name, value, optional, _) in fields {
            let value = match (self.visit(value)?, optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(value)), true) => (*value).clone(),
                (value, _) => value,
            };
            map.insert(Key::from(name.as_str()), value);
        }
        Ok(Value::Map(Arc::new(map)))
    }

    fn call(&mut self, function: &str, target: Option<&'a Expr>, args: &'a [Expr]) -> Outcome {
        match (function, args) {
            ("_&&_", [a, b]) => return self.logic(a, b, false),
            ("_||_", [a, b]) => return self.logic(a, b, true),
            ("_?_:_", [condition, yes, no]) => {
                return match self.visit(condition)? {
                    Value::Bool(true) => self.visit(yes),
                    Value::Bool(false) => self.visit(no),
                    _ => error("no such overload"),
                };
            }
            // These do not look at their argument unless it is needed.
            ("orValue", [other]) if target.is_some() => {
                let Some(target) = target else {
                    return error("no such overload");
                };
                self.meter.charge(1)?;
                return match self.visit(target)? {
                    Value::Optional(Some(value)) => Ok((*value).clone()),
                    Value::Optional(None) => self.visit(other),
                    _ => error("no such overload"),
                };
            }
            ("or", [other]) if target.is_some() => {
                let Some(target) = target else {
                    return error("no such overload");
                };
                self.meter.charge(1)?;
                return match self.visit(target)? {
                    value @ Value::Optional(Some(_)) => Ok(value),
                    Value::Optional(None) => self.visit(other),
                    _ => error("no such overload"),
                };
            }
            _ => {}
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        if let Some(target) = target {
            values.push(self.visit(target)?);
        }
        for arg in args {
            values.push(self.visit(arg)?);
        }
        library::call(function, target.is_some(), &values, self.meter)
    }

    /// `&&` and `||`: an error on one side does not matter when the other side decides.
    fn logic(&mut self, a: &'a Expr, b: &'a Expr, decides: bool) -> Outcome {
        self.meter.charge(1)?;
        let left = self.visit(a);
        match &left {
            Ok(Value::Bool(value)) if *value == decides => return left,
            Err(Failure::Cost) => return left,
            _ => {}
        }
        match (left, self.visit(b)) {
            (_, Err(Failure::Cost)) => Err(Failure::Cost),
            (_, Ok(Value::Bool(value))) if value == decides => Ok(Value::Bool(decides)),
            (Err(failure), _) => Err(failure),
            (Ok(Value::Bool(_)), right @ (Ok(Value::Bool(_)) | Err(_))) => right,
            _ => error("no such overload"),
        }
    }

    fn opt_map(&mut self, target: &'a Expr, name: &'a str, body: &'a Expr, flat: bool) -> Outcome {
        match self.visit(target)? {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => {
                let made = self.with(vec![(name, (*value).clone())], |run| run.visit(body))?;
                match (flat, made) {
                    (false, made) => Ok(Value::Optional(Some(Arc::new(made)))),
                    (true, made @ Value::Optional(_)) => Ok(made),
                    (true, _) => error("no such overload"),
                }
            }
            _ => error("no such overload"),
        }
    }

    fn fold(&mut self, fold: &'a Fold) -> Outcome {
        let range = self.visit(&fold.range)?;
        let two = fold.second.is_some();
        // (key or index, value)
        let pairs: Box<dyn Iterator<Item = (Value, Value)> + '_> = match &range {
            Value::List(items, _) => Box::new(
                items
                    .iter()
                    .enumerate()
                    .map(|(at, item)| (Value::Int(at as i64), item.clone())),
            ),
            Value::Map(entries) => Box::new(
                entries
                    .iter()
                    .map(|(key, value)| (key.value(), value.clone())),
            ),
            _ => return error("no such overload"),
        };
        let of_list = matches!(range, Value::List(..));
        let mut walk = Walk::new(fold.how);
        for (key, value) in pairs {
            self.meter.charge(1)?;
            let single = if of_list { value.clone() } else { key.clone() };
            let mut variables: Vec<(&'a str, Value)> = Vec::with_capacity(2);
            match &fold.second {
                Some(second) => {
                    variables.extend([(fold.name.as_str(), key.clone()), (second.as_str(), value)])
                }
                None => variables.push((fold.name.as_str(), single.clone())),
            }
            let before = self.locals.len();
            self.locals.extend(variables);
            let step = self.step(fold, &mut walk, if two { key } else { single });
            self.locals.truncate(before);
            if step? {
                break;
            }
        }
        walk.end()
    }

    /// One element; true when the outcome is certain.
    fn step(&mut self, fold: &'a Fold, walk: &mut Walk, element: Value) -> Result<bool, Failure> {
        let test = match &fold.test {
            Some(test) => self.visit(test),
            None => Ok(Value::Bool(true)),
        };
        let holds = match test {
            Ok(Value::Bool(holds)) => holds,
            Err(Failure::Cost) => return Err(Failure::Cost),
            Err(failure) if matches!(fold.how, How::All | How::Exists) => {
                walk.failure.get_or_insert(failure);
                return Ok(false);
            }
            Err(failure) => return Err(failure),
            Ok(_) => return error("no such overload"),
        };
        match fold.how {
            How::All if !holds => {
                walk.decided = Some(false);
                return Ok(true);
            }
            How::Exists if holds => {
                walk.decided = Some(true);
                return Ok(true);
            }
            How::ExistsOne => walk.count += usize::from(holds),
            How::Filter if holds => {
                self.meter.charge(1)?;
                walk.list.push(element);
            }
            How::Map | How::TransformList | How::TransformMap | How::TransformMapEntry if holds => {
                let Some(make) = &fold.make else {
                    return Ok(false);
                };
                let made = self.visit(make)?;
                self.meter.charge(1)?;
                walk.add(element, made)?;
            }
            _ => {}
        }
        Ok(false)
    }
}

/// What a fold has gathered.
struct Walk {
    how: How,
    decided: Option<bool>,
    failure: Option<Failure>,
    count: usize,
    list: Vec<Value>,
    map: BTreeMap<Key, Value>,
}

impl Walk {
    fn new(how: How) -> Self {
        Self {
            how,
            decided: None,
            failure: None,
            count: 0,
            list: Vec::new(),
            map: BTreeMap::new(),
        }
    }

    fn add(&mut self, element: Value, made: Value) -> Result<(), Failure> {
        match (self.how, made) {
            (How::TransformMap, made) => {
                let Some(key) = element.as_key() else {
                    return error("unsupported key type");
                };
                self.map.insert(key, made);
            }
            (How::TransformMapEntry, Value::Map(entries)) => {
                for (key, value) in entries.iter() {
                    if self.map.insert(key.clone(), value.clone()).is_some() {
                        return error(format!("insert failed: key {key} already exists"));
                    }
                }
            }
            (How::TransformMapEntry, _) => return error("no such overload"),
            (_, made) => self.list.push(made),
        }
        Ok(())
    }

    fn end(self) -> Outcome {
        if let (None, Some(failure)) = (self.decided, self.failure) {
            return Err(failure);
        }
        Ok(match self.how {
            How::All => Value::Bool(self.decided.unwrap_or(true)),
            How::Exists => Value::Bool(self.decided.unwrap_or(false)),
            How::ExistsOne => Value::Bool(self.count == 1),
            How::Filter | How::Map | How::TransformList => {
                Value::List(Arc::new(self.list), ListKind::Plain)
            }
            How::TransformMap | How::TransformMapEntry => Value::Map(Arc::new(self.map)),
        })
    }
}

/// A field of a value; `None` when it is not there.
fn field_of(value: &Value, field: &str) -> Result<Option<Value>, Failure> {
    match value {
        Value::Map(entries) => Ok(entries.get(&Key::from(field)).cloned()),
        // Fields of what the host gives are methods without arguments.
        Value::Host(host) => host.call(field, &[]).map(Some).or_else(error),
        other => error(format!(
            "no such overload: type '{}' does not support field selection",
            other.type_name()
        )),
    }
}

fn of_literal(literal: &Literal) -> Value {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::text(text),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}

/// `google.protobuf.Timestamp`, the only names of types with dots.
fn type_name(expr: &Expr) -> Option<&'static str> {
    let Kind::Select { operand, field, .. } = &expr.kind else {
        return None;
    };
    let Kind::Select {
        operand: root,
        field: middle,
        ..
    } = &operand.kind
    else {
        return None;
    };
    let google = matches!(&root.kind, Kind::Ident(name) if name == "google");
    match (google && middle == "protobuf", field.as_str()) {
        (true, "Timestamp") => Some("google.protobuf.Timestamp"),
        (true, "Duration") => Some("google.protobuf.Duration"),
        _ => None,
    }
}
