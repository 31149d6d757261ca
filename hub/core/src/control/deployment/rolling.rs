//! The two ways from old pods to new ones: rolling and recreating.
//!
//! In: a `Step`. Out: one step of the way, and the status. Never: fewer available pods than the fence allows.

use super::{Step, available, held, size, total};
use crate::view::{Pod, ReplicaSet};
use std::sync::Arc;

impl Step<'_> {
    pub(super) fn roll(&mut self) {
        if self.new.is_none() {
            return self.create_new();
        }
        self.refresh_new();
        if self.grow_new() || self.shrink_old() {
            return self.sync_status();
        }
        if self.is_complete() {
            self.clean_up();
        }
        self.sync_status();
    }

    fn grow_new(&mut self) -> bool {
        let Some(new) = self.new else { return false };
        let (wanted, have) = (self.replicas(), size(new));
        let (surge, _) = self.fence();
        let room = if self.old_lag() { 0 } else { wanted + surge - held(self.view, self.all()) };
        let to = if have > wanted { wanted } else { have + room.max(0).min(wanted - have) };
        self.resize(new, to)
    }

    fn shrink_old(&mut self) -> bool {
        let Some(new) = self.new else { return false };
        if total(self.old.iter()) == 0 {
            return false;
        }
        let (_, unavailable) = self.fence();
        let least = self.replicas() - unavailable;
        let new_waiting = size(new) - available(new);
        let most = total(self.all()) - least - new_waiting;
        if most <= 0 {
            return false;
        }
        let old = self.old.clone();
        let (mut sizes, cleaned) = without_unhealthy(&old, most);
        let there: i32 = self.all().map(|rs| available(rs)).sum();
        let mut budget = (there - least).max(0);
        for to in &mut sizes {
            let down = budget.min(*to);
            // What was unavailable is gone already; the budget is for available pods.
            *to -= down;
            budget -= down;
        }
        let mut changed = cleaned > 0;
        for (rs, to) in old.into_iter().zip(sizes) {
            if size(rs) != to {
                changed |= self.resize(rs, to);
            }
        }
        changed
    }

    pub(super) fn recreate(&mut self) {
        self.refresh_new();
        let mut shrunk = false;
        for rs in self.old.clone().into_iter().filter(|rs| size(rs) > 0) {
            shrunk |= self.resize(rs, 0);
        }
        if shrunk || self.old_lag() || self.old_pods_run() {
            return self.sync_status();
        }
        let Some(new) = self.new else { return self.create_new() };
        self.resize(new, self.replicas());
        if self.is_complete() {
            self.clean_up();
        }
        self.sync_status();
    }

    /// An old ReplicaSet has not been looked at since its size was changed: pods of the size before may be on their way.
    fn old_lag(&self) -> bool {
        let lags = |rs: &&&Arc<ReplicaSet>| rs.meta.deleting.is_none() && rs.status.observed_generation < rs.meta.generation;
        self.old.iter().any(|rs| lags(&rs))
    }

    fn old_pods_run(&self) -> bool {
        self.old.iter().any(|rs| self.view.controlled_by::<Pod>(&rs.meta.uid).any(|p| !p.is_finished()))
    }
}

/// Sizes of old ReplicaSets after pods that are not available are taken from them, `most` in all.
fn without_unhealthy(old: &[&Arc<ReplicaSet>], most: i32) -> (Vec<i32>, i32) {
    let mut gone = 0;
    let one = |rs: &&Arc<ReplicaSet>| {
        let unhealthy = (size(rs) - available(rs)).max(0);
        let down = unhealthy.min(most - gone);
        gone += down;
        size(rs) - down
    };
    let sizes = old.iter().map(one).collect();
    (sizes, gone)
}
