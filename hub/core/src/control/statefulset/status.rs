//! Status of a StatefulSet.
//!
//! In: a `Step`. Out: one status patch. Never: calls a rollout done while a pod of the old revision is there.

use super::Step;
use crate::{
    control::common::{count, set_shared_status},
    view::{Available, Phase},
};
use serde_json::json;

impl Step<'_> {
    pub(super) fn status(&mut self) {
        let (mut replicas, mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0, 0);
        for pod in self.pods.values().copied() {
            replicas += 1;
            if pod.status.phase == Phase::Running && pod.status.ready {
                ready += 1;
                match pod.available(self.set.spec.min_ready_seconds, self.now) {
                    Available::Yes => available += 1,
                    Available::At(t) => self.plan.wake_at(t),
                    Available::No => {}
                }
            }
            if pod.meta.deleting.is_none() {
                current += i32::from(self.revision_of(pod) == self.current);
                updated += i32::from(self.revision_of(pod) == self.update);
            }
        }
        let rolling = &*self.set.spec.update_strategy.type_ != "OnDelete";
        let wanted = self.ordinals().len() as i32;
        let complete = updated == wanted && replicas == wanted && ready == wanted;
        if rolling && complete && self.set.spec.update_strategy.rolling_update.partition == 0 {
            self.current.clone_from(&self.update);
            current = updated;
        }
        let status = json!({
            "observedGeneration": self.set.meta.generation,
            "replicas": replicas,
            "readyReplicas": count(ready),
            "availableReplicas": available,
            "currentReplicas": count(current),
            "updatedReplicas": count(updated),
            "currentRevision": self.current,
            "updateRevision": self.update,
            "collisionCount": self.collisions.unwrap_or(0),
            // None of them is the controller's own.
            "conditions": self.set.field("/status/conditions"),
        });
        set_shared_status(&mut self.plan, self.set, status);
    }
}
