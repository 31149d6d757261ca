//! Status of a DaemonSet.
//!
//! In: a `Step` after it looked at all nodes. Out: one status patch, when something changed.
//! Never: counts a node twice.

use super::Step;
use crate::{
    control::common::{count, set_status},
    view::Available,
};
use serde_json::json;

impl Step<'_> {
    pub(super) fn status(&mut self) {
        let (mut desired, mut current, mut misplaced) = (0, 0, 0);
        let (mut ready, mut available, mut updated) = (0, 0, 0);
        let nodes = std::mem::take(&mut self.nodes);
        for place in &nodes {
            let Some(pod) = place.pods.first() else {
                desired += i32::from(place.should_run);
                // A pod that is going still counts as scheduled.
                current += i32::from(place.should_run && place.going);
                misplaced += i32::from(!place.should_run && place.going);
                continue;
            };
            if !place.should_run {
                misplaced += 1;
                continue;
            }
            desired += 1;
            current += 1;
            // Of an old and a new pod side by side the old one counts, as upstream.
            updated += i32::from(self.is_current(pod));
            ready += i32::from(pod.status.ready);
            match pod.available(self.ds.spec.min_ready_seconds, self.now) {
                Available::Yes => available += 1,
                Available::At(t) => self.plan.wake_at(t),
                Available::No => {}
            }
        }
        self.nodes = nodes;
        let status = json!({
            "currentNumberScheduled": current,
            "desiredNumberScheduled": desired,
            "numberMisscheduled": misplaced,
            "numberReady": ready,
            "numberAvailable": count(available),
            "numberUnavailable": count(desired - available),
            "updatedNumberScheduled": count(updated),
            "observedGeneration": self.ds.meta.generation,
            "collisionCount": self.collisions,
            "conditions": self.ds.field("/status/conditions"),
        });
        set_status(&mut self.plan, self.ds, status);
    }
}
