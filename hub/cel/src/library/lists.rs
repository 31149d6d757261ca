//! Lists and maps: sizes, sums, order, positions.
//!
//! In: lists of any length. Out: values; every element that is looked at is charged.
//! Never: a list longer than `ITEMS_MAX`.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{no_overload, operators, some};
use crate::eval::{Meter, Outcome, error};
use crate::value::Value;

const ITEMS_MAX: i64 = 100_000;
const DEPTH_MAX: i64 = 32;

pub fn call(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    let outcome = match (function, values) {
        ("size", [Value::Bytes(bytes)]) => meter.charge(1).map(|()| Value::Int(bytes.len() as i64)),
        ("size", [Value::List(..) | Value::Map(_)]) => meter
            .charge(1)
            .map(|()| Value::Int(values[0].size() as i64)),
        ("lists.range", [Value::Int(count)]) if (0..=ITEMS_MAX).contains(count) => meter
            .charge(*count as u64)
            .map(|()| Value::list((0..*count).map(Value::Int).collect())),
        ("lists.range", [Value::Int(_)]) => error("lists.range: the number is out of range"),
        (function, [Value::List(items, _), args @ ..]) => {
            const OWN: [&str; 13] = [
                "isSorted",
                "sum",
                "min",
                "max",
                "indexOf",
                "lastIndexOf",
                "slice",
                "flatten",
                "distinct",
                "reverse",
                "sort",
                "first",
                "last",
            ];
            if !OWN.contains(&function) {
                return None;
            }
            meter
                .charge(items.len() as u64 + 1)
                .and_then(|()| of_list(function, items, args, meter))
        }
        _ => return None,
    };
    Some(outcome)
}

fn of_list(function: &str, items: &Arc<Vec<Value>>, args: &[Value], meter: &mut Meter) -> Outcome {
    match (function, args) {
        ("isSorted", []) => {
            for pair in items.windows(2) {
                match pair[0].order(&pair[1]) {
                    Some(Ordering::Greater) => return Ok(Value::Bool(false)),
                    Some(_) => {}
                    None => return no_overload(),
                }
            }
            Ok(Value::Bool(true))
        }
        ("sum", []) => {
            let mut numbers = items.iter();
            // The sum of nothing is a zero, which equals the zeros of all numbers.
            let Some(mut sum) = numbers.next().cloned() else {
                return Ok(Value::Int(0));
            };
            for number in numbers {
                let both = [sum, number.clone()];
                sum = operators::call("_+_", &both, meter).unwrap_or_else(no_overload)?;
            }
            Ok(sum)
        }
        ("min" | "max", []) => {
            let wanted = if function == "min" {
                Ordering::Less
            } else {
                Ordering::Greater
            };
            let mut best: Option<&Value> = None;
            for item in items.iter() {
                match best.map(|best| item.order(best)) {
                    None => best = Some(item),
                    Some(Some(order)) if order == wanted => best = Some(item),
                    Some(Some(_)) => {}
                    Some(None) => return no_overload(),
                }
            }
            best.cloned()
                .map_or_else(|| error(format!("{function} called on empty list")), Ok)
        }
        ("indexOf" | "lastIndexOf", [wanted]) => {
            let mut found = -1;
            for (at, item) in items.iter().enumerate() {
                if operators::equal(item, wanted, meter)? {
                    found = at as i64;
                    if function == "indexOf" {
                        break;
                    }
                }
            }
            Ok(Value::Int(found))
        }
        ("slice", [Value::Int(from), Value::Int(to)]) => {
            let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
            match range.and_then(|(from, to)| items.get(from..to)) {
                Some(part) => Ok(Value::list(part.to_vec())),
                None => error(format!(
                    "cannot slice({from}, {to}), list is of length {}",
                    items.len()
                )),
            }
        }
        ("flatten", []) => flatten(items, 1, meter),
        ("flatten", [Value::Int(depth)]) if *depth >= 0 => {
            flatten(items, (*depth).min(DEPTH_MAX), meter)
        }
        ("flatten", [Value::Int(_)]) => error("level must be non-negative"),
        ("distinct", []) => {
            let mut kept: Vec<Value> = Vec::new();
            for item in items.iter() {
                meter.charge(kept.len() as u64)?;
                if !kept.contains(item) {
                    kept.push(item.clone());
                }
            }
            Ok(Value::list(kept))
        }
        ("reverse", []) => Ok(Value::list(items.iter().rev().cloned().collect())),
        ("sort", []) => {
            if items
                .windows(2)
                .any(|pair| pair[0].order(&pair[1]).is_none())
            {
                return no_overload();
            }
            let mut sorted = items.to_vec();
            sorted.sort_by(|a, b| a.order(b).unwrap_or(Ordering::Equal));
            Ok(Value::list(sorted))
        }
        ("first", []) => Ok(items.first().cloned().map_or(Value::Optional(None), some)),
        ("last", []) => Ok(items.last().cloned().map_or(Value::Optional(None), some)),
        _ => no_overload(),
    }
}

fn flatten(items: &[Value], depth: i64, meter: &mut Meter) -> Outcome {
    let mut flat = Vec::new();
    spread(items, depth, &mut flat, meter)?;
    Ok(Value::list(flat))
}

fn spread(
    items: &[Value],
    depth: i64,
    flat: &mut Vec<Value>,
    meter: &mut Meter,
) -> Result<(), crate::eval::Failure> {
    for item in items {
        meter.charge(1)?;
        match item {
            Value::List(inner, _) if depth > 0 => spread(inner, depth - 1, flat, meter)?,
            other => flat.push(other.clone()),
        }
    }
    Ok(())
}
