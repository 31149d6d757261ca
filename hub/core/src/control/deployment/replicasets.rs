//! The ReplicaSet of a Deployment's current template, and the history of old ones.
//!
//! In: a `Step`. Out: a ReplicaSet to create, revisions and copied annotations, old ones to delete.
//! Never: deletes a ReplicaSet that still has pods.

use super::{DESIRED_REPLICAS, MAX_REPLICAS, NAME, REVISION, REVISION_HISTORY, Step, held, number, size};
use crate::{
    EventType, Plan, Regarding,
    control::common::{is_terminating, owner_reference, set_status},
    names,
    view::{Condition, Deployment, Kind, ReplicaSet, conditions},
};
use serde_json::{Map, Value, json};

/// Annotations of a Deployment that are its own.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

impl Step<'_> {
    fn next_revision(&self) -> i64 {
        self.old.iter().filter_map(|rs| number(rs, REVISION)).max().unwrap_or(0) + 1
    }

    /// Brings revision and annotations of the current ReplicaSet and of the Deployment up to date.
    pub(super) fn refresh_new(&mut self) {
        let Some(rs) = self.new else { return };
        let mut wanted = self.copied_annotations();
        let current = number(rs, REVISION);
        let revision = current.unwrap_or(0).max(self.next_revision());
        wanted.insert(REVISION.into(), json!(revision.to_string()));
        if let Some(before) = current.filter(|c| *c < revision) {
            let history = rs.meta.annotations.get(REVISION_HISTORY).unwrap_or("");
            let text = if history.is_empty() { before.to_string() } else { format!("{history},{before}") };
            wanted.insert(REVISION_HISTORY.into(), json!(text));
        }
        wanted.retain(|k, v| rs.meta.annotations.get(k) != v.as_str());
        let mut patch = json!({});
        if !wanted.is_empty() {
            patch["metadata"] = json!({"annotations": wanted});
        }
        if rs.spec.min_ready_seconds != self.d.spec.min_ready_seconds {
            patch["spec"] = json!({"minReadySeconds": self.d.spec.min_ready_seconds});
        }
        if patch != json!({}) {
            self.plan.patch(ReplicaSet::RESOURCE, &rs.meta, None, patch);
        }
        self.set_revision(revision);
    }

    fn set_revision(&mut self, revision: i64) {
        let text = revision.to_string();
        if self.d.meta.annotations.get(REVISION) != Some(&text) {
            let patch = json!({"metadata": {"annotations": {REVISION: text}}});
            self.plan.patch(Deployment::RESOURCE, &self.d.meta, None, patch);
        }
    }

    fn copied_annotations(&self) -> Map<String, Value> {
        let own = self.d.meta.annotations.iter().filter(|(k, _)| !NOT_COPIED.contains(k));
        own.map(|(k, v)| (k.to_owned(), json!(v))).collect()
    }

    /// Plans the ReplicaSet of the current template. Ends the step.
    pub(super) fn create_new(&mut self) {
        if is_terminating(self.view, &self.d.meta.namespace) {
            return;
        }
        let (surge, _) = self.fence();
        let hash = names::template_hash(&self.d.spec.template.digest, self.d.status.collision_count);
        let name = format!("{}-{hash}", self.d.meta.name);
        if self.view.get::<ReplicaSet>(&self.d.meta.namespace, &name).is_some() {
            return self.count_collision();
        }
        let replicas = self.first_size(surge);
        let revision = self.next_revision();
        let mut annotations = self.copied_annotations();
        annotations.insert(REVISION.into(), json!(revision.to_string()));
        annotations.insert(DESIRED_REPLICAS.into(), json!(self.replicas().to_string()));
        annotations.insert(MAX_REPLICAS.into(), json!((self.replicas() + surge).to_string()));
        let rs = self.replica_set(&name, &hash, replicas, annotations);
        self.plan.create(ReplicaSet::RESOURCE, &self.d.meta.namespace, rs);
        self.set_revision(revision);
        if replicas > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            self.plan.event(Regarding::of(self.d), EventType::Normal, "ScalingReplicaSet", message, NAME);
        }
        if self.has_deadline() {
            let message = format!("Created new replica set \"{name}\"");
            self.progress(true, "NewReplicaSetCreated", message);
        }
    }

    fn first_size(&self, surge: i32) -> i32 {
        if !self.is_rolling() {
            return self.replicas();
        }
        let room = (self.replicas() + surge - held(self.view, self.old.iter().copied())).max(0);
        room.min(self.replicas())
    }

    fn replica_set(&self, name: &str, hash: &str, replicas: i32, annotations: Map<String, Value>) -> Value {
        let mut template = self.d.field("/spec/template");
        template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
        let mut selector = self.d.field("/spec/selector");
        selector["matchLabels"]["pod-template-hash"] = json!(hash);
        let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
        if self.d.spec.min_ready_seconds != 0 {
            spec["minReadySeconds"] = json!(self.d.spec.min_ready_seconds);
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": self.d.meta.namespace,
                "labels": template["metadata"]["labels"],
                "annotations": annotations,
                "ownerReferences": [owner_reference(self.d)],
            },
            "spec": spec,
        })
    }

    /// The name is taken by a ReplicaSet of another template: the next hash takes in a counter.
    fn count_collision(&mut self) {
        let mut status = self.d.field("/status");
        status["collisionCount"] = json!(self.d.status.collision_count.unwrap_or(0) + 1);
        set_status(&mut self.plan, self.d, status);
    }

    /// The API let no ReplicaSet be made (quota, admission).
    pub(super) fn cannot_create(mut self, message: String) -> Plan {
        const REASON: &str = "ReplicaSetCreateError";
        self.plan.event(Regarding::of(self.d), EventType::Warning, REASON, &*message, NAME);
        if self.has_deadline() {
            self.progress(false, REASON, message);
        }
        self.plan
    }

    /// Sets the Progressing condition alone.
    fn progress(&mut self, ok: bool, reason: &str, message: String) {
        let mut list = self.d.status.conditions.to_vec();
        let mut condition = Condition::new("Progressing", ok, reason, message, self.now);
        condition.updated = Some(self.now);
        conditions::set(&mut list, condition);
        let mut status = self.d.field("/status");
        status["conditions"] = conditions::to_value(&list);
        set_status(&mut self.plan, self.d, status);
    }

    /// Deletes the oldest ReplicaSets without pods beyond `revisionHistoryLimit`.
    pub(super) fn clean_up(&mut self) {
        let limit = self.d.spec.revision_history_limit.unwrap_or(10).max(0) as usize;
        let mut alive: Vec<_> = self.old.iter().copied().filter(|rs| rs.meta.deleting.is_none()).collect();
        if alive.len() <= limit {
            return;
        }
        alive.sort_by_key(|rs| (number(rs, REVISION).unwrap_or(0), rs.meta.created_at()));
        let surplus = alive.len() - limit;
        for rs in alive.into_iter().take(surplus) {
            let idle = rs.status.replicas == 0 && size(rs) == 0;
            if idle && rs.status.observed_generation >= rs.meta.generation {
                self.plan.delete(ReplicaSet::RESOURCE, &rs.meta);
            }
        }
    }
}
