//! Kinds of the cluster's own housekeeping as decisions see them.
//!
//! In: canonical JSON. Out: the fields that many decisions read; what only the kind's own controller reads, it takes
//! from the bytes when it is that object's turn.
//! Never: a copy of a list that can be long.

use crate::view::meta::or_default;
use serde::Deserialize;

/// What its hard limits and what is used are is read from the bytes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceQuotaData {}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HorizontalPodAutoscalerData {
    #[serde(deserialize_with = "or_default")]
    pub spec: AutoscalerSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AutoscalerSpec {
    pub scale_target_ref: TargetRef,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TargetRef {
    pub api_version: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CertificateSigningRequestData {}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceClaimTemplateData {}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceCidrData {
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceCidrSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceCidrSpec {
    #[serde(deserialize_with = "or_default")]
    pub cidrs: Box<[Box<str>]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct IpAddressData {}
