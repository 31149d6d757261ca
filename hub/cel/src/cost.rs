//! What an expression may cost at most, before anything runs.
//!
//! In: a tree, and variables with the bounds that their schema names. Out: an upper bound in the units that `eval`
//! charges. Source: how Kubernetes bounds rules of CustomResourceDefinitions.
//! Never: less than what a run within the bounds costs.

use super::ast::{Expr, Fold, How, Kind, Literal};
use super::types::Decl;

/// What is known about a value: how large it is, and its parts.
#[derive(Debug, Clone)]
struct Known {
    size: u64,
    fields: std::collections::BTreeMap<String, Decl>,
    below: Option<Box<Known>>,
    key: u64,
}

impl Known {
    fn of(decl: &Decl) -> Self {
        Self {
            size: decl.size_max,
            fields: decl.fields.clone(),
            below: decl.below.as_ref().map(|below| Box::new(Self::of(below))),
            key: decl.key_max,
        }
    }

    fn scalar(size: u64) -> Self {
        Self {
            size,
            fields: Default::default(),
            below: None,
            key: size,
        }
    }

    fn list(size: u64, below: Known) -> Self {
        Self {
            size,
            fields: Default::default(),
            below: Some(Box::new(below)),
            key: 1,
        }
    }

    fn part(&self) -> Known {
        self.below
            .as_deref()
            .cloned()
            .unwrap_or_else(|| Known::scalar(self.size))
    }
}

/// The bound. Variables that are not declared have size `unknown`.
pub fn estimate(expr: &Expr, variables: &[(String, Decl)], unknown: u64) -> u64 {
    let locals = variables
        .iter()
        .map(|(name, decl)| (name.clone(), Known::of(decl)))
        .collect();
    Estimate { locals, unknown }.visit(expr).0
}

struct Estimate {
    locals: Vec<(String, Known)>,
    unknown: u64,
}

impl Estimate {
    /// Cost of an expression, and what is known about its value.
    fn visit(&mut self, expr: &Expr) -> (u64, Known) {
        match &expr.kind {
            Kind::Literal(literal) => (0, Known::scalar(literal_size(literal))),
            Kind::Ident(name) => {
                let found = self
                    .locals
                    .iter()
                    .rev()
                    .find(|(own, _)| own == name)
                    .map(|(_, known)| known.clone());
                (1, found.unwrap_or_else(|| Known::scalar(self.unknown)))
            }
            Kind::Select { operand, field, .. } => {
                let (cost, known) = self.visit(operand);
                let found = match known.fields.get(field) {
                    Some(decl) => Known::of(decl),
                    None => known.part(),
                };
                (cost.saturating_add(1), found)
            }
            Kind::Has { operand, .. } => {
                (self.visit(operand).0.saturating_add(1), Known::scalar(1))
            }
            Kind::Call {
                function,
                target,
                args,
            } => self.call(function, target.as_deref(), args),
            Kind::List(items) => {
                let parts: Vec<_> = items.iter().map(|(item, _)| self.visit(item)).collect();
                let cost = parts
                    .iter()
                    .fold(10, |sum: u64, (cost, _)| sum.saturating_add(*cost));
                let below = parts
                    .into_iter()
                    .map(|(_, known)| known)
                    .max_by_key(|known| known.size);
                (
                    cost,
                    Known::list(
                        items.len() as u64,
                        below.unwrap_or_else(|| Known::scalar(1)),
                    ),
                )
            }
            Kind::Map(entries) => {
                let mut cost: u64 = 30;
                let (mut key, mut below) = (1, Known::scalar(1));
                for (key_expr, value, _) in entries {
                    let (key_cost, key_known) = self.visit(key_expr);
                    let (value_cost, value_known) = self.visit(value);
                    cost = cost.saturating_add(key_cost).saturating_add(value_cost);
                    key = key.max(key_known.size);
                    if value_known.size >= below.size {
                        below = value_known;
                    }
                }
                (
                    cost,
                    Known {
                        key,
                        ..Known::list(entries.len() as u64, below)
                    },
                )
            }
            Kind::Message { fields, .. } => {
                let cost = fields.iter().fold(40, |sum: u64, (_, value, ..)| {
                    sum.saturating_add(self.visit(value).0)
                });
                (cost, Known::scalar(1))
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { name, init, body } => {
                let (cost, known) = self.visit(init);
                let (body_cost, made) =
                    self.with(vec![(name.clone(), known)], |own| own.visit(body));
                (cost.saturating_add(body_cost), made)
            }
            Kind::OptMap {
                target, name, body, ..
            } => {
                let (cost, known) = self.visit(target);
                let (body_cost, made) =
                    self.with(vec![(name.clone(), known)], |own| own.visit(body));
                (cost.saturating_add(body_cost), made)
            }
        }
    }

    fn with<T>(&mut self, more: Vec<(String, Known)>, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.locals.len();
        self.locals.extend(more);
        let out = act(self);
        self.locals.truncate(before);
        out
    }

    fn fold(&mut self, fold: &Fold) -> (u64, Known) {
        let (range_cost, range) = self.visit(&fold.range);
        let part = range.part();
        // Of a map the single variable is the key; the larger of both bounds either.
        let single = if part.size >= range.key {
            part.clone()
        } else {
            Known::scalar(range.key)
        };
        let variables = match &fold.second {
            Some(second) => vec![
                (fold.name.clone(), Known::scalar(range.key)),
                (second.clone(), part),
            ],
            None => vec![(fold.name.clone(), single.clone())],
        };
        let (test, make) = self.with(variables, |own| {
            let test = fold.test.as_ref().map_or(0, |test| own.visit(test).0);
            (test, fold.make.as_ref().map(|make| own.visit(make)))
        });
        let each = 2_u64
            .saturating_add(test)
            .saturating_add(make.as_ref().map_or(0, |(cost, _)| *cost));
        let cost = range_cost.saturating_add(range.size.saturating_mul(each));
        let made = match fold.how {
            How::All | How::Exists | How::ExistsOne => Known::scalar(1),
            How::Filter => Known::list(range.size, single),
            How::Map | How::TransformList | How::TransformMap | How::TransformMapEntry => {
                Known::list(
                    range.size,
                    make.map_or_else(|| Known::scalar(1), |(_, known)| known),
                )
            }
        };
        (cost, made)
    }

    fn call(&mut self, function: &str, target: Option<&Expr>, args: &[Expr]) -> (u64, Known) {
        if let ("_?_:_", [condition, yes, no]) = (function, args) {
            let (cost, _) = self.visit(condition);
            let (yes, no) = (self.visit(yes), self.visit(no));
            let larger = if yes.1.size >= no.1.size { yes.1 } else { no.1 };
            return (cost.saturating_add(yes.0.max(no.0)), larger);
        }
        let mut cost: u64 = 0;
        let mut known = Vec::with_capacity(args.len() + 1);
        for part in target.into_iter().chain(args) {
            let (part_cost, part_known) = self.visit(part);
            cost = cost.saturating_add(part_cost);
            known.push(part_known);
        }
        let (own, made) = of_call(function, &known, self.unknown);
        (cost.saturating_add(own), made)
    }
}

fn literal_size(literal: &Literal) -> u64 {
    match literal {
        Literal::String(text) => text.len() as u64,
        Literal::Bytes(bytes) => bytes.len() as u64,
        _ => 1,
    }
}

/// Everything inside of a value, for equality.
fn deep(known: &Known, depth: usize) -> u64 {
    if depth > 16 {
        return known.size;
    }
    match &known.below {
        Some(below) => known
            .size
            .saturating_mul(deep(below, depth + 1))
            .saturating_add(1),
        None if known.fields.is_empty() => known.size.div_ceil(10).max(1),
        None => known.fields.values().fold(1, |sum: u64, decl| {
            sum.saturating_add(deep(&Known::of(decl), depth + 1))
        }),
    }
}

/// Cost of a call itself, and what is known about its value.
fn of_call(function: &str, known: &[Known], unknown: u64) -> (u64, Known) {
    let size = |at: usize| known.get(at).map_or(0, |known| known.size);
    let tenth = |size: u64| size.div_ceil(10).max(1);
    let first = || {
        known
            .first()
            .cloned()
            .unwrap_or_else(|| Known::scalar(unknown))
    };
    let flag = Known::scalar(1);
    match function {
        "_==_" | "_!=_" => {
            let both = known.iter().map(|known| deep(known, 0)).min().unwrap_or(1);
            (both, flag)
        }
        "_<_" | "_<=_" | "_>_" | "_>=_" => (tenth(size(0).min(size(1))), flag),
        "@in" => {
            let item = known.first().map_or(1, |known| deep(known, 0));
            (1 + size(1).saturating_mul(item.saturating_add(1)), flag)
        }
        "_[_]" | "_[?_]" => (
            1,
            known
                .first()
                .map_or_else(|| Known::scalar(unknown), Known::part),
        ),
        "_+_" => {
            let sum = size(0).saturating_add(size(1));
            let mut made = first();
            // Sets and maps are united by comparing.
            let own = if made.below.is_some() {
                size(0).saturating_mul(size(1)).saturating_add(2)
            } else {
                tenth(sum)
            };
            made.size = sum;
            (own, made)
        }
        "contains" | "indexOf" | "lastIndexOf" => {
            let all = known
                .first()
                .map_or(1, |known| deep(known, 0))
                .saturating_add(size(0));
            (
                tenth(size(0))
                    .saturating_mul(tenth(size(1)))
                    .max(all)
                    .saturating_add(1),
                flag,
            )
        }
        "startsWith" | "endsWith" => (tenth(size(1)), flag),
        "matches" | "find" | "findAll" => {
            let own = tenth(size(0) + 1).saturating_mul(size(1).div_ceil(4).max(1));
            let made = if function == "findAll" {
                Known::list(size(0), Known::scalar(size(0)))
            } else {
                first()
            };
            (own, made)
        }
        "replace" => {
            let made = size(0).saturating_add(size(0).saturating_add(1).saturating_mul(size(2)));
            (
                tenth(size(0)).saturating_add(tenth(made)),
                Known::scalar(made),
            )
        }
        "split" => (tenth(size(0)), Known::list(size(0), Known::scalar(size(0)))),
        "join" => {
            let part = known
                .first()
                .map_or(1, |known| known.part().size)
                .saturating_add(size(1));
            let sum = size(0).saturating_mul(part);
            (tenth(sum).saturating_add(size(0)), Known::scalar(sum))
        }
        "format" => {
            let parts = known.get(1).map_or(1, |list| {
                list.size
                    .saturating_mul(deep(&list.part(), 0))
                    .saturating_mul(10)
            });
            let made = size(0).saturating_add(parts);
            (tenth(made).saturating_add(size(1)), Known::scalar(made))
        }
        "isSorted" | "sum" | "min" | "max" | "first" | "last" | "reverse" | "slice"
        | "lists.range" => (
            size(0).saturating_add(1),
            if function == "reverse" || function == "slice" {
                first()
            } else {
                first().part()
            },
        ),
        "distinct" | "sort" => (size(0).saturating_mul(size(0)).saturating_add(1), first()),
        "flatten" => {
            let inner = first().part();
            let all = size(0).saturating_mul(inner.size);
            (size(0).saturating_add(all), Known::list(all, inner.part()))
        }
        "validate" => (
            tenth(size(1)).saturating_mul(10).saturating_add(1),
            Known::list(1, Known::scalar(512)),
        ),
        "check" => (350_000, flag),
        "size" | "!_" | "-_" | "hasValue" => (1, flag),
        "value" | "orValue" | "or" | "optional.of" | "dyn" | "unwrapOpt" => (1, first()),
        _ => (
            known
                .iter()
                .fold(1, |sum: u64, known| sum.saturating_add(tenth(known.size))),
            first(),
        ),
    }
}
