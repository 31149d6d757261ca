//! Deployments, ReplicaSets, StatefulSets, DaemonSets and ControllerRevisions as decisions see them.
//!
//! In: canonical JSON. Out: the numbers of their specs, and the hash of the pod template in place of the template,
//! which is read from the bytes when a pod is made.
//! Never: a template in memory.

use super::{Condition, IntOrString};
use crate::{
    names,
    view::{Labels, Memo, Pod, Selector, meta::or_default},
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::sync::Arc;

/// What is kept of a pod template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Canonical hash without the labels that controllers add.
    pub digest: [u8; 32],
    pub labels: Labels,
    /// Hash of the content of a ControllerRevision of it.
    pub as_revision: Memo<[u8; 32]>,
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(d)?;
        let labels = value.pointer("/metadata/labels").and_then(Value::as_object);
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let labels = labels.into_iter().flatten().map(|(k, v)| (k.as_str(), text(v))).collect();
        Ok(Template { digest: names::template_digest(&value), labels, as_revision: Memo::default() })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeploymentData {
    pub spec: DeploymentSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: DeploymentStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeploymentSpec {
    pub replicas: Option<i32>,
    pub selector: Option<Selector>,
    pub template: Template,
    pub strategy: Strategy,
    pub min_ready_seconds: i64,
    pub revision_history_limit: Option<i32>,
    pub paused: bool,
    pub progress_deadline_seconds: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Strategy {
    #[serde(rename = "type")]
    pub type_: Box<str>,
    pub rolling_update: RollingUpdate,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RollingUpdate {
    pub max_surge: IntOrString,
    pub max_unavailable: IntOrString,
    pub partition: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeploymentStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub updated_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub collision_count: Option<i32>,
    pub conditions: Box<[Condition]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReplicaSetData {
    pub spec: ReplicaSetSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: ReplicaSetStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplicaSetSpec {
    pub replicas: Option<i32>,
    pub selector: Option<Selector>,
    pub template: Template,
    pub min_ready_seconds: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplicaSetStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub conditions: Box<[Condition]>,
}

/// The older form of a ReplicaSet: its selector is a plain map.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReplicationControllerData {
    #[serde(deserialize_with = "or_default")]
    pub spec: ReplicationControllerSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: ReplicaSetStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "RawReplicationControllerSpec")]
pub struct ReplicationControllerSpec(pub ReplicaSetSpec);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawReplicationControllerSpec {
    replicas: Option<i32>,
    selector: Labels,
    template: Template,
    min_ready_seconds: i64,
}

impl From<RawReplicationControllerSpec> for ReplicationControllerSpec {
    fn from(raw: RawReplicationControllerSpec) -> Self {
        let selector = Selector { match_labels: raw.selector, ..Selector::default() };
        ReplicationControllerSpec(ReplicaSetSpec {
            replicas: raw.replicas,
            selector: Some(selector),
            template: raw.template,
            min_ready_seconds: raw.min_ready_seconds,
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StatefulSetData {
    pub spec: StatefulSetSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: StatefulSetStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatefulSetSpec {
    pub replicas: Option<i32>,
    pub selector: Option<Selector>,
    pub template: Template,
    pub service_name: Box<str>,
    pub pod_management_policy: Box<str>,
    pub update_strategy: Strategy,
    pub min_ready_seconds: i64,
    pub revision_history_limit: Option<i32>,
    pub ordinals: Ordinals,
    pub volume_claim_templates: Box<[Value]>,
    pub persistent_volume_claim_retention_policy: ClaimPolicy,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Ordinals {
    pub start: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimPolicy {
    pub when_deleted: Box<str>,
    pub when_scaled: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatefulSetStatus {
    pub observed_generation: i64,
    pub current_revision: Box<str>,
    pub update_revision: Box<str>,
    pub collision_count: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DaemonSetData {
    pub spec: DaemonSetSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: DaemonSetStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DaemonSetSpec {
    pub selector: Option<Selector>,
    pub template: Template,
    pub update_strategy: Strategy,
    pub min_ready_seconds: i64,
    pub revision_history_limit: Option<i32>,
    /// A pod of it that is meant for no node.
    #[serde(skip)]
    pub probe: Memo<Option<Arc<Pod>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DaemonSetStatus {
    pub observed_generation: i64,
    pub collision_count: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ControllerRevisionData {
    pub revision: i64,
    /// Hash of its content.
    #[serde(skip)]
    pub digest: Memo<[u8; 32]>,
}
