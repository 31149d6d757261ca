//! What happens to pods of boards that are away: nothing, unless somebody asked for it.
//!
//! In: one Node with its pods. Out: pods that are lost get the annotation `limpet.dev/lost-since`, so that their
//! ReplicaSet starts others; when the board is back, one of each pair goes.
//! Policy, the nearest word wins: annotations of the pod, of the node, the NodePool, the defaults (never lost).
//! Never: deletes a pod while its board is away; acts at all when most of the fleet vanished at the same time, for then
//! it is the hub's own link that is suspect, or before it can be known who vanished; touches pods that belong to their node.

use super::{Controller, common::after, nodepool::pool_of};
use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    clocks::WallClock,
    limits,
    nodes::offline::{LEASES, OFFLINE_SINCE, away_since},
    view::{Kind, Labels, Lease, Node, NodePool, OfflineWords, Pod, conditions::rfc3339},
};
use limpet_objects::absence::{self as words, LOST_AFTER, RECONCILE, REPLACE};
use serde_json::json;
use std::{cmp::Reverse, sync::Arc};

const NAME: &str = "absence-controller";
/// Annotation on a pod that is replaced because its board is away: since when.
pub const LOST_SINCE: &str = "limpet.dev/lost-since";
/// Boards that went away within this time of each other went together.
const TOGETHER_S: i64 = 600;
/// Boards that went in one moment are marked as away one after the other, and a hub that has just started takes all for there
/// until they had time to come: nobody is replaced sooner than this, whatever the policy says.
const KNOWN_AFTER_S: i64 = limits::OFFLINE_AFTER_CLOSE_S + 20;
/// Seconds during which it is said why nobody is replaced.
const SAID_WITHIN_S: i64 = 10;
const UNREADABLE: &str = "UnreadableAnnotation";
const SUSPECT: &str = "MostOfTheFleetIsAway";
/// Owners whose pods may be started elsewhere: nothing tells one of them from another.
const REPLACEABLE: [&str; 2] = ["ReplicaSet", "ReplicationController"];

/// Who stays when the board is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconcile {
    KeepOriginal,
    KeepReplacement,
    LongestRunning,
}

/// What holds for one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `None`: never.
    pub lost_after_s: Option<i64>,
    pub replace: bool,
    pub reconcile: Reconcile,
}

impl Policy {
    pub fn of(view: &ObjectStore, pod: &Pod, node: &Node) -> Policy {
        let pool = pool_of(view, node).map(|p| p.spec.offline.clone()).unwrap_or_default();
        let places = [spoken(&pod.meta.annotations), spoken(&node.meta.annotations), pool];
        let text = |f: fn(&OfflineWords) -> &Option<Box<str>>| places.iter().find_map(|w| f(w).as_deref());
        Policy {
            lost_after_s: text(|w| &w.lost_after).and_then(words::lost_after).flatten(),
            replace: places.iter().find_map(|w| w.replace).unwrap_or(false),
            reconcile: match text(|w| &w.reconcile) {
                Some("keep-replacement") => Reconcile::KeepReplacement,
                Some("longest-running") => Reconcile::LongestRunning,
                _ => Reconcile::KeepOriginal,
            },
        }
    }
}

fn spoken(annotations: &Labels) -> OfflineWords {
    OfflineWords {
        lost_after: annotations.get(LOST_AFTER).map(Into::into),
        replace: annotations.get(REPLACE).map(|v| v == "true"),
        reconcile: annotations.get(RECONCILE).map(Into::into),
    }
}

/// Annotations about absence that cannot be read, with what holds instead.
pub fn complaints(annotations: &Labels) -> Vec<String> {
    words::complaints(|key| annotations.get(key))
}

/// Whether a pod is replaced by another while its board is away: its owner does not count it.
pub fn is_lost(pod: &Pod) -> bool {
    pod.meta.annotations.contains_key(LOST_SINCE)
}

pub struct AbsenceController {
    pub clock: Arc<dyn WallClock>,
}

impl Controller for AbsenceController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Node::RESOURCE, NodePool::RESOURCE, Pod::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let key = |name: &str| Key::new(Node::RESOURCE, "", name);
        let away = |n: &&Arc<Node>| n.meta.annotations.contains_key(OFFLINE_SINCE);
        if changed.is::<NodePool>() {
            return view.all::<Node>().filter(away).map(|n| key(&n.meta.name)).collect();
        }
        if let Some(pod) = changed.new_as::<Pod>() {
            let node = pod.node.as_deref().and_then(|n| view.node(n));
            let concerned = node.filter(|n| away(n) || is_lost(pod));
            return concerned.map(|n| key(&n.meta.name)).into_iter().collect();
        }
        let (old, new) = (changed.old_as::<Node>(), changed.new_as::<Node>());
        let same = old.zip(new).is_some_and(|(o, n)| {
            o.meta.annotations == n.meta.annotations
                && o.meta.labels == n.meta.labels
                && o.status.ready() == n.status.ready()
        });
        if same || !changed.is::<Node>() {
            return vec![];
        }
        // Another board's coming or going changes who went together.
        let went = |o: Option<&Arc<Node>>| o.and_then(|n| n.meta.annotations.get(OFFLINE_SINCE).map(String::from));
        if went(old) != went(new) {
            let others = view.all::<Node>().filter(away).map(|n| key(&n.meta.name));
            return others.chain([key(&changed.key.name)]).collect();
        }
        vec![key(&changed.key.name)]
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = view.node(&key.name) else { return plan };
        match away_since(node) {
            Some(since) => {
                if let Some(wrong) = said_wrongly(&complaints(&node.meta.annotations)) {
                    plan.event(Regarding::of(&**node), EventType::Warning, UNREADABLE, wrong, NAME);
                }
                lose(view, node, (since, self.known_at(now)), now, &mut plan);
            }
            None if node.status.ready() => take_back(view, node, now, &mut plan),
            None => {}
        }
        plan
    }
}

impl AbsenceController {
    /// From when on boards that are away are known to be, and all their times are by one clock.
    fn known_at(&self, now: Timestamp) -> Timestamp {
        after(self.clock.even(now).since.min(now), KNOWN_AFTER_S)
    }
}

fn is_replaceable(pod: &Pod) -> bool {
    pod.is_active() && pod.meta.controller().is_some_and(|o| REPLACEABLE.contains(&&*o.kind))
}

fn lose(view: &ObjectStore, node: &Node, (since, known): (Timestamp, Timestamp), now: Timestamp, plan: &mut Plan) {
    let pods = view.pods_on(&node.meta.name).filter(|p| is_replaceable(p) && !is_lost(p));
    for pod in pods {
        let policy = Policy::of(view, pod, node);
        if let Some(wrong) = said_wrongly(&complaints(&pod.meta.annotations)) {
            plan.event(Regarding::of(&**pod), EventType::Warning, UNREADABLE, wrong, NAME);
        }
        let Some(seconds) = policy.lost_after_s.filter(|_| policy.replace) else { continue };
        let due = after(since, seconds.max(KNOWN_AFTER_S)).max(known);
        if due > now {
            plan.wake_at(due);
            continue;
        }
        if let Some(why) = most_are_away(view, node) {
            // Said once, when the first pod would have been replaced; not each time that another board comes or goes.
            if after(due, SAID_WITHIN_S) > now {
                plan.event(Regarding::of(node), EventType::Warning, SUSPECT, why.clone(), NAME);
            }
            plan.because(SUSPECT, why);
            return;
        }
        let mark = json!({"metadata": {"annotations": {LOST_SINCE: rfc3339(now)}}});
        plan.patch_exact(Pod::RESOURCE, &pod.meta, None, mark);
        let message = format!(
            "Node {} is away since {}; another pod is started in place of this one, which may still run there",
            node.meta.name,
            rfc3339(since)
        );
        plan.event(Regarding::of(&**pod), EventType::Warning, "Lost", message, NAME);
    }
}

/// More than half of the boards that were there went away together with this one: by the times on their objects, or by their
/// last leases. A board that was there when the hub went down counts as away since the hub is up again, by a clock that
/// somebody may have set in between; its lease is as old as those of the boards with which it went.
pub fn most_are_away(view: &ObjectStore, one: &Node) -> Option<String> {
    let (when, lease) = (away_since(one)?, last_lease(view, one));
    let near = |a: Timestamp, b: Timestamp| (a.as_second() - b.as_second()).abs() <= TOGETHER_S;
    let (mut together, mut there) = (0usize, 0usize);
    for node in view.all::<Node>().filter(|n| n.meta.deleting.is_none()) {
        match away_since(node) {
            None => there += 1,
            Some(t) if near(t, when) => together += 1,
            Some(_) if last_lease(view, node).zip(lease).is_some_and(|(a, b)| near(a, b)) => together += 1,
            Some(_) => {}
        }
    }
    (together > there).then(|| {
        let all = together + there;
        format!("{together} of {all} boards went away at the same time: the hub's own link is suspect, nobody is replaced")
    })
}

fn last_lease(view: &ObjectStore, node: &Node) -> Option<Timestamp> {
    view.get::<Lease>(LEASES, &node.meta.name)?.spec.renew_time
}

fn said_wrongly(complaints: &[String]) -> Option<String> {
    (!complaints.is_empty()).then(|| complaints.join("; "))
}

/// The board is back: of each lost pod and its replacement one goes.
fn take_back(view: &ObjectStore, node: &Node, now: Timestamp, plan: &mut Plan) {
    let mut spent: Vec<&str> = Vec::new();
    for pod in view.pods_on(&node.meta.name).filter(|p| is_lost(p) && p.is_active()) {
        let policy = Policy::of(view, pod, node);
        let replacement = replacement_of(view, pod, &spent);
        let keeps_original = match (policy.reconcile, replacement) {
            (_, None) | (Reconcile::KeepOriginal, _) => true,
            (Reconcile::KeepReplacement, Some(r)) => !r.status.ready,
            (Reconcile::LongestRunning, Some(r)) => running_since(pod, now) <= running_since(r, now),
        };
        if keeps_original {
            let unmark = json!({"metadata": {"annotations": {LOST_SINCE: null}}});
            plan.patch_exact(Pod::RESOURCE, &pod.meta, None, unmark);
        }
        if let Some(other) = replacement {
            let (goes, stays) = if keeps_original { (other, pod) } else { (pod, other) };
            spent.push(&other.meta.uid);
            plan.delete(Pod::RESOURCE, &goes.meta);
            let message = format!("Node {} is back; pod {} stays in place of this one", node.meta.name, stays.meta.name);
            plan.event(Regarding::of(&**goes), EventType::Normal, "Reconciled", message, NAME);
        }
    }
}

/// The pod that was started for a lost one: of the same owner, after the loss. Of several, one that does not run yet,
/// then the youngest.
fn replacement_of<'a>(view: &'a ObjectStore, lost: &'a Pod, spent: &[&str]) -> Option<&'a Arc<Pod>> {
    let owner = lost.meta.controller()?;
    let since: Timestamp = lost.meta.annotations.get(LOST_SINCE)?.parse().ok()?;
    let later = |p: &&Arc<Pod>| {
        p.is_active() && !is_lost(p) && p.meta.uid != lost.meta.uid && p.meta.created_at() >= since
            && !spent.contains(&&*p.meta.uid)
    };
    let others = view.controlled_by::<Pod>(&owner.uid).filter(later);
    others.min_by_key(|p| (p.status.ready, Reverse(p.meta.created_at()), p.meta.name.clone()))
}

/// Since when a pod serves; the end of time when it does not. A board's clock may be in 1970 or in 2050: no pod serves before
/// the hub made it, nor from some time to come on.
fn running_since(pod: &Pod, now: Timestamp) -> Timestamp {
    let made = pod.meta.created_at();
    match pod.status.ready {
        true => pod.status.ready_since.or(pod.status.started).map_or(Timestamp::MAX, |t| t.max(made).min(now.max(made))),
        false => Timestamp::MAX,
    }
}

#[cfg(test)]
mod tests;
