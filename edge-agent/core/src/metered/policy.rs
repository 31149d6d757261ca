//! The link policy of a node, as the hub wrote it down, and what it allows at a moment.
//!
//! In: the annotation `limpet.dev/link` (JSON), the time, the bytes used. Out: for each sort of traffic, whether it may travel
//! or the sentence why not, and when that changes. Windows count by the wall's clock; the offsets of the time zone come with
//! the policy.
//! Never: lets anything wait for a time that is not known: a board that believes to be in 1970 keeps its windows shut.

use crate::clock::{civil, days_from_civil, rfc3339};
use serde::Deserialize;

/// Annotation of the node.
pub const LINK: &str = "limpet.dev/link";
/// Before this (2024) a clock was not set.
const KNOWN_SINCE_S: i64 = 1_704_067_200;
const DAY_S: i64 = 86_400;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// What travels besides the desired state and the status, which always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    Events,
    Logs,
    Streams,
    Messages,
    Images,
    Updates,
}

impl Traffic {
    pub const ALL: [Traffic; 6] =
        [Traffic::Events, Traffic::Logs, Traffic::Streams, Traffic::Messages, Traffic::Images, Traffic::Updates];

    pub fn name(self) -> &'static str {
        match self {
            Traffic::Events => "events",
            Traffic::Logs => "logs",
            Traffic::Streams => "streams",
            Traffic::Messages => "messages",
            Traffic::Images => "images",
            Traffic::Updates => "updates",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum When {
    #[default]
    Always,
    InWindow,
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum UsedUp {
    /// State and status go on.
    #[default]
    Essentials,
    /// The link is closed, but for a look once a day.
    Hold,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Travels {
    pub events: When,
    pub logs: When,
    pub streams: When,
    pub messages: When,
    pub images: When,
    pub updates: When,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Window {
    /// Local time, `02:00`; `end` before `start`: on the next day.
    pub start: String,
    pub end: String,
    pub days: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Policy {
    /// Who says so, for sentences: `NodePool tills`.
    pub name: String,
    /// 0: not limited.
    pub bytes_per_month: u64,
    /// 1 to 28.
    pub reset_day: u8,
    pub windows: Vec<Window>,
    pub travels: Travels,
    pub when_used_up: UsedUp,
    /// 0: as the road suggests.
    pub keepalive_seconds: u16,
    /// `[from, ahead]` in seconds, oldest first. Empty: UTC.
    pub offsets: Vec<(i64, i32)>,
}

impl Policy {
    /// What cannot be read counts as no policy: the hub checked it.
    pub fn parse(text: &str) -> Option<Policy> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn when(&self, traffic: Traffic) -> When {
        match traffic {
            Traffic::Events => self.travels.events,
            Traffic::Logs => self.travels.logs,
            Traffic::Streams => self.travels.streams,
            Traffic::Messages => self.travels.messages,
            Traffic::Images => self.travels.images,
            Traffic::Updates => self.travels.updates,
        }
    }

    /// Seconds that the wall's clock is ahead of UTC.
    fn ahead(&self, at_s: i64) -> i64 {
        let at = self.offsets.partition_point(|(from, _)| *from <= at_s).saturating_sub(1);
        self.offsets.get(at).map_or(0, |(_, ahead)| i64::from(*ahead))
    }

    /// The moment at which the wall's clock shows this: the first of two; what is skipped comes as much later as is skipped.
    fn moment(&self, local_s: i64) -> i64 {
        let early = local_s - self.ahead(local_s - DAY_S);
        let late = local_s - self.ahead(local_s + DAY_S);
        match [early, late].into_iter().find(|at| at + self.ahead(*at) == local_s) {
            Some(at) => at,
            None => early.max(late),
        }
    }

    /// The day on the wall's calendar: `2026-11-26`.
    pub fn day(&self, at_s: i64) -> String {
        text(at_s + self.ahead(at_s))[..10].into()
    }

    /// Whether a window is open, until when; or when the next one opens. `None` for never.
    pub fn window(&self, now_s: i64) -> (bool, Option<i64>) {
        if now_s < KNOWN_SINCE_S {
            return (false, None);
        }
        let today = (now_s + self.ahead(now_s)).div_euclid(DAY_S);
        let (mut open, mut next): (Option<i64>, Option<i64>) = (None, None);
        for day in today - 1..=today + 8 {
            // 1970-01-01 was a Thursday.
            let name = DAYS[(day + 3).rem_euclid(7) as usize];
            for window in self.windows.iter().filter(|w| w.days.is_empty() || w.days.iter().any(|d| d == name)) {
                let (Some(start), Some(end)) = (time_of_day(&window.start), time_of_day(&window.end)) else { continue };
                let last = if end > start { day } else { day + 1 };
                let (start, end) = (self.moment(day * DAY_S + start), self.moment(last * DAY_S + end));
                if start <= now_s && now_s < end {
                    open = Some(open.map_or(end, |e| e.max(end)));
                } else if start > now_s {
                    next = Some(next.map_or(start, |n| n.min(start)));
                }
            }
        }
        (open.is_some(), open.or(next))
    }

    /// Begin of the month of the budget that `now_s` is in, and of the next one.
    pub fn month(&self, now_s: i64) -> (i64, i64) {
        let local = now_s + self.ahead(now_s);
        let (year, month, day, ..) = civil(u64::try_from(local).unwrap_or(0));
        let reset = i64::from(self.reset_day.clamp(1, 28));
        let begin = |year: i64, month: i64| {
            let (year, month) = (year + (month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
            self.moment(days_from_civil(year, month, reset).unwrap_or(0) * DAY_S)
        };
        let month = i64::from(month) - i64::from(i64::from(day) < reset);
        (begin(year, month), begin(year, month + 1))
    }

    /// Whether the time is one that windows and months can be counted by.
    pub fn knows_time(now_s: i64) -> bool {
        now_s >= KNOWN_SINCE_S
    }

    /// The sentence why this may not travel now; `None`: it may.
    pub fn refuses(&self, traffic: Traffic, now_s: i64, used: u64) -> Option<String> {
        let (name, what) = (&self.name, traffic.name());
        if self.is_used_up(used) {
            let until = if Policy::knows_time(now_s) { format!(" until {}", text(self.month(now_s).1)) } else { String::new() };
            let all = crate::quantity::binary(self.bytes_per_month);
            return Some(format!("the link policy of {name} holds {what} back{until}: the {all} of this month are used up"));
        }
        match self.when(traffic) {
            When::Always => None,
            When::Never => Some(format!("the link policy of {name} never lets {what} travel")),
            When::InWindow => {
                let (open, next) = self.window(now_s);
                let then = match next {
                    Some(at) => format!("the next one opens at {}", text(at)),
                    None if !Policy::knows_time(now_s) => "this board does not know the time yet".into(),
                    None => "it has none".into(),
                };
                (!open).then(|| format!("the link policy of {name} lets {what} travel in its windows only; {then}"))
            }
        }
    }

    pub fn is_used_up(&self, used: u64) -> bool {
        self.bytes_per_month > 0 && used >= self.bytes_per_month
    }

    /// When, without more bytes, something changes.
    pub fn next_change(&self, now_s: i64) -> Option<i64> {
        if !Policy::knows_time(now_s) {
            return None;
        }
        let edge = Traffic::ALL.iter().any(|t| self.when(*t) == When::InWindow).then(|| self.window(now_s).1).flatten();
        [edge, Some(self.month(now_s).1)].into_iter().flatten().min()
    }
}

fn text(at_s: i64) -> String {
    rfc3339(u64::try_from(at_s).unwrap_or(0) * 1000)
}

fn time_of_day(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?);
    ((0..24).contains(&hours) && (0..60).contains(&minutes)).then_some(hours * 3600 + minutes * 60)
}
