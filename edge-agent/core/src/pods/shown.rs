//! v1 PodStatus as it is written.
//!
//! In: borrowed fields. Out: JSON, by serde; fields in the order of the alphabet, as in the hub's own objects, so that one
//! status is always the same bytes.
//! Never: decides what a field says.

use crate::api::{Quantity, Resources};
use serde::{Serialize, Serializer};
use std::{borrow::Cow, collections::BTreeMap};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status<'a> {
    /// Of the pod as a whole, as `resources`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_quantities")]
    pub allocated_resources: Option<&'a BTreeMap<String, Quantity>>,
    pub conditions: Vec<Condition<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ephemeral_container_statuses: Vec<ContainerStatus<'a>>,
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<&'a str>,
    #[serde(rename = "hostIPs", skip_serializing_if = "Vec::is_empty")]
    pub host_ips: Vec<Address<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    pub phase: &'a str,
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<&'a str>,
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<Address<'a>>,
    pub qos_class: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Shown<'a>>,
    pub start_time: String,
}

#[derive(Serialize)]
pub(super) struct Address<'a> {
    pub ip: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition<'a> {
    /// Never said: null.
    pub last_probe_time: (),
    pub last_transition_time: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'a str,
    pub status: &'static str,
    #[serde(rename = "type")]
    pub type_: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_quantities")]
    pub allocated_resources: Option<&'a BTreeMap<String, Quantity>>,
    #[serde(rename = "containerID", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    pub image: &'a str,
    #[serde(rename = "imageID")]
    pub image_id: &'a str,
    pub last_state: State<'a>,
    pub name: &'a str,
    pub ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Shown<'a>>,
    pub restart_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
    pub state: State<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<Mount<'a>>,
}

/// v1 ContainerState: one of its fields, or none.
#[derive(Serialize, Default)]
pub(super) struct State<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Ended<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Running {
    pub started_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ended<'a> {
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    pub exit_code: i32,
    /// Null where nobody knows it.
    pub finished_at: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub message: &'a str,
    pub reason: &'a str,
    pub started_at: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Waiting<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub message: Cow<'a, str>,
    pub reason: &'a str,
}

#[derive(Serialize)]
pub(super) struct User {
    pub linux: LinuxUser,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LinuxUser {
    pub gid: u32,
    pub supplemental_groups: Vec<u32>,
    pub uid: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount<'a> {
    pub mount_path: &'a str,
    pub name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recursive_read_only: Option<&'static str>,
}

/// v1 ResourceRequirements.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "quantities")]
    pub limits: &'a BTreeMap<String, Quantity>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "quantities")]
    pub requests: &'a BTreeMap<String, Quantity>,
}

impl<'a> From<&'a Resources> for Shown<'a> {
    fn from(of: &'a Resources) -> Shown<'a> {
        Shown { limits: &of.limits, requests: &of.requests }
    }
}

fn quantities<S: Serializer>(all: &BTreeMap<String, Quantity>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(all.iter().map(|(name, quantity)| (name, quantity.text())))
}

fn some_quantities<S: Serializer>(all: &Option<&BTreeMap<String, Quantity>>, to: S) -> Result<S::Ok, S::Error> {
    quantities(all.unwrap_or(&BTreeMap::new()), to)
}
