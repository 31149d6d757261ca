//! Puts filters and scores together.
//!
//! In: the rules of one pod. Out: the best node, or the reasons against every node.
//! Never: scores more nodes of a large fleet than kube-scheduler would; where it starts to look moves on.

use super::{
    filter::Rules,
    images::Images,
    queue::Nominations,
    reason::Reason,
    room::Spot,
    score,
};
use crate::{
    Key,
    view::{Kind, Node, NodePods, Pod},
};
use std::sync::Arc;

/// Below so many nodes all are looked at.
const NODES_MIN: usize = 100;

/// The node that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub node: String,
    /// How many nodes would have done, of those that were looked at.
    pub feasible: usize,
    pub score: i64,
}

/// What a node has against the pod.
pub type Objection<'a> = (&'a Arc<Node>, Vec<Reason>);

/// What a placement needs besides the pod's own rules.
pub struct Circumstances<'a> {
    pub images: &'a Images,
    pub nominations: &'a Nominations,
    pub percentage: usize,
    /// Where to begin; moved on.
    pub start: &'a mut usize,
    pub seed: u64,
}

pub fn key_of(pod: &Pod) -> Key {
    Key::new(Pod::RESOURCE, &pod.meta.namespace, &pod.meta.name)
}

/// A node as this pod finds it: room of nominated pods that matter as much or more is taken.
pub fn spot<'a>(rules: &Rules<'a>, nominations: &Nominations, node: &'a Node, pods: &'a NodePods) -> Spot<'a> {
    let mut spot = Spot::new(node, pods);
    if nominations.is_empty() {
        return spot;
    }
    let own = &rules.pod.meta.uid;
    for key in nominations.on(&node.meta.name) {
        let nominated = rules.view.pod(&key.namespace, &key.name);
        let counts = |p: &&Arc<Pod>| {
            p.node.is_none() && p.meta.uid != *own && p.spec.priority >= rules.pod.spec.priority
        };
        if let Some(pod) = nominated.filter(counts) {
            spot.expect(Arc::clone(pod));
        }
    }
    spot
}

pub fn place<'a>(rules: &Rules<'a>, around: Circumstances<'_>) -> Result<Placement, Vec<Objection<'a>>> {
    let nodes: Vec<(&Arc<Node>, &NodePods)> =
        rules.view.nodes_and_pods().filter(|(n, _)| n.meta.deleting.is_none()).collect();
    if let Some(nominated) = around.nominations.of(&key_of(rules.pod))
        && let Some((node, pods)) = nodes.iter().find(|(n, _)| *n.meta.name == *nominated)
        && rules.against(&spot(rules, around.nominations, node, pods)).is_empty()
    {
        return Ok(Placement { node: nominated.into(), feasible: 1, score: 0 });
    }
    let enough = to_find(nodes.len(), around.percentage);
    let (mut feasible, mut objections) = (Vec::new(), Vec::new());
    let mut looked = 0;
    for i in 0..nodes.len() {
        let (node, pods) = nodes[(*around.start + i) % nodes.len()];
        looked += 1;
        let spot = spot(rules, around.nominations, node, pods);
        let against = rules.against(&spot);
        if against.is_empty() { feasible.push(spot) } else { objections.push((node, against)) }
        if feasible.len() >= enough {
            break;
        }
    }
    if feasible.is_empty() {
        objections.sort_by(|a, b| a.0.meta.name.cmp(&b.0.meta.name));
        return Err(objections);
    }
    *around.start = (*around.start + looked) % nodes.len();
    feasible.sort_by(|a, b| a.node.meta.name.cmp(&b.node.meta.name));
    let totals = score::totals(rules, &feasible, around.images, nodes.len());
    let best = totals.iter().copied().max().unwrap_or(0);
    let ties: Vec<&Spot<'_>> = feasible.iter().zip(&totals).filter(|(_, t)| **t == best).map(|(s, _)| s).collect();
    let pick = ties[(around.seed % ties.len() as u64) as usize];
    Ok(Placement { node: pick.node.meta.name.to_string(), feasible: feasible.len(), score: best })
}

/// How many nodes that would do are enough, as kube-scheduler counts.
fn to_find(nodes: usize, percentage: usize) -> usize {
    if nodes < NODES_MIN || percentage >= 100 {
        return nodes;
    }
    let percentage = match percentage {
        0 => 50usize.saturating_sub(nodes / 125).max(5),
        given => given,
    };
    (nodes * percentage / 100).max(NODES_MIN)
}
