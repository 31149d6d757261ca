//! Which nodes could take a pod.
//!
//! In: a node, a pod, and what was gathered about other pods. Out: no reason, or the reasons against it, in the order
//! in which kube-scheduler's plugins look (the first that objects speaks).
//! Never: prefers one node over another; see `score`.

use super::{
    config::Profile,
    counts::Counts,
    devices::DeviceRules,
    pods::PodRules,
    reason::{Plugin, Reason},
    room::{self, Spot},
    spread::SpreadRules,
    volumes::VolumeRules,
};
use crate::{
    ObjectStore,
    view::{Node, Pod, Taint},
};

/// What a kubelet declares that knows `restartPolicyRules` with the action `RestartAllContainers`.
const RESTART_ALL: &str = "RestartAllContainersOnContainerExits";
const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Reasons against a node that only the node itself gives.
pub fn against_itself(node: &Node, pod: &Pod, profile: &Profile) -> Option<Reason> {
    let on = |plugin| !profile.filters_off.contains(plugin);
    if node.spec.unschedulable && on(Plugin::NodeUnschedulable) {
        let taint =
            Taint { key: UNSCHEDULABLE_TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
        if !pod.spec.tolerations.iter().any(|t| t.tolerates(&taint)) {
            return Some(Reason::hopeless(Plugin::NodeUnschedulable, "node(s) were unschedulable"));
        }
    }
    if on(Plugin::TaintToleration) && untolerated(node, pod, &["NoSchedule", "NoExecute"]).is_some() {
        // Which taint it is does not stand in the pod, as upstream since 1.34; `explain` says it to who may see nodes.
        return Some(Reason::hopeless(Plugin::TaintToleration, "node(s) had untolerated taint(s)"));
    }
    let added = profile.added_affinity.as_ref().and_then(|a| a.required.as_ref());
    if on(Plugin::NodeAffinity)
        && added.is_some_and(|terms| !terms.matches(&node.meta.name, &node.meta.labels))
    {
        let text = "node(s) didn't match scheduler-enforced node affinity";
        return Some(Reason::hopeless(Plugin::NodeAffinity, text));
    }
    if on(Plugin::NodeAffinity) && !affinity_matches(node, pod) {
        let text = "node(s) didn't match Pod's node affinity/selector";
        return Some(Reason::hopeless(Plugin::NodeAffinity, text));
    }
    if on(Plugin::NodeDeclaredFeatures)
        && pod.spec.restarts_all
        && !node.status.declared_features.iter().any(|f| **f == *RESTART_ALL)
    {
        let text = format!("node declared features check failed - unsatisfied requirements: {RESTART_ALL}");
        return Some(Reason::hopeless(Plugin::NodeDeclaredFeatures, text));
    }
    None
}

/// The first taint with one of these effects that the pod does not tolerate.
pub fn untolerated<'a>(node: &'a Node, pod: &Pod, effects: &[&str]) -> Option<&'a Taint> {
    let strict = |t: &&Taint| effects.contains(&&*t.effect);
    node.spec.taints.iter().filter(strict).find(|t| !pod.spec.tolerations.iter().any(|x| x.tolerates(t)))
}

/// nodeSelector and required node affinity.
pub fn affinity_matches(node: &Node, pod: &Pod) -> bool {
    let labels = &node.meta.labels;
    let required =
        pod.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    pod.spec.node_selector.iter().all(|(k, v)| labels.get(k) == Some(v))
        && required.is_none_or(|terms| terms.matches(&node.meta.name, labels))
}

/// Everything that is the same for all nodes while one pod is placed.
#[derive(Debug)]
pub struct Rules<'a> {
    pub view: &'a ObjectStore,
    pub profile: &'a Profile,
    pub pod: &'a Pod,
    pub pods: PodRules,
    pub spread: SpreadRules,
    pub volumes: VolumeRules,
    pub devices: DeviceRules,
}

impl<'a> Rules<'a> {
    /// The rules, or the reason why no node at all will do.
    pub fn gather(
        view: &'a ObjectStore,
        profile: &'a Profile,
        pod: &'a Pod,
        counts: &mut Counts,
    ) -> Result<Rules<'a>, Reason> {
        let on = |plugin| !profile.filters_off.contains(plugin);
        let volumes = match on(Plugin::VolumeBinding) {
            true => VolumeRules::gather(view, pod)?,
            false => VolumeRules::default(),
        };
        let devices = match on(Plugin::DynamicResources) {
            true => DeviceRules::gather(view, pod, &counts.devices)?,
            false => DeviceRules::default(),
        };
        let pods = PodRules::gather(view, profile, pod, counts);
        let spread = SpreadRules::gather(view, profile, pod, counts);
        Ok(Rules { view, profile, pod, pods, spread, volumes, devices })
    }

    /// All reasons of the first objection to a node; empty: the pod fits.
    pub fn against(&self, spot: &Spot<'_>) -> Vec<Reason> {
        self.against_with(spot, &self.pods, &self.spread)
    }

    /// As `against`, with other pods in mind.
    pub fn against_with(&self, spot: &Spot<'_>, pods: &PodRules, spread: &SpreadRules) -> Vec<Reason> {
        let (node, pod) = (spot.node, self.pod);
        let on = |plugin| !self.profile.filters_off.contains(plugin);
        if let Some(own) = against_itself(node, pod, self.profile) {
            return vec![own];
        }
        if on(Plugin::NodePorts) && room::ports_taken(spot, pod) {
            let text = "node(s) didn't have free ports for the requested pod ports";
            return vec![Reason::crowded(Plugin::NodePorts, text)];
        }
        if on(Plugin::NodeResourcesFit) {
            let lacking = room::lacking(node, &spot.used, &pod.spec.requests, |name| self.devices.answers(name));
            if !lacking.is_empty() {
                return lacking;
            }
        }
        let rest = self.volumes.against(self.view, spot).filter(|r| on(r.plugin));
        let rest = rest.or_else(|| spread.against(node).filter(|r| on(r.plugin)));
        let rest = rest.or_else(|| pods.against(node).filter(|r| on(r.plugin)));
        rest.or_else(|| self.devices.against(node).filter(|r| on(r.plugin))).into_iter().collect()
    }
}
