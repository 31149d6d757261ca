//! Which units of a rollout change now.
//!
//! In: the rollout's spec and status, its units as they are, the time. Out: units to change or to take back, and how
//! far it is, in words. Never: more away from service than the budget allows; the next wave before the last one is good.

use super::{
    programs::Kept,
    units::{State, Unit},
    windows::{self, Open},
};
use crate::{
    Timestamp,
    clocks::Even,
    control::common::after,
    view::{FleetRolloutData, Labels, RolloutSpec},
};
use limpet_objects::time::{rfc3339, span_seconds};
use std::collections::{BTreeMap, BTreeSet};

const DEADLINE_S: i64 = 600;

/// How far a rollout is; the words are what users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Progressing,
    Soaking,
    Paused,
    Waiting,
    Complete,
    RollingBack,
    RolledBack,
    Failed,
}

impl Phase {
    pub fn word(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Progressing => "Progressing",
            Phase::Soaking => "Soaking",
            Phase::Paused => "Paused",
            Phase::Waiting => "Waiting",
            Phase::Complete => "Complete",
            Phase::RollingBack => "RollingBack",
            Phase::RolledBack => "RolledBack",
            Phase::Failed => "Failed",
        }
    }

    pub fn is_over(word: &str) -> bool {
        ["Complete", "RolledBack", "Failed"].contains(&word)
    }
}

/// What is to be done, and what is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Indexes of units to change.
    pub start: Vec<usize>,
    /// Indexes of units to take the change from.
    pub undo: Vec<usize>,
    pub phase: Phase,
    pub message: String,
    pub wave: String,
    pub wave_index: usize,
    pub wave_reached_at: Option<Timestamp>,
    pub counts: Counts,
    pub failed_units: Vec<String>,
    pub held_units: Vec<String>,
    /// Why it goes back or has failed.
    pub failure: String,
    pub again_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: usize,
    pub updated: usize,
    pub healthy: usize,
    pub failed: usize,
    pub held: usize,
    pub away: usize,
}

/// Everything about the units that the rest of the decision reads.
struct Look<'a> {
    spec: &'a RolloutSpec,
    units: &'a [Unit],
    failed: BTreeMap<usize, String>,
    waves: Vec<Vec<usize>>,
    /// What was said about the failure when it was noticed: units that went back do not look failed any more.
    noticed: &'a str,
    now: Timestamp,
    even: Even,
    again_at: Option<Timestamp>,
}

/// `even`: since when the clock that says `now` has gone evenly. Waits whose beginning was written before begin again there.
pub fn decide(rollout: &FleetRolloutData, generation: i64, units: &[Unit], (now, even): (Timestamp, Even)) -> Decision {
    let spec = &rollout.spec;
    let status = &rollout.status;
    let noticed = if &*status.phase == "RollingBack" { &*status.failure } else { "" };
    let (failed, waves) = (BTreeMap::new(), waves(spec, units));
    let mut look = Look { spec, units, failed, waves, noticed, now, even, again_at: None };
    look.find_failures();
    let mut decision = look.blank();
    if &*status.phase == "RolledBack" {
        decision.phase = Phase::RolledBack;
        decision.message = status.message.to_string();
        decision.failure = status.failure.to_string();
        return decision;
    }
    let ended = Phase::is_over(&status.phase) && status.observed_generation == generation;
    let too_many = look.failed.len() as i64 > look.failures_allowed();
    if &*status.phase == "RollingBack" || (too_many && &*spec.on_failure != "Halt" && !ended) {
        look.roll_back(&mut decision);
    } else if too_many {
        decision.phase = Phase::Failed;
        decision.failure = look.failure_words();
        decision.message = format!("{}; nothing more is changed", decision.failure);
    } else {
        let began = status.started_at.is_some();
        look.go_on(began, status.wave_index, status.wave_reached_at, &mut decision);
    }
    decision.again_at = match (decision.again_at, look.again_at) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    decision
}

/// Units by wave. Which units a percentage picks depends only on their names, so it stays the same while they change.
fn waves(spec: &RolloutSpec, units: &[Unit]) -> Vec<Vec<usize>> {
    let mut left: Vec<usize> = (0..units.len()).collect();
    left.sort_by_key(|i| (scatter(&units[*i].name), &units[*i].name));
    let mut waves = Vec::new();
    for wave in &spec.waves {
        let meant = |labels: &Labels| wave.selector.as_ref().is_none_or(|s| s.matches(labels));
        let share = match wave.percent {
            1..=99 => (left.len() * wave.percent as usize).div_ceil(100).max(1),
            _ => usize::MAX,
        };
        let mut taken = BTreeSet::new();
        for i in left.iter().filter(|i| meant(&units[**i].labels)) {
            if taken.len() < share {
                taken.insert(*i);
            }
        }
        left.retain(|i| !taken.contains(i));
        waves.push(taken.into_iter().collect());
    }
    left.sort_unstable();
    waves.push(left);
    waves
}

fn waiting_words(held: usize, away: usize, what: &str) -> String {
    let mut waits = Vec::new();
    if held > 0 {
        waits.push(format!("{held} hold a lock"));
    }
    if away > 0 {
        waits.push(format!("{away} are away and {what} when they return"));
    }
    if waits.is_empty() { String::new() } else { format!("; {}", waits.join(", ")) }
}

/// FNV-1a: an order without neighbours, so that a percentage of boards is not one shelf.
fn scatter(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

impl Look<'_> {
    fn blank(&self) -> Decision {
        let (mut counts, mut held_units) = (Counts { total: self.units.len(), ..Counts::default() }, Vec::new());
        for (at, unit) in self.units.iter().enumerate() {
            counts.updated += usize::from(!matches!(unit.state, State::Old));
            counts.healthy += usize::from(matches!(unit.state, State::Healthy) && !unit.away);
            counts.failed += usize::from(self.failed.contains_key(&at));
            let waits = matches!(unit.state, State::Old) != self.goes_back();
            counts.away += usize::from(waits && unit.away);
            if let Some(why) = unit.lock.as_ref().filter(|_| waits && !unit.away) {
                counts.held += 1;
                held_units.push(format!("{}: {why}", unit.name));
            }
        }
        let failed_units = self.failed.iter().map(|(i, why)| format!("{}: {why}", self.units[*i].name));
        let last = self.waves.len().saturating_sub(1);
        Decision {
            start: Vec::new(),
            undo: Vec::new(),
            phase: Phase::Pending,
            message: String::new(),
            wave: String::new(),
            wave_index: last,
            wave_reached_at: None,
            counts,
            failed_units: failed_units.take(super::NAMED_MAX).collect(),
            held_units: held_units.into_iter().take(super::NAMED_MAX).collect(),
            failure: String::new(),
            again_at: None,
        }
    }

    fn goes_back(&self) -> bool {
        !self.noticed.is_empty()
    }

    fn wake_at(&mut self, t: Timestamp) {
        self.again_at = Some(self.again_at.map_or(t, |a| a.min(t)));
    }

    /// Units that are not healthy in time, or say themselves that they failed.
    fn find_failures(&mut self) {
        let deadline = span_seconds(&self.spec.success.deadline).unwrap_or(DEADLINE_S);
        for (at, unit) in self.units.iter().enumerate() {
            match &unit.state {
                State::Failed { why } => _ = self.failed.insert(at, why.clone()),
                // Who is away cannot become healthy; its time begins when it is back.
                State::Changed { since: Some(since) } if !unit.away => {
                    let due = after(self.even.began(*since, self.now), deadline);
                    if due <= self.now {
                        let words = limpet_objects::table::human(deadline);
                        self.failed.insert(at, format!("not healthy within {words}"));
                    } else {
                        self.wake_at(due);
                    }
                }
                _ => {}
            }
        }
    }

    fn failures_allowed(&self) -> i64 {
        i64::from(self.spec.success.max_failed.of_total(self.units.len() as i32, false).unwrap_or(0))
    }

    fn failure_words(&self) -> String {
        if self.goes_back() {
            return self.noticed.to_owned();
        }
        let Some((at, why)) = self.failed.first_key_value() else { return "it was asked to".into() };
        let first = format!("{} {why}", self.units[*at].name);
        match self.failed.len() - 1 {
            0 => first,
            more => format!("{first}, and {more} more failed"),
        }
    }

    fn roll_back(&mut self, decision: &mut Decision) {
        let changed: Vec<usize> =
            (0..self.units.len()).filter(|i| !matches!(self.units[*i].state, State::Old)).collect();
        decision.phase = Phase::RollingBack;
        decision.failure = self.failure_words();
        if changed.is_empty() {
            decision.phase = Phase::RolledBack;
            decision.message = format!("{}; every unit has again what it had before{}", decision.failure, self.kept_words());
            return;
        }
        let held = |i: &usize| self.units[*i].lock.is_some();
        let (mut away, mut locked, mut on_trial, mut present) = (0, 0, 0, Vec::new());
        for i in &changed {
            match (self.units[*i].away, held(i), self.units[*i].kept) {
                (true, ..) => away += 1,
                (false, true, _) => locked += 1,
                (false, false, Kept::OnTrial) => on_trial += 1,
                (false, false, _) => present.push(*i),
            }
        }
        decision.message = format!("{}; {} of {} still go back", decision.failure, changed.len(), self.units.len());
        decision.message.push_str(&waiting_words(locked, away, "go back"));
        if on_trial > 0 {
            decision.message.push_str(&format!("; {on_trial} try the new system first"));
        }
        decision.undo = self.within_budget(&present, true);
    }

    /// Those that do not go back, and why.
    fn kept_words(&self) -> String {
        match self.units.iter().filter(|u| u.kept == Kept::Runs).count() {
            0 => String::new(),
            n => format!("; {n} of {} run the new Limpet OS and keep it: no board takes an older one", self.units.len()),
        }
    }

    fn go_on(&mut self, began: bool, wave_index: usize, reached: Option<Timestamp>, decision: &mut Decision) {
        let counts = decision.counts;
        if counts.total == 0 {
            // The way so far is kept: what comes back is not at the last wave because of that.
            decision.wave_index = wave_index.min(self.waves.len() - 1);
            decision.phase = if began { Phase::Waiting } else { Phase::Pending };
            decision.message = self.nothing_words();
            return;
        }
        // The hub's clock was set since: the wait begins again, and neither lasts until the old time comes nor is over.
        let (index, reached) = self.current_wave(wave_index, reached.map(|at| self.even.began(at, self.now)));
        decision.wave_index = index;
        decision.wave_reached_at = reached.filter(|_| self.soak_of(index) > 0);
        decision.wave = self.wave_words(index);
        let wanting: Vec<usize> = self.waves[..=index].concat();
        let mut wanting: Vec<usize> = wanting.into_iter().filter(|i| self.may_start(*i)).collect();
        wanting.sort_by_key(|i| self.units[*i].ok);
        if counts.healthy == counts.total {
            decision.phase = Phase::Complete;
            decision.message = format!("all {} are updated and healthy", counts.total);
            return;
        }
        if self.spec.paused {
            decision.phase = Phase::Paused;
            decision.message = format!("paused; {} of {} are updated", counts.updated, counts.total);
            return;
        }
        if !wanting.is_empty() {
            match windows::look(&self.spec.windows, self.now) {
                Open::Yes(_) => decision.start = self.within_budget(&wanting, false),
                Open::No(next) => {
                    decision.phase = Phase::Waiting;
                    decision.message = match next {
                        Some(at) => format!("no window is open; the next one opens at {}", rfc3339(at)),
                        None => "no window can ever open: its time zone is not known".into(),
                    };
                    next.into_iter().for_each(|t| self.wake_at(t));
                    return;
                }
            }
        }
        self.describe(index, reached, &wanting, decision);
    }

    fn describe(&mut self, index: usize, reached: Option<Timestamp>, wanting: &[usize], decision: &mut Decision) {
        let counts = decision.counts;
        let settling = counts.updated - counts.healthy + decision.start.len();
        decision.phase = Phase::Progressing;
        decision.message = format!("{} of {} are healthy", counts.healthy, counts.total);
        if settling > 0 {
            decision.message.push_str(&format!(", {settling} become so"));
            let gone = self.units.iter().filter(|u| u.away && !matches!(u.state, State::Old)).count();
            if gone > 0 {
                let words = format!("; {gone} of these went away with the change, and the rollout waits for them");
                decision.message.push_str(&words);
            }
        } else if let (Some(reached), true) = (reached, self.has_more(index)) {
            let until = after(reached, self.soak_of(index));
            decision.phase = Phase::Soaking;
            decision.message.push_str(&format!("; the next wave begins at {}", rfc3339(until)));
            self.wake_at(until);
        } else if let (true, true) = (wanting.is_empty(), self.is_barren(index)) {
            decision.phase = Phase::Waiting;
            let wave = self.spec.waves.get(index).map(|w| &*w.name).unwrap_or_default();
            decision.message.push_str(&format!(
                "; spec.waves[{index}] {wave:?} selects none of them, so nothing proves the change: correct its selector, \
                 or take the wave away"
            ));
        } else if wanting.is_empty() {
            decision.phase = Phase::Waiting;
            let words = waiting_words(counts.held, counts.away, "get the change");
            decision.message.push_str(&words);
        } else if decision.start.is_empty() {
            decision.phase = Phase::Waiting;
            decision.message.push_str("; the budget allows no more at this time");
        }
    }

    /// Goes on from wave to wave as long as each is good and has soaked. Out: the wave at work, and since when it is
    /// good.
    fn current_wave(&mut self, from: usize, reached: Option<Timestamp>) -> (usize, Option<Timestamp>) {
        let mut index = from.min(self.waves.len() - 1);
        let mut reached = reached;
        loop {
            let good = self.waves[index].iter().all(|i| {
                let unit = &self.units[*i];
                matches!(unit.state, State::Healthy)
                    || self.failed.contains_key(i)
                    || (matches!(unit.state, State::Old) && (unit.away || unit.lock.is_some()))
            });
            if !good || self.is_barren(index) {
                return (index, None);
            }
            let since = reached.unwrap_or(self.now);
            let soak = if self.waves[index].is_empty() { 0 } else { self.soak_of(index) };
            if index + 1 >= self.waves.len() || after(since, soak) > self.now {
                return (index, Some(since));
            }
            index += 1;
            reached = None;
        }
    }

    /// A wave that none of all units could belong to: a slip of the pen, or its boards are gone. What it should have proved
    /// is not proved. A wave whose units went with earlier ones is fine.
    fn is_barren(&self, index: usize) -> bool {
        let selector = self.spec.waves.get(index).and_then(|w| w.selector.as_ref());
        selector.is_some_and(|s| !self.units.iter().any(|u| s.matches(&u.labels)))
    }

    fn nothing_words(&self) -> String {
        let target = &self.spec.target;
        match &*target.name {
            name if &*target.kind == "DaemonSet" => format!("no board fits DaemonSet {name}"),
            "" => format!("no {} has the labels of spec.target.selector", target.kind),
            name => format!("there is no {} {name}", target.kind),
        }
    }

    fn soak_of(&self, index: usize) -> i64 {
        self.spec.waves.get(index).and_then(|w| span_seconds(&w.soak)).unwrap_or(0)
    }

    fn has_more(&self, index: usize) -> bool {
        self.waves[index + 1..].iter().any(|w| !w.is_empty())
    }

    fn wave_words(&self, index: usize) -> String {
        let real: usize = self.waves.iter().filter(|w| !w.is_empty()).count();
        let at = self.waves[..=index].iter().filter(|w| !w.is_empty()).count().max(1);
        let name = self.spec.waves.get(index).map(|w| &*w.name).filter(|n| !n.is_empty());
        let usual = if index >= self.spec.waves.len() { "rest" } else { "wave" };
        format!("{} ({at}/{})", name.unwrap_or(usual), real.max(1))
    }

    fn may_start(&self, at: usize) -> bool {
        let unit = &self.units[at];
        matches!(unit.state, State::Old) && !unit.away && unit.lock.is_none()
    }

    /// As many of `wanting`, in order, as the budget leaves room for. Units that are down already take no room.
    fn within_budget(&self, wanting: &[usize], undo: bool) -> Vec<usize> {
        let budget = &self.spec.budget;
        let group = |unit: &Unit| match &*budget.group_by {
            "" => String::new(),
            label => unit.labels.get(label).unwrap_or_default().to_owned(),
        };
        let (mut size, mut down): (BTreeMap<String, i32>, BTreeMap<String, i32>) = Default::default();
        let mut at_work = 0;
        for unit in self.units {
            *size.entry(group(unit)).or_default() += 1;
            let moving = matches!(unit.state, State::Changed { .. }) || unit.going_back;
            at_work += i32::from(moving);
            *down.entry(group(unit)).or_default() += i32::from(moving || !unit.ok || unit.away);
        }
        let mut out = Vec::new();
        for at in wanting {
            let unit = &self.units[*at];
            let group = group(unit);
            let most = budget.max_unavailable.of_total(size[&group], true).unwrap_or(1).max(0);
            let down = down.entry(group).or_default();
            let free = !unit.ok || (undo && matches!(unit.state, State::Changed { .. } | State::Failed { .. }));
            if budget.max_concurrent > 0 && at_work >= budget.max_concurrent && !(undo && free) {
                break;
            }
            if free || *down < most {
                *down += i32::from(!free);
                at_work += 1;
                out.push(*at);
            }
            if out.len() >= super::STEP_MAX {
                break;
            }
        }
        out
    }
}

