//! Parts of the day in which steps may begin.
//!
//! In: windows in local time, the time. Out: open until when, or when the next one opens.
//! Never: an hour that daylight saving skips or doubles: it is the wall's clock that counts.

use crate::{Timestamp, view::Window};
use jiff::{ToSpan, civil, tz::TimeZone};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Days to look ahead: a week and the one on which a window may have begun.
const LOOK_AHEAD: i64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// No window restricts, or one is open until then.
    Yes(Option<Timestamp>),
    /// `None`: never (no window can be read).
    No(Option<Timestamp>),
}

pub fn look(windows: &[Window], now: Timestamp) -> Open {
    if windows.is_empty() {
        return Open::Yes(None);
    }
    let mut next: Option<Timestamp> = None;
    for (start, end) in windows.iter().flat_map(|w| spans(w, now)) {
        if start <= now && now < end {
            return Open::Yes(Some(end));
        }
        if start > now {
            next = Some(next.map_or(start, |t| t.min(start)));
        }
    }
    Open::No(next)
}

/// Beginnings and ends from yesterday to a week from now.
fn spans(window: &Window, now: Timestamp) -> Vec<(Timestamp, Timestamp)> {
    let zone = match &*window.time_zone {
        "" => TimeZone::UTC,
        name => match TimeZone::get(name) {
            Ok(zone) => zone,
            Err(_) => return Vec::new(),
        },
    };
    let (Some(start), Some(end)) = (time(&window.start), time(&window.end)) else { return Vec::new() };
    let today = now.to_zoned(zone.clone()).date();
    let at = |date: civil::Date, time: civil::Time| {
        date.to_datetime(time).to_zoned(zone.clone()).ok().map(|z| z.timestamp())
    };
    let day = |offset: i64| -> Option<(Timestamp, Timestamp)> {
        let date = today.checked_add(offset.days()).ok()?;
        let name = DAYS[date.weekday().to_monday_zero_offset() as usize];
        if !window.days.is_empty() && !window.days.iter().any(|d| **d == *name) {
            return None;
        }
        let last = if end > start { date } else { date.tomorrow().ok()? };
        Some((at(date, start)?, at(last, end)?))
    };
    (-1..LOOK_AHEAD).filter_map(day).collect()
}

fn time(text: &str) -> Option<civil::Time> {
    let (hours, minutes) = text.split_once(':')?;
    civil::Time::new(hours.parse().ok()?, minutes.parse().ok()?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_open_and_close_by_local_time() {
        let window = |start: &str, end: &str, days: &[&str], zone: &str| Window {
            start: start.into(),
            end: end.into(),
            days: days.iter().map(|d| (*d).into()).collect(),
            time_zone: zone.into(),
        };
        let at = |t: &str| -> Timestamp { t.parse().unwrap() };
        let night = [window("22:00", "05:00", &[], "Europe/Berlin")];
        let cases = [
            // Winter: Berlin is an hour ahead.
            (&night[..], "2026-11-25T20:59:00Z", Open::No(Some(at("2026-11-25T21:00:00Z")))),
            (&night[..], "2026-11-25T23:00:00Z", Open::Yes(Some(at("2026-11-26T04:00:00Z")))),
            (&night[..], "2026-11-26T03:59:59Z", Open::Yes(Some(at("2026-11-26T04:00:00Z")))),
            // Summer: two hours.
            (&night[..], "2026-07-01T19:59:00Z", Open::No(Some(at("2026-07-01T20:00:00Z")))),
            // A Wednesday; the window of Saturday ends on Sunday.
            (&[window("23:00", "01:00", &["Sat"], "")], "2026-11-25T12:00:00Z", Open::No(Some(at("2026-11-28T23:00:00Z")))),
            (&[window("23:00", "01:00", &["Sat"], "")], "2026-11-29T00:30:00Z", Open::Yes(Some(at("2026-11-29T01:00:00Z")))),
            (&[window("01:00", "02:00", &[], "Mars/Base")], "2026-11-25T12:00:00Z", Open::No(None)),
            (&[], "2026-11-25T12:00:00Z", Open::Yes(None)),
        ];
        for (windows, now, expect) in cases {
            assert_eq!(look(windows, at(now)), expect, "{windows:?} at {now}");
        }
    }
}
