//! What waits for a board that is away: changes made since it was last heard of.
//!
//! In: the view, a node, since when it is away. Out: sentences, the oldest objects' names first; the board gets them all when it
//! returns. Never: what the hub itself changes because the board is away (endpoints, the Node).

use super::desired;
use crate::{
    ObjectStore, Timestamp,
    view::{ConfigMap, CronJob, Obj, Secret},
};
use limpet_protocol::{ItemKey, ItemKind};
use serde_json::Value;

/// One object that the board will be told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    /// `new`, `changed`, `to be deleted`
    pub what: &'static str,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{} ({})", self.kind, self.namespace, self.name, self.what)
    }
}

pub fn queued(view: &ObjectStore, node: &str, since: Timestamp) -> Vec<Waiting> {
    desired::wanted(view, node).items.keys().filter_map(|key| waiting(view, key, since)).collect()
}

fn waiting(view: &ObjectStore, key: &ItemKey, since: Timestamp) -> Option<Waiting> {
    let (namespace, name) = (&*key.namespace, &*key.name);
    let (kind, what) = match key.kind {
        ItemKind::Pod => ("pod", change(view.pod(namespace, name)?, since)?),
        ItemKind::ConfigMap => ("ConfigMap", change(view.get::<ConfigMap>(namespace, name)?, since)?),
        ItemKind::Secret => ("Secret", change(view.get::<Secret>(namespace, name)?, since)?),
        ItemKind::Schedule => ("CronJob", change(view.get::<CronJob>(namespace, name)?, since)?),
        _ => return None,
    };
    Some(Waiting { kind, namespace: namespace.into(), name: name.into(), what })
}

fn change<T>(object: &Obj<T>, since: Timestamp) -> Option<&'static str> {
    let later = |time: &Value| time.as_str().and_then(|t| t.parse::<Timestamp>().ok()).is_some_and(|t| t > since);
    if object.meta.deleting.is_some() {
        return Some("to be deleted");
    }
    if object.meta.created.is_some_and(|t| t > since) {
        return Some("new");
    }
    let fields = object.field("/metadata/managedFields");
    let written = fields.as_array()?.iter().filter(|m| m["subresource"].as_str().is_none_or(str::is_empty));
    written.into_iter().any(|m| later(&m["time"])).then_some("changed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use serde_json::json;

    #[test]
    fn what_was_changed_since_waits_and_nothing_else() {
        let mut w = World::with_nodes(1);
        let since: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let map = |name: &str, created: &str, written: &str, subresource: &str| {
            json!({"metadata": {"name": name, "namespace": "a", "creationTimestamp": created, "managedFields": [
                {"manager": "m", "time": written, "subresource": subresource}]}, "data": {"k": "v"}})
        };
        let (before, after) = ("2026-11-23T09:00:00Z", "2026-11-23T11:00:00Z");
        w.create("/configmaps", map("old", before, before, ""));
        w.create("/configmaps", map("changed", before, after, ""));
        w.create("/configmaps", map("new", after, after, ""));
        w.patch("/configmaps", "a", "new", json!({"metadata": {"creationTimestamp": after}}));
        w.create("/configmaps", map("status", before, after, "status"));
        w.create("/configmaps", map("of-nobody", after, after, ""));
        let volumes: Vec<Value> = ["old", "changed", "new", "status"]
            .iter()
            .map(|name| json!({"name": name, "configMap": {"name": name}}))
            .collect();
        w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a", "creationTimestamp": before,
            "deletionTimestamp": after}, "spec": {"nodeName": "n0", "volumes": volumes,
            "containers": [{"name": "c", "image": "i"}]}}));
        let said: Vec<String> = queued(&w.view, "n0", since).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["pod a/p (to be deleted)", "ConfigMap a/changed (changed)", "ConfigMap a/new (new)"]);
        assert!(queued(&w.view, "nobody", since).is_empty());
    }
}
