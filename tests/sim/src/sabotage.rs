//! Mistakes that the products could make, one in a run, so that the judge is seen to notice each of them.
//!
//! In: which mistake. Out: what board, hub or controllers then do wrongly. The products stay as they are: the mistake is
//! made by the shell around them, or in a plan that a controller has finished.
//! Never: more than one mistake in a run; any in a run that is not a test of the judge.

use crate::misrule;
use limpet_hub_core::{
    Change, Changed, Key, ObjectStore, Plan, Timestamp,
    control::{Controller, is_lost},
    nodes::offline::OFFLINE_SINCE,
    view::{Kind, Node, Pod, ReplicaSet, StatefulSet},
};
use limpet_protocol::{Down, Item, ItemKey, ItemKind, ItemStep};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    #[default]
    None,
    /// A board takes a step in and acknowledges it before its journal has it.
    AckFirst,
    /// A board writes without waiting for the disk.
    NeverSyncs,
    /// A board sends reports with versions that its journal does not cover.
    VersionsUnwritten,
    /// A board begins sessions that its journal does not cover.
    SessionsUnwritten,
    /// A board takes items back from its journal as older than they were.
    GenerationsFall,
    /// A board takes tokens that wait to be written for written.
    ForgetsTokens,
    /// A journal is never written anew.
    JournalGrows,
    /// A board remembers more Events than it may.
    SpoolGrows,
    /// An agent that starts does not look at what runs already.
    ForgetsContainers,
    /// A container that ended runs on.
    RunsOn,
    /// An agent never says what it holds.
    NeverAsks,
    /// The hub tells a board of a Secret that is not its own.
    ForeignSecret,
    /// The hub says that a report is durable, and has lost it.
    LosesWrites,
    /// The hub's store falls back when the hub dies.
    FallsBack,
    /// A watcher hears of a change twice.
    WatchRepeats,
    /// A watcher does not hear of a change.
    WatchSkips,
    /// A pod that runs is given to another board.
    MovesPods,
    /// The hub deletes a pod when its board says that it runs.
    DeletesUnasked,
    /// The hub talks to boards that have nothing to learn.
    Chatters,
    /// A controller writes every minute.
    Fidgets,
    /// Pods are replaced however many boards are away.
    EvictsAll,
    /// Pods of a board that is away are deleted.
    DeletesWhileAway,
    /// Pods of a StatefulSet are let go of while their board is away.
    ForcesIdentities,
    /// A rollout takes all old pods away at once.
    ShrinksTooMuch,
    /// A ReplicaSet makes each pod twice.
    CreatesTwice,
    /// The API lets pods in whatever a quota says.
    IgnoresQuotas,
    /// The API evicts without asking a budget.
    EvictsFreely,
    /// A budget says that one more may go than may.
    AllowsTooMany,
    /// The scheduler places pods on boards that somebody cordoned.
    PlacesAnywhere,
    /// A rollout changes boards that are away.
    ChangesWhoIsAway,
    /// A rollout changes boards that hold a lock.
    ChangesWhoIsLocked,
    /// A rollout changes all boards at once.
    ChangesAllAtOnce,
    /// A rollout goes on while a board of its first wave is not well.
    HurriesWaves,
    /// Nobody works on rollouts.
    SleepsThroughRollouts,
    /// The hub says that a report is durable before its store has it.
    ConfirmsEarly,
    /// The hub takes for granted that boards have what they were sent.
    AnswersForBoards,
}

/// Each mistake, and what the judge says of it.
pub const MISTAKES: [(Sabotage, &str); 36] = [
    (Sabotage::AckFirst, "acknowledges what the journal does not hold"),
    (Sabotage::NeverSyncs, "holds what the journal does not rebuild"),
    (Sabotage::VersionsUnwritten, "the journal's ceiling is"),
    (Sabotage::SessionsUnwritten, "is not in the journal"),
    (Sabotage::GenerationsFall, "fell from generation"),
    (Sabotage::ForgetsTokens, "holds what the journal does not rebuild"),
    (Sabotage::JournalGrows, "over the bound"),
    (Sabotage::SpoolGrows, "over the bound"),
    (Sabotage::ForgetsContainers, "was started while its predecessor ran"),
    (Sabotage::RunsOn, "runs as"),
    (Sabotage::NeverAsks, "is not in sync a minute after the faults"),
    (Sabotage::ForeignSecret, "which none of its pods names"),
    (Sabotage::LosesWrites, "is confirmed, and the store does not have it"),
    (Sabotage::FallsBack, "is older after a start"),
    (Sabotage::WatchRepeats, "is said to have been"),
    (Sabotage::WatchSkips, "is said to have been"),
    (Sabotage::MovesPods, "and ran on"),
    (Sabotage::DeletesUnasked, "although nobody had asked for that"),
    (Sabotage::Chatters, "messages although nothing happens"),
    (Sabotage::Fidgets, "writes although nothing happens"),
    (Sabotage::EvictsAll, "boards went with it"),
    (Sabotage::DeletesWhileAway, "are deleted while it is away"),
    (Sabotage::ForcesIdentities, "may still run it"),
    (Sabotage::ShrinksTooMuch, "available pods become"),
    (Sabotage::CreatesTwice, "at most"),
    (Sabotage::IgnoresQuotas, "quota q allows"),
    (Sabotage::EvictsFreely, "healthy pods are left by an eviction"),
    (Sabotage::AllowsTooMany, "healthy pods are left by an eviction"),
    (Sabotage::PlacesAnywhere, "which takes no new pods"),
    (Sabotage::ChangesWhoIsAway, "which is away"),
    (Sabotage::ChangesWhoIsLocked, "which is locked"),
    (Sabotage::ChangesAllAtOnce, "boards down at once"),
    (Sabotage::HurriesWaves, "begins a wave while"),
    (Sabotage::SleepsThroughRollouts, "is not over"),
    (Sabotage::ConfirmsEarly, "is confirmed, and the store does not have it"),
    (Sabotage::AnswersForBoards, "steps without an answer"),
];

/// What the hub says to a board, with a Secret of another one.
pub fn with_foreign_secret(down: &mut Down) {
    let key = ItemKey::new(ItemKind::Secret, "default", &crate::operator::secret_of("another"));
    let body = b"{}".to_vec();
    match down {
        Down::Change(change) => change.puts.push(Item { key, generation: 1, body }),
        Down::Step(step) => step.puts.push(ItemStep { key, generation: 1, base: 0, body }),
        _ => {}
    }
}

/// A controller that makes a mistake.
struct Mistaken {
    inner: Box<dyn Controller>,
    mistake: Sabotage,
}

/// The controllers, of which one makes the mistake if it is one of theirs.
pub fn spoil(list: Vec<Box<dyn Controller>>, mistake: Sabotage) -> Vec<Box<dyn Controller>> {
    let who = match mistake {
        Sabotage::Fidgets | Sabotage::EvictsAll | Sabotage::DeletesWhileAway => "absence-controller",
        Sabotage::ForcesIdentities => "statefulset-controller",
        Sabotage::ShrinksTooMuch => "deployment-controller",
        Sabotage::CreatesTwice => "replicaset-controller",
        Sabotage::AllowsTooMany => "disruption-controller",
        Sabotage::ChangesWhoIsAway
        | Sabotage::ChangesWhoIsLocked
        | Sabotage::ChangesAllAtOnce
        | Sabotage::HurriesWaves
        | Sabotage::SleepsThroughRollouts => "fleetrollout-controller",
        _ => return list,
    };
    let one = |inner: Box<dyn Controller>| -> Box<dyn Controller> {
        if inner.name() == who { Box::new(Mistaken { inner, mistake }) } else { inner }
    };
    list.into_iter().map(one).collect()
}

impl Controller for Mistaken {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn resources(&self) -> &'static [&'static str] {
        self.inner.resources()
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        self.inner.keys_for(view, changed)
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, seed: u64) -> Plan {
        let mut plan = self.inner.reconcile(view, key, now, seed);
        match self.mistake {
            Sabotage::Fidgets => fidget(view, key, now, &mut plan),
            Sabotage::EvictsAll => evict_all(view, key, now, &mut plan),
            Sabotage::DeletesWhileAway => delete_lost(view, &mut plan),
            Sabotage::ForcesIdentities => force_identities(view, key, &mut plan),
            Sabotage::ShrinksTooMuch => shrink_more(view, &mut plan),
            Sabotage::CreatesTwice => create_again(&mut plan),
            Sabotage::AllowsTooMany => misrule::allow_too_many(&mut plan),
            Sabotage::SleepsThroughRollouts => plan = Plan::default(),
            mistake => misrule::roll_out_more(view, key, mistake, &mut plan),
        }
        plan
    }

    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, now: Timestamp) -> Plan {
        self.inner.refused(view, key, change, error, now)
    }
}

fn fidget(view: &ObjectStore, key: &Key, now: Timestamp, plan: &mut Plan) {
    let Some(node) = view.node(&key.name) else { return };
    let second = now.as_second().to_string();
    plan.patch(Node::RESOURCE, &node.meta, None, json!({"metadata": {"annotations": {"fidget": second}}}));
    now.checked_add(std::time::Duration::from_secs(60)).into_iter().for_each(|at| plan.wake_at(at));
}

/// As if everybody wanted to be replaced, and nobody asked who else is away.
fn evict_all(view: &ObjectStore, key: &Key, now: Timestamp, plan: &mut Plan) {
    let since = view.node(&key.name).and_then(|n| n.meta.annotations.get(OFFLINE_SINCE)?.parse::<Timestamp>().ok());
    let due = since.and_then(|since| since.checked_add(std::time::Duration::from_secs(70)).ok());
    match due {
        Some(due) if due > now => return plan.wake_at(due),
        Some(_) => {}
        None => return,
    }
    let of_set = |p: &&std::sync::Arc<Pod>| p.meta.controller().is_some_and(|o| &*o.kind == ReplicaSet::KIND);
    for pod in view.pods_on(&key.name).filter(of_set).filter(|p| p.is_active() && !is_lost(p)) {
        let mark = json!({"metadata": {"annotations": {"limpet.dev/lost-since": "2026-11-26T00:00:00Z"}}});
        plan.patch(Pod::RESOURCE, &pod.meta, None, mark);
    }
}

fn delete_lost(view: &ObjectStore, plan: &mut Plan) {
    let lost = |c: &Change| match c {
        Change::Patch { resource, namespace, name, merge, .. } if resource == Pod::RESOURCE => {
            let marks = merge["metadata"]["annotations"]["limpet.dev/lost-since"].is_string();
            marks.then(|| view.pod(namespace, name)).flatten()
        }
        _ => None,
    };
    let pods: Vec<_> = plan.changes.iter().filter_map(lost).collect();
    pods.iter().for_each(|p| plan.delete(Pod::RESOURCE, &p.meta));
}

fn force_identities(view: &ObjectStore, key: &Key, plan: &mut Plan) {
    let Some(set) = view.get::<StatefulSet>(&key.namespace, &key.name) else { return };
    for pod in view.controlled_by::<Pod>(&set.meta.uid).filter(|p| p.is_active()) {
        let node = pod.node.as_deref().and_then(|n| view.node(n));
        if node.is_some_and(|n| n.meta.annotations.contains_key(OFFLINE_SINCE)) {
            plan.delete_with(Pod::RESOURCE, &pod.meta, Some(0), None);
        }
    }
}

fn shrink_more(view: &ObjectStore, plan: &mut Plan) {
    for change in &mut plan.changes {
        let Change::Patch { resource, namespace, name, merge, .. } = change else { continue };
        let size = view.get::<ReplicaSet>(namespace, name).and_then(|s| s.spec.replicas);
        let to = merge.pointer("/spec/replicas").and_then(Value::as_i64);
        if resource == ReplicaSet::RESOURCE && to.is_some_and(|to| to < i64::from(size.unwrap_or(0))) {
            merge["spec"]["replicas"] = json!(0);
        }
    }
}

fn create_again(plan: &mut Plan) {
    let again = |c: &Change| match c {
        Change::Create { resource, namespace, object } if resource == Pod::RESOURCE => {
            let mut object = object.clone();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            object["metadata"]["name"] = json!(format!("{name}-too"));
            Some(Change::Create { resource: resource.clone(), namespace: namespace.clone(), object })
        }
        _ => None,
    };
    let more: Vec<Change> = plan.changes.iter().filter_map(again).collect();
    plan.changes.extend(more);
}
