//! Why no node will do, in kube-scheduler's words.
//!
//! In: the reasons of every node, and why preemption would not help. Out: one message: counts by reason.
//! Never: names nodes (there may be thousands).

use super::{
    place::Objection,
    preempt::{NoPreemption, WAITS_FOR_VICTIMS},
    reason::{Plugin, Plugins, Reason},
};
use std::collections::BTreeMap;

/// Why a pod has no node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhyNot {
    pub message: String,
    /// Nodes by reason.
    pub reasons: BTreeMap<String, usize>,
    pub nodes: usize,
    /// What could cure it.
    pub by: Plugins,
    /// Room is being made for it already.
    pub waits_for_victims: bool,
}

impl WhyNot {
    pub fn no_nodes() -> WhyNot {
        let by = Plugin::ALL.into_iter().filter(|p| *p != Plugin::SchedulingGates).collect();
        WhyNot { message: "no nodes available to schedule pods".into(), by, ..WhyNot::default() }
    }

    /// A reason that holds whatever the node.
    pub fn whole(nodes: usize, reason: &Reason) -> WhyNot {
        let text = &reason.text;
        let message = format!(
            "0/{nodes} nodes are available: {text}. preemption: 0/{nodes} nodes are available: {nodes} Preemption is \
             not helpful for scheduling."
        );
        let by = [reason.plugin].into_iter().collect();
        WhyNot { message, reasons: BTreeMap::from([(text.to_string(), nodes)]), nodes, by, ..WhyNot::default() }
    }

    /// `no_preemption`: `None` when pods are being removed to make room.
    pub fn of(objections: &[Objection<'_>], no_preemption: Option<&NoPreemption>) -> WhyNot {
        let nodes = objections.len();
        let mut reasons = BTreeMap::new();
        for reason in objections.iter().flat_map(|o| &o.1) {
            *reasons.entry(reason.text.to_string()).or_insert(0) += 1;
        }
        let by = objections.iter().flat_map(|o| &o.1).map(|r| r.plugin).collect();
        let mut message = format!("0/{nodes} nodes are available: {}.", listed(&reasons));
        match no_preemption {
            None => {}
            Some(NoPreemption::Never(sentence)) => message.push_str(&format!(" preemption: {sentence}")),
            Some(NoPreemption::Nodes(words)) => {
                let words = listed(words);
                message.push_str(&format!(" preemption: 0/{nodes} nodes are available: {words}."));
            }
        }
        let waits_for_victims = no_preemption == Some(&NoPreemption::Never(WAITS_FOR_VICTIMS));
        WhyNot { message, reasons, nodes, by, waits_for_victims }
    }
}

fn listed(reasons: &BTreeMap<String, usize>) -> String {
    let mut listed: Vec<String> = reasons.iter().map(|(r, n)| format!("{n} {r}")).collect();
    listed.sort();
    listed.join(", ")
}
