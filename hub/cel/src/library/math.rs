//! Numbers: the least and greatest, rounding, bits.
//!
//! In: numbers. Out: numbers, or an error where there is none. Never: wraps around.

use std::cmp::Ordering;

use super::no_overload;
use crate::eval::{Meter, Outcome, error};
use crate::value::Value;

pub fn call(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    let name = function.strip_prefix("math.")?;
    Some(
        meter
            .charge(1 + values.len() as u64)
            .and_then(|()| match name {
                "greatest" => best(values, Ordering::Greater),
                "least" => best(values, Ordering::Less),
                _ => one(name, values),
            }),
    )
}

fn best(values: &[Value], wanted: Ordering) -> Outcome {
    let all: &[Value] = match values {
        [Value::List(items, _)] => items,
        values => values,
    };
    let mut best: Option<&Value> = None;
    for value in all {
        match best.map(|best| value.order(best)) {
            None => best = Some(value),
            Some(Some(order)) if order == wanted => best = Some(value),
            Some(Some(_)) => {}
            Some(None) => return no_overload(),
        }
    }
    best.cloned()
        .map_or_else(|| error("math.@min(list) argument must not be empty"), Ok)
}

fn one(name: &str, values: &[Value]) -> Outcome {
    let shift = |by: i64| {
        u32::try_from(by).map_err(|_| {
            crate::eval::Failure::Error(format!("math.bitShift() negative offset: {by}"))
        })
    };
    Ok(match (name, values) {
        ("ceil", [Value::Double(n)]) => Value::Double(n.ceil()),
        ("floor", [Value::Double(n)]) => Value::Double(n.floor()),
        ("round", [Value::Double(n)]) => Value::Double(n.round()),
        ("trunc", [Value::Double(n)]) => Value::Double(n.trunc()),
        ("sqrt", [Value::Double(n)]) => Value::Double(n.sqrt()),
        ("sqrt", [Value::Int(n)]) => Value::Double((*n as f64).sqrt()),
        ("abs", [Value::Double(n)]) => Value::Double(n.abs()),
        ("abs", [Value::Uint(n)]) => Value::Uint(*n),
        ("abs", [Value::Int(n)]) => match n.checked_abs() {
            Some(n) => Value::Int(n),
            None => return error("integer overflow"),
        },
        ("sign", [Value::Int(n)]) => Value::Int(n.signum()),
        ("sign", [Value::Uint(n)]) => Value::Uint((*n).min(1)),
        ("sign", [Value::Double(n)]) => Value::Double(if *n == 0.0 || n.is_nan() {
            *n
        } else {
            n.signum()
        }),
        ("isNaN", [Value::Double(n)]) => Value::Bool(n.is_nan()),
        ("isInf", [Value::Double(n)]) => Value::Bool(n.is_infinite()),
        ("isFinite", [Value::Double(n)]) => Value::Bool(n.is_finite()),
        ("bitAnd", [Value::Int(a), Value::Int(b)]) => Value::Int(a & b),
        ("bitOr", [Value::Int(a), Value::Int(b)]) => Value::Int(a | b),
        ("bitXor", [Value::Int(a), Value::Int(b)]) => Value::Int(a ^ b),
        ("bitNot", [Value::Int(a)]) => Value::Int(!a),
        ("bitShiftLeft", [Value::Int(a), Value::Int(by)]) => {
            Value::Int(a.checked_shl(shift(*by)?).unwrap_or(0))
        }
        ("bitShiftRight", [Value::Int(a), Value::Int(by)]) => {
            Value::Int((*a as u64).checked_shr(shift(*by)?).unwrap_or(0) as i64)
        }
        _ => return no_overload(),
    })
}
