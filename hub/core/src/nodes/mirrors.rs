//! Mirror pods: what the API shows of pods that a board runs from its own files.
//!
//! In: the view, a node, the pods that it says it has. Out: mirrors to create and to delete.
//! Source: Kubernetes "Static Pods"; the NodeRestriction admission of mirror pods.
//! Never: a mirror for another node, or one that names an object of the API: a board may not read it that way.

use crate::{
    Change, ObjectStore, Propagation,
    view::{Kind, Node, Pod},
};
use serde_json::{Value, json};
use std::sync::Arc;

const MIRROR: &str = "kubernetes.io/config.mirror";
const MIRRORS_MAX: usize = 64;
/// Fields that name objects which a pod makes its node know.
const FOREIGN: [&str; 11] = [
    "secretName", "secretRef", "secretKeyRef", "configMap", "configMapRef", "configMapKeyRef", "persistentVolumeClaim",
    "imagePullSecrets", "serviceAccountToken", "resourceClaims", "serviceAccountName",
];

/// Whether the pod is the mirror of one that its board has.
pub fn is_one(pod: &Pod) -> bool {
    !pod.field(&pointer()).is_null()
}

fn pointer() -> String {
    format!("/metadata/annotations/{}", MIRROR.replace('/', "~1"))
}

/// `said`: the list of the node's report; anything but a list changes nothing.
pub fn changes(view: &ObjectStore, node: &Node, said: &Value) -> Vec<Change> {
    let Some(said) = said.as_array() else { return Vec::new() };
    let name = &*node.meta.name;
    let good: Vec<&Value> = said.iter().take(MIRRORS_MAX).filter(|pod| is_allowed(pod, name)).collect();
    let text = |pod: &Value, field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
    let mut changes = Vec::new();
    let ours = || view.pods_on(name).filter(|p: &&Arc<Pod>| is_one(p));
    for old in ours() {
        let same = |pod: &&&Value| {
            text(pod, "namespace") == *old.meta.namespace
                && text(pod, "name") == *old.meta.name
                && pod["metadata"]["annotations"][MIRROR] == old.field(&pointer())
        };
        if !good.iter().any(|pod| same(&pod)) {
            changes.push(Change::Delete {
                resource: Pod::RESOURCE.into(),
                namespace: old.meta.namespace.to_string(),
                name: old.meta.name.to_string(),
                uid: old.meta.uid.to_string(),
                grace: Some(0),
                propagation: Some(Propagation::Background),
            });
        }
    }
    for pod in good {
        let (namespace, pod_name) = (text(pod, "namespace"), text(pod, "name"));
        let there = view.pod(&namespace, &pod_name);
        let hash = &pod["metadata"]["annotations"][MIRROR];
        // A pod of this name that is no mirror, or that still goes, keeps its place.
        if there.is_some_and(|p| !is_one(p) || p.field(&pointer()) == *hash) {
            continue;
        }
        let mut object = (*pod).clone();
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "Node", "name": name, "uid": &*node.meta.uid, "controller": true,
        }]);
        changes.push(Change::Create { resource: Pod::RESOURCE.into(), namespace, object });
    }
    changes
}

fn is_allowed(pod: &Value, node: &str) -> bool {
    let meta = &pod["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    pod["kind"] == "Pod"
        && pod["apiVersion"] == "v1"
        && name.ends_with(&format!("-{node}"))
        && meta["namespace"].as_str().is_some_and(|n| !n.is_empty())
        && meta["annotations"][MIRROR].as_str().is_some_and(|hash| (1..=128).contains(&hash.len()))
        && meta["ownerReferences"].is_null()
        && meta["finalizers"].is_null()
        && pod["spec"]["nodeName"] == node
        && !names_objects(&pod["spec"])
}

fn names_objects(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            map.iter().any(|(key, inner)| (FOREIGN.contains(&key.as_str()) && !inner.is_null()) || names_objects(inner))
        }
        Value::Array(list) => list.iter().any(names_objects),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(mirror: Option<&str>) -> ObjectStore {
        let mut view = ObjectStore::new();
        let mut put = |revision, resource: &str, namespace: &str, name: &str, object: Value| {
            view.apply(revision, resource, namespace, name, Some(object.to_string().into_bytes().into()));
        };
        put(1, "/nodes", "", "n1", json!({"metadata": {"name": "n1", "uid": "nu"}}));
        if let Some(hash) = mirror {
            let mut pod = said("s-n1", hash);
            pod["metadata"]["uid"] = json!("old");
            put(2, "/pods", "default", "s-n1", pod);
        }
        view
    }

    fn said(name: &str, hash: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "annotations": {MIRROR: hash}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}})
    }

    fn done(view: &ObjectStore, list: Value) -> Vec<String> {
        let node = view.node("n1").unwrap();
        let all = changes(view, node, &list);
        let word = |c: &Change| match c {
            Change::Create { object, .. } => format!("create {}", object["metadata"]["ownerReferences"][0]["uid"]),
            Change::Delete { uid, .. } => format!("delete {uid}"),
            other => format!("{other:?}"),
        };
        all.iter().map(word).collect()
    }

    #[test]
    fn mirrors_follow_what_the_node_says() {
        let good = said("s-n1", "h1");
        assert_eq!(done(&world(None), json!([good])), ["create \"nu\""]);
        assert!(done(&world(Some("h1")), json!([good])).is_empty());
        assert_eq!(done(&world(Some("h0")), json!([good])), ["delete old", "create \"nu\""]);
        assert_eq!(done(&world(Some("h1")), json!([])), ["delete old"]);
        assert!(done(&world(Some("h1")), Value::Null).is_empty(), "an agent that says nothing of them changes nothing");
    }

    #[test]
    fn a_node_gets_nothing_by_way_of_a_mirror() {
        let bad = |change: &dyn Fn(&mut Value)| {
            let mut pod = said("s-n1", "h");
            change(&mut pod);
            assert!(done(&world(None), json!([pod])).is_empty(), "{pod}");
        };
        bad(&|p| p["metadata"]["name"] = json!("s-n2"));
        bad(&|p| p["spec"]["nodeName"] = json!("n2"));
        bad(&|p| p["metadata"]["annotations"] = json!({}));
        bad(&|p| p["spec"]["serviceAccountName"] = json!("admin"));
        bad(&|p| p["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]));
        bad(&|p| p["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "s"}}]));
        let token = json!({"sources": [{"serviceAccountToken": {"path": "t"}}]});
        bad(&|p| p["spec"]["volumes"] = json!([{"name": "v", "projected": token}]));
    }
}
