//! Namespaces, Services, Endpoints, ConfigMaps and other small kinds of core.
//!
//! In: canonical JSON. Out: the fields that decisions read. Never: the data of ConfigMaps and Secrets (their bytes
//! go to nodes as they are).

use crate::{
    Timestamp,
    view::{Labels, meta::or_default},
};
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NamespaceData {
    #[serde(deserialize_with = "or_default")]
    pub spec: NamespaceSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: NamespaceStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NamespaceSpec {
    #[serde(deserialize_with = "or_default")]
    pub finalizers: Box<[Box<str>]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NamespaceStatus {
    pub phase: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceData {
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub type_: Box<str>,
    /// Missing or empty: somebody else keeps the endpoints.
    pub selector: Labels,
    pub ports: Box<[ServicePort]>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Box<str>,
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    pub cluster_ips: Box<[Box<str>]>,
    pub traffic_distribution: Option<Box<str>>,
    pub ip_families: Box<[Box<str>]>,
    pub publish_not_ready_addresses: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    #[serde(deserialize_with = "or_default")]
    pub name: Box<str>,
    pub protocol: Box<str>,
    pub port: i32,
    pub target_port: IntOrString,
    pub app_protocol: Option<Box<str>>,
}

/// A number or a text: ports, and counts that may be percentages.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    Int(i32),
    Text(Box<str>),
    Nothing(()),
}

impl Default for IntOrString {
    fn default() -> Self {
        IntOrString::Nothing(())
    }
}

impl IntOrString {
    /// A count, or a percentage of `total`; `None` for anything else.
    pub fn of_total(&self, total: i32, round_up: bool) -> Option<i32> {
        match self {
            IntOrString::Int(n) => Some(*n),
            IntOrString::Text(t) => {
                let percent: i64 = t.strip_suffix('%')?.parse().ok()?;
                let product = percent.checked_mul(i64::from(total))?;
                let up = i64::from(round_up && product % 100 != 0);
                i32::try_from(product / 100 + up).ok()
            }
            IntOrString::Nothing(()) => None,
        }
    }
}

/// The subsets are compared as JSON.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointsData {}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointSliceData {}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConfigMapData {}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SecretData {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub type_: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceAccountData {}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PersistentVolumeClaimData {
    #[serde(deserialize_with = "or_default")]
    pub spec: super::ClaimSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: ClaimStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClaimStatus {
    pub phase: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PriorityClassData {
    pub value: i32,
    pub global_default: bool,
    pub preemption_policy: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RuntimeClassData {
    /// What nodes know the runtime by.
    pub handler: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LeaseData {
    #[serde(deserialize_with = "or_default")]
    pub spec: LeaseSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LeaseSpec {
    #[serde(deserialize_with = "or_default")]
    pub holder_identity: Box<str>,
    pub renew_time: Option<Timestamp>,
}
