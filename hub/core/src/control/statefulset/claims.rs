//! What becomes of a StatefulSet's claims when it is scaled down or deleted (persistentVolumeClaimRetentionPolicy).
//!
//! In: a `Step`. Out: owner references of the claims, so that the garbage collector takes them along with their pod or with
//! the set. Never: deletes a claim itself.

use super::Step;
use crate::{
    control::common::{owner_reference, references},
    view::{Kind, PersistentVolumeClaim, Pod},
};
use serde_json::{Value, json};
use std::sync::Arc;

impl Step<'_> {
    /// Brings the owners of all claims in line. True: there was something to do, and pods that are to go wait for it.
    pub(super) fn tend_claims(&mut self) -> bool {
        let policy = &self.set.spec.persistent_volume_claim_retention_policy;
        let (with_set, with_pod) = (&*policy.when_deleted == "Delete", &*policy.when_scaled == "Delete");
        let wanted = self.ordinals();
        let mut changed = false;
        for (ordinal, pod) in self.pods.clone() {
            let condemned = with_pod && !wanted.contains(&ordinal);
            for template in &self.set.spec.volume_claim_templates {
                let name = self.claim_name(template, ordinal);
                let Some(claim) = self.view.get::<PersistentVolumeClaim>(&self.set.meta.namespace, &name) else { continue };
                if let Some(refs) = self.owners(claim, pod, with_set && !condemned, condemned) {
                    changed = true;
                    let refs = if refs.is_empty() { Value::Null } else { json!(refs) };
                    let patch = json!({"metadata": {"ownerReferences": refs}});
                    self.plan.patch_exact(PersistentVolumeClaim::RESOURCE, &claim.meta, None, patch);
                }
            }
        }
        changed
    }

    /// The owners that a claim is to have, when they are others than now.
    fn owners(
        &self,
        claim: &PersistentVolumeClaim,
        pod: &Arc<Pod>,
        of_set: bool,
        of_pod: bool,
    ) -> Option<Vec<Value>> {
        let before = references(&claim.meta);
        let ours = |r: &Value| r["uid"] == *self.set.meta.uid || (r["kind"] == "Pod" && r["name"] == *pod.meta.name);
        let mut after: Vec<Value> = before.iter().filter(|r| !ours(r)).cloned().collect();
        if of_set {
            after.push(owner_reference(self.set));
        }
        if of_pod {
            after.push(owner_reference(&**pod));
        }
        (before != after).then_some(after)
    }
}
