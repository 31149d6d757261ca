//! What controllers promise at every single moment, whatever boards and people do.
//!
//! In: each plan with the view that it was made on, each change, each container that begins to run. Out: the first broken
//! promise as a sentence. What a race of Kubernetes' own allows (a pod that dies while its set shrinks) breaks none of them:
//! decisions are judged by what was known when they were made.
//! Never: changes anything.

use crate::{board::Board, limits::Limits};
use limpet_hub_core::{
    Change, Changed, Key, ObjectStore, Plan,
    control::is_lost,
    view::{Deployment, Kind, Node, Pod, ReplicaSet},
    world::Api,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Without a connection for so long a node certainly counts as away.
const OFFLINE_MS: u64 = 60_000;
/// Boards that went within this time of each other certainly went together.
const TOGETHER_MS: u64 = 300_000;
const REPLACE: &str = "limpet.dev/replace";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";

#[derive(Default)]
pub struct Promises {
    /// Most active pods that each Deployment may have at the moment, by uid.
    fences: BTreeMap<Box<str>, usize>,
    /// Pods of StatefulSets, by uid: namespace and name, which are their identity.
    identities: BTreeMap<String, (String, String)>,
    /// Those that are bound to a board.
    bound: BTreeSet<String>,
    /// Pods that somebody let go of without asking their board.
    forced: BTreeSet<String>,
    /// Pods whose board says that nothing of them is left.
    ended: BTreeSet<String>,
    pub limits: Limits,
}

impl Promises {
    /// `kubectl delete --force`: whoever does that answers for it.
    pub fn force(&mut self, uid: &str) {
        self.forced.insert(uid.into());
    }

    /// The board says that nothing of this pod is left.
    pub fn ended(&mut self, uid: &str) {
        self.ended.insert(uid.into());
    }

    /// After each change; the view has it.
    pub fn changed(&mut self, api: &Api, changed: &Changed) -> Result<(), String> {
        self.limits.changed(api, changed)?;
        let view = &api.view;
        if let Some(d) = changed.new_as::<Deployment>() {
            return self.fence(view, d);
        }
        if let Some(set) = changed.new_as::<ReplicaSet>() {
            return deployment_of(view, set).map_or(Ok(()), |d| self.fence(view, d));
        }
        let Some(pod) = changed.new_as::<Pod>().or(changed.old_as::<Pod>()) else { return Ok(()) };
        self.identity(pod, changed.new.is_none())?;
        // Most changes of a pod change nothing that is counted below.
        let counts = |p: &Arc<Pod>| (p.is_active(), p.meta.annotations.contains_key(REPLACE), p.meta.owners.clone());
        let (old, new) = (changed.old_as::<Pod>(), changed.new_as::<Pod>());
        if old.is_some() && old.map(counts) == new.map(counts) {
            return Ok(());
        }
        let set = pod.meta.controller().and_then(|o| view.get::<ReplicaSet>(&pod.meta.namespace, &o.name));
        set.and_then(|set| deployment_of(view, set)).map_or(Ok(()), |d| self.fence(view, d))
    }

    fn identity(&mut self, pod: &Pod, gone: bool) -> Result<(), String> {
        if pod.meta.controller().is_none_or(|o| &*o.kind != "StatefulSet") {
            return Ok(());
        }
        let uid = pod.meta.uid.to_string();
        let known = self.ended.contains(&uid) || self.forced.contains(&uid);
        // A binding that is only assumed is not one.
        if gone && self.bound.remove(&uid) && !pod.is_finished() && !known {
            let (name, node) = (&pod.meta.name, pod.node.as_deref().unwrap_or_default());
            return Err(format!("pod {name} of a StatefulSet is removed while {node} may still run it"));
        }
        if !gone && pod.node.is_some() {
            self.bound.insert(uid.clone());
        }
        self.identities.insert(uid, (pod.meta.namespace.to_string(), pod.meta.name.to_string()));
        Ok(())
    }

    /// Never more active pods than wanted and surge; what was more before a change of mind may go down in its own time.
    fn fence(&mut self, view: &ObjectStore, d: &Arc<Deployment>) -> Result<(), String> {
        let wanted = d.spec.replicas.unwrap_or(1).max(0);
        let surge = d.spec.strategy.rolling_update.max_surge.of_total(wanted, true).unwrap_or(0);
        let allowed = (wanted + if &*d.spec.strategy.type_ == "Recreate" { 0 } else { surge }) as usize;
        let sets: Vec<_> = view.controlled_by::<ReplicaSet>(&d.meta.uid).collect();
        let pods = || sets.iter().flat_map(|rs| view.controlled_by::<Pod>(&rs.meta.uid)).filter(|p| p.is_active());
        let active = pods().count();
        let asked: i32 = sets.iter().map(|rs| rs.spec.replicas.unwrap_or(1)).sum();
        // A set that has not looked yet carries out what it was told before.
        let looked = sets.iter().all(|rs| rs.status.observed_generation == rs.meta.generation);
        let seen = d.status.observed_generation == d.meta.generation && looked;
        let at_rest = seen && asked as usize <= allowed && active <= allowed;
        let fence = self.fences.entry(d.meta.uid.clone()).or_insert(allowed);
        *fence = if at_rest { allowed } else { allowed.max(*fence) };
        // Who lets pods be replaced while their board is away gets them back with it.
        let replaces = pods().any(|p| p.meta.annotations.contains_key(REPLACE));
        match active <= *fence || replaces {
            true => Ok(()),
            false => Err(format!("Deployment {} has {active} pods, at most {fence} may be", d.meta.name)),
        }
    }

    /// A container of a pod begins to run on a board.
    pub fn began(&self, boards: &[Board], index: usize, uid: &str) -> Result<(), String> {
        let Some(identity) = self.identities.get(uid) else { return Ok(()) };
        if boards[index].copied || self.forced.contains(uid) {
            return Ok(());
        }
        for (other, board) in boards.iter().enumerate() {
            let same = |u: &&String| u.as_str() != uid && self.identities.get(u.as_str()) == Some(identity);
            let twin = board.runtime.running.keys().find(same).filter(|u| !self.forced.contains(*u) && !board.copied);
            if let Some(twin) = twin {
                let (ns, name) = identity;
                return Err(format!("{ns}/{name} runs as {uid} on device {index} and as {twin} on device {other}"));
            }
        }
        Ok(())
    }

    /// A plan, and the view that it was made on. `away`: since when nodes are without a connection, in milliseconds.
    pub fn decided(
        &mut self,
        view: &ObjectStore,
        controller: &str,
        key: &Key,
        plan: &Plan,
        away: (&BTreeMap<String, u64>, u64),
    ) -> Result<(), String> {
        self.limits.decided(view, controller, key, plan)?;
        match controller {
            "deployment-controller" => keeps_available(view, key, plan),
            "absence-controller" => nobody_is_evicted(view, key, plan, away),
            _ => Ok(()),
        }
    }
}

fn deployment_of<'a>(view: &'a ObjectStore, set: &ReplicaSet) -> Option<&'a Arc<Deployment>> {
    view.get::<Deployment>(&set.meta.namespace, &set.meta.controller()?.name)
}

/// A rolling update takes no available pod away that is needed for the minimum.
fn keeps_available(view: &ObjectStore, key: &Key, plan: &Plan) -> Result<(), String> {
    let Some(d) = view.get::<Deployment>(&key.namespace, &key.name) else { return Ok(()) };
    let wanted = d.spec.replicas.unwrap_or(1).max(0);
    let update = &d.spec.strategy.rolling_update;
    let surge = update.max_surge.of_total(wanted, true).unwrap_or(0);
    let away = update.max_unavailable.of_total(wanted, false).unwrap_or(0);
    let away = if surge == 0 && away == 0 { 1 } else { away };
    let sets: Vec<_> = view.controlled_by::<ReplicaSet>(&d.meta.uid).collect();
    let is_scaling = sets.iter().any(|rs| {
        let said = rs.meta.annotations.get(DESIRED).and_then(|n| n.parse::<i32>().ok());
        rs.spec.replicas.unwrap_or(1) > 0 && said.is_some_and(|n| n != wanted)
    });
    // Who pauses a rollout and asks for less surge has all sets shrunk in proportion, as upstream.
    if &*d.spec.strategy.type_ != "RollingUpdate" || d.spec.paused || d.meta.deleting.is_some() || is_scaling {
        return Ok(());
    }
    let mut counts = [(0, 0); 2];
    for set in sets {
        let ready = |p: &&Arc<Pod>| p.is_active() && p.status.ready && !is_lost(p);
        let there = view.controlled_by::<Pod>(&set.meta.uid).filter(ready).count() as i32;
        let old = set.spec.replicas.unwrap_or(1);
        let new = asked_by(plan, set).unwrap_or(old);
        for (count, available) in counts.iter_mut().zip([there, set.status.available_replicas]) {
            count.0 += available.min(old);
            count.1 += available.min(new);
        }
    }
    // A Deployment knows of its pods what its ReplicaSets say, and that is a moment old: it is wrong by both counts or
    // not at all.
    let (least, [(before, after), _]) = (wanted - away, counts);
    match counts.iter().all(|(before, after)| after < before && *after < least) {
        true => Err(format!("Deployment {}: {before} available pods become {after}, at least {least} must stay", key.name)),
        false => Ok(()),
    }
}

fn asked_by(plan: &Plan, set: &ReplicaSet) -> Option<i32> {
    plan.changes.iter().find_map(|c| match c {
        Change::Patch { resource, name, merge, .. } if resource == ReplicaSet::RESOURCE && **name == *set.meta.name => {
            merge.pointer("/spec/replicas")?.as_i64().map(|n| n as i32)
        }
        _ => None,
    })
}

/// A board that is away loses no pod; and nobody is replaced when most of the fleet went away together.
fn nobody_is_evicted(
    view: &ObjectStore,
    key: &Key,
    plan: &Plan,
    (away, now): (&BTreeMap<String, u64>, u64),
) -> Result<(), String> {
    let marks = plan.changes.iter().any(|c| match c {
        Change::Patch { merge, .. } => merge["metadata"]["annotations"]["limpet.dev/lost-since"].is_string(),
        _ => false,
    });
    if !marks {
        return Ok(());
    }
    if plan.changes.iter().any(|c| matches!(c, Change::Delete { .. })) {
        return Err(format!("pods of {} are deleted while it is away", key.name));
    }
    // It may have come back in this very moment.
    let Some(mine) = away.get(&*key.name) else { return Ok(()) };
    let long = |since: &&u64| now - **since >= OFFLINE_MS;
    let together = away.values().filter(long).filter(|since| since.abs_diff(*mine) <= TOGETHER_MS).count();
    let there = view.all::<Node>().count() - away.values().filter(long).count();
    match together > there {
        true => Err(format!("pods of {} are replaced, and {together} boards went with it, {there} are there", key.name)),
        false => Ok(()),
    }
}
