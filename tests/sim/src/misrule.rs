//! Mistakes of those who keep limits: quotas, disruption budgets, places for pods, rollouts through the fleet.
//!
//! In: a plan that a controller or the scheduler has finished, with the view that it was made on. Out: the plan with the mistake.
//! Never: a plan without it in a run that has one.

use crate::Sabotage;
use limpet_hub_core::{
    Change, Key, ObjectStore, Plan,
    nodes::offline::OFFLINE_SINCE,
    view::{FleetRollout, Kind, Node, PodDisruptionBudget},
};
use serde_json::json;
use std::sync::Arc;

const OF: &str = "limpet.dev/rollout";
const LOCK: &str = "limpet.dev/update-lock";

/// One more than the budget leaves room for.
pub fn allow_too_many(plan: &mut Plan) {
    for change in &mut plan.changes {
        let Change::Patch { resource, merge, .. } = change else { continue };
        let allowed = merge.pointer_mut("/status/disruptionsAllowed").filter(|_| resource == PodDisruptionBudget::RESOURCE);
        if let Some(allowed) = allowed {
            *allowed = json!(allowed.as_i64().unwrap_or(0) + 1);
        }
    }
}

/// A board that somebody cordoned is as good as any.
pub fn place_anywhere(view: &ObjectStore, plan: &mut Plan) {
    for change in &mut plan.changes {
        let shut = view.all::<Node>().find(|n| n.spec.unschedulable);
        if let (Change::Bind { node, .. }, Some(shut)) = (change, shut) {
            *node = shut.meta.name.to_string();
        }
    }
}

/// More boards get a rollout's change than may.
pub fn roll_out_more(view: &ObjectStore, key: &Key, mistake: Sabotage, plan: &mut Plan) {
    let Some(rollout) = view.get::<FleetRollout>(&key.namespace, &key.name) else { return };
    let over = ["Complete", "RolledBack", "Failed"].contains(&&*rollout.status.phase);
    if over || &*rollout.spec.target.kind != Node::KIND {
        return;
    }
    let away = |n: &Node| n.meta.annotations.contains_key(OFFLINE_SINCE);
    let locked = |n: &Node| n.meta.annotations.contains_key(LOCK);
    let given = |n: &Node| n.meta.annotations.get(OF) == Some(&*rollout.meta.uid);
    let starting = |c: &&Change| matches!(c, Change::Patch { resource, .. } if resource == Node::RESOURCE);
    let starting = plan.changes.iter().filter(starting).count();
    let all = view.all::<Node>().filter(|n| !given(n));
    let chosen: Vec<&Arc<Node>> = match mistake {
        Sabotage::ChangesWhoIsAway => all.filter(|n| away(n)).collect(),
        Sabotage::ChangesWhoIsLocked => all.filter(|n| locked(n) && !away(n)).collect(),
        Sabotage::ChangesAllAtOnce if starting > 0 => all.filter(|n| !locked(n) && !away(n)).collect(),
        // The first board has the change and is not well: that should hold the others up.
        Sabotage::HurriesWaves if view.all::<Node>().any(|n| given(n) && !n.status.ready()) => {
            let boards = view.all::<Node>().count() as i32;
            let most = rollout.spec.budget.max_unavailable.of_total(boards, true).unwrap_or(1);
            let down = view.all::<Node>().filter(|n| !n.status.ready() || away(n)).count() as i32;
            // The budget is kept: that is another mistake.
            let room = usize::try_from(most - down).unwrap_or(0).saturating_sub(starting);
            all.filter(|n| !locked(n) && !away(n)).take(room).collect()
        }
        _ => return,
    };
    for node in chosen {
        let mark = json!({"metadata": {"annotations": {OF: rollout.meta.uid}}});
        plan.patch(Node::RESOURCE, &node.meta, None, mark);
    }
}
