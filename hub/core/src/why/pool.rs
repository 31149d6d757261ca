//! Why a NodePool has the boards that it has.
//!
//! In: a pool and all nodes. Out: its boards that are not ready, boards that another pool has, what holds when they are away.
//! Never: dresses a node.

use super::{Answer, ago};
use crate::{
    ObjectStore, Timestamp,
    control::{pool_of, pools_that_want},
    nodes::offline::OFFLINE_SINCE,
    view::{Node, NodePool},
};

pub fn why(view: &ObjectStore, pool: &NodePool, now: Timestamp) -> Answer {
    let mut answer = Answer::about("nodepool", &pool.meta);
    let (mut nodes, mut ready) = (0, 0);
    for node in view.all::<Node>() {
        let name = &node.meta.name;
        let owner = pool_of(view, node);
        if owner.is_none_or(|p| p.meta.uid != pool.meta.uid) {
            let wanted = pools_that_want(view, node).any(|p| p.meta.uid == pool.meta.uid);
            if let Some(owner) = owner.filter(|_| wanted) {
                answer.because(format!("board {name} belongs to pool {}, which comes first by name", owner.meta.name));
            }
            continue;
        }
        nodes += 1;
        let since = node.meta.annotations.get(OFFLINE_SINCE).and_then(|t| t.parse::<Timestamp>().ok());
        match (node.status.ready(), since) {
            (_, Some(since)) => answer.because(format!("board {name} is away: last heard of {} ago", ago(since, now))),
            (true, None) => ready += 1,
            (false, None) => answer.because(format!("board {name} is connected, and not ready")),
        }
    }
    let offline = &pool.spec.offline;
    answer.because(match (offline.lost_after.as_deref(), offline.replace) {
        (None | Some("never"), _) => "pods of its boards stay theirs however long these are away".to_owned(),
        (Some(span), Some(true)) => format!("pods of boards that are away for {span} are replaced elsewhere"),
        (Some(span), _) => format!("lostAfter is {span}, and replace is not true: nothing is replaced"),
    });
    if nodes == 0 {
        answer.advise("kubectl get nodes --show-labels");
        return answer.verdict("it has no boards: no node that is free has the labels of spec.selector");
    }
    answer.verdict(match ready == nodes {
        true => format!("nothing is wrong: all {nodes} boards are ready"),
        false => format!("{ready} of its {nodes} boards are ready"),
    })
}
