//! Frees the space of images that nobody wants.
//!
//! In: the names and ids of all images that pods and their containers want. Out: what was removed.
//! Never: removes while a pull is under way, or throws away the progress of a pull that a pod still waits for; or removes what
//! its registry does not say that it has: an image that could not be pulled again may be the last of its kind.

use super::error::ImageError;
use super::files::{self, Files};
use super::index::{Index, Stored};
use super::limits::{ASKED_AT_ONCE, ASK_TIMEOUT, PARTIALS_MAX};
use super::pull::Pull;
use super::registry::Keyring;
use super::store::Store;
use futures_util::{StreamExt, stream};
use limpet_oci::{Digest, Reference};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub images: usize,
    pub layers: usize,
    /// Images that nobody wants and no registry has, as far as can be known now: they stay.
    pub last_of_their_kind: usize,
    /// A pull was under way: nothing was done, try later.
    pub busy: bool,
}

impl Store {
    /// Removes every image that is not in `keep` (image names as pods have them, and image ids), and files of no image.
    pub async fn collect(&self, keep: &BTreeSet<String>) -> Result<Collected, ImageError> {
        // Asked before the gate is shut: pulls go on meanwhile.
        let irreplaceable = self.irreplaceable(keep).await;
        let Ok(_gate) = self.0.gate.try_write() else {
            return Ok(Collected { busy: true, ..Collected::default() });
        };
        let (mut wanted, waiting) = self.wanted(keep);
        let last_of_their_kind = irreplaceable.difference(&wanted).count();
        wanted.extend(irreplaceable);
        let (images, plan) = {
            let mut index = self.0.index();
            let before = index.len();
            let all = self.layers(&index);
            index.retain(|id, _| wanted.contains(id));
            let removed = before - index.len();
            if removed > 0 {
                // First the index, then the files: after a power cut there are orphans, never holes.
                index.save(&self.0.files)?;
            }
            let layers = self.layers(&index);
            let blobs = index.iter().flat_map(|(id, s)| self.blobs(id, &s.digests)).collect();
            let dropped = all.difference(&layers).cloned().collect();
            (removed, Plan { blobs, layers, dropped, waiting })
        };
        let files = self.0.files.clone();
        let layers = tokio::task::spawn_blocking(move || plan.sweep(&files)).await.unwrap_or(0);
        Ok(Collected { images, layers, last_of_their_kind, busy: false })
    }

    /// Removes images one by one, by their ids in this order, until `enough` says so. `keep` as for `collect`. A pull that comes
    /// under way ends it.
    pub async fn collect_until(
        &self,
        keep: &BTreeSet<String>,
        order: Vec<String>,
        enough: impl Fn() -> bool,
    ) -> Result<Collected, ImageError> {
        if order.is_empty() && !enough() {
            // What belongs to no image.
            return self.collect(keep).await;
        }
        let mut all = Collected::default();
        let mut left: VecDeque<String> = order.into();
        // Those that have to stay; what is gone must not be named any more, it would count as one that a pod waits for.
        let mut last: Vec<String> = Vec::new();
        while !enough() {
            let Some(next) = left.pop_front() else { break };
            let keep = keep.iter().chain(&left).chain(&last).cloned().collect();
            let gone = self.collect(&keep).await?;
            all.images += gone.images;
            all.layers += gone.layers;
            if gone.busy {
                all.busy = all.images == 0;
                break;
            }
            if gone.last_of_their_kind > 0 {
                last.push(next);
            }
        }
        all.last_of_their_kind = last.len();
        Ok(all)
    }

    /// Of the images that nobody wants those that no registry says it has. Who answers that it wants to know who asks has it.
    async fn irreplaceable(&self, keep: &BTreeSet<String>) -> BTreeSet<Digest> {
        let (wanted, _) = self.wanted(keep);
        let spare: Vec<(Digest, Stored)> = {
            let index = self.0.index();
            index.iter().filter(|(id, _)| !wanted.contains(id)).map(|(id, stored)| (id.clone(), stored.clone())).collect()
        };
        let ask = |(id, stored): (Digest, Stored)| async move {
            let comes_again = tokio::time::timeout(ASK_TIMEOUT, self.comes_again(&stored)).await.unwrap_or(false);
            (!comes_again).then_some(id)
        };
        stream::iter(spare.into_iter().map(ask)).buffer_unordered(ASKED_AT_ONCE).filter_map(|id| async { id }).collect().await
    }

    async fn comes_again(&self, stored: &Stored) -> bool {
        // The latest first; an image without a digest was never pulled.
        for name in stored.digests.iter().rev() {
            let Ok(reference) = Reference::parse(name) else { continue };
            if Pull::new(&self.0, &reference, &Keyring::default()).is_there().await {
                return true;
            }
        }
        false
    }

    fn layers(&self, index: &Index) -> BTreeSet<PathBuf> {
        index.iter().flat_map(|(_, s)| s.layers.iter().map(|l| self.0.files.layer(l))).collect()
    }

    /// Ids to keep, and whether a wanted image is not here yet.
    fn wanted(&self, keep: &BTreeSet<String>) -> (BTreeSet<Digest>, bool) {
        let index = self.0.index();
        let mut wanted = BTreeSet::new();
        let mut waiting = false;
        for name in keep {
            let by_id = Digest::parse(name).ok().filter(|id| index.get(id).is_some());
            let by_name =
                || Reference::parse(name).ok().and_then(|r| index.find(&r).map(|(id, _)| id.clone()));
            match by_id.or_else(by_name) {
                Some(id) => wanted.extend([id]),
                None => waiting = true,
            }
        }
        (wanted, waiting)
    }

    /// The config and every manifest that led to it.
    fn blobs(&self, id: &Digest, names: &[String]) -> Vec<PathBuf> {
        let manifests = names.iter().filter_map(|n| Digest::parse(n.split_once('@')?.1).ok());
        manifests.chain([id.clone()]).map(|d| self.0.files.blob(&d)).collect()
    }
}

/// What stays and what goes.
struct Plan {
    blobs: BTreeSet<PathBuf>,
    layers: BTreeSet<PathBuf>,
    /// Layers of the images that were removed just now.
    dropped: Vec<PathBuf>,
    /// A pod waits for an image: files of no image may be a part of it.
    waiting: bool,
}

impl Plan {
    /// The number of layers removed.
    fn sweep(&self, files: &Files) -> usize {
        if !self.waiting {
            entries(&files.sub("blobs")).iter().filter(|p| !self.blobs.contains(*p)).for_each(|p| remove(p));
        }
        self.sweep_partials(files);
        let layers = match self.waiting {
            true => self.dropped.clone(),
            false => entries(&files.sub("layers")),
        };
        let mut removed = 0;
        for layer in layers.iter().filter(|l| !self.layers.contains(*l)) {
            // By way of tmp/: what a power cut leaves is cleared at the next start, and no half layer has a real name.
            let grave = files.temporary();
            if fs::rename(layer, &grave).is_ok() {
                remove(&grave);
                removed += 1;
            }
        }
        removed
    }

    fn sweep_partials(&self, files: &Files) {
        let age = |p: &PathBuf| fs::metadata(p).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut partials = entries(&files.sub("partial"));
        partials.sort_by_key(age);
        let spare = if self.waiting { partials.len().saturating_sub(PARTIALS_MAX) } else { partials.len() };
        partials.iter().take(spare).for_each(|p| remove(p));
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

fn remove(path: &Path) {
    if let Err(e) = files::remove_all(path) {
        log::warn!("images: cannot remove {}: {e}", path.display());
    }
}
