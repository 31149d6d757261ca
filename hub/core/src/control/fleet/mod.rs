//! Brings a change to a fleet step by step: waves, proof of health, budgets, windows, locks, and the way back.
//!
//! In: one FleetRollout, its targets, the time. Out: units that get the change or go back; status and Events.
//! The rollout keeps no state besides its status: who has the change is written on each unit.
//! Never: changes a unit whose board is away or that holds a lock; begins a wave before the last one is good.

mod decide;
mod units;
mod windows;

use super::{Controller, common::{set_status, time}};
use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    view::{
        Condition, ConfigMap, ControllerRevision, DaemonSet, Deployment, FleetRollout, Kind, Node, Pod, StatefulSet,
        conditions,
    },
};
use decide::{Decision, Phase, decide};
use serde_json::{Value, json};
use std::sync::Arc;
pub use units::{AGENT_VERSION, LOCK, device_lock};

const NAME: &str = "fleetrollout-controller";
/// Units that are named in the status, of those that failed or hold a lock.
const NAMED_MAX: usize = 20;
/// Units that one step changes.
const STEP_MAX: usize = 200;

#[derive(Debug)]
pub struct FleetRolloutController;

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
            return vec![changed.key.clone()];
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
        let units = match units::collect(view, rollout) {
            Ok(units) => units,
            // What is half done goes on when the target can be read again.
            Err(why) if why.is_empty() || &*rollout.status.phase == "RollingBack" => return plan,
            Err(why) => {
                let waits = Decision { message: why, ..decide(rollout, rollout.meta.generation, &[], now) };
                say(rollout, &waits, None, now, &mut plan);
                return plan;
            }
        };
        let mut decision = decide(rollout, rollout.meta.generation, &units, now);
        let is_daemon_set = &*rollout.spec.target.kind == "DaemonSet";
        let begins_back = decision.phase == Phase::RollingBack && &*rollout.status.phase != "RollingBack";
        if is_daemon_set && begins_back {
            // The boards go back once the template has: then the newest revision is what was before.
            decision.undo.clear();
            if let Err(why) = units::restore_template(view, rollout, &mut plan) {
                decision.phase = Phase::Failed;
                decision.message = why;
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
        say(rollout, &decision, previous, now, &mut plan);
        plan.events_last()
    }
}

/// Whether a rollout has ended, and nobody asked for more.
fn is_settled(rollout: &FleetRollout) -> bool {
    let status = &rollout.status;
    Phase::is_over(&status.phase)
        && (status.observed_generation == rollout.meta.generation || &*status.phase == "RolledBack")
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
            && units::agent_says(o) == units::agent_says(n)
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

fn say(rollout: &FleetRollout, d: &Decision, previous: Option<String>, now: Timestamp, plan: &mut Plan) {
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
        conditions::set(&mut list, Condition::new(type_, holds, word, d.message.clone(), now));
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
        ("previousRevision", previous.map_or(Value::Null, Value::from)),
    ] {
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
