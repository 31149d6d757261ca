//! Conversions between types.
//!
//! In: a value. Out: the same as another type, or an error when it does not fit. Never: wraps around.

use super::{Quantity, no_overload};
use crate::duration;
use crate::eval::{Meter, Outcome, error};
use crate::value::Value;

pub fn call(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    let [value] = values else { return None };
    let outcome = match function {
        "dyn" => Ok(value.clone()),
        "type" => Ok(Value::Type(value.type_name().into())),
        "bool" => bool(value),
        "int" => int(value),
        "uint" => uint(value),
        "double" => double(value),
        "string" => string(value),
        "bytes" => match value {
            Value::String(text) => Ok(Value::Bytes(text.as_bytes().into())),
            Value::Bytes(_) => Ok(value.clone()),
            _ => no_overload(),
        },
        "duration" => match value {
            Value::Duration(_) => Ok(value.clone()),
            Value::Int(nanos) => Ok(Value::Duration(*nanos)),
            Value::String(text) => duration::parse(text).map_or_else(
                || error(format!("time: invalid duration {text:?}")),
                |nanos| Ok(Value::Duration(nanos)),
            ),
            _ => no_overload(),
        },
        "timestamp" => match value {
            Value::Timestamp(_) => Ok(value.clone()),
            Value::Int(seconds) => jiff::Timestamp::from_second(*seconds).map_or_else(
                |_| error("timestamp overflow"),
                |time| Ok(Value::Timestamp(time)),
            ),
            Value::String(text) => text.parse().map_or_else(
                |_| error(format!("parsing time {text:?}: cannot parse")),
                |time| Ok(Value::Timestamp(time)),
            ),
            _ => no_overload(),
        },
        _ => return None,
    };
    Some(meter.walk(value.size().max(1)).and(outcome))
}

fn bool(value: &Value) -> Outcome {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => error(format!(
                "type conversion error from 'string' to 'bool': {text:?}"
            )),
        },
        _ => no_overload(),
    }
}

fn int(value: &Value) -> Outcome {
    let fits = |number: Option<i64>| {
        number.map_or_else(
            || error("integer overflow"),
            |number| Ok(Value::Int(number)),
        )
    };
    match value {
        Value::Int(_) => Ok(value.clone()),
        Value::Uint(number) => fits(i64::try_from(*number).ok()),
        Value::Double(number) => {
            fits((number.abs() < 9.223_372_036_854_775e18).then_some(*number as i64))
        }
        Value::String(text) => text.parse().map_or_else(
            |_| {
                error(format!(
                    "type conversion error from 'string' to 'int': {text:?}"
                ))
            },
            |number| Ok(Value::Int(number)),
        ),
        Value::Timestamp(time) => Ok(Value::Int(time.as_second())),
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        Value::Quantity(quantity) => fits(Quantity::as_integer(quantity)),
        _ => no_overload(),
    }
}

fn uint(value: &Value) -> Outcome {
    let fits = |number: Option<u64>| {
        number.map_or_else(
            || error("unsigned integer overflow"),
            |number| Ok(Value::Uint(number)),
        )
    };
    match value {
        Value::Uint(_) => Ok(value.clone()),
        Value::Int(number) => fits(u64::try_from(*number).ok()),
        Value::Double(number) => {
            fits((*number >= 0.0 && *number < 1.844_674_407_370_955e19).then_some(*number as u64))
        }
        Value::String(text) => text.parse().map_or_else(
            |_| {
                error(format!(
                    "type conversion error from 'string' to 'uint': {text:?}"
                ))
            },
            |number| Ok(Value::Uint(number)),
        ),
        _ => no_overload(),
    }
}

fn double(value: &Value) -> Outcome {
    match value {
        Value::Double(_) => Ok(value.clone()),
        Value::Int(number) => Ok(Value::Double(*number as f64)),
        Value::Uint(number) => Ok(Value::Double(*number as f64)),
        Value::String(text) => text.parse().map_or_else(
            |_| {
                error(format!(
                    "type conversion error from 'string' to 'double': {text:?}"
                ))
            },
            |number| Ok(Value::Double(number)),
        ),
        _ => no_overload(),
    }
}

fn string(value: &Value) -> Outcome {
    Ok(Value::text(match value {
        Value::String(_) => return Ok(value.clone()),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => shown_double(*number),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return error("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Value::Timestamp(time) => time.to_string(),
        // Protobuf's form: seconds.
        Value::Duration(nanos) => seconds(*nanos),
        Value::Ip(address) => address.to_string(),
        Value::Cidr(cidr) => cidr.to_string(),
        Value::Quantity(quantity) => quantity.to_string(),
        Value::Semver(version) => version.to_string(),
        _ => return no_overload(),
    }))
}

fn seconds(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let part = format!("{:09}", nanos % 1_000_000_000);
    match part.trim_end_matches('0') {
        "" => format!("{sign}{}s", nanos / 1_000_000_000),
        part => format!("{sign}{}.{part}s", nanos / 1_000_000_000),
    }
}

/// As Go's `strconv` prints the shortest form.
pub(super) fn shown_double(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 {
            "+Inf".to_owned()
        } else {
            "-Inf".to_owned()
        }
    } else if number != 0.0 && !(1e-4..1e21).contains(&number.abs()) {
        let text = format!("{number:e}");
        match text.split_once('e') {
            Some((digits, power)) => {
                let (sign, power) = power
                    .strip_prefix('-')
                    .map_or(('+', power), |power| ('-', power));
                format!("{digits}e{sign}{power:0>2}")
            }
            None => text,
        }
    } else {
        number.to_string()
    }
}
