//! Timestamps and durations: their parts, in any time zone that the machine knows.
//!
//! In: times, and names or offsets of zones. Out: numbers. Never: reads the clock.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::no_overload;
use crate::eval::{Meter, Outcome, error};
use crate::value::Value;

pub fn call(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    if !function.starts_with("get") {
        return None;
    }
    let outcome = match values {
        [Value::Timestamp(time)] => part(function, *time, &TimeZone::UTC),
        [Value::Timestamp(time), Value::String(zone)] => match zone_of(zone) {
            Some(zone) => part(function, *time, &zone),
            None => error(format!("unknown time zone {zone}")),
        },
        [Value::Duration(nanos)] => match function {
            "getHours" => Ok(Value::Int(nanos / 3_600_000_000_000)),
            "getMinutes" => Ok(Value::Int(nanos / 60_000_000_000)),
            "getSeconds" => Ok(Value::Int(nanos / 1_000_000_000)),
            "getMilliseconds" => Ok(Value::Int(nanos / 1_000_000)),
            _ => no_overload(),
        },
        _ => return None,
    };
    Some(meter.charge(1).and(outcome))
}

fn part(function: &str, time: Timestamp, zone: &TimeZone) -> Outcome {
    let local = time.to_zoned(zone.clone());
    Ok(Value::Int(match function {
        "getFullYear" => i64::from(local.year()),
        // Months, and days of the year and of the month, count from zero.
        "getMonth" => i64::from(local.month()) - 1,
        "getDayOfYear" => i64::from(local.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(local.day()) - 1,
        "getDate" => i64::from(local.day()),
        "getDayOfWeek" => i64::from(local.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(local.hour()),
        "getMinutes" => i64::from(local.minute()),
        "getSeconds" => i64::from(local.second()),
        "getMilliseconds" => i64::from(local.millisecond()),
        _ => return no_overload(),
    }))
}

/// `Europe/Berlin`, `-02:30`, `UTC`.
fn zone_of(text: &str) -> Option<TimeZone> {
    if text.is_empty() || text == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (sign, body) = match text.split_at_checked(1)? {
        ("-", body) => (-1, body),
        ("+", body) => (1, body),
        _ => (1, text),
    };
    if let Some((hours, minutes)) = body.split_once(':') {
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let offset = jiff::tz::Offset::from_seconds(
            sign * (hours.checked_mul(3600)? + minutes.checked_mul(60)?),
        )
        .ok()?;
        return Some(TimeZone::fixed(offset));
    }
    TimeZone::get(text).ok()
}

pub(super) fn shift(time: Timestamp, nanos: i64) -> Outcome {
    match time.checked_add(SignedDuration::from_nanos(nanos)) {
        Ok(time) => Ok(Value::Timestamp(time)),
        Err(_) => error("timestamp overflow"),
    }
}
