//! What quotas, disruption budgets and rollouts through the fleet promise.
//!
//! In: each change, each eviction, each plan with the view that it was made on. Out: the first broken promise as a sentence.
//! What happens between a count and what is done by it (a pod that dies, a workload that shrinks) breaks none:
//! Kubernetes' API counts no better.
//! Never: changes anything.

use crate::policies::BUDGETS;
use limpet_hub_core::{
    Change, Changed, Key, ObjectStore, Plan,
    nodes::offline::OFFLINE_SINCE,
    view::{FleetRollout, Kind, Node, Object, Pod, PodDisruptionBudget, ResourceQuota, Taint},
    world::Api,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const OF: &str = "limpet.dev/rollout";
const LOCK: &str = "limpet.dev/update-lock";

/// Of one disruption budget, in revisions.
#[derive(Clone, Copy, Default)]
struct Count {
    /// The controller's plan that is on its way was made then.
    planned: u64,
    /// The plan that the status comes from was made then.
    counted: u64,
    /// Something else than an eviction happened to its pods or their number.
    disturbed: u64,
}

#[derive(Default)]
pub struct Limits {
    counts: BTreeMap<String, Count>,
    /// The change of a budget that comes next is an eviction's.
    spends: bool,
    evicted: BTreeSet<Box<str>>,
}

impl Limits {
    pub fn spends(&mut self) {
        self.spends = true;
    }

    pub fn evicts(&mut self, uid: &str) {
        self.evicted.insert(uid.into());
    }

    /// After each change; the view has it.
    pub fn changed(&mut self, api: &Api, changed: &Changed) -> Result<(), String> {
        if changed.is::<PodDisruptionBudget>() {
            self.budget(api, changed);
        } else if changed.is::<Pod>() {
            self.pod(api, changed);
            if changed.old.is_none() {
                return within_quota(&api.view, changed);
            }
        } else if matches!(&*changed.key.resource, "apps/deployments" | "apps/replicasets" | "apps/statefulsets")
            && resized(changed)
        {
            // How many there should be may be counted from any of them.
            self.counts.values_mut().for_each(|c| c.disturbed = api.revision);
        }
        Ok(())
    }

    fn budget(&mut self, api: &Api, changed: &Changed) {
        let count = self.counts.entry(changed.key.name.to_string()).or_default();
        let generation = |o: Option<&Arc<PodDisruptionBudget>>| o.map(|b| b.meta.generation);
        if generation(changed.old_as()) != generation(changed.new_as()) {
            count.disturbed = api.revision;
        } else if !std::mem::take(&mut self.spends) {
            count.counted = count.planned;
        }
    }

    fn pod(&mut self, api: &Api, changed: &Changed) {
        let (old, new) = (changed.old_as::<Pod>(), changed.new_as::<Pod>());
        let counts = |p: Option<&Arc<Pod>>| p.is_some_and(|p| p.meta.deleting.is_none() && p.status.ready);
        let uid = changed.metas().next().map(|m| m.uid.clone()).unwrap_or_default();
        if counts(old) == counts(new) || self.evicted.contains(&uid) {
            return;
        }
        let Some(app) = changed.metas().find_map(|m| m.labels.get("app").map(String::from)) else { return };
        self.counts.entry(app).or_default().disturbed = api.revision;
    }

    /// A ready pod was evicted: what its budget protects is still there, as far as the count could know.
    pub fn evicted(&self, api: &Api, budget: &str) -> Result<(), String> {
        let count = self.counts.get(budget).copied().unwrap_or_default();
        if count.disturbed > count.counted {
            return Ok(());
        }
        let healthy = |p: &&Arc<Pod>| {
            p.meta.labels.get("app") == Some(budget) && p.meta.deleting.is_none() && p.status.ready
        };
        let left = api.view.list::<Pod>("default").filter(healthy).count() as i64;
        let least = api.get(BUDGETS, "default", budget)["status"]["desiredHealthy"].as_i64().unwrap_or(0);
        match left < least {
            true => Err(format!("budget {budget}: {left} healthy pods are left by an eviction, {least} must stay")),
            false => Ok(()),
        }
    }

    /// A place for a pod, and the view that it was chosen in: the board takes new pods, and has room for one more.
    pub fn placed(&self, view: &ObjectStore, plan: &Plan) -> Result<(), String> {
        for change in &plan.changes {
            let Change::Bind { namespace, name, node, .. } = change else { continue };
            let (Some(pod), Some(board)) = (view.pod(namespace, name), view.node(node)) else { continue };
            let (key, effect) = ("node.kubernetes.io/unschedulable".into(), "NoSchedule".into());
            let cordoned = Taint { key, effect, ..Taint::default() };
            let cordoned = board.spec.unschedulable.then_some(&cordoned);
            let strict = board.spec.taints.iter().filter(|t| matches!(&*t.effect, "NoSchedule" | "NoExecute"));
            let tolerated = |t: &&Taint| pod.spec.tolerations.iter().any(|x| x.tolerates(t));
            if let Some(taint) = strict.chain(cordoned).find(|t| !tolerated(t)) {
                return Err(format!("pod {name} is placed on {node}, which takes no new pods: {}", taint.key));
            }
            let (used, can) = (view.used_on(node).requests, &board.status.allocatable);
            if used.pods >= can.pods || used.cpu_milli > can.cpu_milli || used.memory > can.memory {
                return Err(format!("pod {name} is placed on {node}, which is full"));
            }
        }
        Ok(())
    }

    /// A plan, and the view that it was made on.
    pub fn decided(&mut self, view: &ObjectStore, controller: &str, key: &Key, plan: &Plan) -> Result<(), String> {
        match controller {
            "disruption-controller" => {
                let count = self.counts.entry(key.name.to_string()).or_default();
                count.planned = view.revision();
                // Nothing to write: the status is right as it is.
                if !plan.changes.iter().any(|c| !matches!(c, Change::Event { .. })) {
                    count.counted = count.planned;
                }
                Ok(())
            }
            "fleetrollout-controller" => rolls_out(view, key, plan),
            _ => Ok(()),
        }
    }
}

/// Whether there may be another number of pods wanted than before.
fn resized(changed: &Changed) -> bool {
    let generation = |o: &Option<Object>| o.as_ref().map(|o| o.meta().generation);
    generation(&changed.old) != generation(&changed.new)
}

/// A pod that a controller made fits into every quota of its namespace.
fn within_quota(view: &ObjectStore, changed: &Changed) -> Result<(), String> {
    let made = changed.new_as::<Pod>().is_some_and(|p| p.meta.controller().is_some());
    for quota in view.list::<ResourceQuota>(&changed.key.namespace).filter(|_| made) {
        let pods = view.list::<Pod>(&changed.key.namespace).filter(|p| !p.is_finished()).count();
        let hard = quota.field("/spec/hard/pods");
        if let Some(most) = hard.as_str().and_then(|n| n.parse::<usize>().ok()).filter(|most| pods > *most) {
            return Err(format!("{} is pod {pods}, quota {} allows {most}", changed.key, quota.meta.name));
        }
    }
    Ok(())
}

/// Boards that a plan gives a rollout's change.
fn starts<'a>(view: &'a ObjectStore, plan: &'a Plan) -> impl Iterator<Item = &'a Arc<Node>> {
    plan.changes.iter().filter_map(|c| match c {
        Change::Patch { resource, name, merge, .. } if resource == Node::RESOURCE => {
            merge["metadata"]["annotations"][OF].is_string().then(|| view.node(name)).flatten()
        }
        _ => None,
    })
}

/// Boards of which a plan deletes a pod, in either direction.
fn replaced<'a>(view: &'a ObjectStore, plan: &'a Plan) -> impl Iterator<Item = &'a Arc<Node>> {
    plan.changes.iter().filter_map(|c| match c {
        Change::Delete { resource, namespace, name, .. } if resource == Pod::RESOURCE => {
            view.node(view.pod(namespace, name)?.node.as_deref()?)
        }
        _ => None,
    })
}

/// Boards that are away or locked are left alone; the budget holds; a wave begins when what has the change is well.
fn rolls_out(view: &ObjectStore, key: &Key, plan: &Plan) -> Result<(), String> {
    let Some(rollout) = view.get::<FleetRollout>(&key.namespace, &key.name) else { return Ok(()) };
    let (name, away) = (&key.name, |n: &Node| n.meta.annotations.contains_key(OFFLINE_SINCE));
    for node in starts(view, plan).chain(replaced(view, plan)) {
        if away(node) {
            return Err(format!("rollout {name} changes {}, which is away", node.meta.name));
        }
        if node.meta.annotations.contains_key(LOCK) {
            return Err(format!("rollout {name} changes {}, which is locked", node.meta.name));
        }
    }
    let starting = starts(view, plan).count();
    if starting == 0 {
        return Ok(());
    }
    let all = view.all::<Node>().count();
    let is_down = |n: &&Arc<Node>| !n.status.ready() || away(n);
    let before = view.all::<Node>().filter(is_down).count();
    let after = before + starts(view, plan).filter(|n| !is_down(n)).count();
    let most = rollout.spec.budget.max_unavailable.of_total(all as i32, true).unwrap_or(1).max(0) as usize;
    if after > most.max(before) {
        return Err(format!("rollout {name} has {after} boards down at once, {most} may be"));
    }
    let has = |n: &&Arc<Node>| n.meta.annotations.get(OF) == Some(&*rollout.meta.uid);
    let share = rollout.spec.waves.first().map_or(all, |w| (all * w.percent as usize).div_ceil(100).max(1));
    // A wave that was good once has proved what it should, whatever its boards do later.
    let ill = view.all::<Node>().filter(has).find(is_down).filter(|_| rollout.status.wave_index == 0);
    match (view.all::<Node>().filter(has).count() + starting > share, ill) {
        (true, Some(ill)) => Err(format!("rollout {name} begins a wave while {} is not well", ill.meta.name)),
        _ => Ok(()),
    }
}
