//! A metered link: what was used this month, and what may travel now.
//!
//! In: the policy, bytes as they are counted, the time. Out: gates for each sort of traffic, records of the use, words for the
//! node's condition. The use is written down seldom: when it has grown by a part of the budget, and with the month's turn.
//! Never: holds the desired state back while the link is open; forgets the use because a clock went backwards.

mod policy;

pub use policy::{LINK, Policy, Traffic, UsedUp, When};

use crate::{clock::Now, quantity, status::OwnCondition, sync::Record};

/// Bytes that may be forgotten in a power cut, at least.
const STEP_BYTES_MIN: u64 = 256 * 1024;
/// Where there is no policy.
const STEP_BYTES_UNLIMITED: u64 = 64 * 1024 * 1024;
/// And as a part of the budget.
const STEP_PARTS: u64 = 200;
/// A link that is on hold looks in so often, for so long.
pub const LOOK_IN_MS: u64 = 24 * 3_600_000;
pub const LOOK_IN_FOR_MS: u64 = 60_000;

/// The node's condition.
const CONDITION: &str = "LinkBudgetUsedUp";

/// Bytes of one month on the wire. As in `Record::LinkUse`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Begin of the month, seconds since 1970; 0 while no time is known.
    pub month_s: i64,
    pub sent: u64,
    pub received: u64,
}

impl Use {
    pub fn bytes(&self) -> u64 {
        self.sent.saturating_add(self.received)
    }
}

/// For each sort of traffic: `None` lets it pass, a sentence holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gates([Option<String>; 6]);

impl Gates {
    pub fn holds(&self, traffic: Traffic) -> Option<&str> {
        self.0[traffic as usize].as_deref()
    }
}

#[derive(Debug, Default)]
pub struct Metered {
    policy: Option<Policy>,
    used: Use,
    written: Use,
    /// The next moment at which something changes by itself, by the wall's clock.
    change_s: Option<i64>,
    gates: Gates,
    reported: Option<OwnCondition>,
    /// There was a policy: its end has to be told.
    told: bool,
}

impl Metered {
    /// `used`: from the journal.
    pub fn new(used: Use) -> Metered {
        Metered { used, written: used, told: used != Use::default(), ..Metered::default() }
    }

    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    pub fn used(&self) -> Use {
        self.used
    }

    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    /// Bytes to the next moment at which the gates may change or the use is to be written.
    pub fn bytes_until_look(&self) -> u64 {
        let budget = self.policy.as_ref().map_or(0, |p| p.bytes_per_month);
        let left = if budget > self.used.bytes() { budget - self.used.bytes() } else { u64::MAX };
        left.min(self.step())
    }

    fn step(&self) -> u64 {
        match &self.policy {
            None => STEP_BYTES_UNLIMITED,
            Some(policy) => (policy.bytes_per_month / STEP_PARTS).max(STEP_BYTES_MIN),
        }
    }

    /// The whole look: what has come together since the last time, and whether anything changes by it. Returns whether gates
    /// changed.
    pub fn look(&mut self, now: Now, policy: Option<Policy>, sent: u64, received: u64) -> bool {
        self.policy = policy;
        (self.used.sent, self.used.received) = (self.used.sent.saturating_add(sent), self.used.received.saturating_add(received));
        let now_s = i64::try_from(now.wall_ms / 1000).unwrap_or(0);
        let plain = Policy::default();
        let by = self.policy.as_ref().unwrap_or(&plain);
        if Policy::knows_time(now_s) {
            let (month_s, _) = by.month(now_s);
            // Forward: a new month. Backward: the clock was wrong before, and what was counted still counts.
            if month_s > self.used.month_s && self.used.month_s != 0 {
                (self.used.sent, self.used.received) = (0, 0);
            }
            self.used.month_s = month_s;
        }
        let used = self.used.bytes();
        let gates = match &self.policy {
            None => Gates::default(),
            Some(policy) => Gates(Traffic::ALL.map(|t| policy.refuses(t, now_s, used))),
        };
        self.change_s = self.policy.as_ref().and_then(|p| p.next_change(now_s));
        let changed = gates != self.gates;
        self.gates = gates;
        changed
    }

    /// The link is to be closed, but for a look now and then.
    pub fn on_hold(&self) -> bool {
        let used = self.used.bytes();
        self.policy.as_ref().is_some_and(|p| p.when_used_up == UsedUp::Hold && p.is_used_up(used))
    }

    /// The use, when it is time to write it down. `end`: the agent ends.
    pub fn to_write(&mut self, end: bool) -> Option<Record> {
        let turned = self.used.month_s != self.written.month_s && self.policy.is_some();
        let grown = self.used.bytes().saturating_sub(self.written.bytes());
        if !turned && grown < self.step() && !(end && grown > 0 && self.policy.is_some()) {
            return None;
        }
        self.written = self.used;
        Some(self.record())
    }

    pub fn record(&self) -> Record {
        Record::LinkUse(self.used.month_s, self.used.sent, self.used.received)
    }

    /// When `look` is wanted, in monotonic milliseconds.
    pub fn wake_at(&self, now: Now) -> Option<u64> {
        let at_ms = u64::try_from(self.change_s?).ok()? * 1000;
        Some(now.mono_ms + at_ms.saturating_sub(now.wall_ms) + 1)
    }

    /// The node's condition. Its words change with each tenth of the budget, so that telling them costs little.
    pub fn condition(&self) -> Option<OwnCondition> {
        let Some(policy) = &self.policy else {
            let (kind, message) = (CONDITION, "there is no link policy".to_string());
            return self.told.then_some(OwnCondition { kind, holds: false, reason: "NoPolicy", message });
        };
        let used = self.used.bytes();
        let since = match Policy::knows_time(self.used.month_s) {
            true => format!(" since {}", policy.day(self.used.month_s)),
            false => String::new(),
        };
        let (holds, reason, words) = if policy.is_used_up(used) {
            let then = if policy.when_used_up == UsedUp::Hold { "the link is closed" } else { "only state and status travel" };
            (true, "BudgetUsedUp", format!("all {} are used{since}; {then}", quantity::binary(policy.bytes_per_month)))
        } else if let Some(tenths) = (used * 10).checked_div(policy.bytes_per_month) {
            let tenth = tenths + 1;
            let all = quantity::binary(policy.bytes_per_month);
            (false, "WithinBudget", format!("less than {} % of {all} used{since}", tenth * 10))
        } else {
            (false, "NoBudget", "bytes are counted, not limited".into())
        };
        let rule = |when: When, word: &str| {
            let all: Vec<_> = Traffic::ALL.into_iter().filter(|t| self.rule(*t) == when).map(Traffic::name).collect();
            (!all.is_empty()).then(|| format!("; {word}: {}", all.join(", ")))
        };
        let rules = [rule(When::InWindow, "in windows only"), rule(When::Never, "never")];
        let rules: String = rules.into_iter().flatten().collect();
        let message = format!("{}: {words}{rules}", policy.name);
        Some(OwnCondition { kind: CONDITION, holds, reason, message })
    }

    fn rule(&self, traffic: Traffic) -> When {
        self.policy.as_ref().map_or(When::Always, |p| p.when(traffic))
    }

    /// The condition, when it differs from the one that was reported last.
    pub fn to_report(&mut self) -> Option<Option<OwnCondition>> {
        let condition = self.condition();
        if condition == self.reported {
            return None;
        }
        self.reported.clone_from(&condition);
        self.told |= condition.is_some();
        Some(condition)
    }
}

#[cfg(test)]
mod tests;
