//! What must be true after every event, and what must be true in the end.
//!
//! In: hub and boards. Out: the first broken promise as a sentence. Never: changes anything.

use crate::{board::Board, hub::Hub};
use limpet_agent_core::Sync;
use limpet_hub_core::nodes::desired;
use limpet_protocol::{ItemKey, ItemKind};
use std::collections::{BTreeMap, BTreeSet};

/// Generations seen on each board, and where each pod has run.
pub struct Memory {
    generations: Vec<BTreeMap<ItemKey, u64>>,
    homes: BTreeMap<String, usize>,
}

impl Memory {
    pub fn new(boards: usize) -> Memory {
        Memory { generations: vec![BTreeMap::new(); boards], homes: BTreeMap::new() }
    }

    /// After every event.
    pub fn check(&mut self, boards: &[Board], index: usize) -> Result<(), String> {
        let board = &boards[index];
        if let Some(at) = board.twice.first() {
            return Err(format!("{}: {at:?} was started while its predecessor ran", board.name));
        }
        for uid in board.running() {
            let home = *self.homes.entry(uid.clone()).or_insert(index);
            if home != index {
                return Err(format!("pod {uid} runs on {} and ran on board-{home}", board.name));
            }
        }
        let Some(agent) = &board.agent else { return Ok(()) };
        let own = crate::operator::secret_of(index);
        for (key, held) in agent.sync.items().all() {
            if key.kind == ItemKind::Secret && key.name != own {
                return Err(format!("{}: knows {}, which none of its pods names", board.name, key.name));
            }
            let seen = self.generations[index].entry(key.clone()).or_insert(0);
            if held.generation < *seen {
                return Err(format!("{}: {key:?} fell from generation {seen} to {}", board.name, held.generation));
            }
            *seen = held.generation;
        }
        self.generations[index].retain(|key, _| agent.sync.items().by_key(key).is_some());
        Ok(())
    }
}

/// What an acknowledgement promises: the journal alone rebuilds the set.
pub fn durable(board: &Board) -> Result<(), String> {
    let Some(agent) = &board.agent else { return Ok(()) };
    let mut again = Sync::new();
    board.journal.iter().for_each(|r| again.replay(r.clone()));
    match again.items().digest() == agent.sync.items().digest() {
        true => Ok(()),
        false => Err(format!("{}: acknowledged what the journal does not hold", board.name)),
    }
}

/// What the hub never does by itself.
pub fn hub_is_patient(hub: &Hub) -> Result<(), String> {
    match hub.evicted.first() {
        Some(pod) => Err(format!("the hub deleted {pod} although nobody had asked for that")),
        None => Ok(()),
    }
}

/// Desired = actual, everywhere.
pub fn converged(hub: &Hub, boards: &[Board]) -> Result<(), String> {
    for board in boards {
        if let Some(lost) = board.events.iter().find(|e| !hub.events.contains(*e)) {
            return Err(format!("{}: the Event {lost} is not at the hub", board.name));
        }
        let Some(agent) = &board.agent else { return Err(format!("{} has no agent", board.name)) };
        let session = hub.sessions.get(&board.name);
        if !session.is_some_and(|s| s.in_sync()) {
            return Err(format!("{}: the session is not in sync", board.name));
        }
        if !agent.sync.in_sync() {
            return Err(format!("{}: the agent is not in sync", board.name));
        }
        let wanted = desired::wanted(&hub.view, &board.name);
        let keys: BTreeSet<&ItemKey> = wanted.items.keys().chain(wanted.tokens.keys()).collect();
        let held: BTreeSet<&ItemKey> = agent.sync.items().all().map(|(k, _)| k).collect();
        if keys != held {
            return Err(format!("{}: holds {held:?}, should hold {keys:?}", board.name));
        }
        for (key, state) in &wanted.items {
            if agent.sync.items().by_key(key).is_none_or(|h| h.hash != state.hash) {
                return Err(format!("{}: {key:?} differs", board.name));
            }
        }
        let pods: BTreeSet<String> = wanted
            .items
            .keys()
            .filter(|k| k.kind == ItemKind::Pod)
            .filter_map(|k| hub.view.pod(&k.namespace, &k.name).map(|p| p.meta.uid.to_string()))
            .collect();
        if pods != board.running() {
            return Err(format!("{}: runs {:?}, should run {pods:?}", board.name, board.running()));
        }
        if !agent.outbox.idle() {
            return Err(format!("{}: has unconfirmed reports", board.name));
        }
    }
    for pod in hub.pods() {
        if pod["status"]["phase"] != "Running" || !pod["metadata"]["deletionTimestamp"].is_null() {
            return Err(format!("the hub shows {} as {}", pod["metadata"]["name"], pod["status"]["phase"]));
        }
    }
    Ok(())
}
