//! Images without a pod: fetches those that the node's annotation asks for, removes those that nobody wanted for long.
//!
//! In: the node's object, the image store. Out: pulls, removals, Events of the node. Never: against the link's policy, and no
//! removal while the hub is away (what is gone might not come back).

use super::state::Agent;
use crate::{
    device,
    images::{self, Collected, ImageError},
};
use limpet_agent_core::{
    Input,
    metered::Traffic,
    spare::{self, Idle, Marks, PULL_IMAGES},
};
use limpet_protocol::ItemKind;
use std::{
    cell::Cell,
    collections::BTreeSet,
    rc::Rc,
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle};

/// Between attempts for an image that cannot be had: kubelet's for those of pods.
const WAIT_FIRST: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct Spare {
    asked: Vec<String>,
    fetching: Option<JoinHandle<()>>,
    idle: Idle,
    /// Images are being removed one by one.
    collecting: Rc<Cell<bool>>,
}

/// Says what was removed, in the log and to whoever waits for `changed`. On a full disk this comes every ten minutes: a line that
/// says nothing would still be written.
pub(super) fn said(done: &Result<Collected, ImageError>, changed: &Notify) {
    match done {
        Ok(gone) if gone.busy => log::debug!("images: a pull is under way, so nothing is removed"),
        Ok(gone) if gone.images == 0 => {}
        Ok(gone) => {
            changed.notify_one();
            let (removed, kept) = (gone.images, gone.last_of_their_kind);
            log::info!("images: {removed} that no pod wants were removed; {kept} stay, as no registry says it has them");
        }
        Err(e) => log::warn!("{e}"),
    }
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

    /// Removes what nobody has wanted for as long as the configuration says, and while the disk is filling what has been of no
    /// use for longest.
    pub(super) fn drop_spare_images(&mut self) {
        let config = &self.options.config;
        let age_ms = config.image_unused_seconds_max.map_or(u64::MAX, |seconds| seconds.saturating_mul(1000));
        let marks = Marks { high: config.image_gc_high_threshold_percent, low: config.image_gc_low_threshold_percent };
        let mut keep = self.wanted_images();
        let wanted: BTreeSet<String> = keep.iter().filter_map(|name| self.hands.images.id_of(name)).collect();
        let here = self.hands.images.list();
        let now_ms = self.clock.mono_ms();
        let look = here.iter().map(|image| (image.id.as_str(), wanted.contains(&image.id)));
        let old = self.spare.idle.look(now_ms, age_ms, look);
        // While the hub is away nothing comes back: then only a shortage (`relieve`) is worth an image.
        if self.lanes.is_none() {
            return;
        }
        let data = self.options.paths.data.clone();
        let disk = move || device::disk_bytes(&data);
        let (all, free) = disk();
        if marks.is_reached(all, free) {
            if self.spare.collecting.replace(true) {
                return;
            }
            let (images, flag) = (self.hands.images.clone(), self.spare.collecting.clone());
            let gone = self.images_gone.clone();
            let order = self.spare.idle.oldest_first();
            tokio::task::spawn_local(async move {
                let enough = || {
                    let (all, free) = disk();
                    marks.is_enough(all, free)
                };
                said(&images.collect_until(&keep, order, enough).await, &gone);
                flag.set(false);
            });
        } else if !old.is_empty() {
            keep.extend(here.into_iter().map(|image| image.id).filter(|id| !old.contains(id)));
            self.collect(keep);
        }
    }
}
