//! Brings the pods of a DaemonSet to its current template.
//!
//! In: a `Step` in which every node has what it should have. Out: old pods to delete, or new ones beside them.
//! Never: more pods away at a time than `maxUnavailable`, or more besides than `maxSurge`.

use super::{Place, Step};
use crate::view::{Available, Pod};
use std::sync::Arc;

impl Step<'_> {
    /// `maxSurge` in pods.
    pub(super) fn surge_of(&self, nodes: &[Place<'_>]) -> i32 {
        let desired = nodes.iter().filter(|p| p.should_run).count() as i32;
        self.ds.spec.update_strategy.rolling_update.max_surge.of_total(desired, true).unwrap_or(0).max(0)
    }

    fn is_available(&mut self, pod: &Pod) -> bool {
        match pod.available(self.ds.spec.min_ready_seconds, self.now) {
            Available::Yes => true,
            Available::At(t) => {
                self.plan.wake_at(t);
                false
            }
            Available::No => false,
        }
    }

    pub(super) fn roll(&mut self) {
        if &*self.ds.spec.update_strategy.type_ == "OnDelete" {
            return;
        }
        let nodes = std::mem::take(&mut self.nodes);
        if self.surge > 0 {
            self.surge_over(&nodes)
        } else {
            self.replace(&nodes)
        }
        self.nodes = nodes;
    }

    /// Deletes old pods: those that are not available first and freely, others within the limit.
    fn replace(&mut self, nodes: &[Place<'_>]) {
        let desired = nodes.iter().filter(|p| p.should_run).count() as i32;
        let max = self.ds.spec.update_strategy.rolling_update.max_unavailable.of_total(desired, true);
        let mut room = max.unwrap_or(1).max(1);
        let mut candidates = Vec::new();
        for place in nodes.iter().filter(|p| p.should_run) {
            let Some(pod) = place.pods.first() else {
                room -= 1;
                continue;
            };
            match (self.is_current(pod), self.is_available(pod)) {
                (true, true) => {}
                (true, false) => room -= 1,
                (false, true) => candidates.push(*pod),
                (false, false) => {
                    room -= 1;
                    self.delete(pod);
                }
            }
        }
        for pod in candidates.into_iter().take(room.max(0) as usize) {
            self.delete(pod);
        }
    }

    /// Makes new pods beside old ones; the old one goes when the new one is available (`beyond_surge`).
    fn surge_over(&mut self, nodes: &[Place<'_>]) {
        let mut room = self.surge;
        let mut candidates = Vec::new();
        for place in nodes.iter().filter(|p| p.should_run && !p.going) {
            let has_new = place.pods.iter().any(|p| self.is_current(p));
            match (place.pods.first(), has_new) {
                (Some(_), true) => room -= i32::from(place.pods.len() > 1),
                (Some(old), false) if !self.is_available(old) => self.create_on(&place.node.meta.name),
                (Some(_), false) => candidates.push(place),
                (None, _) => {}
            }
        }
        for place in candidates.into_iter().take(room.max(0) as usize) {
            self.create_on(&place.node.meta.name);
        }
    }

    /// With a surge, one old pod that is ready may stand beside one new one until that is available. Of several old ones an
    /// available one is kept, else the oldest.
    pub(super) fn beyond_surge<'p>(&mut self, live: &[&'p Arc<Pod>]) -> Vec<&'p Arc<Pod>> {
        let (new, mut old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = live.iter().partition(|p| self.is_current(p));
        old.sort_by_cached_key(|p| !self.is_available(p));
        let over = |old: &&&Arc<Pod>| !old.status.ready;
        let replaced = new.first().is_some_and(|p| self.is_available(p) || old.first().is_some_and(|o| over(&o)));
        let keep_old = usize::from(!replaced);
        new.into_iter().skip(1).chain(old.into_iter().skip(keep_old)).collect()
    }
}
