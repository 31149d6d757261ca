//! Why a node will not do, and which part of the scheduler says so.
//!
//! In: nothing. Out: `Plugin` (kube-scheduler's names) and `Reason`. Never: text that is not kube-scheduler's own.

use std::borrow::Cow;

/// The parts of kube-scheduler whose names users know from its configuration and its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Plugin {
    SchedulingGates,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    DefaultPreemption,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    NodeDeclaredFeatures,
}

impl Plugin {
    pub const ALL: [Plugin; 18] = [
        Plugin::SchedulingGates,
        Plugin::NodeUnschedulable,
        Plugin::NodeName,
        Plugin::TaintToleration,
        Plugin::NodeAffinity,
        Plugin::NodePorts,
        Plugin::NodeResourcesFit,
        Plugin::VolumeRestrictions,
        Plugin::NodeVolumeLimits,
        Plugin::VolumeBinding,
        Plugin::VolumeZone,
        Plugin::PodTopologySpread,
        Plugin::InterPodAffinity,
        Plugin::DynamicResources,
        Plugin::DefaultPreemption,
        Plugin::NodeResourcesBalancedAllocation,
        Plugin::ImageLocality,
        Plugin::NodeDeclaredFeatures,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Plugin::SchedulingGates => "SchedulingGates",
            Plugin::NodeUnschedulable => "NodeUnschedulable",
            Plugin::NodeName => "NodeName",
            Plugin::TaintToleration => "TaintToleration",
            Plugin::NodeAffinity => "NodeAffinity",
            Plugin::NodePorts => "NodePorts",
            Plugin::NodeResourcesFit => "NodeResourcesFit",
            Plugin::VolumeRestrictions => "VolumeRestrictions",
            Plugin::NodeVolumeLimits => "NodeVolumeLimits",
            Plugin::VolumeBinding => "VolumeBinding",
            Plugin::VolumeZone => "VolumeZone",
            Plugin::PodTopologySpread => "PodTopologySpread",
            Plugin::InterPodAffinity => "InterPodAffinity",
            Plugin::DynamicResources => "DynamicResources",
            Plugin::DefaultPreemption => "DefaultPreemption",
            Plugin::NodeResourcesBalancedAllocation => "NodeResourcesBalancedAllocation",
            Plugin::ImageLocality => "ImageLocality",
            Plugin::NodeDeclaredFeatures => "NodeDeclaredFeatures",
        }
    }

    pub fn of_name(name: &str) -> Option<Plugin> {
        Plugin::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// A set of plugins, small enough to keep for every waiting pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugins(u32);

impl Plugins {
    pub const NONE: Plugins = Plugins(0);

    pub fn insert(&mut self, plugin: Plugin) {
        self.0 |= 1 << plugin as u8;
    }

    pub fn remove(&mut self, plugin: Plugin) {
        self.0 &= !(1 << plugin as u8);
    }

    pub fn contains(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u8) != 0
    }

    pub fn meets(self, other: Plugins) -> bool {
        self.0 & other.0 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Plugin> for Plugins {
    fn from_iter<I: IntoIterator<Item = Plugin>>(iter: I) -> Plugins {
        let mut all = Plugins::NONE;
        iter.into_iter().for_each(|p| all.insert(p));
        all
    }
}

/// One reason against a node; `preemptible` when fewer pods on it would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub plugin: Plugin,
    pub text: Cow<'static, str>,
    pub preemptible: bool,
}

impl Reason {
    /// Whatever happens to other pods, this node will not do.
    pub fn hopeless(plugin: Plugin, text: impl Into<Cow<'static, str>>) -> Reason {
        Reason { plugin, text: text.into(), preemptible: false }
    }

    /// Fewer pods on the node could help.
    pub fn crowded(plugin: Plugin, text: impl Into<Cow<'static, str>>) -> Reason {
        Reason { plugin, text: text.into(), preemptible: true }
    }
}
