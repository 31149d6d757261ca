//! Jobs and CronJobs as decisions see them.
//!
//! In: canonical JSON. Out: the numbers of their specs and the counters of their status.
//! Never: the pod template, which is read from the bytes when a pod is made.

use super::{Condition, Template};
use crate::{
    Timestamp,
    view::{Labels, Selector, meta::or_default},
};
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct JobData {
    pub spec: JobSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: JobStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobSpec {
    pub parallelism: Option<i32>,
    pub completions: Option<i32>,
    pub active_deadline_seconds: Option<i64>,
    pub backoff_limit: Option<i32>,
    pub backoff_limit_per_index: Option<i32>,
    pub max_failed_indexes: Option<i32>,
    pub selector: Option<Selector>,
    pub template: Template,
    pub ttl_seconds_after_finished: Option<i64>,
    pub completion_mode: Box<str>,
    pub suspend: bool,
    pub pod_replacement_policy: Box<str>,
    pub pod_failure_policy: PodFailurePolicy,
    pub success_policy: Option<SuccessPolicy>,
    pub managed_by: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SuccessPolicy {
    #[serde(deserialize_with = "or_default")]
    pub rules: Box<[SuccessRule]>,
}

/// Enough indexes (of a set) have succeeded.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SuccessRule {
    pub succeeded_indexes: Option<Box<str>>,
    pub succeeded_count: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodFailurePolicy {
    pub rules: Box<[FailureRule]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FailureRule {
    pub action: Box<str>,
    pub on_exit_codes: Option<OnExitCodes>,
    #[serde(deserialize_with = "or_default")]
    pub on_pod_conditions: Box<[OnPodCondition]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OnExitCodes {
    pub container_name: Option<Box<str>>,
    pub operator: Box<str>,
    pub values: Box<[i32]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct OnPodCondition {
    #[serde(rename = "type")]
    pub type_: Box<str>,
    pub status: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobStatus {
    pub active: i32,
    pub succeeded: i32,
    pub failed: i32,
    pub start_time: Option<Timestamp>,
    pub completion_time: Option<Timestamp>,
    pub completed_indexes: Box<str>,
    pub failed_indexes: Box<str>,
    pub uncounted_terminated_pods: Uncounted,
    pub conditions: Box<[Condition]>,
}

/// Pods that ended and whose finalizer is still to be removed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Uncounted {
    pub succeeded: Box<[Box<str>]>,
    pub failed: Box<[Box<str>]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CronJobData {
    pub spec: CronJobSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: CronJobStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CronJobSpec {
    pub schedule: Box<str>,
    pub time_zone: Option<Box<str>>,
    pub starting_deadline_seconds: Option<i64>,
    pub concurrency_policy: Box<str>,
    pub suspend: bool,
    pub successful_jobs_history_limit: Option<i32>,
    pub failed_jobs_history_limit: Option<i32>,
    pub job_template: JobTemplate,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct JobTemplate {
    #[serde(deserialize_with = "or_default")]
    pub metadata: TemplateMeta,
    #[serde(deserialize_with = "or_default")]
    pub spec: RunSpec,
}

/// What decides on how many pods, and where, a run has.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RunSpec {
    pub completions: Option<i32>,
    pub parallelism: Option<i32>,
    pub suspend: Option<bool>,
    pub completion_mode: Box<str>,
    pub template: RunTemplate,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RunTemplate {
    #[serde(deserialize_with = "or_default")]
    pub spec: RunPlace,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RunPlace {
    #[serde(deserialize_with = "or_default")]
    pub node_name: Box<str>,
    pub node_selector: Labels,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TemplateMeta {
    pub labels: Labels,
    pub annotations: Labels,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CronJobStatus {
    pub active: Box<[JobRef]>,
    pub last_schedule_time: Option<Timestamp>,
    pub last_successful_time: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct JobRef {
    pub name: Box<str>,
    pub uid: Box<str>,
}
