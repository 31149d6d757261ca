//! When a CronJob that is bound to a node is due, in a form that a board can follow without a time zone database, and the
//! identity of each of its runs, which hub and board derive alike.
//!
//! In: bit sets of local time, the offsets of that local time, a moment. Out: times; uid and name of a run's pod.
//! Never: a time that a clock change skips.

use alloc::{format, string::String, vec::Vec};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const DAY_S: i64 = 86_400;
/// How far ahead a time is looked for.
const DAYS_MAX: i64 = 5 * 366;
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Local time is this many seconds ahead of UTC from `from_s` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    pub from_s: i64,
    pub ahead_s: i32,
}

/// The five fields of a cron line as bit sets; `any_*`: the field begins with a star.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    pub minute: u64,
    pub hour: u64,
    pub day: u64,
    pub month: u64,
    pub weekday: u64,
    pub any_day: bool,
    pub any_weekday: bool,
    /// In order; the first also counts for all time before it. Empty: UTC.
    pub offsets: Vec<Offset>,
}

impl Schedule {
    fn ahead(&self, at_s: i64) -> i64 {
        let at = self.offsets.partition_point(|o| o.from_s <= at_s).saturating_sub(1);
        self.offsets.get(at).map_or(0, |o| i64::from(o.ahead_s))
    }

    fn day_matches(&self, local_day: i64) -> bool {
        let (month, day) = month_and_day(local_day);
        // 1970-01-01 was a Thursday.
        let weekday = (local_day + 4).rem_euclid(7);
        let in_month = self.day >> day & 1 == 1;
        let in_week = self.weekday >> weekday & 1 == 1;
        let either = if self.any_day || self.any_weekday { in_month && in_week } else { in_month || in_week };
        self.month >> month & 1 == 1 && either
    }

    fn is_due(&self, at_s: i64) -> bool {
        let local = at_s + self.ahead(at_s);
        let second = local.rem_euclid(DAY_S);
        self.minute >> (second / 60 % 60) & 1 == 1
            && self.hour >> (second / 3600) & 1 == 1
            && self.day_matches(local.div_euclid(DAY_S))
    }

    /// The first due time after `after_s`, both in seconds since 1970.
    pub fn next(&self, after_s: i64) -> Option<i64> {
        let mut at = (after_s.div_euclid(60) + 1) * 60;
        let end = at + DAYS_MAX * DAY_S;
        while at < end {
            let local = at + self.ahead(at);
            if !self.day_matches(local.div_euclid(DAY_S)) {
                // To the next local midnight; an hour early at most, should a clock change be between.
                at += (DAY_S - local.rem_euclid(DAY_S)).clamp(60, DAY_S - 3600);
                at -= at.rem_euclid(60);
            } else if self.is_due(at) {
                return Some(at);
            } else {
                at += 60;
            }
        }
        None
    }

    /// The last due time after `after_s` and not after `until_s`.
    pub fn last(&self, after_s: i64, until_s: i64) -> Option<i64> {
        let mut at = until_s.div_euclid(60) * 60;
        while at > after_s {
            let local = at + self.ahead(at);
            if !self.day_matches(local.div_euclid(DAY_S)) {
                at -= (local.rem_euclid(DAY_S) + 60).clamp(60, DAY_S - 3600);
                at -= at.rem_euclid(60);
            } else if self.is_due(at) {
                return Some(at);
            } else {
                at -= 60;
            }
        }
        None
    }
}

/// (month 1-12, day 1-31) of a day since 1970-01-01.
fn month_and_day(days: i64) -> (i64, i64) {
    // Days since 0000-03-01, in eras of 400 years.
    let z = days + 719_468;
    let day_of_era = z.rem_euclid(146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let m = (5 * day_of_year + 2) / 153;
    (if m < 10 { m + 3 } else { m - 9 }, day_of_year - (153 * m + 2) / 5 + 1)
}

/// One run of a CronJob: the same on the hub and on the board, because both know what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub job: String,
    pub pod: String,
    pub pod_uid: String,
}

impl Run {
    pub fn of(cron_uid: &str, cron_name: &str, due_s: i64) -> Run {
        let mut h = Sha256::new();
        h.update(b"limpet run");
        h.update(due_s.to_le_bytes());
        h.update(cron_uid.as_bytes());
        let b: [u8; 32] = h.finalize().into();
        let hex: String = b[..16].iter().map(|x| format!("{x:02x}")).collect();
        // RFC 9562, version 8: the bits are ours to choose.
        let variant = char::from(b"89ab"[usize::from(b[8] & 3)]);
        let pod_uid = format!(
            "{}-{}-8{}-{variant}{}-{}",
            &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]
        );
        let suffix: String = b[16..21].iter().map(|x| char::from(ALPHABET[usize::from(*x) % 27])).collect();
        let job = format!("{cron_name}-{}", due_s / 60);
        Run { pod: format!("{job}-{suffix}"), job, pod_uid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(minute: u64, hour: u64) -> Schedule {
        let all = u64::MAX;
        Schedule { minute, hour, day: all, month: all, weekday: all, any_day: true, any_weekday: true, offsets: Vec::new() }
    }

    #[test]
    fn finds_the_next_and_the_last_time() {
        let quarters = every(1 | 1 << 15 | 1 << 30 | 1 << 45, u64::MAX);
        assert_eq!(quarters.next(0), Some(900));
        assert_eq!(quarters.next(899), Some(900));
        assert_eq!(quarters.next(900), Some(1800));
        assert_eq!(quarters.last(0, 3000), Some(2700));
        assert_eq!(quarters.last(2700, 3000), None);
        // 29 February, 04:30: 2028-02-29T04:30:00Z after 2026-11-23T10:07:30Z.
        let leap = Schedule { day: 1 << 29, month: 1 << 2, any_day: false, ..every(1 << 30, 1 << 4) };
        assert_eq!(leap.next(1_795_428_450), Some(1_835_411_400));
        // The 13th or a Friday: 2026-11-27 after 2026-11-23.
        let either = Schedule { day: 1 << 13, weekday: 1 << 5, any_day: false, any_weekday: false, ..every(1, 1) };
        assert_eq!(either.next(1_795_392_000), Some(1_795_737_600));
        let never = Schedule { day: 1 << 31, month: 1 << 2, any_day: false, ..every(1, 1) };
        assert_eq!(never.next(0), None);
    }

    #[test]
    fn follows_the_offsets_of_local_time() {
        // Berlin: +1 h, from 2026-03-29T01:00:00Z on +2 h. 02:30 local does not exist on that day.
        let offsets = alloc::vec![
            Offset { from_s: 0, ahead_s: 3600 },
            Offset { from_s: 1_774_746_000, ahead_s: 7200 },
        ];
        let schedule = Schedule { offsets, ..every(1 << 30, 1 << 2) };
        // After 2026-03-28T12:00:00Z comes 2026-03-30T00:30:00Z.
        assert_eq!(schedule.next(1_774_699_200), Some(1_774_830_600));
        assert_eq!(schedule.last(0, 1_774_830_599), Some(1_774_661_400));
    }

    #[test]
    fn next_and_last_agree() {
        let schedule = Schedule { day: 0x0842_1084, any_day: false, ..every(0x0100_1001, 0x0010_0411) };
        let mut at = 1_700_000_000;
        for _ in 0..500 {
            let next = schedule.next(at).unwrap();
            assert_eq!(schedule.last(at, next), Some(next));
            assert_eq!(schedule.last(at, next - 1), None, "nothing between {at} and {next}");
            at = next;
        }
    }

    #[test]
    fn runs_have_names_that_never_change() {
        let run = Run::of("0b0e6f8e-0000-4000-8000-000000000000", "backup", 1_795_428_600);
        assert_eq!(run.job, "backup-29923810");
        assert_eq!((run.pod.len(), run.pod_uid.len()), ("backup-29923810-".len() + 5, 36));
        assert_eq!(run, Run::of("0b0e6f8e-0000-4000-8000-000000000000", "backup", 1_795_428_600));
        assert_ne!(run.pod_uid, Run::of("0b0e6f8e-0000-4000-8000-000000000000", "backup", 1_795_428_660).pod_uid);
        assert_eq!(run.pod_uid.as_bytes()[14], b'8');
    }
}
