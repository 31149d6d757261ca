//! Events about the node itself, in kubelet's words.
//!
//! In: facts before and after. Out: v1 Events as JSON. Never: an Event for something that did not change.

use super::{NodeFacts, NodeProblem};
use crate::clock::{Now, rfc3339};
use serde_json::json;

/// One Event: whether it is a warning, its reason, its message.
type Said = (bool, String, String);

/// What a new agent says of its start.
pub fn beginning() -> Vec<Said> {
    vec![(false, "Starting".into(), "Starting kubelet.".into())]
}

/// Which conditions turned.
pub fn turned(before: &NodeFacts, after: &NodeFacts) -> Vec<Said> {
    let mut said = Vec::new();
    let has = |facts: &NodeFacts, pick: fn(&NodeProblem) -> bool| facts.problems.iter().any(pick);
    let rows: [(fn(&NodeProblem) -> bool, &str, &str); 4] = [
        (|p| matches!(p, NodeProblem::MemoryPressure(_)), "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        (|p| matches!(p, NodeProblem::DiskPressure(_)), "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        (|p| matches!(p, NodeProblem::PidPressure(_)), "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        (|p| matches!(p, NodeProblem::NotReady(_)), "NodeNotReady", "NodeReady"),
    ];
    for (pick, bad, good) in rows {
        if has(before, pick) != has(after, pick) {
            let reason = if has(after, pick) { bad } else { good };
            said.push((false, reason.into(), format!("Node {} status is now: {reason}", after.name)));
        }
    }
    for now in &after.board {
        let was = before.board.iter().find(|b| b.kind == now.kind).is_some_and(|b| b.bad);
        if now.bad != was {
            said.push((now.bad, now.reason.into(), format!("Node {}: {}", after.name, now.message)));
        }
    }
    said
}

/// The Event as the hub stores it.
pub fn node_event(node: &str, (warning, reason, message): &Said, now: Now, number: usize) -> Vec<u8> {
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": format!("{node}.{:x}", now.wall_ms * 1_000_000 + number as u64), "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "type": if *warning { "Warning" } else { "Normal" }, "reason": reason, "message": message,
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet", "reportingInstance": node,
        "firstTimestamp": rfc3339(now.wall_ms), "lastTimestamp": rfc3339(now.wall_ms), "count": 1,
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::BoardCondition;

    #[test]
    fn only_what_turned_is_said() {
        let calm = NodeFacts { name: "n".into(), ..NodeFacts::default() };
        let full = NodeFacts { problems: vec![NodeProblem::DiskPressure("x".into())], ..calm.clone() };
        let fuller = NodeFacts { problems: vec![NodeProblem::DiskPressure("y".into())], ..calm.clone() };
        let reasons = |a: &NodeFacts, b: &NodeFacts| turned(a, b).into_iter().map(|(_, r, _)| r).collect::<Vec<_>>();
        assert_eq!(reasons(&calm, &full), ["NodeHasDiskPressure"]);
        assert!(reasons(&full, &fuller).is_empty());
        assert_eq!(turned(&full, &calm)[0].2, "Node n status is now: NodeHasNoDiskPressure");
        let weak = BoardCondition { kind: "UnderVoltage", bad: true, reason: "PowerSupplyTooWeak", message: "m" };
        let hot = NodeFacts { board: vec![weak], ..calm.clone() };
        assert_eq!(reasons(&calm, &hot), ["PowerSupplyTooWeak"]);
        assert_eq!(beginning()[0].1, "Starting");
        let event = node_event("n", &turned(&calm, &full)[0], Now::default(), 0);
        let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
        assert_eq!((&event["involvedObject"]["kind"], &event["reason"]), (&json!("Node"), &json!("NodeHasDiskPressure")));
    }
}
