//! Puts filters and scores together.
//!
//! In: the view and a pod. Out: the best node or why there is none. Never: looks at nodes in another order than by name.

use super::{filter, pods::PodRules, score, spread::SpreadRules, why_not::WhyNot};
use crate::{
    ObjectStore,
    view::{Node, PersistentVolumeClaim, Pod, PodRef},
};

/// The node that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub node: String,
    /// How many nodes would have done.
    pub feasible: usize,
    pub score: i64,
}

pub fn place(view: &ObjectStore, pod: &Pod, seed: u64) -> Result<Placement, WhyNot> {
    let nodes: Vec<&Node> = view.all::<Node>().map(|n| &**n).filter(|n| n.meta.deleting.is_none()).collect();
    if nodes.is_empty() {
        return Err(WhyNot::no_nodes());
    }
    if let Some(reason) = unbound_claim(view, pod) {
        return Err(WhyNot::whole(nodes.len(), &reason));
    }
    let pods = PodRules::gather(view, pod);
    let spread = SpreadRules::gather(view, pod);
    let against: Vec<_> = nodes.iter().map(|n| filter::against(view, n, pod, &pods, &spread)).collect();
    let feasible: Vec<&Node> =
        nodes.iter().zip(&against).filter(|(_, r)| r.is_empty()).map(|(n, _)| *n).collect();
    if feasible.is_empty() {
        return Err(WhyNot::of(&against));
    }
    let points: Vec<_> = feasible.iter().map(|n| score::points(view, n, pod, &pods, &spread)).collect();
    let totals = score::totals(&points);
    let best = totals.iter().copied().max().unwrap_or(0);
    let ties: Vec<&Node> =
        feasible.iter().zip(&totals).filter(|(_, t)| **t == best).map(|(n, _)| *n).collect();
    let pick = ties[(seed % ties.len() as u64) as usize];
    Ok(Placement { node: pick.meta.name.to_string(), feasible: feasible.len(), score: best })
}

fn unbound_claim(view: &ObjectStore, pod: &Pod) -> Option<String> {
    for r in &pod.spec.refs {
        let PodRef::Claim(name) = r else { continue };
        match view.get::<PersistentVolumeClaim>(&pod.meta.namespace, name) {
            None => return Some(format!("persistentvolumeclaim \"{name}\" not found")),
            Some(c) if &*c.status.phase != "Bound" => {
                return Some("pod has unbound immediate PersistentVolumeClaims".into());
            }
            Some(_) => {}
        }
    }
    None
}
