//! Gives each node the link policy that holds for it: its own, or that of its pool.
//!
//! In: one node, its pool. Out: the annotation `limpet.dev/link`, in the form that the board reads; a word when the node's own
//! policy cannot be read. Never: decides what travels; the board does.

use super::{Controller, nodepool::pool_of};
use crate::{
    Changed, EventType, Key, ObjectStore, Plan, Regarding, Timestamp,
    view::{Kind, Node, NodePool},
};
use limpet_objects::kinds::{link_for_board, link_rules};
use serde_json::{Value, json};

const NAME: &str = "link-policy-controller";
/// Annotation that a person writes on a node: JSON as in a NodePool's `spec.link`.
pub const OWN: &str = "limpet.dev/link-policy";
/// Annotation that the board reads.
pub const LINK: &str = "limpet.dev/link";

#[derive(Debug)]
pub struct LinkPolicyController;

impl Controller for LinkPolicyController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> &'static [&'static str] {
        &[NodePool::RESOURCE, Node::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let key = |name: &str| Key::new(Node::RESOURCE, "", name);
        if changed.is::<NodePool>() {
            let (old, new) = (changed.old_as::<NodePool>(), changed.new_as::<NodePool>());
            let same = old.zip(new).is_some_and(|(o, n)| {
                o.spec == n.spec && o.meta.deleting == n.meta.deleting && o.meta.generation == n.meta.generation
            });
            return if same { vec![] } else { view.all::<Node>().map(|n| key(&n.meta.name)).collect() };
        }
        let (old, new) = (changed.old_as::<Node>(), changed.new_as::<Node>());
        let same = old.zip(new).is_some_and(|(o, n)| o.meta.labels == n.meta.labels && o.meta.annotations == n.meta.annotations);
        if same || new.is_none() { vec![] } else { vec![key(&changed.key.name)] }
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = view.node(&key.name).filter(|n| n.meta.deleting.is_none()) else { return plan };
        let own = node.meta.annotations.get(OWN).map(|text| own_policy(node, text, now, &mut plan));
        let pools = || {
            let pool = pool_of(view, node)?;
            let link = pool.field("/spec/link");
            link.is_object().then(|| link_for_board(&link, &format!("NodePool {}", pool.meta.name), now)).flatten()
        };
        let wanted = own.flatten().or_else(pools).map(|policy| policy.to_string());
        if wanted.as_deref() != node.meta.annotations.get(LINK) {
            plan.patch(Node::RESOURCE, &node.meta, None, json!({"metadata": {"annotations": {LINK: wanted}}}));
            plan.because("LinkPolicy", format!("node {} and its link", node.meta.name));
        }
        plan
    }
}

/// What cannot be read is told, and the pool's policy holds.
fn own_policy(node: &Node, text: &str, now: Timestamp, plan: &mut Plan) -> Option<Value> {
    let name = format!("node {}", node.meta.name);
    let why = match serde_json::from_str::<Value>(text) {
        Ok(policy) => match link_for_board(&policy, &name, now) {
            Some(board) => return Some(board),
            None => {
                let mut errors = Vec::new();
                link_rules(&policy, "link", &mut errors);
                errors.first().map_or("it is not an object".to_string(), ToString::to_string)
            }
        },
        Err(e) => e.to_string(),
    };
    let words = format!("annotation {OWN} is not used: {why}");
    plan.event(Regarding::of(node), EventType::Warning, "LinkPolicyRefused", words, NAME);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    #[test]
    fn the_nodes_own_policy_then_its_pools_then_none() {
        let mut w = World::new();
        w.node("n0", json!({"tier": "till"}), json!([]));
        w.node("n1", json!({}), json!([]));
        let link = |w: &World, node: &str| -> Value {
            let node = w.get("/nodes", "", node);
            let text = node["metadata"]["annotations"][LINK].as_str();
            text.map_or(Value::Null, |t| serde_json::from_str(t).unwrap())
        };
        w.create("limpet.dev/nodepools", json!({"metadata": {"name": "tills"}, "spec": {
            "selector": {"matchLabels": {"tier": "till"}}, "link": {"bytesPerMonth": "50Mi", "keepaliveSeconds": 1200}}}));
        w.settle();
        assert_eq!(link(&w, "n0"), json!({"name": "NodePool tills", "bytesPerMonth": 52_428_800, "keepaliveSeconds": 1200}));
        assert_eq!(link(&w, "n1"), Value::Null);
        let own = |text: Value| json!({"metadata": {"annotations": {OWN: text}}});
        w.patch("/nodes", "", "n0", own(json!("{\"bytesPerMonth\":\"1Mi\"}")));
        w.settle();
        assert_eq!(link(&w, "n0"), json!({"name": "node n0", "bytesPerMonth": 1_048_576}));
        for wrong in ["{", "{\"resetDay\": 99}", "[]"] {
            w.patch("/nodes", "", "n0", own(json!(wrong)));
            w.settle();
            assert_eq!(link(&w, "n0")["name"], "NodePool tills", "{wrong}");
        }
        w.patch("/nodes", "", "n0", own(Value::Null));
        let link_of_pool = json!({"bytesPerMonth": "2Mi", "keepaliveSeconds": null});
        w.patch("limpet.dev/nodepools", "", "tills", json!({"spec": {"link": link_of_pool}}));
        w.settle();
        assert_eq!(link(&w, "n0"), json!({"name": "NodePool tills", "bytesPerMonth": 2_097_152}));
        w.delete("limpet.dev/nodepools", "", "tills");
        w.settle();
        assert_eq!(link(&w, "n0"), Value::Null);
    }
}
