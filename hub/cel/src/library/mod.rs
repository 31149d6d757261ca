//! What functions do.
//!
//! In: a function's name and values (the receiver first). Out: a value or an error, its cost charged.
//! Source: the CEL language definition, and the Kubernetes page "Common Expression Language in Kubernetes".
//! Never: types (the checker has seen to them; values of unknown type are looked at here).

mod convert;
mod formats;
mod lists;
mod math;
mod net;
mod operators;
mod quantity;
mod semver;
mod strings;
mod times;

pub use net::{Cidr, Url};
pub use quantity::Quantity;
pub use semver::Semver;

use super::eval::{Meter, Outcome, error};
use super::value::Value;
use std::sync::Arc;

pub(super) fn no_overload() -> Outcome {
    error("no such overload")
}

pub(super) fn some(value: Value) -> Value {
    Value::Optional(Some(Arc::new(value)))
}

/// Calls a function. `method`: the first value is the receiver.
pub fn call(function: &str, method: bool, values: &[Value], meter: &mut Meter) -> Outcome {
    if let [Value::Host(host), args @ ..] = values
        && method
    {
        meter.charge(if function == "check" { 350_000 } else { 1 })?;
        return host.call(function, args).or_else(error);
    }
    let rooms = [
        operators::call,
        strings::call,
        lists::call,
        convert::call,
        times::call,
        net::call,
        quantity::call,
        semver::call,
        formats::call,
        math::call,
        optionals,
    ];
    for room in rooms {
        if let Some(outcome) = room(function, values, meter) {
            return outcome;
        }
    }
    no_overload()
}

fn optionals(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    let outcome = match (function, values) {
        ("optional.of", [value]) => Ok(some(value.clone())),
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.ofNonZeroValue", [value]) if value.is_zero() => Ok(Value::Optional(None)),
        ("optional.ofNonZeroValue", [value]) => Ok(some(value.clone())),
        ("hasValue", [Value::Optional(inner)]) => Ok(Value::Bool(inner.is_some())),
        ("value", [Value::Optional(Some(inner))]) => Ok((**inner).clone()),
        ("value", [Value::Optional(None)]) => error("optional.none() dereference"),
        ("unwrapOpt" | "optional.unwrap", [Value::List(items, _)]) => {
            let inner = |item: &Value| match item {
                Value::Optional(inner) => inner.as_deref().cloned(),
                other => Some(other.clone()),
            };
            Ok(Value::list(items.iter().filter_map(inner).collect()))
        }
        ("jsonpatch.escapeKey", [Value::String(key)]) => {
            Ok(Value::text(key.replace('~', "~0").replace('/', "~1")))
        }
        _ => return None,
    };
    Some(meter.charge(1).and(outcome))
}
