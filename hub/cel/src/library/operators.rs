//! Operators: arithmetic without overflow, comparisons, membership, indexes.
//!
//! In: values. Out: a value or an error. Never: a silent overflow.

use std::cmp::Ordering;
use std::sync::Arc;

use super::no_overload;
use crate::eval::{Failure, Meter, Outcome, error};
use crate::value::{ListKind, Value};

const OVERFLOW: &str = "integer overflow";

pub fn call(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    let outcome = match (function, values) {
        ("_==_", [a, b]) => equal(a, b, meter).map(Value::Bool),
        ("_!=_", [a, b]) => equal(a, b, meter).map(|same| Value::Bool(!same)),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => compare(function, a, b, meter),
        ("@in", [item, range]) => contains(item, range, meter),
        ("_[_]", [range, at]) => index(range, at, meter),
        ("_[?_]", [range, at]) => meter
            .charge(1)
            .and_then(|()| find(range, at).map(|found| Value::Optional(found.map(Arc::new)))),
        ("!_", [Value::Bool(value)]) => meter.charge(1).map(|()| Value::Bool(!value)),
        ("-_", [Value::Int(value)]) => meter.charge(1).and_then(|()| int(value.checked_neg())),
        ("-_", [Value::Double(value)]) => meter.charge(1).map(|()| Value::Double(-value)),
        ("_+_", [a, b]) => add(a, b, meter),
        ("_-_", [a, b]) => meter.charge(1).and_then(|()| subtract(a, b)),
        ("_*_" | "_/_" | "_%_", [a, b]) => meter.charge(1).and_then(|()| product(function, a, b)),
        _ => return None,
    };
    Some(outcome)
}

fn int(value: Option<i64>) -> Outcome {
    value.map_or_else(|| error(OVERFLOW), |value| Ok(Value::Int(value)))
}

/// Equality walks over the smaller of the two, as deep as it must.
pub(super) fn equal(a: &Value, b: &Value, meter: &mut Meter) -> Result<bool, Failure> {
    match (a, b) {
        (Value::List(x, kind), Value::List(y, _)) => {
            meter.charge(1)?;
            if x.len() != y.len() {
                return Ok(false);
            }
            if *kind != ListKind::Plain {
                meter.charge((x.len() as u64).saturating_mul(y.len() as u64))?;
                return Ok(a == b);
            }
            for (x, y) in x.iter().zip(y.iter()) {
                if !equal(x, y, meter)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Map(x), Value::Map(y)) => {
            meter.charge(1)?;
            if x.len() != y.len() {
                return Ok(false);
            }
            for (key, value) in x.iter() {
                let Some(other) = y.get(key) else {
                    return Ok(false);
                };
                if !equal(value, other, meter)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => {
            meter.walk(a.size().min(b.size()))?;
            Ok(a == b)
        }
    }
}

fn compare(function: &str, a: &Value, b: &Value, meter: &mut Meter) -> Outcome {
    meter.walk(a.size().min(b.size()))?;
    let not_a_number =
        matches!((a, b), (Value::Double(x), _) | (_, Value::Double(x)) if x.is_nan());
    let Some(order) = a.order(b) else {
        return if not_a_number {
            Ok(Value::Bool(false))
        } else {
            no_overload()
        };
    };
    Ok(Value::Bool(match function {
        "_<_" => order == Ordering::Less,
        "_<=_" => order != Ordering::Greater,
        "_>_" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn contains(item: &Value, range: &Value, meter: &mut Meter) -> Outcome {
    match range {
        Value::List(items, _) => {
            for other in items.iter() {
                meter.charge(1)?;
                if equal(item, other, meter)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        Value::Map(entries) => {
            meter.charge(1)?;
            Ok(Value::Bool(
                item.as_key().is_some_and(|key| entries.contains_key(&key)),
            ))
        }
        _ => no_overload(),
    }
}

fn index(range: &Value, at: &Value, meter: &mut Meter) -> Outcome {
    meter.charge(1)?;
    if let Value::Optional(inner) = range {
        return match inner {
            None => Ok(Value::Optional(None)),
            Some(inner) => Ok(Value::Optional(find(inner, at)?.map(Arc::new))),
        };
    }
    match (find(range, at)?, range) {
        (Some(found), _) => Ok(found),
        (None, Value::List(..)) => error(format!("index out of bounds: {}", shown(at))),
        (None, _) => error(format!("no such key: {}", shown(at))),
    }
}

fn shown(at: &Value) -> String {
    at.as_key().map(|key| key.to_string()).unwrap_or_default()
}

fn find(range: &Value, at: &Value) -> Result<Option<Value>, Failure> {
    match range {
        Value::List(items, _) => {
            let at = match at {
                Value::Int(at) => usize::try_from(*at).ok(),
                Value::Uint(at) => usize::try_from(*at).ok(),
                Value::Double(at) if at.fract() == 0.0 && *at >= 0.0 => Some(*at as usize),
                _ => return error("no such overload"),
            };
            Ok(at.and_then(|at| items.get(at).cloned()))
        }
        Value::Map(entries) => Ok(at.as_key().and_then(|key| entries.get(&key).cloned())),
        Value::Optional(None) => Ok(None),
        Value::Optional(Some(inner)) => find(inner, at),
        _ => error("no such overload"),
    }
}

fn add(a: &Value, b: &Value, meter: &mut Meter) -> Outcome {
    match (a, b) {
        (Value::String(x), Value::String(y)) => {
            meter.walk(a.size() + b.size())?;
            Ok(Value::text(format!("{x}{y}")))
        }
        (Value::Bytes(x), Value::Bytes(y)) => {
            meter.walk(a.size() + b.size())?;
            Ok(Value::Bytes([&**x, &**y].concat().into()))
        }
        (Value::List(x, kind), Value::List(y, _)) => {
            meter.charge(1 + (a.size() + b.size()) / 10)?;
            joined(x, y, kind, meter)
        }
        _ => meter.charge(1).and_then(|()| add_numbers(a, b)),
    }
}

/// Sets and maps of a schema are united; a map's right side wins.
fn joined(x: &[Value], y: &[Value], kind: &ListKind, meter: &mut Meter) -> Outcome {
    let mut all = x.to_vec();
    match kind {
        ListKind::Plain => all.extend_from_slice(y),
        ListKind::Set => {
            for item in y {
                meter.charge(all.len() as u64)?;
                if !all.contains(item) {
                    all.push(item.clone());
                }
            }
        }
        ListKind::Map(keys) => {
            let key = |item: &Value| -> Vec<Option<Value>> {
                let Value::Map(fields) = item else {
                    return Vec::new();
                };
                keys.iter()
                    .map(|name| fields.get(&name.as_str().into()).cloned())
                    .collect()
            };
            for item in y {
                meter.charge(all.len() as u64)?;
                match all.iter_mut().find(|own| key(own) == key(item)) {
                    Some(own) => *own = item.clone(),
                    None => all.push(item.clone()),
                }
            }
        }
    }
    Ok(Value::List(Arc::new(all), kind.clone()))
}

fn add_numbers(a: &Value, b: &Value) -> Outcome {
    match (a, b) {
        (Value::Int(x), Value::Int(y)) => int(x.checked_add(*y)),
        (Value::Uint(x), Value::Uint(y)) => x.checked_add(*y).map_or_else(
            || error("unsigned integer overflow"),
            |sum| Ok(Value::Uint(sum)),
        ),
        (Value::Double(x), Value::Double(y)) => Ok(Value::Double(x + y)),
        (Value::Duration(x), Value::Duration(y)) => x.checked_add(*y).map_or_else(
            || error("duration overflow"),
            |sum| Ok(Value::Duration(sum)),
        ),
        (Value::Timestamp(time), Value::Duration(nanos))
        | (Value::Duration(nanos), Value::Timestamp(time)) => super::times::shift(*time, *nanos),
        _ => no_overload(),
    }
}

fn subtract(a: &Value, b: &Value) -> Outcome {
    match (a, b) {
        (Value::Int(x), Value::Int(y)) => int(x.checked_sub(*y)),
        (Value::Uint(x), Value::Uint(y)) => x.checked_sub(*y).map_or_else(
            || error("unsigned integer overflow"),
            |rest| Ok(Value::Uint(rest)),
        ),
        (Value::Double(x), Value::Double(y)) => Ok(Value::Double(x - y)),
        (Value::Duration(x), Value::Duration(y)) => x.checked_sub(*y).map_or_else(
            || error("duration overflow"),
            |rest| Ok(Value::Duration(rest)),
        ),
        (Value::Timestamp(time), Value::Duration(nanos)) => match nanos.checked_neg() {
            Some(nanos) => super::times::shift(*time, nanos),
            None => error("timestamp overflow"),
        },
        (Value::Timestamp(x), Value::Timestamp(y)) => {
            match i64::try_from(x.as_nanosecond() - y.as_nanosecond()) {
                Ok(nanos) => Ok(Value::Duration(nanos)),
                Err(_) => error("duration overflow"),
            }
        }
        _ => no_overload(),
    }
}

fn product(function: &str, a: &Value, b: &Value) -> Outcome {
    match (function, a, b) {
        ("_/_", Value::Int(_), Value::Int(0)) | ("_/_", Value::Uint(_), Value::Uint(0)) => {
            error("division by zero")
        }
        ("_%_", Value::Int(_), Value::Int(0)) | ("_%_", Value::Uint(_), Value::Uint(0)) => {
            error("modulus by zero")
        }
        ("_*_", Value::Int(x), Value::Int(y)) => int(x.checked_mul(*y)),
        ("_/_", Value::Int(x), Value::Int(y)) => int(x.checked_div(*y)),
        ("_%_", Value::Int(x), Value::Int(y)) => int(x.checked_rem(*y)),
        ("_*_", Value::Uint(x), Value::Uint(y)) => x.checked_mul(*y).map_or_else(
            || error("unsigned integer overflow"),
            |value| Ok(Value::Uint(value)),
        ),
        ("_/_", Value::Uint(x), Value::Uint(y)) => Ok(Value::Uint(x / y)),
        ("_%_", Value::Uint(x), Value::Uint(y)) => Ok(Value::Uint(x % y)),
        ("_*_", Value::Double(x), Value::Double(y)) => Ok(Value::Double(x * y)),
        ("_/_", Value::Double(x), Value::Double(y)) => Ok(Value::Double(x / y)),
        _ => no_overload(),
    }
}
