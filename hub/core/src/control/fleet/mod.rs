//! Brings a change to a fleet step by step: waves, proof of health, budgets, windows, locks, and the way back.
//!
//! In: one FleetRollout, its targets, the time. Out: units that get the change or go back; status and Events.
//! The rollout keeps no state besides its status: who has the change is written on each unit.
//! Never: changes a unit whose board is away or that holds a lock; begins a wave before the last one is good.

mod decide;
mod programs;
mod units;
mod windows;

use super::{Controller, common::{set_status, time}};
use crate::{
    Change, Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    clocks::WallClock,
    view::{
        Condition, ConfigMap, ControllerRevision, DaemonSet, Deployment, FleetRollout, FleetRolloutData, Kind, Node, Pod,
        RolloutStatus, StatefulSet, conditions,
    },
};
use decide::{Decision, Phase, decide};
use serde_json::{Value, json};
use std::sync::Arc;
pub use programs::AGENT_VERSION;
pub use units::{LOCK, device_lock};

const NAME: &str = "fleetrollout-controller";
/// Units that are named in the status, of those that failed or hold a lock.
const NAMED_MAX: usize = 20;
/// Units that one step changes.
const STEP_MAX: usize = 200;

pub struct FleetRolloutController {
    pub clock: Arc<dyn WallClock>,
}

impl Controller for FleetRolloutController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[
            FleetRollout::RESOURCE,
            DaemonSet::RESOURCE,
            Deployment::RESOURCE,
            StatefulSet::RESOURCE,
            ConfigMap::RESOURCE,
            Node::RESOURCE,
            Pod::RESOURCE,
            ControllerRevision::RESOURCE,
        ]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.is::<FleetRollout>() {
            let mut keys = vec![changed.key.clone()];
            if begins_or_ends(changed) {
                let waits = |r: &&Arc<FleetRollout>| *r.meta.name != *changed.key.name && !is_settled(r);
                let others = view.list::<FleetRollout>(&changed.key.namespace).filter(waits);
                keys.extend(others.map(|r| Key::new(FleetRollout::RESOURCE, &r.meta.namespace, &r.meta.name)));
            }
            return keys;
        }
        let concerned = |r: &&Arc<FleetRollout>| !is_settled(r) && concerns(r, changed);
        let keys = view.all::<FleetRollout>().filter(concerned);
        keys.map(|r| Key::new(FleetRollout::RESOURCE, &r.meta.namespace, &r.meta.name)).collect()
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(rollout) = view.get::<FleetRollout>(&key.namespace, &key.name) else { return plan };
        if rollout.meta.deleting.is_some() || is_settled(rollout) {
            return plan;
        }
        let even = self.clock.even(now);
        let units = match units::collect(view, rollout) {
            Ok(units) => units,
            Err(why) if why.is_empty() => return plan,
            // What is half done goes on when the target can be read again.
            Err(why) => {
                let mut waits = decide(rollout, rollout.meta.generation, &[], (now, even));
                if &*rollout.status.phase == "RollingBack" {
                    waits.phase = Phase::RollingBack;
                    waits.message = format!("{}; it cannot go back: {why}", waits.failure);
                } else {
                    waits.message = why;
                }
                say(rollout, &waits, Revisions::default(), now, &mut plan);
                return plan;
            }
        };
        let is_daemon_set = &*rollout.spec.target.kind == "DaemonSet";
        let newest = if is_daemon_set { newest_revision(view, rollout) } else { None };
        let mut decision = match newest.as_deref().is_some_and(|newest| is_another(rollout, newest)) {
            true => decide(&from_the_first_wave(rollout), rollout.meta.generation, &units, (now, even)),
            false => decide(rollout, rollout.meta.generation, &units, (now, even)),
        };
        let begins_back = decision.phase == Phase::RollingBack && &*rollout.status.phase != "RollingBack";
        if is_daemon_set && begins_back {
            // The boards go back once the template has: then the newest revision is what was before.
            decision.undo.clear();
            if let Err(why) = units::restore_template(view, rollout, &mut plan) {
                decision.phase = Phase::Failed;
                decision.message = format!("{}; {why}", decision.failure);
            }
        }
        for unit in decision.start.iter().map(|i| &units[*i].name) {
            units::start(view, rollout, unit, now, &mut plan);
            plan.because("Step", format!("{unit} gets the change"));
        }
        for unit in decision.undo.iter().map(|i| &units[*i].name) {
            units::undo(view, rollout, unit, &mut plan);
            plan.because("StepBack", format!("{unit} goes back"));
        }
        if let Some(at) = decision.again_at {
            plan.wake_at(at);
        }
        let previous = if is_daemon_set { previous_revision(view, rollout) } else { None };
        say(rollout, &decision, Revisions { newest, previous }, now, &mut plan);
        plan.events_last()
    }

    /// A change that the API does not take from one unit will not be taken from the next: the rollout ends here.
    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(rollout) = view.get::<FleetRollout>(&key.namespace, &key.name) else { return plan };
        let Change::Patch { resource, name, .. } = change else { return plan };
        if **resource == *FleetRollout::RESOURCE || is_settled(rollout) {
            return plan;
        }
        let (even, going_back) = (self.clock.even(now), &*rollout.status.phase == "RollingBack");
        let what = if going_back { "what it had before" } else { "the change" };
        let failure = format!("{} {name} does not take {what}: {error}", rollout.spec.target.kind);
        let units = units::collect(view, rollout).unwrap_or_default();
        let mut d = decide(rollout, rollout.meta.generation, &units, (now, even));
        let back = !going_back && d.counts.updated > 0 && &*rollout.spec.on_failure != "Halt";
        d.phase = if back { Phase::RollingBack } else { Phase::Failed };
        d.message = if back { failure.clone() } else { format!("{failure}; nothing more is changed") };
        d.failure = failure;
        say(rollout, &d, Revisions::default(), now, &mut plan);
        plan
    }
}

/// Units that a rollout waits for at this time, each with why; for `limpet why`.
pub fn waits_for(view: &ObjectStore, rollout: &FleetRollout, now: Timestamp) -> Vec<String> {
    let units = match is_settled(rollout) {
        true => Vec::new(),
        false => units::collect(view, rollout).unwrap_or_default(),
    };
    let ago = |t: &Timestamp| limpet_objects::table::human((now.as_second() - t.as_second()).max(0));
    let words = |u: &units::Unit| match (&u.state, u.away) {
        (units::State::Changed { .. }, true) => Some("went away with the change".to_owned()),
        (units::State::Changed { since: Some(t) }, false) => {
            Some(format!("has the change since {} ago and is not healthy yet", ago(t)))
        }
        (units::State::Changed { since: None }, false) => Some("gets the change".to_owned()),
        (units::State::Healthy, true) => Some("has the change and is away".to_owned()),
        (units::State::Old, true) => Some("is away and gets the change when it returns".to_owned()),
        _ => None,
    };
    let going_back = &*rollout.status.phase == "RollingBack";
    let all = units.iter().filter_map(|u| Some(format!("{} {}", u.name, words(u)?)));
    if going_back { Vec::new() } else { all.take(NAMED_MAX).collect() }
}

/// Whether a rollout has ended, and nobody asked for more. One that is complete or went back has done what it was for:
/// going through it again would take boards back to what it once brought. One that failed goes on when its spec changes.
fn is_settled(rollout: &FleetRollout) -> bool {
    let status = &rollout.status;
    Phase::is_over(&status.phase)
        && (status.observed_generation == rollout.meta.generation || &*status.phase != "Failed")
}

/// A rollout that comes, goes, ends or begins again: others may wait for that.
fn begins_or_ends(changed: &Changed) -> bool {
    let at_work = |r: Option<&Arc<FleetRollout>>| r.is_some_and(|r| !is_settled(r));
    at_work(changed.old_as::<FleetRollout>()) != at_work(changed.new_as::<FleetRollout>())
}

fn newest_revision(view: &ObjectStore, rollout: &FleetRollout) -> Option<String> {
    let ds = view.get::<DaemonSet>(&rollout.meta.namespace, &rollout.spec.target.name)?;
    Some(units::revisions(view, ds).last()?.meta.name.to_string())
}

/// Whether the DaemonSet got another template in the middle: what earlier waves proved says nothing about it.
fn is_another(rollout: &FleetRollout, newest: &str) -> bool {
    let status = &rollout.status;
    !status.revision.is_empty() && *status.revision != *newest && &*status.phase != "RollingBack"
}

fn from_the_first_wave(rollout: &FleetRollout) -> FleetRolloutData {
    let mut data = FleetRolloutData::clone(rollout);
    (data.status.wave_index, data.status.wave_reached_at) = (0, None);
    data
}

fn concerns(rollout: &FleetRollout, changed: &Changed) -> bool {
    let kind = &*rollout.spec.target.kind;
    let here = *changed.key.namespace == *rollout.meta.namespace;
    if changed.is::<Node>() {
        return matches!(kind, "Node" | "DaemonSet") && node_matters(changed);
    }
    if changed.is::<Pod>() {
        // A pod's lock holds its board, in whatever namespace it is.
        let locks = changed.metas().any(|m| m.annotations.contains_key(LOCK));
        return match kind {
            "DaemonSet" => here || locks,
            "ConfigMap" => here,
            "Node" => locks,
            _ => false,
        };
    }
    here && match kind {
        "DaemonSet" => {
            changed.is::<ControllerRevision>()
                || (changed.is::<DaemonSet>() && *changed.key.name == *rollout.spec.target.name)
        }
        "Deployment" => changed.is::<Deployment>(),
        "StatefulSet" => changed.is::<StatefulSet>(),
        "ConfigMap" => changed.is::<ConfigMap>(),
        _ => false,
    }
}

fn node_matters(changed: &Changed) -> bool {
    let (old, new) = (changed.old_as::<Node>(), changed.new_as::<Node>());
    !old.zip(new).is_some_and(|(o, n)| {
        o.meta.labels == n.meta.labels
            && o.meta.annotations == n.meta.annotations
            && o.status.ready() == n.status.ready()
            && o.field("/status/nodeInfo") == n.field("/status/nodeInfo")
            && programs::told(o) == programs::told(n)
            && units::device_lock(o) == units::device_lock(n)
    })
}

/// The revision before the one that is rolled out; kept from the first look on.
fn previous_revision(view: &ObjectStore, rollout: &FleetRollout) -> Option<String> {
    let status = &rollout.status;
    if !status.previous_revision.is_empty() {
        return Some(status.previous_revision.to_string());
    }
    let ds = view.get::<DaemonSet>(&rollout.meta.namespace, &rollout.spec.target.name)?;
    let all = units::revisions(view, ds);
    let newest = all.last()?;
    // The one that most boards have, else the one before.
    let mut best: Option<(usize, &Arc<ControllerRevision>)> = None;
    for revision in all.iter().filter(|r| r.meta.uid != newest.meta.uid) {
        let hash = units::hash_of(&revision.meta);
        let pods = view.controlled_by::<Pod>(&ds.meta.uid).filter(|p| units::hash_of(&p.meta) == hash).count();
        if best.is_none_or(|(n, _)| pods >= n) {
            best = Some((pods, revision));
        }
    }
    best.map(|(_, r)| r.meta.name.to_string())
}

/// Of a DaemonSet.
#[derive(Default)]
struct Revisions {
    newest: Option<String>,
    previous: Option<String>,
}

impl Revisions {
    /// What the status says of them. While a rollout goes back the newest one is what was before.
    fn words(self, old: &RolloutStatus) -> [(&'static str, Value); 2] {
        let word = |kept: &str, new: Option<String>| match (kept, new) {
            ("", None) => Value::Null,
            (kept, None) => json!(kept),
            (_, Some(new)) => json!(new),
        };
        let newest = self.newest.filter(|_| &*old.phase != "RollingBack");
        [("revision", word(&old.revision, newest)), ("previousRevision", word(&old.previous_revision, self.previous))]
    }
}

fn say(rollout: &FleetRollout, d: &Decision, revisions: Revisions, now: Timestamp, plan: &mut Plan) {
    let old = &rollout.status;
    let (word, counts) = (d.phase.word(), d.counts);
    let over = Phase::is_over(word);
    let started = old.started_at.or_else(|| (!d.start.is_empty() || counts.updated > 0).then_some(now));
    let ended = old.completed_at.filter(|_| Phase::is_over(&old.phase)).or(Some(now)).filter(|_| over);
    let mut list = old.conditions.clone();
    for (type_, holds) in [
        ("Progressing", !over && d.phase != Phase::Paused),
        ("Complete", d.phase == Phase::Complete),
        ("Failed", matches!(d.phase, Phase::Failed | Phase::RollingBack | Phase::RolledBack)),
    ] {
        conditions::set_words(&mut list, Condition::new(type_, holds, word, d.message.clone(), now));
    }
    let moment = |t: Option<Timestamp>| t.map_or(Value::Null, time);
    let mut status = json!({
        "observedGeneration": rollout.meta.generation, "phase": word, "message": d.message, "wave": d.wave,
        "waveIndex": d.wave_index, "total": counts.total, "updated": counts.updated, "healthy": counts.healthy,
        "failed": counts.failed, "held": counts.held, "away": counts.away,
        "failedUnits": d.failed_units, "heldUnits": d.held_units,
        "conditions": conditions::to_value(&list),
    });
    for (field, value) in [
        ("waveReachedAt", moment(d.wave_reached_at)),
        ("startedAt", moment(started)),
        ("completedAt", moment(ended)),
        ("failure", if d.failure.is_empty() { Value::Null } else { json!(d.failure) }),
    ]
    .into_iter()
    .chain(revisions.words(old))
    {
        if !value.is_null() {
            status[field] = value;
        }
    }
    for field in ["failedUnits", "heldUnits"] {
        if status[field].as_array().is_some_and(Vec::is_empty) {
            status[field] = Value::Null;
        }
    }
    crate::canonical::strip_nulls(&mut status);
    let new_phase = &*old.phase != word;
    set_status(plan, rollout, status);
    if new_phase {
        let bad = matches!(d.phase, Phase::Failed | Phase::RollingBack);
        let type_ = if bad { EventType::Warning } else { EventType::Normal };
        plan.event(Regarding::of(rollout), type_, word, d.message.clone(), NAME);
    }
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
