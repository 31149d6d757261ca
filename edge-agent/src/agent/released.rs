//! Removes the directories of volumes that nobody wants any more, and tells the hub when they are gone.
//!
//! In: the set. Out: for each directory that is gone durably a farewell, repeated until the hub has it.
//! Never: removes what a container of this board still has mounted, or says that something is gone before it is.

use super::{act::Hands, state::Agent};
use crate::volumes::persistent;
use limpet_agent_core::volumes::{Released, released};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};
use tokio::sync::mpsc;

const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(300);

/// Removals under way, by the volume's uid.
pub(super) struct Removals {
    busy: BTreeSet<String>,
    tell: mpsc::UnboundedSender<Released>,
    pub(super) done: mpsc::UnboundedReceiver<Released>,
}

impl Removals {
    pub(super) fn new() -> Removals {
        let (tell, done) = mpsc::unbounded_channel();
        Removals { busy: BTreeSet::new(), tell, done }
    }
}

impl Agent {
    /// Starts what is not under way. After a start of the agent that is everything that the hub has not heard of yet.
    pub(super) fn look_at_released(&mut self) {
        for volume in released(self.sync.items()) {
            let volume = match volume {
                Ok(volume) => volume,
                Err(why) => {
                    log::error!("{why}");
                    continue;
                }
            };
            if self.removals.busy.insert(volume.uid.clone()) {
                let (hands, tell) = (self.hands.clone(), self.removals.tell.clone());
                tokio::spawn(async move {
                    remove(&hands, &volume).await;
                    let _ = tell.send(volume);
                });
            }
        }
    }

    pub(super) fn is_removed(&mut self, volume: Released) {
        log::info!("volume {}: {} was removed", volume.name, volume.path);
        self.removals.busy.remove(&volume.uid);
        self.outbox.gone(volume.uid.as_str().into(), String::new(), volume.name);
    }
}

/// Until it is done: what must not fail is tried again.
async fn remove(hands: &Hands, volume: &Released) {
    let dir = PathBuf::from(&volume.path);
    let mut wait = AGAIN_FIRST;
    loop {
        let result = match hands.has_mounted(&dir) {
            // A pod that was deleted by force may take its time to end.
            true => Err("a pod still uses it".to_owned()),
            false => {
                let dir = dir.clone();
                let removed = tokio::task::spawn_blocking(move || persistent::remove(&dir)).await;
                removed.map_err(|e| e.to_string()).and_then(|r| r.map_err(|e| e.to_string()))
            }
        };
        let Err(why) = result else { return };
        log::warn!("volume {}: {} is not removed yet: {why}; trying again in {} ms", volume.name, volume.path, wait.as_millis());
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(AGAIN_MAX);
    }
}
