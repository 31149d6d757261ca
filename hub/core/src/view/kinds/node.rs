//! A Node as decisions see it, and amounts of resources.
//!
//! In: canonical JSON. Out: labels, taints, what it can hold, conditions, images.
//! Never: capacity (only allocatable counts).

use super::{Condition, Taint};
use crate::view::{Labels, meta::or_default};
use limpet_objects::quantity::Quantity;
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeData {
    #[serde(deserialize_with = "or_default")]
    pub spec: NodeSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: NodeStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSpec {
    pub unschedulable: bool,
    pub taints: Box<[Taint]>,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Box<str>,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Box<[Box<str>]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub allocatable: Requests,
    pub conditions: Box<[Condition]>,
    pub images: Box<[NodeImage]>,
    pub addresses: Box<[NodeAddress]>,
    /// Of Kubernetes' feature gates, as far as pods can ask for what they bring.
    #[serde(rename = "declaredFeatures", deserialize_with = "or_default")]
    pub declared_features: Box<[Box<str>]>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeImage {
    #[serde(deserialize_with = "or_default")]
    pub names: Box<[Box<str>]>,
    pub size_bytes: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    #[serde(rename = "type")]
    pub type_: Box<str>,
    pub address: Box<str>,
}

impl NodeStatus {
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        super::conditions::find(&self.conditions, type_)
    }

    pub fn ready(&self) -> bool {
        super::conditions::is_true(&self.conditions, "Ready")
    }
}

/// Amounts of resources: CPU in thousandths, everything else in units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Labels")]
pub struct Requests {
    pub cpu_milli: i64,
    pub memory: i64,
    pub ephemeral: i64,
    pub pods: i64,
    /// hugepages-*, attachable-volumes-* and vendors' resources; sorted by name.
    pub extended: Vec<(Box<str>, i64)>,
    /// Which of cpu, memory, ephemeral-storage are named at all (bits 0, 1, 2).
    named: u8,
}

impl From<Labels> for Requests {
    fn from(map: Labels) -> Requests {
        let mut r = Requests::default();
        for (name, text) in map.iter() {
            let amount = text.parse().unwrap_or(Quantity::ZERO);
            let units = || amount.value();
            match name {
                "cpu" => {
                    r.cpu_milli = amount.milli_value();
                    r.named |= 1;
                }
                "memory" => {
                    r.memory = units();
                    r.named |= 2;
                }
                "ephemeral-storage" => {
                    r.ephemeral = units();
                    r.named |= 4;
                }
                "pods" => r.pods = units(),
                _ => r.extended.push((name.into(), units())),
            }
        }
        r
    }
}

impl Requests {
    pub fn add(&mut self, other: &Requests) {
        self.combine(other, i64::saturating_add);
    }

    pub fn subtract(&mut self, other: &Requests) {
        self.combine(other, i64::saturating_sub);
    }

    /// The larger of both, resource by resource.
    pub fn raise(&mut self, other: &Requests) {
        self.combine(other, i64::max);
    }

    /// Takes over what `other` names.
    pub fn overlay(&mut self, other: &Requests) {
        let pick = |bit: u8, mine: i64, theirs: i64| if other.named & bit != 0 { theirs } else { mine };
        self.cpu_milli = pick(1, self.cpu_milli, other.cpu_milli);
        self.memory = pick(2, self.memory, other.memory);
        self.ephemeral = pick(4, self.ephemeral, other.ephemeral);
        self.named |= other.named;
        for (name, amount) in &other.extended {
            *self.slot(name) = *amount;
        }
    }

    /// Whether no resource is named.
    pub fn is_empty(&self) -> bool {
        self.named == 0 && self.pods == 0 && self.extended.is_empty()
    }

    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu_milli,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral,
            "pods" => self.pods,
            _ => self.extended.iter().find(|e| &*e.0 == name).map_or(0, |e| e.1),
        }
    }

    fn combine(&mut self, other: &Requests, f: fn(i64, i64) -> i64) {
        self.cpu_milli = f(self.cpu_milli, other.cpu_milli);
        self.memory = f(self.memory, other.memory);
        self.ephemeral = f(self.ephemeral, other.ephemeral);
        self.pods = f(self.pods, other.pods);
        self.named |= other.named;
        for (name, amount) in &other.extended {
            let slot = self.slot(name);
            *slot = f(*slot, *amount);
        }
    }

    fn slot(&mut self, name: &str) -> &mut i64 {
        let at = match self.extended.binary_search_by(|e| (*e.0).cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                self.extended.insert(at, (name.into(), 0));
                at
            }
        };
        &mut self.extended[at].1
    }
}
