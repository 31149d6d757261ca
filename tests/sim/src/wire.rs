//! What the hub's messages promise at the moment in which they go.
//!
//! In: messages in both directions as they pass the hub's door. Out: the first one that confirms what the store does not have,
//! or that goes although too many before it are not acknowledged.
//! Never: changes anything; judges what two devices with one card say.

use crate::board::Board;
use limpet_hub_core::{limits::CHANGES_IN_FLIGHT_MAX, view::pick::{find, pick}, world::Api};
use limpet_protocol::{Down, Up};
use std::collections::{BTreeMap, BTreeSet};

/// What a board said last of one of its pods.
enum Said {
    /// Its status, as JSON.
    Status(Vec<u8>),
    Gone,
}

/// Steps of one node's session that brought something and were not answered yet.
#[derive(Default)]
struct Steps {
    flying: BTreeSet<u64>,
}

#[derive(Default)]
pub struct Wire {
    /// By uid and version; what came before something confirmed is forgotten.
    said: BTreeMap<String, BTreeMap<u64, Said>>,
    steps: BTreeMap<String, Steps>,
}

impl Wire {
    /// A message reaches the hub.
    pub fn up(&mut self, board: &Board, message: &Up) {
        let (uid, version, said) = match message {
            Up::PodReport(r) => (&r.uid, r.version, Said::Status(r.status.clone())),
            Up::PodGone(r) => (&r.uid, r.version, Said::Gone),
            Up::Ack(ack) => {
                let steps = self.steps.entry(board.name.clone()).or_default();
                steps.flying = steps.flying.split_off(&(ack.seq + 1));
                return;
            }
            // Who says what it holds has answered everything.
            Up::Inventory(_) => return self.steps.entry(board.name.clone()).or_default().flying.clear(),
            _ => return,
        };
        self.said.entry(uid.clone()).or_default().insert(version, said);
    }

    /// A message leaves the hub; `copied`: more than one device has this name's card.
    pub fn down(&mut self, api: &Api, node: &str, copied: bool, message: &Down) -> Result<(), String> {
        match message {
            Down::Welcome(_) => _ = self.steps.insert(node.into(), Steps::default()),
            // An empty one only asks for an answer.
            Down::Step(step) if step.puts.is_empty() && step.removals.is_empty() => {}
            Down::Change(change) if change.puts.is_empty() && change.removals.is_empty() => {}
            Down::Step(step) => return self.step(node, step.seq),
            Down::Change(change) => return self.step(node, change.seq),
            Down::Reported { uid, version } if !uid.is_empty() => {
                let outcome = if copied { Ok(()) } else { self.confirmed(api, node, uid, *version) };
                self.forget(uid, *version);
                return outcome;
            }
            _ => {}
        }
        Ok(())
    }

    fn step(&mut self, node: &str, seq: u64) -> Result<(), String> {
        let steps = self.steps.entry(node.into()).or_default();
        steps.flying.insert(seq);
        let flying = steps.flying.len();
        match flying > CHANGES_IN_FLIGHT_MAX {
            true => Err(format!("{node} is sent {flying} steps without an answer, at most {CHANGES_IN_FLIGHT_MAX} may be")),
            false => Ok(()),
        }
    }

    /// The store has what this version said, or something newer.
    fn confirmed(&self, api: &Api, node: &str, uid: &str, version: u64) -> Result<(), String> {
        let Some(said) = self.said.get(uid) else { return Ok(()) };
        let Some(key) = api.view.by_uid(uid) else { return Ok(()) };
        let Some(pod) = api.objects.get(key).filter(|p| p["spec"]["nodeName"] == node) else { return Ok(()) };
        let stored = api.view.object(key).map(|o| &o.raw()[..]);
        let ended = ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default());
        let holds = |said: &Said| match said {
            // Somebody else may still hold it with a finalizer.
            Said::Gone => {
                let meta = &pod["metadata"];
                meta["deletionTimestamp"].is_null() || meta["deletionGracePeriodSeconds"] == 0
            }
            Said::Status(json) => {
                let written = stored.and_then(|raw| find(raw, "/status"));
                // Other bytes may say the same.
                let same = |field: &str| {
                    let pointer = format!("/{field}");
                    let bytes = find(json, &pointer);
                    (bytes.is_some() && bytes == written.and_then(|status| find(status, &pointer)))
                        || pick(json, &pointer) == pod["status"][field]
                };
                ended || (same("phase") && same("containerStatuses"))
            }
        };
        match said.contains_key(&version) && !said.range(version..).any(|(_, said)| holds(said)) {
            true => Err(format!("version {version} of {key} is confirmed, and the store does not have it: {}", pod["status"])),
            false => Ok(()),
        }
    }

    fn forget(&mut self, uid: &str, version: u64) {
        let Some(said) = self.said.get_mut(uid) else { return };
        let later = said.split_off(&version);
        let gone = later.get(&version).is_some_and(|s| matches!(s, Said::Gone));
        *said = later;
        if gone {
            self.said.remove(uid);
        }
    }
}
