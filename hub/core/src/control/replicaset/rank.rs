//! Which pods of a ReplicaSet are easiest to do without.
//!
//! In: a pod, and how crowded the nodes are. Out: a key; the pod with the smallest one is deleted first.
//! Source: the order that upstream's controllers share (`ActivePodsWithRanks`), with ages compared by magnitude; and where
//! `minReadySeconds` is set, pods that are not available yet go before those that are: a rollout counts on that.
//! Never: two pods with equal keys.

use crate::{
    ObjectStore, Timestamp,
    view::{Available, Kind, Obj, Phase, Pod, ReplicaSet},
};
use std::{cmp::Reverse, collections::BTreeMap};

pub(super) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Active pods per node of all ReplicaSets with the same controller: a rollout deletes where both versions are. Empty for
/// one that has no controller.
pub(super) fn pods_per_node<'a, T>(view: &'a ObjectStore, rs: &'a Obj<T>) -> BTreeMap<&'a str, usize>
where
    Obj<T>: Kind,
{
    let mut out = BTreeMap::new();
    let owner = rs.meta.controller().map(|o| &*o.uid);
    let siblings = owner.into_iter().flat_map(|uid| view.controlled_by::<ReplicaSet>(uid));
    for pod in siblings.flat_map(|s| view.controlled_by::<Pod>(&s.meta.uid)).filter(|p| p.is_active()) {
        if let Some(node) = &pod.node {
            *out.entry(&**node).or_insert(0) += 1;
        }
    }
    out
}

type Rank = (bool, u8, [bool; 2], i32, Reverse<usize>, i32, Reverse<[i32; 2]>, i32, Box<str>, Box<str>);

/// Smallest is deleted first. `min_ready_s`: `minReadySeconds`.
pub(super) fn rank(pod: &Pod, per_node: &BTreeMap<&str, usize>, min_ready_s: i64, now: Timestamp) -> Rank {
    let phase = match pod.status.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        _ => 2,
    };
    let crowd = pod.node.as_ref().and_then(|n| per_node.get(&**n)).copied().unwrap_or(0);
    (
        pod.node.is_some(),
        phase,
        [pod.status.ready, pod.available(min_ready_s, now) == Available::Yes],
        cost(pod.meta.annotations.get(DELETION_COST).unwrap_or("0")),
        Reverse(crowd),
        if pod.status.ready { magnitude(pod.status.ready_since, now) } else { 0 },
        Reverse(pod.status.restarts_max),
        magnitude(pod.meta.created, now),
        pod.meta.uid.clone(),
        pod.meta.name.clone(),
    )
}

/// 0 for what is no whole number of 32 bits, or is written with a plus or with leading zeros.
fn cost(text: &str) -> i32 {
    let plain = text == "0" || text.starts_with(|c: char| c == '-' || ('1'..='9').contains(&c));
    text.parse().ok().filter(|_| plain).unwrap_or(0)
}

/// Twofold steps of the age in nanoseconds: small differences do not decide. The future comes before everything, and what
/// has no time before that.
fn magnitude(since: Option<Timestamp>, now: Timestamp) -> i32 {
    let Some(since) = since else { return i32::MIN };
    let age = now.as_nanosecond() - since.as_nanosecond();
    if age > 0 { age.ilog2() as i32 } else { -1 }
}
