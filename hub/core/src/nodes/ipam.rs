//! Pod addresses: one range a node.
//!
//! In: the nodes of the view. Out: the first free range. 10.42.0.0/16 holds the first 256 nodes, as k3s users expect;
//! 10.128.0.0/9 the next 32,768. Never: a range that some node has.

use crate::{ObjectStore, view::Node};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const FIRST: (u32, u32) = (0x0a2a_0000, 256);
const NEXT: (u32, u32) = (0x0a80_0000, 32_768);

/// The first free `/24`; `None` when more than 33,000 nodes have one.
pub fn free_cidr(view: &ObjectStore) -> Option<String> {
    let taken: BTreeSet<String> = view.all::<Node>().map(|n| n.spec.pod_cidr.to_string()).collect();
    [FIRST, NEXT].into_iter().flat_map(|(base, count)| (0..count).map(move |i| base + (i << 8))).find_map(
        |a| {
            let [x, y, z, _] = a.to_be_bytes();
            let cidr = format!("{x}.{y}.{z}.0/24");
            (!taken.contains(&cidr)).then_some(cidr)
        },
    )
}

/// The Node object of a board that has just joined.
pub fn new_node(view: &ObjectStore, name: &str, labels: &Value) -> Value {
    let mut spec = json!({});
    if let Some(cidr) = free_cidr(view) {
        spec = json!({"podCIDR": cidr, "podCIDRs": [cidr]});
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": super::status::allowed_labels(labels)},
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_not_given_twice() {
        let mut view = ObjectStore::new();
        let mut seen = BTreeSet::new();
        for i in 0..300 {
            let name = format!("n{i}");
            let mut node = new_node(&view, &name, &json!({}));
            node["metadata"]["uid"] = json!(name);
            assert!(seen.insert(node["spec"]["podCIDR"].as_str().unwrap().to_string()));
            view.apply(i, "/nodes", "", &name, Some(node.to_string().into_bytes().into()));
        }
        assert!(
            seen.contains("10.42.0.0/24")
                && seen.contains("10.42.255.0/24")
                && seen.contains("10.128.0.0/24")
        );
    }
}
