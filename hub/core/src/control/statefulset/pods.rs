//! Which pods of a StatefulSet to create and delete, and what they look like.
//!
//! In: a `Step`. Out: one move when ordered, all moves at once when parallel.
//! Never: deletes a claim.

use super::{NAME, Step};
use crate::{
    EventType, Regarding,
    control::{
        common::{owner_reference, pod_of_template},
        history::{self, HASH_LABEL},
    },
    limits,
    view::{Kind, PersistentVolumeClaim, Phase, Pod, StatefulSet},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// Whose claim it is, by its name.
pub(super) fn pod_of_claim<'n>(set: &StatefulSet, claim: &'n str) -> &'n str {
    let volumes = set.spec.volume_claim_templates.iter().filter_map(|t| t["metadata"]["name"].as_str());
    let mut pods = volumes.filter_map(|v| claim.strip_prefix(v)?.strip_prefix('-'));
    pods.find(|pod| pod.starts_with(&*set.meta.name)).unwrap_or(claim)
}

impl<'a> Step<'a> {
    /// Brings up what is missing, takes down what is too much, then rolls.
    pub(super) fn manage(&mut self) {
        if self.tend_claims() || !self.bring_up() || !self.take_down() {
            return;
        }
        self.roll();
    }

    /// False: the rest has to wait.
    fn bring_up(&mut self) -> bool {
        let mut budget = limits::PODS_PER_STEP_MAX;
        for ordinal in self.ordinals() {
            let healthy = match self.pods.get(&ordinal).copied() {
                None => {
                    self.create(ordinal);
                    budget -= 1;
                    false
                }
                Some(pod) if pod.is_finished() && pod.meta.deleting.is_none() => {
                    self.tell_of_ended(pod);
                    self.delete(pod);
                    false
                }
                Some(pod) => {
                    self.keep_identity(pod, ordinal);
                    let healthy = self.is_healthy(pod);
                    if !healthy && self.is_abandoned(pod) {
                        self.delete(pod);
                    }
                    healthy
                }
            };
            if (!healthy && self.is_ordered()) || budget == 0 {
                return false;
            }
        }
        true
    }

    /// Of a revision that neither was rolled out nor is to be: an update that was taken back. Waiting for such a pod to
    /// become ready would wait for ever (upstream asks people to delete it by hand).
    fn is_abandoned(&self, pod: &'a Pod) -> bool {
        let revision = self.revision_of(pod);
        let rolling = &*self.set.spec.update_strategy.type_ != "OnDelete";
        rolling && pod.meta.deleting.is_none() && revision != self.current && revision != self.update
    }

    /// Highest ordinal first.
    fn take_down(&mut self) -> bool {
        let wanted = self.ordinals();
        let condemned: Vec<&Arc<Pod>> =
            self.pods.iter().rev().filter(|(n, _)| !wanted.contains(n)).map(|(_, p)| *p).collect();
        for pod in &condemned {
            if pod.meta.deleting.is_none() {
                self.delete(pod);
            }
            if self.is_ordered() {
                return false;
            }
        }
        condemned.is_empty() || !self.is_ordered()
    }

    /// Replaces pods of other revisions from the highest ordinal down to the partition, as many at a time as may be
    /// unavailable (one, unless `maxUnavailable` says otherwise; a percentage is rounded down).
    fn roll(&mut self) {
        let strategy = &self.set.spec.update_strategy;
        if &*strategy.type_ == "OnDelete" {
            return;
        }
        let wanted = self.ordinals();
        let max =
            strategy.rolling_update.max_unavailable.of_total(wanted.len() as i32, false).unwrap_or(1).max(1);
        let first = wanted.start.saturating_add(strategy.rolling_update.partition.max(0));
        let mut away = 0;
        for ordinal in wanted.clone() {
            let healthy = self.pods.get(&ordinal).copied().is_some_and(|p| self.is_healthy(p));
            away += i32::from(!healthy);
        }
        for ordinal in (first..wanted.end).rev() {
            let Some(pod) = self.pods.get(&ordinal).copied() else { continue };
            let healthy = self.is_healthy(pod);
            if self.revision_of(pod) == self.update || pod.meta.deleting.is_some() {
                if !healthy && self.is_ordered() && max == 1 {
                    return;
                }
                continue;
            }
            if healthy && away >= max {
                return;
            }
            self.delete(pod);
            away += i32::from(healthy);
            if away >= max {
                return;
            }
        }
    }

    /// Whether a new pod of this ordinal is to be of the revision before the update: below the partition only.
    fn is_of_current(&self, ordinal: i32) -> bool {
        let strategy = &self.set.spec.update_strategy;
        let first = self.ordinals().start.saturating_add(strategy.rolling_update.partition.max(0));
        &*strategy.type_ != "OnDelete" && self.current != self.update && ordinal < first
    }

    fn create(&mut self, ordinal: i32) {
        let (template, revision) = if self.is_of_current(ordinal) {
            match history::template(self.view, &self.set.meta.namespace, &self.current) {
                Value::Null => (self.template().clone(), self.update.clone()),
                old => (old, self.current.clone()),
            }
        } else {
            (self.template().clone(), self.update.clone())
        };
        let name = format!("{}-{ordinal}", self.set.meta.name);
        if self.view.pod(&self.set.meta.namespace, &name).is_some() {
            return self.plan.because("NameTaken", format!("pod {name} belongs to somebody else"));
        }
        self.create_claims(ordinal);
        let pod = self.pod(&template, &revision, &name, ordinal);
        self.plan.create(Pod::RESOURCE, &self.set.meta.namespace, pod);
        self.say(
            "SuccessfulCreate",
            format!("create Pod {name} in StatefulSet {} successful", self.set.meta.name),
        );
    }

    fn pod(&self, template: &Value, revision: &str, name: &str, ordinal: i32) -> Value {
        let mut pod = pod_of_template(template, &self.set.meta.namespace, name, owner_reference(self.set));
        pod["metadata"]["generateName"] = json!(format!("{}-", self.set.meta.name));
        let labels = &mut pod["metadata"]["labels"];
        labels[HASH_LABEL] = json!(revision);
        labels[POD_NAME] = json!(name);
        labels[POD_INDEX] = json!(ordinal.to_string());
        pod["spec"]["hostname"] = json!(name);
        if !self.set.spec.service_name.is_empty() {
            pod["spec"]["subdomain"] = json!(self.set.spec.service_name);
        }
        let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        for claim in &self.set.spec.volume_claim_templates {
            let volume = claim["metadata"]["name"].clone();
            volumes.retain(|v| v["name"] != volume);
            let claim = self.claim_name(claim, ordinal);
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}));
        }
        if !volumes.is_empty() {
            pod["spec"]["volumes"] = json!(volumes);
        }
        pod
    }

    pub(super) fn claim_name(&self, claim: &Value, ordinal: i32) -> String {
        let volume = claim["metadata"]["name"].as_str().unwrap_or_default();
        format!("{volume}-{}-{ordinal}", self.set.meta.name)
    }

    fn create_claims(&mut self, ordinal: i32) {
        for template in &self.set.spec.volume_claim_templates {
            let name = self.claim_name(template, ordinal);
            if self.view.get::<PersistentVolumeClaim>(&self.set.meta.namespace, &name).is_some() {
                continue;
            }
            let mut claim = template.clone();
            claim["apiVersion"] = json!("v1");
            claim["kind"] = json!("PersistentVolumeClaim");
            claim["metadata"]["name"] = json!(name);
            claim["metadata"]["namespace"] = json!(self.set.meta.namespace);
            let selector = self.set.spec.selector.iter().flat_map(|s| s.match_labels.iter());
            for (k, v) in selector {
                claim["metadata"]["labels"][k] = json!(v);
            }
            if let Some(fields) = claim.as_object_mut() {
                fields.remove("status");
            }
            if &*self.set.spec.persistent_volume_claim_retention_policy.when_deleted == "Delete" {
                claim["metadata"]["ownerReferences"] = json!([owner_reference(self.set)]);
            }
            self.plan.create(PersistentVolumeClaim::RESOURCE, &self.set.meta.namespace, claim);
            let set = &self.set.meta.name;
            self.say(
                "SuccessfulCreate",
                format!("create Claim {name} Pod {set}-{ordinal} in StatefulSet {set} success"),
            );
        }
    }

    fn tell_of_ended(&mut self, pod: &Pod) {
        let (set, name) = (&self.set.meta, &pod.meta.name);
        let (type_, reason, how) = match pod.status.phase {
            Phase::Failed => (EventType::Warning, "RecreatingFailedPod", "failed"),
            _ => (EventType::Normal, "RecreatingTerminatedPod", "terminated"),
        };
        let message = format!("StatefulSet {}/{} is recreating {how} Pod {name}", set.namespace, set.name);
        self.plan.event(Regarding::of(self.set), type_, reason, message, NAME);
    }

    /// Puts back the labels by which Services find one pod, when somebody took them away.
    fn keep_identity(&mut self, pod: &Pod, ordinal: i32) {
        let (name, index) = (&*pod.meta.name, ordinal.to_string());
        let wanted = [(POD_NAME, name), (POD_INDEX, &*index)];
        let missing: Map<String, Value> = wanted
            .iter()
            .filter(|(label, value)| pod.meta.labels.get(label) != Some(value))
            .map(|(label, value)| ((*label).to_owned(), json!(value)))
            .collect();
        if pod.meta.deleting.is_none() && !missing.is_empty() {
            self.plan.patch(Pod::RESOURCE, &pod.meta, None, json!({"metadata": {"labels": missing}}));
            let set = &self.set.meta.name;
            self.say("SuccessfulUpdate", format!("update Pod {name} in StatefulSet {set} successful"));
        }
    }

    /// Once, also where two reasons come together.
    fn delete(&mut self, pod: &Pod) {
        if !self.deleted.insert(pod.meta.uid.clone()) {
            return;
        }
        self.plan.delete(Pod::RESOURCE, &pod.meta);
        let (pod, set) = (&pod.meta.name, &self.set.meta.name);
        self.say("SuccessfulDelete", format!("delete Pod {pod} in StatefulSet {set} successful"));
    }

    fn say(&mut self, reason: &str, message: String) {
        self.plan.event(Regarding::of(self.set), EventType::Normal, reason, message, NAME);
    }
}
