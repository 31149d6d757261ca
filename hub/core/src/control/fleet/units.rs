//! What a rollout changes, one by one: objects, or boards.
//!
//! In: the view and a rollout. Out: its units with their state; the changes that give a unit the new thing, or take it
//! back. An object or node that has the change says so in annotations, with the patch that undoes it; a board of a
//! DaemonSet says so by the revision of its pod.
//! Never: a change without the way back.

use super::programs::{AGENT_VERSION, Kept, Programs, agent_version};
use crate::{
    Change, ObjectStore, Plan, Timestamp,
    canonical::{json_diff, merge},
    control::{daemonset, history::HASH_LABEL},
    nodes::offline::OFFLINE_SINCE,
    view::{
        ConfigMap, ControllerRevision, DaemonSet, Deployment, FleetRollout, Kind, Labels, Meta, Node, Obj, Pod, PodRef,
        StatefulSet, conditions, conditions::rfc3339,
    },
};
use limpet_protocol::os_update;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Annotations of an object that has the change: of which rollout (its uid), since when, and how to undo it.
pub const OF: &str = "limpet.dev/rollout";
pub const AT: &str = "limpet.dev/rollout-at";
pub const UNDO: &str = "limpet.dev/rollout-undo";
/// Annotation of a node, a pod on it, or an object: no update until it is gone; the value says why.
pub const LOCK: &str = "limpet.dev/update-lock";
/// Annotation of a rollout: `true` goes on in spite of locks, but never in the way of another rollout.
const OVERRIDE: &str = "limpet.dev/override-locks";
const OTHER: &str = "FleetRollout";
/// Container restarts since the change after which a pod counts as failed.
const RESTARTS_MAX: i32 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Has not the change.
    Old,
    /// Has the change and is not healthy yet.
    Changed { since: Option<Timestamp> },
    Healthy,
    Failed { why: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    pub labels: Labels,
    pub state: State,
    /// In service, whatever version it has.
    pub ok: bool,
    /// Its board is away.
    pub away: bool,
    pub lock: Option<String>,
    /// Is between the change and what it had before.
    pub going_back: bool,
    /// What it keeps when the rollout goes back.
    pub kept: Kept,
}

/// All units by name. `Err`: why the target cannot be rolled out; empty: it is about to be seen.
pub fn collect(view: &ObjectStore, rollout: &FleetRollout) -> Result<Vec<Unit>, String> {
    let mut units = all(view, rollout)?;
    if rollout.meta.annotations.get(OVERRIDE) == Some("true") {
        let theirs = |u: &&mut Unit| u.lock.as_ref().is_some_and(|l| !l.starts_with(OTHER));
        units.iter_mut().filter(theirs).for_each(|u| u.lock = None);
    }
    Ok(units)
}

/// Rollouts that are older than this one and still at work on the same kind: where both want an object, they go first.
struct Rivals<'a>(Vec<&'a Arc<FleetRollout>>);

impl<'a> Rivals<'a> {
    fn of(view: &'a ObjectStore, rollout: &FleetRollout) -> Rivals<'a> {
        let age = |r: &FleetRollout| (r.meta.created_at(), r.meta.name.clone());
        let own = age(rollout);
        let first = |r: &&Arc<FleetRollout>| {
            r.meta.uid != rollout.meta.uid
                && r.spec.target.kind == rollout.spec.target.kind
                && r.meta.deleting.is_none()
                && !super::is_settled(r)
                && age(r) < own
        };
        Rivals(view.list::<FleetRollout>(&rollout.meta.namespace).filter(first).collect())
    }

    fn at_work_on(&self, meta: &Meta) -> Option<String> {
        let rival = self.0.iter().find(|r| chosen(r, meta))?;
        let name = &rival.meta.name;
        Some(format!("{OTHER} {name} is older and still at work on it; it goes first, or somebody deletes it"))
    }
}

fn all(view: &ObjectStore, rollout: &FleetRollout) -> Result<Vec<Unit>, String> {
    let rivals = &Rivals::of(view, rollout);
    let namespace = &rollout.meta.namespace;
    let chosen = |meta: &Meta| chosen(rollout, meta) && meta.deleting.is_none();
    match &*rollout.spec.target.kind {
        "DaemonSet" => daemon_set(view, rollout, rivals),
        "Deployment" => {
            let all = view.list::<Deployment>(namespace).filter(|d| chosen(&d.meta));
            Ok(all.map(|d| unit(rivals, rollout, &d.meta, deployment(d))).collect())
        }
        "StatefulSet" => {
            let all = view.list::<StatefulSet>(namespace).filter(|s| chosen(&s.meta));
            Ok(all.map(|s| unit(rivals, rollout, &s.meta, stateful_set(s))).collect())
        }
        "ConfigMap" => {
            let all = view.list::<ConfigMap>(namespace).filter(|c| chosen(&c.meta));
            Ok(all.map(|c| unit(rivals, rollout, &c.meta, config_map(view, c))).collect())
        }
        "Node" => {
            let wanted = Programs::of(rollout);
            let all = view.all::<Node>().filter(|n| chosen(&n.meta));
            Ok(all.map(|n| node_unit(view, rivals, rollout, n, &wanted)).collect())
        }
        other => Err(format!("objects of kind {other:?} cannot be rolled out")),
    }
}

fn chosen(rollout: &FleetRollout, meta: &Meta) -> bool {
    let target = &rollout.spec.target;
    match &target.selector {
        Some(selector) if target.name.is_empty() => !selector.is_empty() && selector.matches(&meta.labels),
        _ => meta.name == target.name,
    }
}

/// How an object is: in service; healthy in the version that it has; failed, and why.
struct Health {
    ok: bool,
    settled: bool,
    failed: Option<String>,
}

fn deployment(d: &Deployment) -> Health {
    let wanted = d.spec.replicas.unwrap_or(1);
    let s = &d.status;
    let progressing = conditions::find(&s.conditions, "Progressing");
    let stuck = progressing.filter(|c| &*c.status == "False" && &*c.reason == "ProgressDeadlineExceeded");
    let seen = s.observed_generation >= d.meta.generation;
    Health {
        ok: s.available_replicas >= wanted,
        settled: seen && s.updated_replicas >= wanted && s.available_replicas >= wanted && s.replicas <= wanted,
        failed: stuck.filter(|_| seen).map(|c| c.message.to_string()),
    }
}

fn stateful_set(s: &StatefulSet) -> Health {
    let number = |field: &str| s.field("/status")[field].as_i64().unwrap_or(0);
    let wanted = i64::from(s.spec.replicas.unwrap_or(1));
    let ready = number("readyReplicas") >= wanted;
    let new = s.status.current_revision == s.status.update_revision || number("updatedReplicas") >= wanted;
    let seen = s.status.observed_generation >= s.meta.generation;
    Health { ok: ready, settled: seen && ready && new, failed: None }
}

/// A ConfigMap is as healthy as the pods that use it.
fn config_map(view: &ObjectStore, c: &ConfigMap) -> Health {
    let uses = |p: &&Arc<Pod>| {
        p.is_active() && p.spec.refs.iter().any(|r| matches!(r, PodRef::ConfigMap(name) if *name == c.meta.name))
    };
    let ok = view.list::<Pod>(&c.meta.namespace).filter(uses).all(|p| p.status.ready);
    Health { ok, settled: ok, failed: None }
}

fn unit(rivals: &Rivals<'_>, rollout: &FleetRollout, meta: &Meta, health: Health) -> Unit {
    let mine = meta.annotations.get(OF) == Some(&*rollout.meta.uid);
    let since = meta.annotations.get(AT).and_then(|t| t.parse().ok());
    let state = match (mine, health.failed, health.settled) {
        (false, ..) => State::Old,
        (true, Some(why), _) => State::Failed { why },
        (true, None, true) => State::Healthy,
        (true, None, false) => State::Changed { since },
    };
    let lock = meta.annotations.get(LOCK).map(reason).or_else(|| rivals.at_work_on(meta));
    Unit {
        name: meta.name.to_string(),
        labels: meta.labels.clone(),
        state,
        ok: health.ok,
        away: false,
        lock,
        going_back: false,
        kept: Kept::Nothing,
    }
}

fn reason(value: &str) -> String {
    if value.is_empty() { "locked, without a reason".into() } else { value.into() }
}

fn is_away(node: &Node) -> bool {
    node.meta.annotations.contains_key(OFFLINE_SINCE)
}

/// A lock on the board: of the device itself, or of an application that runs there.
fn board_lock(view: &ObjectStore, node: &Node) -> Option<String> {
    let own = node.meta.annotations.get(LOCK).map(reason).or_else(|| device_lock(node));
    own.or_else(|| {
        let pods = view.pods_on(&node.meta.name).filter(|p| p.is_active());
        let mut locks = pods.filter_map(|p| Some((p, p.meta.annotations.get(LOCK)?)));
        locks.next().map(|(p, value)| format!("pod {}/{}: {}", p.meta.namespace, p.meta.name, reason(value)))
    })
}

/// A lock that was made at the board itself: its agent says so in a condition.
pub fn device_lock(node: &Node) -> Option<String> {
    let conditions = node.field("/status/conditions");
    let told = conditions.as_array()?.iter().find(|c| c["type"] == "UpdateLocked" && c["status"] == "True")?;
    Some(format!("on the board: {}", told["message"].as_str().unwrap_or_default()))
}

fn node_unit(view: &ObjectStore, rivals: &Rivals<'_>, rollout: &FleetRollout, node: &Node, wanted: &Programs) -> Unit {
    let ready = node.status.ready();
    let health = Health { ok: ready, settled: ready && wanted.run_on(node), failed: wanted.failed_on(node) };
    let mut unit = unit(rivals, rollout, &node.meta, health);
    unit.away = is_away(node);
    unit.kept = wanted.kept_by(node);
    unit.lock = unit.lock.or_else(|| board_lock(view, node));
    unit
}

/// The newest revision of a DaemonSet, and the one before it.
pub fn revisions<'a>(view: &'a ObjectStore, ds: &'a DaemonSet) -> Vec<&'a Arc<ControllerRevision>> {
    let mut all: Vec<_> = view.controlled_by::<ControllerRevision>(&ds.meta.uid).collect();
    all.sort_by_key(|r| r.revision);
    all
}

pub fn hash_of(meta: &Meta) -> &str {
    meta.labels.get(HASH_LABEL).unwrap_or_default()
}

fn daemon_set(view: &ObjectStore, rollout: &FleetRollout, rivals: &Rivals<'_>) -> Result<Vec<Unit>, String> {
    let name = &rollout.spec.target.name;
    let Some(ds) = view.get::<DaemonSet>(&rollout.meta.namespace, name) else {
        return Err(format!("there is no DaemonSet {name}"));
    };
    if &*ds.spec.update_strategy.type_ != "OnDelete" {
        return Err(format!(
            "DaemonSet {name} updates its pods by itself; set its spec.updateStrategy.type to OnDelete so that this \
             rollout can"
        ));
    }
    if let Some(other) = rivals.at_work_on(&ds.meta) {
        return Err(other);
    }
    let revisions = revisions(view, ds);
    let Some(newest) = revisions.last().filter(|_| ds.status.observed_generation >= ds.meta.generation) else {
        return Err(String::new());
    };
    let rolling_back = &*rollout.status.phase == "RollingBack";
    let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    // A board whose pod is between the old and the new one is a unit too, and one that is away keeps its pod.
    for node in daemonset::boards(view, ds) {
        by_node.entry(&node.meta.name).or_default();
    }
    for pod in view.controlled_by::<Pod>(&ds.meta.uid) {
        if let Some(node) = &pod.node {
            by_node.entry(node).or_default().push(pod);
        }
    }
    let nodes = by_node.iter().filter_map(|(name, pods)| Some((view.node(name)?, pods)));
    Ok(nodes.map(|(node, pods)| board(view, node, pods, hash_of(&newest.meta), rolling_back)).collect())
}

/// A board's state by the pod that runs there. While a rollout goes back, the newest revision is what was before.
fn board(view: &ObjectStore, node: &Node, pods: &[&Arc<Pod>], newest: &str, rolling_back: bool) -> Unit {
    let active = pods.iter().find(|p| p.is_active());
    let has_new = active.is_some_and(|p| hash_of(&p.meta) == newest);
    let ok = active.is_some_and(|p| p.status.ready);
    let restarts = active.map_or(0, |p| p.status.restarts);
    let since = active.map(|p| p.meta.created_at());
    let state = match (rolling_back, has_new, active) {
        (true, true, _) => State::Old,
        (true, false, _) => State::Healthy,
        (false, true, Some(_)) if ok => State::Healthy,
        (false, true, Some(_)) if restarts >= RESTARTS_MAX => {
            State::Failed { why: format!("its pod was restarted {restarts} times") }
        }
        (false, true, _) => State::Changed { since },
        // The old pod goes; the new one is not made yet.
        (false, false, None) => State::Changed { since: None },
        (false, false, Some(_)) => State::Old,
    };
    Unit {
        name: node.meta.name.to_string(),
        labels: node.meta.labels.clone(),
        state,
        ok,
        away: is_away(node),
        lock: board_lock(view, node),
        going_back: rolling_back && (active.is_none() || (has_new && !ok)),
        kept: Kept::Nothing,
    }
}

/// Gives a unit the change.
pub fn start(view: &ObjectStore, rollout: &FleetRollout, unit: &str, now: Timestamp, plan: &mut Plan) {
    let namespace = &rollout.meta.namespace;
    match &*rollout.spec.target.kind {
        "DaemonSet" => delete_pods(view, rollout, unit, plan),
        "Deployment" => apply(view.get::<Deployment>(namespace, unit), rollout, now, plan),
        "StatefulSet" => apply(view.get::<StatefulSet>(namespace, unit), rollout, now, plan),
        "ConfigMap" => apply(view.get::<ConfigMap>(namespace, unit), rollout, now, plan),
        _ => apply_to_node(view, unit, rollout, now, plan),
    }
}

/// Takes the change back.
pub fn undo(view: &ObjectStore, rollout: &FleetRollout, unit: &str, plan: &mut Plan) {
    let namespace = &rollout.meta.namespace;
    match &*rollout.spec.target.kind {
        "DaemonSet" => delete_pods(view, rollout, unit, plan),
        "Deployment" => take_back(view.get::<Deployment>(namespace, unit), plan),
        "StatefulSet" => take_back(view.get::<StatefulSet>(namespace, unit), plan),
        "ConfigMap" => take_back(view.get::<ConfigMap>(namespace, unit), plan),
        _ => take_back_from_node(view, unit, rollout, plan),
    }
}

fn delete_pods(view: &ObjectStore, rollout: &FleetRollout, node: &str, plan: &mut Plan) {
    let ds = view.get::<DaemonSet>(&rollout.meta.namespace, &rollout.spec.target.name);
    let Some((ds, newest)) = ds.and_then(|ds| Some((ds, revisions(view, ds).last().copied()?))) else { return };
    let old = view.pods_on(node).filter(|p| p.meta.controlled_by(&ds.meta.uid) && p.is_active());
    for pod in old.filter(|p| hash_of(&p.meta) != hash_of(&newest.meta)) {
        plan.delete(Pod::RESOURCE, &pod.meta);
    }
}

/// A board that nobody gave a version goes back to the one that it ran: without a name it would keep the new one.
fn apply_to_node(view: &ObjectStore, name: &str, rollout: &FleetRollout, now: Timestamp, plan: &mut Plan) {
    let Some(node) = view.node(name) else { return };
    let mut before = node.value();
    let named = before["metadata"]["annotations"][AGENT_VERSION].is_string();
    let names_one = rollout.field("/spec/change/metadata/annotations")[AGENT_VERSION].is_string();
    if let Some(runs) = agent_version(node).filter(|_| !named && names_one) {
        before["metadata"]["annotations"][AGENT_VERSION] = runs.into();
    }
    apply_from(before, node, rollout, now, plan);
}

fn apply<T>(object: Option<&Arc<Obj<T>>>, rollout: &FleetRollout, now: Timestamp, plan: &mut Plan)
where
    Obj<T>: Kind,
{
    let Some(object) = object else { return };
    apply_from(object.value(), object, rollout, now, plan);
}

/// `before`: what the way back leads to.
fn apply_from<T>(mut before: Value, object: &Arc<Obj<T>>, rollout: &FleetRollout, now: Timestamp, plan: &mut Plan)
where
    Obj<T>: Kind,
{
    // The way back names each annotation: it cannot take away all of them, its own marks are among them.
    if before["metadata"]["annotations"].is_null() {
        before["metadata"]["annotations"] = json!({});
    }
    let mut patch = rollout.field("/spec/change");
    let mut after = before.clone();
    merge(&mut after, &patch);
    let undo = json_diff(&after, &before).unwrap_or_else(|| json!({}));
    let marks = json!({"metadata": {"annotations": {OF: rollout.meta.uid, AT: rfc3339(now), UNDO: undo.to_string()}}});
    add(&mut patch, &marks);
    plan.patch_exact(<Obj<T> as Kind>::RESOURCE, &object.meta, None, patch);
}

/// The name of the system that it runs stays on a board: it would refuse the older one's.
fn take_back_from_node(view: &ObjectStore, name: &str, rollout: &FleetRollout, plan: &mut Plan) {
    let Some(node) = view.node(name) else { return };
    let mut undo = undo_of(&node.meta);
    if Programs::of(rollout).kept_by(node) != Kept::Nothing
        && let Some(annotations) = undo.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(os_update::WANTED);
    }
    take_back_by(undo, node, plan);
}

fn take_back<T>(object: Option<&Arc<Obj<T>>>, plan: &mut Plan)
where
    Obj<T>: Kind,
{
    let Some(object) = object else { return };
    take_back_by(undo_of(&object.meta), object, plan);
}

/// What its mark says; nothing, where that cannot be read.
fn undo_of(meta: &Meta) -> Value {
    let undo = meta.annotations.get(UNDO).and_then(|t| serde_json::from_str::<Value>(t).ok());
    undo.unwrap_or_else(|| json!({}))
}

fn take_back_by<T>(undo: Value, object: &Arc<Obj<T>>, plan: &mut Plan)
where
    Obj<T>: Kind,
{
    let mut patch = undo;
    add(&mut patch, &json!({"metadata": {"annotations": {OF: null, AT: null, UNDO: null}}}));
    plan.patch_exact(<Obj<T> as Kind>::RESOURCE, &object.meta, None, patch);
}

/// Puts one patch into another; unlike merging, nulls are kept.
fn add(patch: &mut Value, more: &Value) {
    let Some(more) = more.as_object() else { return };
    if !patch.is_object() {
        *patch = json!({});
    }
    for (key, value) in more {
        match value.is_object() {
            true => add(&mut patch[key], value),
            false => patch[key] = value.clone(),
        }
    }
}

/// Brings back the template that a DaemonSet had before: its boards then go back one by one.
pub fn restore_template(view: &ObjectStore, rollout: &FleetRollout, plan: &mut Plan) -> Result<(), String> {
    let name = &rollout.spec.target.name;
    let Some(ds) = view.get::<DaemonSet>(&rollout.meta.namespace, name) else { return Ok(()) };
    let previous = &rollout.status.previous_revision;
    let all = revisions(view, ds);
    let Some(old) = all.iter().find(|r| *r.meta.name == **previous) else {
        let gone = match previous.is_empty() {
            true => format!("DaemonSet {name} had no template before this one"),
            false => format!("revision {previous} of DaemonSet {name} is gone"),
        };
        return Err(format!("there is nothing to go back to: {gone}"));
    };
    let template = crate::control::history::template(view, &old.meta.namespace, &old.meta.name);
    if let Some(diff) = json_diff(&ds.field("/spec/template"), &template) {
        let patch = json!({"spec": {"template": diff}});
        plan.push(Change::Patch {
            resource: DaemonSet::RESOURCE.into(),
            namespace: ds.meta.namespace.to_string(),
            name: ds.meta.name.to_string(),
            uid: ds.meta.uid.to_string(),
            resource_version: Some(ds.meta.resource_version),
            subresource: None,
            merge: patch,
        });
    }
    Ok(())
}
