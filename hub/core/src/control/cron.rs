//! Cron schedules in Kubernetes' dialect: five fields or `@hourly` and the like, in a time zone.
//!
//! In: the text of a schedule. Out: the times at which it is due.
//! Semantics: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#schedule-syntax; days of month and
//! of week are alternatives when both are restricted. Times that a clock change skips are not due.
//! Never: searches for more than five years.

use crate::Timestamp;
use jiff::{SignedDuration, civil, tz::TimeZone};

/// A parsed schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Fields { minute: u64, hour: u64, day: u64, month: u64, weekday: u64, any_day: bool, any_weekday: bool },
    Every(SignedDuration),
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Steps of the search for the next time; five years have fewer days, hours and minutes to look at.
const STEPS_MAX: usize = 20_000;

impl Schedule {
    pub fn parse(text: &str) -> Option<Schedule> {
        let text = text.trim();
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => text,
        };
        if let Some(duration) = fields.strip_prefix("@every ") {
            let every = go_duration(duration.trim())?;
            return (every.as_secs() >= 1).then_some(Schedule::Every(every));
        }
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts.as_slice() else { return None };
        let star = |f: &str| f.split(',').any(|p| p.starts_with(['*', '?']));
        Some(Schedule::Fields {
            minute: field(minute, 0, 59, &[])?,
            hour: field(hour, 0, 23, &[])?,
            day: field(day, 1, 31, &[])?,
            month: field(month, 1, 12, &MONTHS)?,
            weekday: field(weekday, 0, 6, &DAYS)?,
            any_day: star(day),
            any_weekday: star(weekday),
        })
    }

    /// The first time after `after` that is due.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let Schedule::Fields { minute, hour, month, .. } = self else {
            let Schedule::Every(every) = self else { return None };
            return Timestamp::from_second(after.as_second()).ok()?.checked_add(*every).ok();
        };
        let mut t = Timestamp::from_second((after.as_second().div_euclid(60) + 1) * 60).ok()?;
        for _ in 0..STEPS_MAX {
            let z = t.to_zoned(zone.clone());
            let date = z.date();
            if month >> date.month() & 1 == 0 {
                t = midnight(date.first_of_month().checked_add(jiff::Span::new().months(1)).ok()?, zone)?;
            } else if !self.day_matches(date) {
                t = midnight(date.tomorrow().ok()?, zone)?;
            } else if hour >> z.hour() & 1 == 0 {
                t = t.checked_add(SignedDuration::from_mins(60 - i64::from(z.minute()))).ok()?;
            } else if minute >> z.minute() & 1 == 0 {
                t = t.checked_add(SignedDuration::from_mins(1)).ok()?;
            } else {
                return Some(t);
            }
        }
        None
    }

    fn day_matches(&self, date: civil::Date) -> bool {
        let Schedule::Fields { day, weekday, any_day, any_weekday, .. } = self else { return true };
        let in_month = day >> date.day() & 1 == 1;
        let in_week = weekday >> date.weekday().to_sunday_zero_offset() & 1 == 1;
        if *any_day || *any_weekday { in_month && in_week } else { in_month || in_week }
    }
}

fn midnight(date: civil::Date, zone: &TimeZone) -> Option<Timestamp> {
    date.to_zoned(zone.clone()).ok().map(|z| z.timestamp())
}

/// One field as a bit set.
fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Option<u64> {
    text.split(',').try_fold(0, |bits, part| Some(bits | range(part, low, high, names)?))
}

fn range(text: &str, low: u32, high: u32, names: &[&str]) -> Option<u64> {
    let (span, step) = match text.split_once('/') {
        Some((span, step)) => (span, Some(step.parse::<u32>().ok().filter(|s| *s > 0)?)),
        None => (text, None),
    };
    let value = |v: &str| -> Option<u32> {
        let at = names.iter().position(|n| n.eq_ignore_ascii_case(v));
        at.map_or_else(|| v.parse().ok(), |i| Some(i as u32 + low))
    };
    let (from, to) = match span.split_once('-') {
        _ if span == "*" || span == "?" => (low, high),
        Some((from, to)) => (value(from)?, value(to)?),
        None => (value(span)?, if step.is_some() { high } else { value(span)? }),
    };
    if from < low || to > high || from > to {
        return None;
    }
    Some((from..=to).step_by(step.unwrap_or(1) as usize).fold(0, |bits, i| bits | 1 << i))
}

/// `1h30m10s` in whole seconds.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let mut seconds: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..end].parse().ok()?;
        let (unit, left) = rest[end..].split_at(1);
        let factor = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(factor)?)?;
        rest = left;
    }
    Some(SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, zone: &str, after: &str, n: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule).unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let mut t: Timestamp = after.parse().unwrap();
        let mut step = || {
            t = schedule.next(t, &zone).unwrap();
            t.to_string()
        };
        (0..n).map(|_| step()).collect()
    }

    #[test]
    fn finds_the_next_times() {
        let cases = [
            ("*/15 * * * *", "2026-11-23T10:07:30Z", "2026-11-23T10:15:00Z"),
            ("0 0 1 1 *", "2026-11-23T10:07:30Z", "2027-01-01T00:00:00Z"),
            ("@weekly", "2026-11-23T10:07:30Z", "2026-11-29T00:00:00Z"),
            ("30 4 29 feb *", "2026-11-23T10:07:30Z", "2028-02-29T04:30:00Z"),
            ("0 9 * * mon-fri", "2026-11-27T10:00:00Z", "2026-11-30T09:00:00Z"),
            ("0 0 13 * 5", "2026-11-23T00:00:00Z", "2026-11-27T00:00:00Z"),
            ("5/20 * * * *", "2026-11-23T10:05:00Z", "2026-11-23T10:25:00Z"),
            ("@every 1h30m", "2026-11-23T10:00:00Z", "2026-11-23T11:30:00Z"),
        ];
        for (schedule, after, expect) in cases {
            assert_eq!(next(schedule, "UTC", after, 1), [expect], "{schedule}");
        }
    }

    #[test]
    fn follows_the_zone_and_its_clock_changes() {
        assert_eq!(next("0 2 * * *", "Europe/Berlin", "2026-11-23T10:00:00Z", 1), ["2026-11-24T01:00:00Z"]);
        // 02:30 does not exist on 29 March 2026 in Berlin.
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 1), ["2026-03-30T00:30:00Z"]);
        assert_eq!(
            next("0 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]
        );
    }

    #[test]
    fn refuses_what_is_no_schedule() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "@every 0s",
            "@never",
        ] {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
        assert_eq!(Schedule::parse("0 0 31 2 *").unwrap().next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}
