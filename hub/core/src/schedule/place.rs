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
    view::{Kind, Node, NodePods, NodeSelectorTerms, Pod},
};
use std::{collections::BTreeSet, sync::Arc};

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
    /// How many nodes there are that are not being deleted.
    pub nodes: usize,
    /// Name of the node to begin with; moved on.
    pub start: &'a mut Box<str>,
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
    if let Some(nominated) = around.nominations.of(&key_of(rules.pod))
        && let Some((node, pods)) = rules.view.node_and_pods(nominated).filter(|(n, _)| n.meta.deleting.is_none())
        && rules.against(&spot(rules, around.nominations, node, pods)).is_empty()
    {
        return Ok(Placement { node: nominated.into(), feasible: 1, score: 0 });
    }
    if let Some(placement) = on_named(rules, &around) {
        return Ok(placement);
    }
    let enough = to_find(around.nodes, around.percentage);
    let (mut feasible, mut objections) = (Vec::with_capacity(enough), Vec::new());
    let mut nodes = rules.view.nodes_and_pods_from(around.start).filter(|(n, _)| n.meta.deleting.is_none());
    for (node, pods) in nodes.by_ref() {
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
    if let Some((next, _)) = nodes.next() {
        around.start.clone_from(&next.meta.name);
    }
    // By name again, wherever the search began.
    let begin = feasible.windows(2).position(|w| w[0].node.meta.name > w[1].node.meta.name);
    feasible.rotate_left(begin.map_or(0, |at| at + 1));
    Ok(best(rules, &feasible, &around))
}

/// The best of some nodes that would do.
fn best(rules: &Rules<'_>, feasible: &[Spot<'_>], around: &Circumstances<'_>) -> Placement {
    let totals = score::totals(rules, feasible, around.images, around.nodes);
    let best = totals.iter().copied().max().unwrap_or(0);
    let ties: Vec<&Spot<'_>> = feasible.iter().zip(&totals).filter(|(_, t)| **t == best).map(|(s, _)| s).collect();
    let pick = ties[(around.seed % ties.len() as u64) as usize];
    Placement { node: pick.node.meta.name.to_string(), feasible: feasible.len(), score: best }
}

/// A pod that names its nodes, as a DaemonSet's does: nobody else is looked at, however many there are. `None` when none of
/// them will do, or when it names none: then all are looked at, because each has its reason.
fn on_named(rules: &Rules<'_>, around: &Circumstances<'_>) -> Option<Placement> {
    let affinity = rules.pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let names = named(affinity.required.as_ref()?)?;
    let found = names.into_iter().filter_map(|name| rules.view.node_and_pods(name));
    let staying = found.filter(|(node, _)| node.meta.deleting.is_none());
    let spots = staying.map(|(node, pods)| spot(rules, around.nominations, node, pods));
    let feasible: Vec<Spot<'_>> = spots.filter(|spot| rules.against(spot).is_empty()).collect();
    (!feasible.is_empty()).then(|| best(rules, &feasible, around))
}

/// The nodes that all alternatives name together, sorted; `None` when one of them names none, or when they are many.
fn named(terms: &NodeSelectorTerms) -> Option<BTreeSet<&str>> {
    let mut names = BTreeSet::new();
    for term in &terms.node_selector_terms {
        let by_name = term.match_fields.iter().find(|r| &*r.key == "metadata.name" && &*r.operator == "In")?;
        names.extend(by_name.values.iter().map(|v| &**v));
    }
    (names.len() <= NODES_MIN).then_some(names)
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn names_are_taken_when_every_alternative_has_some() {
        let name = |values: Value| json!({"key": "metadata.name", "operator": "In", "values": values});
        let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
        let not = json!({"key": "metadata.name", "operator": "NotIn", "values": ["a"]});
        let many: Vec<String> = (0..=NODES_MIN).map(|n| n.to_string()).collect();
        for (terms, want) in [
            (json!([{"matchFields": [name(json!(["b", "a"]))]}]), Some(vec!["a", "b"])),
            (json!([{"matchFields": [name(json!(["a"]))]}, {"matchFields": [name(json!(["c"]))]}]), Some(vec!["a", "c"])),
            (json!([{"matchFields": [name(json!(["a"]))], "matchExpressions": [zone]}]), Some(vec!["a"])),
            (json!([{"matchFields": [name(json!(["a"]))]}, {"matchExpressions": [zone]}]), None),
            (json!([{"matchFields": [not]}]), None),
            (json!([{"matchFields": [name(json!(many))]}]), None),
            (json!([]), Some(vec![])),
        ] {
            let parsed: NodeSelectorTerms = serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap();
            assert_eq!(named(&parsed).map(|names| names.into_iter().collect::<Vec<_>>()), want, "{terms}");
        }
    }
}
