//! v1 Pod, as far as a node acts on it (Kubernetes API reference: Pod v1 core).
//!
//! In: serde. Out: plain data. Never: behaviour beyond looking up defaults.

use super::{
    Capabilities, Container, Quantity, Resources,
    small::{Blank, Rare, Words},
    volume::Volume,
};
use serde::{Deserialize, Deserializer};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pod {
    pub metadata: Meta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

/// The little of a status that a node is told: what others have decided about the pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// Only when it is `Succeeded` or `Failed`.
    pub phase: String,
    pub reason: String,
    pub message: String,
    /// The conditions that readiness gates name.
    pub conditions: Vec<PodCondition>,
    #[serde(rename = "resourceClaimStatuses")]
    pub resource_claim_statuses: Vec<DeviceClaim>,
    #[serde(rename = "extendedResourceClaimStatus")]
    pub extended_resource_claim_status: ExtendedClaim,
}

/// A claim on devices, of the spec or of the status: the pod's own name for it, and the ResourceClaim's when it has one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceClaim {
    pub name: String,
    pub resource_claim_name: Option<String>,
}

/// The ResourceClaim behind a pod's extended resources.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtendedClaim {
    pub resource_claim_name: String,
    pub request_mappings: Vec<RequestMapping>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestMapping {
    pub container_name: String,
    pub request_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub generation: Option<i64>,
    pub labels: Words,
    pub annotations: Words,
    pub creation_timestamp: Option<String>,
    pub deletion_timestamp: Option<String>,
    pub deletion_grace_period_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    pub resource_claims: Vec<DeviceClaim>,
    // Shared with the machines that run them.
    #[serde(deserialize_with = "shared")]
    pub init_containers: Vec<Arc<Container>>,
    #[serde(deserialize_with = "shared")]
    pub containers: Vec<Arc<Container>>,
    #[serde(deserialize_with = "shared")]
    pub ephemeral_containers: Vec<Arc<Container>>,
    pub volumes: Vec<Volume>,
    pub restart_policy: RestartPolicy,
    pub termination_grace_period_seconds: Option<i64>,
    pub active_deadline_seconds: Option<i64>,
    pub dns_policy: Option<String>,
    pub dns_config: Option<DnsConfig>,
    pub service_account_name: String,
    pub node_name: String,
    pub host_network: bool,
    #[serde(rename = "hostPID")]
    pub host_pid: bool,
    #[serde(rename = "hostIPC")]
    pub host_ipc: bool,
    pub share_process_namespace: bool,
    pub security_context: Rare<PodSecurityContext>,
    pub image_pull_secrets: Vec<LocalRef>,
    pub hostname: Option<String>,
    pub hostname_override: Option<String>,
    pub subdomain: Option<String>,
    #[serde(rename = "setHostnameAsFQDN")]
    pub set_hostname_as_fqdn: bool,
    pub host_aliases: Vec<HostAlias>,
    pub priority: Option<i64>,
    pub enable_service_links: Option<bool>,
    pub readiness_gates: Vec<ReadinessGate>,
    /// `false`: users of the pod are other users of the host.
    pub host_users: Option<bool>,
    pub runtime_class_name: Option<String>,
    /// Of the whole pod (KEP-2837).
    pub resources: Resources,
    /// What the RuntimeClass takes besides.
    pub overhead: BTreeMap<String, Quantity>,
    pub os: Os,
    #[serde(rename = "tolerations", deserialize_with = "bears_memory_pressure")]
    pub bears_memory_pressure: bool,
}

/// Of all tolerations the one that a node itself heeds: for the taint that a shortage of memory brings.
fn bears_memory_pressure<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Toleration {
        key: String,
        operator: String,
        value: String,
        effect: String,
    }
    let bears = |t: &Toleration| {
        let key = t.key == "node.kubernetes.io/memory-pressure" || (t.key.is_empty() && t.operator == "Exists");
        let value = t.operator == "Exists" || (matches!(&*t.operator, "" | "Equal") && t.value.is_empty());
        key && value && matches!(&*t.effect, "" | "NoSchedule")
    };
    Ok(Vec::<Toleration>::deserialize(from)?.iter().any(bears))
}

fn shared<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Arc<Container>>, D::Error> {
    Ok(Vec::deserialize(from)?.into_iter().map(Arc::new).collect())
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Os {
    pub name: String,
}

impl PodSpec {
    /// Containers of every sort, in the order in which they may start.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.shared_containers().map(|c| &**c)
    }

    pub(crate) fn shared_containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.init_containers.iter().chain(&self.containers).chain(&self.ephemeral_containers)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LocalRef {
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HostAlias {
    pub ip: String,
    pub hostnames: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReadinessGate {
    pub condition_type: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<DnsOption>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DnsOption {
    pub name: String,
    pub value: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSecurityContext {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: Option<bool>,
    pub fs_group: Option<i64>,
    pub fs_group_change_policy: Option<String>,
    pub supplemental_groups: Vec<i64>,
    pub supplemental_groups_policy: Option<String>,
    pub seccomp_profile: Option<SeccompProfile>,
    pub app_armor_profile: Option<SeccompProfile>,
    pub sysctls: Vec<NameValue>,
    pub se_linux_change_policy: Option<serde::de::IgnoredAny>,
    pub se_linux_options: Option<serde::de::IgnoredAny>,
    pub windows_options: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NameValue {
    pub name: String,
    pub value: String,
}

impl Blank for PodSecurityContext {
    const BLANK: &'static Self = &PodSecurityContext {
        run_as_user: None,
        run_as_group: None,
        run_as_non_root: None,
        fs_group: None,
        fs_group_change_policy: None,
        supplemental_groups: Vec::new(),
        supplemental_groups_policy: None,
        seccomp_profile: None,
        app_armor_profile: None,
        sysctls: Vec::new(),
        se_linux_change_policy: None,
        se_linux_options: None,
        windows_options: None,
    };
}

/// The same three words for seccomp and AppArmor.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SeccompProfile {
    #[serde(rename = "type")]
    pub type_: String,
    pub localhost_profile: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecurityContext {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: Option<bool>,
    pub privileged: Option<bool>,
    pub allow_privilege_escalation: Option<bool>,
    pub read_only_root_filesystem: Option<bool>,
    pub capabilities: Capabilities,
    pub seccomp_profile: Option<SeccompProfile>,
    pub app_armor_profile: Option<SeccompProfile>,
    pub proc_mount: Option<String>,
    pub se_linux_options: Option<serde::de::IgnoredAny>,
    pub windows_options: Option<serde::de::IgnoredAny>,
}

impl Blank for SecurityContext {
    const BLANK: &'static Self = &SecurityContext {
        run_as_user: None,
        run_as_group: None,
        run_as_non_root: None,
        privileged: None,
        allow_privilege_escalation: None,
        read_only_root_filesystem: None,
        capabilities: Capabilities { add: Vec::new(), drop: Vec::new() },
        seccomp_profile: None,
        app_armor_profile: None,
        proc_mount: None,
        se_linux_options: None,
        windows_options: None,
    };
}
