//! Kubernetes' times as text: seconds for `Time`, microseconds for `MicroTime`.
//!
//! In: a `jiff::Timestamp` that the caller got from its clock, or text. Out: text, or a timestamp.
//! Never: reads the clock.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// `2026-11-23T10:00:00Z`: metav1.Time, truncated to seconds.
pub fn rfc3339(time: Timestamp) -> String {
    let seconds =
        Timestamp::from_second(time.as_second() - i64::from(time.subsec_nanosecond() < 0)).unwrap_or(time);
    format!("{seconds:.0}")
}

/// `2026-11-23T10:00:00.123456Z`: metav1.MicroTime.
pub fn rfc3339_micro(time: Timestamp) -> String {
    let micros = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
    format!("{micros:.6}")
}

/// metav1.Time or MicroTime from text.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The time in a field, if the field is there and is one.
pub fn parse_value(value: Option<&Value>) -> Option<Timestamp> {
    parse(value?.as_str()?)
}

/// How `kubectl get` shows an age (upstream's `duration.HumanDuration`): 45s, 3m12s, 17m, 5h30m, 2d4h,
/// 400d, 2y1d.
pub fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    if seconds < -1 {
        return "<invalid>".into();
    }
    if seconds < 0 {
        return "0s".into();
    }
    if seconds < 120 {
        return format!("{seconds}s");
    }
    let minutes = seconds / 60;
    if minutes < 10 {
        return with_rest(minutes, "m", seconds % 60, "s");
    }
    if minutes < 180 {
        return format!("{minutes}m");
    }
    let hours = seconds / 3600;
    if hours < 8 {
        return with_rest(hours, "h", minutes % 60, "m");
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    if hours < 192 {
        return with_rest(hours / 24, "d", hours % 24, "h");
    }
    let days = hours / 24;
    if hours < 24 * 365 * 2 {
        return format!("{days}d");
    }
    if hours < 24 * 365 * 8 {
        return with_rest(days / 365, "y", days % 365, "d");
    }
    format!("{}y", days / 365)
}

fn with_rest(n: i64, unit: &str, rest: i64, rest_unit: &str) -> String {
    if rest == 0 { format!("{n}{unit}") } else { format!("{n}{unit}{rest}{rest_unit}") }
}

/// Seconds of a span of time as people write it: `90s`, `15m`, `2h`, `7d`, `1h30m`. None for anything else.
pub fn span_seconds(text: &str) -> Option<i64> {
    let (mut total, mut number, mut any) = (0i64, None::<i64>, false);
    for c in text.chars() {
        match (c.to_digit(10), c) {
            (Some(digit), _) => {
                let so_far = number.unwrap_or(0).checked_mul(10)?;
                number = Some(so_far.checked_add(i64::from(digit))?);
            }
            (None, unit) => {
                let factor = match unit {
                    's' => 1,
                    'm' => 60,
                    'h' => 3600,
                    'd' => 86400,
                    _ => return None,
                };
                total = total.checked_add(number.take()?.checked_mul(factor)?)?;
                any = true;
            }
        }
    }
    (any && number.is_none()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        let time: Timestamp = "2026-11-23T10:00:00.123456789Z".parse().unwrap();
        assert_eq!(rfc3339(time), "2026-11-23T10:00:00Z");
        assert_eq!(rfc3339_micro(time), "2026-11-23T10:00:00.123456Z");
        let whole: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        assert_eq!(rfc3339_micro(whole), "2026-11-23T10:00:00.000000Z");
        assert_eq!(rfc3339(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(parse("2026-11-23T12:00:00+02:00"), Some(whole));
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn ages_read_like_upstream() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (45, "45s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (599, "9m59s"),
            (600, "10m"),
            (3600, "60m"),
            (10799, "179m"),
            (10800, "3h"),
            (10860, "3h1m"),
            (8 * 3600, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (8 * 86400, "8d"),
            (729 * 86400, "729d"),
            (730 * 86400, "2y"),
            (731 * 86400, "2y1d"),
            (3000 * 86400, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn spans_of_time_are_read_as_people_write_them() {
        let cases = [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("1h30m", Some(5400)),
            ("7d", Some(604_800)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("m", None),
            ("-5m", None),
            ("5 m", None),
            ("1w", None),
            ("99999999999999999999d", None),
            ("9999999999999999d", None),
        ];
        for (text, expect) in cases {
            assert_eq!(span_seconds(text), expect, "{text:?}");
        }
    }
}
