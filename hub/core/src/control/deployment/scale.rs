//! Sizes of a Deployment's ReplicaSets when its replicas change, and in the middle of a rollout.
//!
//! In: a `Step`. Out: patches of `spec.replicas` with the annotations that remember what was wanted.
//! Never: changes which ReplicaSet is new.

use super::{DESIRED_REPLICAS, MAX_REPLICAS, NAME, Step, number, size, total};
use crate::{
    EventType, Regarding,
    view::{Kind, ReplicaSet},
};
use serde_json::json;
use std::{cmp::Reverse, sync::Arc};

impl<'a> Step<'a> {
    /// Whether `spec.replicas` changed since the ReplicaSets were sized.
    pub(super) fn is_scaling(&self) -> bool {
        let wanted = i64::from(self.replicas());
        self.all()
            .filter(|rs| size(rs) > 0)
            .any(|rs| number(rs, DESIRED_REPLICAS).is_some_and(|n| n != wanted))
    }

    /// Several ReplicaSets are sized in proportion only where they may be there together: where all old pods are to go first, a
    /// rollout that was under way when the strategy changed goes on, and sizes them.
    pub(super) fn can_scale(&self) -> bool {
        self.is_rolling() || self.active_or_latest().is_some() || self.new.is_some_and(|rs| self.is_saturated(rs))
    }

    /// Gives a ReplicaSet a size; whether anything was to be changed.
    pub(super) fn resize(&mut self, rs: &Arc<ReplicaSet>, to: i32) -> bool {
        let (surge, _) = self.fence();
        let from = size(rs);
        let wanted = i64::from(self.replicas());
        let max = wanted + i64::from(surge);
        let told = number(rs, DESIRED_REPLICAS) == Some(wanted) && number(rs, MAX_REPLICAS) == Some(max);
        if from == to && told {
            return false;
        }
        let annotations = json!({DESIRED_REPLICAS: wanted.to_string(), MAX_REPLICAS: max.to_string()});
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": to}});
        self.plan.patch(ReplicaSet::RESOURCE, &rs.meta, None, patch);
        if from != to {
            let way = if from < to { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {} from {from} to {to}", rs.meta.name);
            self.plan.because("ScalingReplicaSet", message.clone());
            self.plan.event(Regarding::of(self.d), EventType::Normal, "ScalingReplicaSet", message, NAME);
        }
        from != to
    }

    /// Sizes for changed replicas: the only one, or the complete new one, or all in proportion.
    pub(super) fn scale_all(&mut self) {
        if let Some(only) = self.active_or_latest() {
            let wanted = self.replicas();
            if size(only) != wanted || number(only, DESIRED_REPLICAS) != Some(i64::from(wanted)) {
                self.resize(only, wanted);
            }
            return;
        }
        if self.new.is_some_and(|rs| self.is_saturated(rs)) {
            for rs in self.old.clone().into_iter().filter(|rs| size(rs) > 0) {
                self.resize(rs, 0);
            }
            return;
        }
        if self.is_rolling() {
            self.scale_in_proportion();
        }
    }

    fn active_or_latest(&self) -> Option<&'a Arc<ReplicaSet>> {
        let active: Vec<_> = self.all().filter(|rs| size(rs) > 0).collect();
        match active.as_slice() {
            [] => self.new.or(self.old.last().copied()),
            [one] => Some(*one),
            _ => None,
        }
    }

    fn is_saturated(&self, rs: &ReplicaSet) -> bool {
        let wanted = self.replicas();
        size(rs) == wanted
            && rs.status.available_replicas == wanted
            && number(rs, DESIRED_REPLICAS) == Some(i64::from(wanted))
    }

    fn scale_in_proportion(&mut self) {
        let (surge, _) = self.fence();
        let mut sets: Vec<_> = self.all().filter(|rs| size(rs) > 0).collect();
        let allowed = if self.replicas() > 0 { self.replicas() + surge } else { 0 };
        let to_add = allowed - total(sets.iter());
        if to_add > 0 {
            sets.sort_by_key(|rs| (Reverse(size(rs)), Reverse(rs.meta.created_at())));
        } else {
            sets.sort_by_key(|rs| (Reverse(size(rs)), rs.meta.created_at()));
        }
        let mut added = 0;
        let mut sizes = Vec::new();
        for rs in &sets {
            let part = self.part(rs, to_add, added, surge);
            added += part;
            sizes.push(size(rs) + part);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (rs, to) in sets.into_iter().zip(sizes) {
            self.resize(rs, to);
        }
    }

    /// This ReplicaSet's share of what is to be added (or taken, when negative).
    fn part(&self, rs: &ReplicaSet, to_add: i32, added: i32, surge: i32) -> i32 {
        if to_add == added {
            return 0;
        }
        let share = if self.replicas() == 0 {
            -size(rs)
        } else {
            let before = number(rs, MAX_REPLICAS).unwrap_or(i64::from(rs.status.replicas)).max(1);
            let max = i64::from(self.replicas() + surge);
            let scaled = (i64::from(size(rs)) * max * 2 + before) / (before * 2);
            i32::try_from(scaled).unwrap_or(i32::MAX) - size(rs)
        };
        let left = to_add - added;
        if to_add > 0 { share.min(left) } else { share.max(left) }
    }
}
