//! Quantities: `1.5Gi`, `100m`.
//!
//! In: text. Out: exact numbers down to a billionth. Source: the Kubernetes API reference, "Quantity".
//! Never: rounds but up from below a billionth, as upstream does.

use std::fmt;

use crate::eval::{Meter, Outcome, error};
use crate::value::Value;

const NANO: i128 = 1_000_000_000;

/// In billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

impl Quantity {
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, body) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = body
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(body.len());
        let (number, suffix) = body.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || part.contains('.') || number.len() > 40 {
            return None;
        }
        let (scale, ten) = scale(suffix)?;
        let digits: i128 = format!("{whole}{part}")
            .trim_start_matches('0')
            .parse()
            .or_else(|_| {
                if number.bytes().all(|b| b == b'0' || b == b'.') {
                    Ok(0)
                } else {
                    Err(())
                }
            })
            .ok()?;
        // digits * scale * 10^ten / 10^len(part), in billionths
        let power = i32::try_from(part.len()).ok()?;
        let shift = 9 + ten - power;
        let base = digits.checked_mul(scale)?;
        let value = if shift >= 0 {
            base.checked_mul(10_i128.checked_pow(shift as u32)?)?
        } else {
            match 10_i128.checked_pow(shift.unsigned_abs()) {
                Some(divisor) => {
                    base.div_euclid(divisor) + i128::from(base.rem_euclid(divisor) != 0)
                }
                None => i128::from(base != 0),
            }
        };
        Some(Self(if negative { -value } else { value }))
    }

    pub fn as_integer(&self) -> Option<i64> {
        (self.0 % NANO == 0)
            .then(|| i64::try_from(self.0 / NANO).ok())
            .flatten()
    }
}

/// A binary factor, and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [(&str, i32); 10] = [
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("", 0),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    if let Some(at) = BINARY.iter().position(|own| *own == suffix) {
        return Some((1_i128 << (10 * (at + 1)), 0));
    }
    if let Some((_, ten)) = DECIMAL.iter().find(|(own, _)| *own == suffix) {
        return Some((1, *ten));
    }
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-18..=18).contains(&power).then_some((1, power))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(NANO, ""), (NANO / 1_000, "m"), (1_000, "u"), (1, "n")];
        let unit = units
            .iter()
            .find(|(unit, _)| self.0 % unit == 0)
            .unwrap_or(&(1, "n"));
        write!(f, "{}{}", self.0 / unit.0, unit.1)
    }
}

pub fn call(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    let outcome = match (function, values) {
        ("quantity", [Value::String(text)]) => match Quantity::parse(text) {
            Some(quantity) => Ok(Value::Quantity(quantity)),
            None => error(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        },
        ("isQuantity", [Value::String(text)]) => Ok(Value::Bool(Quantity::parse(text).is_some())),
        (function, [Value::Quantity(own), rest @ ..]) => method(function, *own, rest)?,
        _ => return None,
    };
    Some(
        meter
            .walk(values.first().map_or(1, Value::size).max(1))
            .and(outcome),
    )
}

fn method(function: &str, own: Quantity, rest: &[Value]) -> Option<Outcome> {
    let other = match rest {
        [] => Quantity(0),
        [Value::Quantity(other)] => *other,
        [Value::Int(other)] => Quantity(i128::from(*other) * NANO),
        _ => return None,
    };
    let made = |value: Option<i128>| {
        value.map_or_else(
            || error("quantity overflow"),
            |value| Ok(Value::Quantity(Quantity(value))),
        )
    };
    Some(match (function, rest.len()) {
        ("sign", 0) => Ok(Value::Int(own.0.signum() as i64)),
        ("isInteger", 0) => Ok(Value::Bool(own.as_integer().is_some())),
        ("asInteger", 0) => own.as_integer().map_or_else(
            || error("cannot convert value to integer"),
            |n| Ok(Value::Int(n)),
        ),
        ("asApproximateFloat", 0) => Ok(Value::Double(own.0 as f64 / NANO as f64)),
        ("add", 1) => made(own.0.checked_add(other.0)),
        ("sub", 1) => made(own.0.checked_sub(other.0)),
        ("isGreaterThan", 1) => Ok(Value::Bool(own > other)),
        ("isLessThan", 1) => Ok(Value::Bool(own < other)),
        ("compareTo", 1) => Ok(Value::Int(own.cmp(&other) as i64)),
        _ => return None,
    })
}
