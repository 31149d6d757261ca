//! Images without a pod: fetches those that the node's annotation asks for, removes those that nobody wanted for long.
//!
//! In: the node's object, the image store. Out: pulls, removals, Events of the node. Never: against the link's policy, and no
//! removal while the hub is away (what is gone might not come back).

use super::state::Agent;
use crate::images;
use limpet_agent_core::{
    Input,
    metered::Traffic,
    spare::{self, Idle, PULL_IMAGES},
};
use limpet_protocol::ItemKind;
use std::{collections::BTreeSet, time::Duration};
use tokio::task::JoinHandle;

/// Between attempts for an image that cannot be had: kubelet's for those of pods.
const WAIT_FIRST: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct Spare {
    asked: Vec<String>,
    fetching: Option<JoinHandle<()>>,
    idle: Idle,
}

impl Agent {
    /// The annotation may have changed.
    pub(super) fn look_at_asked_images(&mut self) {
        let name = self.identity.borrow().answer.node_name.clone();
        let node: Option<serde_json::Value> = self.sync.items().read(ItemKind::Node, "", &name);
        let text = node.as_ref().and_then(|n| n.get("metadata")?.get("annotations")?.get(PULL_IMAGES)?.as_str());
        let asked = text.map(spare::asked).unwrap_or_default();
        if asked == self.spare.asked {
            return;
        }
        if let Some(task) = self.spare.fetching.take() {
            task.abort();
        }
        self.spare.asked.clone_from(&asked);
        if !asked.is_empty() {
            let (hands, tell) = (self.hands.clone(), self.hands.teller());
            self.spare.fetching = Some(tokio::task::spawn_local(async move {
                for image in asked {
                    let mut wait = WAIT_FIRST;
                    let mut told = false;
                    while hands.images.find(&image).is_none() {
                        let mut gates = hands.gates.subscribe();
                        let _ = gates.wait_for(|g| g.holds(Traffic::Images).is_none()).await;
                        let policy = images::Policy::IfNotPresent;
                        let want = images::Want { image: image.clone(), policy, pull_secrets: Vec::new() };
                        let error = hands.images.ensure(&want).await.err().map(|e| e.to_string());
                        let failed = error.is_some();
                        if !failed || !std::mem::replace(&mut told, true) {
                            let _ = tell.send(Input::AskedImage { image: image.clone(), error });
                        }
                        if failed {
                            tokio::time::sleep(wait).await;
                            wait = (wait * 2).min(WAIT_MAX);
                        }
                    }
                }
            }));
        }
    }

    /// An image that was asked for has come, or does not come.
    pub(super) fn asked_image(&mut self, image: &str, error: Option<&str>) {
        let said = match error {
            None => (false, "Pulled".to_string(), format!("Successfully pulled image \"{image}\", for {PULL_IMAGES}")),
            Some(why) => (true, "Failed".to_string(), format!("Failed to pull image \"{image}\", for {PULL_IMAGES}: {why}")),
        };
        self.say_of_node(&[said]);
        self.look_around();
    }

    /// Names of images that stay: of every pod that the set wants, whatever its state, and those that are asked for.
    pub(super) fn wanted_images(&self) -> BTreeSet<String> {
        let mut keep: BTreeSet<String> = self.spare.asked.iter().cloned().collect();
        keep.extend(limpet_agent_core::schedules::images(self.sync.items()));
        for pod in self.pods.pods() {
            let spec = &pod.object.spec;
            keep.extend(spec.all_containers().map(|c| c.image.clone()));
            keep.extend(spec.volumes.iter().filter_map(|v| Some(v.image.as_ref()?.reference.clone())));
        }
        keep
    }

    /// Removes what nobody has wanted for as long as the configuration says.
    pub(super) fn drop_idle_images(&mut self) {
        let Some(age_s) = self.options.config.image_unused_seconds_max.filter(|_| self.lanes.is_some()) else { return };
        let mut keep = self.wanted_images();
        let wanted: BTreeSet<String> = keep.iter().filter_map(|name| Some(self.hands.images.find(name)?.id.clone())).collect();
        let here = self.hands.images.list();
        let now_ms = self.clock.mono_ms();
        let look = here.iter().map(|image| (image.id.as_str(), wanted.contains(&image.id)));
        let old = self.spare.idle.look(now_ms, age_s.saturating_mul(1000), look);
        if !old.is_empty() {
            keep.extend(here.into_iter().map(|image| image.id).filter(|id| !old.contains(id)));
            self.collect(keep);
        }
    }
}
