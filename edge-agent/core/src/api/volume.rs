//! Volumes of a v1 Pod (Kubernetes API reference: Volume v1 core).
//!
//! In: serde. Out: plain data; a volume type that the agent does not know has no source set.

use super::{FieldRef, LocalRef, Quantity, ResourceFieldRef};
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    pub name: String,
    // Boxed: a volume has one of them.
    pub empty_dir: Option<Box<EmptyDir>>,
    pub host_path: Option<Box<HostPath>>,
    pub config_map: Option<Box<ConfigMapSource>>,
    pub secret: Option<Box<SecretSource>>,
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<Box<DownwardSource>>,
    pub projected: Option<Box<ProjectedSource>>,
    pub image: Option<Box<ImageSource>>,
    pub persistent_volume_claim: Option<Box<ClaimSource>>,
    /// A claim of the pod's own, made from a template by the hub.
    pub ephemeral: Option<serde::de::IgnoredAny>,
}

impl Volume {
    /// Whose files are somebody else's to change: images, and what this agent keeps up to date, where a container that could
    /// exchange directories for links would have it write elsewhere (the class of CVE-2017-1002102).
    pub fn is_only_read(&self) -> bool {
        let kept = self.config_map.is_some() || self.secret.is_some() || self.downward_api.is_some() || self.projected.is_some();
        kept || self.image.is_some()
    }

    /// The claim that this volume is, by name, and whether it is only read.
    pub fn claim(&self, pod: &str) -> Option<(String, bool)> {
        match (&self.persistent_volume_claim, &self.ephemeral) {
            (Some(claim), _) => Some((claim.claim_name.clone(), claim.read_only)),
            (None, Some(_)) => Some((format!("{pod}-{}", self.name), false)),
            (None, None) => None,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSource {
    pub claim_name: String,
    pub read_only: bool,
}

/// A v1 PersistentVolume, as far as a node can mount it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PersistentVolume {
    pub metadata: super::Meta,
    pub spec: PersistentVolumeSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolumeSpec {
    pub host_path: Option<HostPath>,
    pub local: Option<LocalPath>,
    /// `Filesystem` or `Block`.
    pub volume_mode: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LocalPath {
    pub path: String,
}

/// Files of an image, to read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ImageSource {
    pub reference: String,
    pub pull_policy: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EmptyDir {
    pub medium: String,
    pub size_limit: Option<Quantity>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HostPath {
    pub path: String,
    #[serde(rename = "type")]
    pub type_: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigMapSource {
    pub name: String,
    pub items: Vec<KeyToPath>,
    pub default_mode: Option<u32>,
    pub optional: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretSource {
    /// In a volume.
    pub secret_name: String,
    /// In a projection.
    pub name: String,
    pub items: Vec<KeyToPath>,
    pub default_mode: Option<u32>,
    pub optional: bool,
}

impl SecretSource {
    pub fn object_name(&self) -> &str {
        if self.secret_name.is_empty() { &self.name } else { &self.secret_name }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct KeyToPath {
    pub key: String,
    pub path: String,
    pub mode: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DownwardSource {
    pub items: Vec<DownwardItem>,
    pub default_mode: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DownwardItem {
    pub path: String,
    pub field_ref: Option<FieldRef>,
    pub resource_field_ref: Option<ResourceFieldRef>,
    pub mode: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProjectedSource {
    pub sources: Vec<Projection>,
    pub default_mode: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Projection {
    pub config_map: Option<Box<ConfigMapSource>>,
    pub secret: Option<Box<SecretSource>>,
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<Box<DownwardSource>>,
    pub service_account_token: Option<Box<TokenSource>>,
    /// What this node cannot project; said, not passed over.
    pub cluster_trust_bundle: Option<serde::de::IgnoredAny>,
    pub pod_certificate: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TokenSource {
    pub audience: Option<String>,
    pub expiration_seconds: Option<i64>,
    pub path: String,
}

/// Names the pull secrets of a pod.
pub type PullSecret = LocalRef;
