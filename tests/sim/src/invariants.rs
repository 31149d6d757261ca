//! What must be true after every event, and what must be true in the end.
//!
//! In: hub and boards. Out: the first broken promise as a sentence. Never: changes anything.

use crate::{board::Board, hub::Hub};
use limpet_hub_core::{Key, nodes::desired, view::Pod};
use limpet_protocol::{ItemKey, ItemKind};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Records that a journal may hold, with all that this world's boards know.
const JOURNAL_MAX: usize = 4096;
/// As the agent's spool.
const EVENTS_MAX: usize = 512;

/// Generations seen on each device, and where each pod has run.
pub struct Memory {
    generations: Vec<BTreeMap<ItemKey, u64>>,
    /// The agent's life in which the whole set was looked at.
    lives: Vec<Option<u64>>,
    homes: BTreeMap<String, String>,
}

impl Memory {
    pub fn new(boards: usize) -> Memory {
        Memory { generations: vec![BTreeMap::new(); boards], lives: vec![None; boards], homes: BTreeMap::new() }
    }

    /// Another device is there.
    pub fn device(&mut self, board: usize) {
        self.generations.resize(board + 1, BTreeMap::new());
        self.lives.resize(board + 1, None);
    }

    /// After every event, for each board that it concerned.
    pub fn check(&mut self, boards: &mut [Board], index: usize) -> Result<(), String> {
        let board = &mut boards[index];
        if let Some(broken) = board.broken.take() {
            return Err(broken);
        }
        if let Some(at) = board.runtime.twice.first() {
            return Err(format!("{}: {at:?} was started while its predecessor ran", board.name));
        }
        for uid in &board.runtime.began {
            let home = self.homes.entry(uid.clone()).or_insert_with(|| board.name.clone());
            if *home != board.name {
                return Err(format!("pod {uid} runs on {} and ran on {home}", board.name));
            }
        }
        let fresh = std::mem::take(&mut board.fresh);
        let Some(agent) = &board.agent else { return Ok(()) };
        if board.journal.digest(&agent.sync.owed()) != agent.sync.items().digest() {
            return Err(format!("{}: holds what the journal does not rebuild", board.name));
        }
        if board.journal.len() > JOURNAL_MAX || agent.outbox.events() > EVENTS_MAX {
            let (records, events) = (board.journal.len(), agent.outbox.events());
            return Err(format!("{}: {records} records, {events} Events: over the bound", board.name));
        }
        // A new life has read its set from the journal.
        let life = Some(board.life);
        if self.lives[index] != life {
            self.lives[index] = life;
            let all: Vec<ItemKey> = agent.sync.items().all().map(|(k, _)| k.clone()).collect();
            // A token may be the one before: its successor had not been written.
            let stays = |key: &ItemKey| key.kind != ItemKind::Token && agent.sync.items().by_key(key).is_some();
            self.generations[index].retain(|key, _| stays(key));
            return all.iter().try_for_each(|key| self.item(board, index, key));
        }
        fresh.iter().try_for_each(|key| self.item(board, index, key))
    }

    fn item(&mut self, board: &Board, index: usize, key: &ItemKey) -> Result<(), String> {
        let held = board.agent.as_ref().and_then(|a| a.sync.items().by_key(key));
        let Some(held) = held else {
            self.generations[index].remove(key);
            return Ok(());
        };
        if key.kind == ItemKind::Secret && key.name != crate::operator::secret_of(&board.name) {
            return Err(format!("{}: knows {}, which none of its pods names", board.name, key.name));
        }
        let seen = self.generations[index].entry(key.clone()).or_insert(0);
        if held.generation < *seen {
            return Err(format!("{}: {key:?} fell from generation {seen} to {}", board.name, held.generation));
        }
        *seen = held.generation;
        Ok(())
    }
}

/// The device that is the node, of each name.
fn nodes<'a>(hub: &'a Hub, boards: &'a [Board]) -> impl Iterator<Item = &'a Board> {
    boards.iter().filter(move |b| !b.gone && b.hardware == hub.holder(&b.name))
}

/// Every board knows what it should, and nothing else, and the hub knows that.
pub fn in_sync(hub: &Hub, boards: &[Board]) -> Result<(), String> {
    let names: BTreeSet<&str> = boards.iter().map(|b| &*b.name).collect();
    let there: BTreeSet<&str> = nodes(hub, boards).map(|b| &*b.name).collect();
    if let Some(name) = names.difference(&there).next() {
        return Err(format!("{name} has no device"));
    }
    for board in nodes(hub, boards) {
        let Some(agent) = &board.agent else { return Err(format!("{} has no agent", board.name)) };
        if !hub.sessions.get(&board.name).is_some_and(|s| s.in_sync()) {
            return Err(format!("{}: the session is not in sync", board.name));
        }
        if !agent.sync.in_sync() {
            return Err(format!("{}: the agent is not in sync", board.name));
        }
        let wanted = desired::wanted(&hub.api.view, &board.name);
        let keys: BTreeSet<&ItemKey> = wanted.items.keys().chain(wanted.tokens.keys()).collect();
        let held: BTreeSet<&ItemKey> = agent.sync.items().all().map(|(k, _)| k).collect();
        if keys != held {
            let (more, less): (Vec<_>, Vec<_>) = (held.difference(&keys).collect(), keys.difference(&held).collect());
            return Err(format!("{}: holds {more:?} too many, lacks {less:?}", board.name));
        }
        for (key, state) in &wanted.items {
            if agent.sync.items().by_key(key).is_none_or(|h| h.hash != state.hash) {
                return Err(format!("{}: {key:?} differs", board.name));
            }
        }
    }
    Ok(())
}

/// Desired = actual, everywhere.
pub fn converged(hub: &Hub, boards: &[Board]) -> Result<(), String> {
    in_sync(hub, boards)?;
    for board in nodes(hub, boards) {
        if let Some(lost) = board.events.iter().find(|e| !hub.events.contains(*e)) {
            return Err(format!("{}: the Event {lost} is not at the hub", board.name));
        }
        let pods: BTreeSet<&str> =
            hub.api.view.pods_on(&board.name).filter(|p| !p.is_finished()).map(|p: &std::sync::Arc<Pod>| &*p.meta.uid).collect();
        let running: BTreeSet<&str> = board.runtime.running.keys().map(|u| &**u).collect();
        if pods != running {
            let (more, less): (Vec<_>, Vec<_>) = (running.difference(&pods).collect(), pods.difference(&running).collect());
            let shown = less.first().and_then(|uid| hub.api.view.by_uid(uid)).map(|key| (key, &hub.api.objects[key]));
            let shown = shown.map(|(key, pod)| format!(": {key} is {}", pod["status"])).unwrap_or_default();
            return Err(format!("{}: runs {more:?} too many, does not run {less:?}{shown}", board.name));
        }
        if board.agent.as_ref().is_some_and(|a| !a.outbox.idle()) {
            return Err(format!("{}: has unconfirmed reports", board.name));
        }
        if !hub.api.view.node(&board.name).is_some_and(|n| n.status.ready()) {
            return Err(format!("{} is not Ready at the hub", board.name));
        }
    }
    for (key, pod) in hub.list("/pods") {
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        let ended = ["Succeeded", "Failed"].contains(&phase);
        if !(ended || phase == "Running") || !pod["metadata"]["deletionTimestamp"].is_null() {
            return Err(format!("the hub shows {key} as {phase}, deleted: {}", pod["metadata"]["deletionTimestamp"]));
        }
        if !pod["metadata"]["annotations"]["limpet.dev/lost-since"].is_null() {
            return Err(format!("{key} is lost although all boards are there"));
        }
    }
    workloads(hub)
}

/// Every workload has what it wants.
fn workloads(hub: &Hub) -> Result<(), String> {
    if !hub.control.is_on() {
        return Ok(());
    }
    let number = |v: &Value| v.as_i64().unwrap_or(0);
    for resource in ["apps/deployments", "apps/replicasets", "apps/statefulsets"] {
        for (key, o) in hub.list(resource) {
            let (want, have) = (number(&o["spec"]["replicas"]), number(&o["status"]["readyReplicas"]));
            let seen = o["status"]["observedGeneration"] == o["metadata"]["generation"];
            if want != have || number(&o["status"]["replicas"]) != want || !seen {
                return Err(format!("{key} wants {want} and has {have}: {}", o["status"]));
            }
            if resource != "apps/replicasets" && number(&o["status"]["updatedReplicas"]) != want {
                return Err(format!("{key} is not updated: {}", o["status"]));
            }
        }
    }
    for (key, o) in hub.list("apps/daemonsets") {
        let (nodes, status) = (hub.list("/nodes").count() as i64, &o["status"]);
        // Who updates by hand, or has a rollout do it, may have old pods.
        let by_hand = o["spec"]["updateStrategy"]["type"] == "OnDelete";
        if number(&status["numberReady"]) != nodes || (number(&status["updatedNumberScheduled"]) != nodes && !by_hand) {
            return Err(format!("{key} is not on all {nodes} nodes: {status}"));
        }
    }
    for (key, o) in hub.list("batch/jobs") {
        let conditions = o["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ended = |c: &Value| (c["type"] == "Complete" || c["type"] == "Failed") && c["status"] == "True";
        if !conditions.iter().any(ended) {
            return Err(format!("{key} does not end: {}", o["status"]));
        }
    }
    policies(hub)?;
    for (key, o) in &hub.api.objects {
        if !o["metadata"]["deletionTimestamp"].is_null() {
            return Err(format!("{key} never goes: {}", o["metadata"]["finalizers"]));
        }
    }
    Ok(())
}

/// Budgets say how it is, and rollouts are over.
fn policies(hub: &Hub) -> Result<(), String> {
    for (key, o) in hub.list(crate::policies::BUDGETS) {
        let app = o["spec"]["selector"]["matchLabels"]["app"].as_str();
        let healthy = |p: &&std::sync::Arc<Pod>| p.meta.labels.get("app") == app && p.meta.deleting.is_none() && p.status.ready;
        let healthy = hub.api.view.list::<Pod>(&key.namespace).filter(healthy).count();
        let status = &o["status"];
        if status["currentHealthy"] != healthy || status["observedGeneration"] != o["metadata"]["generation"] {
            return Err(format!("{key} has {healthy} healthy pods and says {status}"));
        }
    }
    for (key, o) in hub.list(crate::policies::ROLLOUTS) {
        let (target, phase) = (&o["spec"]["target"], o["status"]["phase"].as_str().unwrap_or_default());
        let resource = match target["kind"].as_str() {
            Some("Deployment") => "apps/deployments",
            Some("DaemonSet") => "apps/daemonsets",
            Some("ConfigMap") => "/configmaps",
            _ => "/nodes",
        };
        let name = target["name"].as_str().unwrap_or("board-0");
        let namespace = if resource == "/nodes" { "" } else { &*key.namespace };
        let over = ["Complete", "RolledBack", "Failed"].contains(&phase);
        // Of a DaemonSet that updates its pods by itself it can only say so.
        let is_able = |o: &Value| resource != "apps/daemonsets" || o["spec"]["updateStrategy"]["type"] == "OnDelete";
        let target = hub.api.objects.get(&Key::new(resource, namespace, name)).filter(|o| is_able(o));
        if !over && target.is_some() {
            return Err(format!("rollout {key} is not over: {}", o["status"]));
        }
    }
    Ok(())
}
