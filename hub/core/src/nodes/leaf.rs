//! Leaf boards: nodes that run no containers and are told one ConfigMap.
//!
//! In: the Node object (label and annotation), a node's report. Out: which ConfigMap the board follows, the taint that keeps pods
//! away. Never: anything of a pod's for such a board; an item that it has no room for.

use crate::{
    ObjectStore,
    view::{ConfigMap, Node},
};
use limpet_protocol::limits::LEAF_ITEM_BYTES_MAX;
use serde_json::{Value, json};
use std::sync::Arc;

/// Label that the board gives itself, and key of the taint that it gets for it.
pub const LEAF: &str = "limpet.dev/leaf";
/// Annotation by which an operator names the board's ConfigMap: `namespace/name`.
pub const CONFIG: &str = "limpet.dev/leaf-config";

pub fn is_leaf(node: &Node) -> bool {
    node.meta.labels.get(LEAF) == Some("true")
}

/// Namespace and name in the annotation of a node, leaf or not.
pub fn named(node: &Node) -> Option<(&str, &str)> {
    node.meta.annotations.get(CONFIG)?.split_once('/')
}

/// The ConfigMap that a leaf follows.
pub fn config<'a>(view: &'a ObjectStore, node: &Node) -> Option<&'a Arc<ConfigMap>> {
    let (namespace, name) = named(node)?;
    view.get::<ConfigMap>(namespace, name)
}

/// Whether a leaf has room for an item of this many bytes.
pub fn fits(body: &[u8]) -> bool {
    body.len() <= LEAF_ITEM_BYTES_MAX
}

/// The taint of a leaf that does not have it yet.
pub(super) fn missing_taint(node: &Node) -> Option<Value> {
    let has = node.spec.taints.iter().any(|t| &*t.key == LEAF);
    (is_leaf(node) && !has).then(|| json!({"key": LEAF, "effect": "NoSchedule"}))
}

#[cfg(test)]
mod tests {
    use crate::{
        Change, ObjectStore, Timestamp,
        nodes::{
            desired,
            offline::{self, Liveness},
        },
    };
    use limpet_protocol::{ItemKey, ItemKind};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn put(view: &mut ObjectStore, revision: u64, resource: &str, object: Value) -> crate::Changed {
        let at = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (ns, name) = (at("/metadata/namespace"), at("/metadata/name"));
        view.apply(revision, resource, &ns, &name, Some(object.to_string().into_bytes().into()))
    }

    fn node(config: &str, leaf: &str) -> Value {
        json!({"metadata": {"name": "pico", "uid": "n", "resourceVersion": "1", "labels": {"limpet.dev/leaf": leaf},
            "annotations": {"limpet.dev/leaf-config": config}},
            "spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}})
    }

    fn map(name: &str, text: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "5"}, "data": {"k": text}})
    }

    #[test]
    fn a_leaf_is_told_its_config_and_nothing_of_pods() {
        let mut view = ObjectStore::new();
        put(&mut view, 1, "/nodes", node("a/m", "true"));
        put(&mut view, 2, "/pods", json!({"metadata": {"name": "p", "namespace": "a", "uid": "p"},
            "spec": {"nodeName": "pico", "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]}}));
        put(&mut view, 3, "/secrets", json!({"metadata": {"name": "s", "namespace": "a", "uid": "s"}}));
        let changed = put(&mut view, 4, "/configmaps", map("m", "v"));
        assert_eq!(desired::nodes_for(&view, &changed), BTreeSet::from(["pico".to_string()]));
        let other = put(&mut view, 5, "/configmaps", map("other", "v"));
        assert!(desired::nodes_for(&view, &other).is_empty());
        let kinds = |view: &ObjectStore| -> Vec<ItemKind> {
            desired::wanted(view, "pico").items.keys().map(|k| k.kind).collect()
        };
        assert_eq!(kinds(&view), [ItemKind::Node, ItemKind::ConfigMap]);
        assert!(desired::body(&view, &ItemKey::new(ItemKind::ConfigMap, "a", "m")).is_some());
        put(&mut view, 6, "/configmaps", map("m", &"x".repeat(4096)));
        assert_eq!(kinds(&view), [ItemKind::Node], "no room for it");
        put(&mut view, 7, "/nodes", node("a/other", "true"));
        assert_eq!(kinds(&view), [ItemKind::Node, ItemKind::ConfigMap]);
        let changed = put(&mut view, 8, "/configmaps", map("m", "small again"));
        assert!(desired::nodes_for(&view, &changed).is_empty(), "nobody follows it any more");
        put(&mut view, 9, "/nodes", node("a/other", "no"));
        assert!(kinds(&view).contains(&ItemKind::Secret) && !kinds(&view).contains(&ItemKind::ConfigMap), "a board like others");
        view.apply(10, "/nodes", "", "pico", None);
        let changed = put(&mut view, 11, "/configmaps", map("other", "v"));
        assert!(desired::nodes_for(&view, &changed).is_empty());
    }

    #[test]
    fn a_leaf_gets_its_taint_once_and_keeps_the_others() {
        let (mut view, now) = (ObjectStore::new(), Timestamp::UNIX_EPOCH);
        put(&mut view, 1, "/nodes", node("", "true"));
        let mut liveness = Liveness::new(now);
        liveness.heard("pico", now);
        let taints = |view: &ObjectStore| {
            let changes = offline::reconcile(view, &liveness, "pico", now, now).changes;
            changes.into_iter().find_map(|c| match c {
                Change::Patch { merge, .. } if !merge["spec"]["taints"].is_null() => Some(merge["spec"]["taints"].clone()),
                _ => None,
            })
        };
        let now_has = taints(&view).unwrap();
        let keys: Vec<&str> = now_has.as_array().unwrap().iter().filter_map(|t| t["key"].as_str()).collect();
        assert_eq!(keys, ["mine", "node.kubernetes.io/not-ready", "limpet.dev/leaf"]);
        let mut tainted = node("", "true");
        tainted["spec"]["taints"] = now_has;
        put(&mut view, 2, "/nodes", tainted);
        assert_eq!(taints(&view), None);
    }
}
