//! Why no node will do, in kube-scheduler's words.
//!
//! In: the reasons of every node. Out: one message: counts by reason, and whether preemption could help.
//! Never: names nodes (there may be thousands).

use super::filter::Reason;
use std::collections::BTreeMap;

/// Why a pod has no node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhyNot {
    pub message: String,
    /// Nodes by reason.
    pub reasons: BTreeMap<String, usize>,
    pub nodes: usize,
}

impl WhyNot {
    pub fn no_nodes() -> WhyNot {
        WhyNot { message: "no nodes available to schedule pods".into(), ..WhyNot::default() }
    }

    /// A reason that holds whatever the node.
    pub fn whole(nodes: usize, reason: &str) -> WhyNot {
        let unhelpful = format!("{nodes} Preemption is not helpful for scheduling");
        let message = format!(
            "0/{nodes} nodes are available: {reason}. preemption: 0/{nodes} nodes are available: {unhelpful}."
        );
        WhyNot { message, reasons: BTreeMap::from([(reason.to_owned(), nodes)]), nodes }
    }

    pub fn of(per_node: &[Vec<Reason>]) -> WhyNot {
        let nodes = per_node.len();
        let mut reasons = BTreeMap::new();
        let (mut hopeless, mut victimless) = (0, 0);
        for node in per_node {
            for reason in node {
                *reasons.entry(reason.text.to_string()).or_insert(0) += 1;
            }
            match node.iter().any(|r| !r.preemptible) {
                true => hopeless += 1,
                false => victimless += 1,
            }
        }
        let counted = |n: usize, text: &str| (n > 0).then(|| format!("{n} {text}"));
        let preemption = [
            counted(victimless, "No preemption victims found for incoming pod"),
            counted(hopeless, "Preemption is not helpful for scheduling"),
        ];
        let mut listed: Vec<String> = reasons.iter().map(|(r, n)| format!("{n} {r}")).collect();
        listed.sort();
        let mut preemption: Vec<String> = preemption.into_iter().flatten().collect();
        preemption.sort();
        let message = format!(
            "0/{nodes} nodes are available: {}. preemption: 0/{nodes} nodes are available: {}.",
            listed.join(", "),
            preemption.join(", ")
        );
        WhyNot { message, reasons, nodes }
    }
}
