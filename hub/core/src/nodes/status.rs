//! From what a node reports to changes of the store.
//!
//! In: a report and the view. Out: a merge patch, or nothing when the store has it already.
//! A node speaks for pods that are bound to it and for itself, and only about status; conditions that others keep
//! (PodScheduled, readiness gates) stay as they are.
//! Never: takes back a finished phase, or a label that only operators give.

use super::volumes;
use crate::{
    Change, EventType, ObjectStore, Propagation, Regarding, Timestamp, canonical::json_diff_of,
    view::{Kind, Meta, Node, Phase, Pod, conditions::rfc3339},
};
use limpet_protocol::{PodGone, PodReport};
use serde_json::{Map, Value, json};

/// Fields of PodStatus that the hub keeps when a report does not have them.
const KEPT: [&str; 5] =
    ["nominatedNodeName", "qosClass", "resize", "resourceClaimStatuses", "extendedResourceClaimStatus"];

/// Conditions that only the node sets: one that it reports no longer is over.
const NODES_OWN: [&str; 6] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodResizePending",
    "PodResizeInProgress",
];

/// What a report means for the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write this, and confirm when it is durable.
    Write(Vec<Change>),
    /// Confirm: there is nothing (more) to write.
    Nothing,
    /// Not a report that this node may make, or not readable.
    Refused(String),
}

fn own_pod<'a>(view: &'a ObjectStore, node: &str, namespace: &str, name: &str, uid: &str) -> Option<&'a Pod> {
    let pod = view.pod(namespace, name)?;
    (&*pod.meta.uid == uid && pod.node.as_deref() == Some(node)).then_some(pod)
}

/// A pod's status.
pub fn pod_report(view: &ObjectStore, node: &str, report: &PodReport) -> Effect {
    let Ok(Value::Object(reported)) = serde_json::from_slice::<Value>(&report.status) else {
        return Effect::Refused(format!(
            "the status of pod {}/{} is not an object",
            report.namespace, report.name
        ));
    };
    let Some(pod) = own_pod(view, node, &report.namespace, &report.name, &report.uid) else {
        return Effect::Nothing;
    };
    let finished = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    let phase = reported.get("phase").and_then(Value::as_str).unwrap_or_default();
    if matches!(pod.status.phase, Phase::Succeeded | Phase::Failed) && !finished(phase) {
        return Effect::Nothing;
    }
    let old = pod.field("/status");
    let mut new = reported;
    for key in KEPT {
        if !new.contains_key(key) && !old[key].is_null() {
            new.insert(key.into(), old[key].clone());
        }
    }
    let mut conditions = merge_conditions(&old["conditions"], new.remove("conditions"), &["PodScheduled"]);
    // The board has seen that it was placed, too: kubelet says of this condition as of its own which generation it saw.
    let scheduled = conditions.as_array_mut().and_then(|all| all.iter_mut().find(|c| c["type"] == "PodScheduled"));
    if let (Some(scheduled), Some(seen)) = (scheduled, new.get("observedGeneration")) {
        scheduled["observedGeneration"] = seen.clone();
    }
    new.insert("conditions".into(), conditions);
    patch(Pod::RESOURCE, &pod.meta, &old, new)
}

/// All containers of a pod that was being deleted have ended; without a namespace: the directory of a volume is gone.
pub fn pod_gone(view: &ObjectStore, node: &str, gone: &PodGone) -> Effect {
    if gone.namespace.is_empty() {
        return volumes::directory_gone(view, node, gone);
    }
    match own_pod(view, node, &gone.namespace, &gone.name, &gone.uid) {
        Some(pod) if pod.meta.deleting.is_some() || super::mirrors::is_one(pod) => {
            let ended = ended_at_last(pod, gone);
            Effect::Write(ended.into_iter().chain([Change::Delete {
                resource: Pod::RESOURCE.into(),
                namespace: gone.namespace.clone(),
                name: gone.name.clone(),
                uid: gone.uid.clone(),
                grace: Some(0),
                propagation: Some(Propagation::Background),
            }]).collect())
        }
        _ => Effect::Nothing,
    }
}

/// Whoever holds a pod with a finalizer waits for its end: where the last word about it was lost, it has failed.
fn ended_at_last(pod: &Pod, gone: &PodGone) -> Option<Change> {
    let waits = !pod.is_finished() && !pod.meta.finalizers.is_empty();
    waits.then(|| Change::Patch {
        resource: Pod::RESOURCE.into(),
        namespace: gone.namespace.clone(),
        name: gone.name.clone(),
        uid: gone.uid.clone(),
        resource_version: None,
        subresource: Some("status"),
        merge: json!({"status": {"phase": "Failed"}}),
    })
}

/// The node's own status and labels. The Node object must exist.
/// The device sends no times of conditions; they are the hub's: heartbeat = this write, transition = change of status.
pub fn node_report(view: &ObjectStore, node: &str, body: &[u8], now: Timestamp) -> Effect {
    let Ok(mut body) = serde_json::from_slice::<Value>(body) else {
        return Effect::Refused("the node's status is not JSON".into());
    };
    let Some(Value::Object(mut new)) = body.get_mut("status").map(Value::take) else {
        return Effect::Refused("the node's report has no status".into());
    };
    let Some(object) = view.node(node) else { return Effect::Nothing };
    let old = object.field("/status");
    let booted = new.get("nodeInfo").and_then(|info| info["bootID"].as_str()).map(String::from);
    let mut conditions = merge_conditions(&old["conditions"], new.remove("conditions"), &[]);
    date(&mut conditions, &old["conditions"], now);
    new.insert("conditions".into(), conditions);
    let mut changes = match patch(Node::RESOURCE, &object.meta, &old, new) {
        Effect::Write(changes) => changes,
        _ => Vec::new(),
    };
    let mut labels = Map::new();
    for (key, value) in allowed_labels(&body["labels"]) {
        if object.meta.labels.get(&key) != value.as_str() {
            labels.insert(key, value);
        }
    }
    if !labels.is_empty() {
        changes.push(Change::Patch {
            resource: Node::RESOURCE.into(),
            namespace: String::new(),
            name: node.into(),
            uid: object.meta.uid.to_string(),
            resource_version: None,
            subresource: None,
            merge: json!({"metadata": {"labels": labels}}),
        });
    }
    changes.extend(super::mirrors::changes(view, object, &body["staticPods"]));
    changes.extend(super::devices::changes(view, object, &body["devices"]));
    changes.extend(rebooted(object, &old, booted.as_deref()));
    if changes.is_empty() { Effect::Nothing } else { Effect::Write(changes) }
}

/// A node whose kernel has started anew since it was last heard of, as a kubelet says it.
fn rebooted(node: &Node, old: &Value, booted: Option<&str>) -> Option<Change> {
    let (before, now) = (old["nodeInfo"]["bootID"].as_str().unwrap_or_default(), booted.unwrap_or_default());
    (!before.is_empty() && !now.is_empty() && before != now).then(|| Change::Event {
        regarding: Regarding::of(node),
        type_: EventType::Warning,
        reason: "Rebooted".into(),
        message: format!("Node {} has been rebooted, boot id: {now}", node.meta.name),
        component: "kubelet",
    })
}

/// Others have conditions in the same list (an eviction says why a pod goes): a new list holds for the version that it was made
/// of alone.
fn patch(resource: &str, meta: &Meta, old: &Value, new: Map<String, Value>) -> Effect {
    let empty = Value::Object(Map::new());
    let old = if old.is_null() { &empty } else { old };
    match json_diff_of(old, Value::Object(new)) {
        None => Effect::Nothing,
        Some(status) => Effect::Write(vec![Change::Patch {
            resource: resource.into(),
            namespace: meta.namespace.to_string(),
            name: meta.name.to_string(),
            uid: meta.uid.to_string(),
            resource_version: status.get("conditions").is_some().then_some(meta.resource_version),
            subresource: Some("status"),
            merge: json!({"status": status}),
        }]),
    }
}

/// Reported conditions by type over the ones that are there; those in `hubs` stay as they are when they are there.
fn merge_conditions(old: &Value, reported: Option<Value>, hubs: &[&str]) -> Value {
    fn type_of(c: &Value) -> &str {
        c["type"].as_str().unwrap_or_default()
    }
    let old = old.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut merged = match reported {
        Some(Value::Array(reported)) => reported,
        _ => Vec::new(),
    };
    let others = |c: &&Value| !NODES_OWN.contains(&type_of(c)) && !merged.iter().any(|r| type_of(r) == type_of(c));
    let others: Vec<Value> = old.iter().filter(others).cloned().collect();
    for condition in &mut merged {
        let kept = old.iter().find(|o| type_of(o) == type_of(condition));
        if let Some(kept) = kept.filter(|_| hubs.contains(&type_of(condition))) {
            *condition = kept.clone();
        }
    }
    merged.extend(others);
    Value::Array(merged)
}

/// Gives conditions their times. One that is as it was keeps its times, so that an equal report writes nothing.
fn date(conditions: &mut Value, old: &Value, now: Timestamp) {
    const TIMES: [&str; 2] = ["lastHeartbeatTime", "lastTransitionTime"];
    let bare = |c: &Value| {
        let mut c = c.clone();
        if let Some(fields) = c.as_object_mut() {
            TIMES.iter().for_each(|t| drop(fields.remove(*t)));
        }
        c
    };
    let old = old.as_array().map(Vec::as_slice).unwrap_or_default();
    for condition in conditions.as_array_mut().into_iter().flatten() {
        let before = old.iter().find(|o| o["type"] == condition["type"]);
        let Some(fields) = condition.as_object_mut() else { continue };
        let same = before.filter(|o| o["status"] == *fields.get("status").unwrap_or(&Value::Null));
        let transition = same.map(|o| o["lastTransitionTime"].clone()).filter(|t| !t.is_null());
        fields.insert("lastTransitionTime".into(), transition.unwrap_or_else(|| json!(rfc3339(now))));
        let unchanged = before.filter(|o| bare(o) == bare(&Value::Object(fields.clone())));
        let heartbeat = unchanged.map(|o| o["lastHeartbeatTime"].clone()).filter(|t| !t.is_null());
        fields.insert("lastHeartbeatTime".into(), heartbeat.unwrap_or_else(|| json!(rfc3339(now))));
    }
}

/// The labels that a device may give itself.
pub fn allowed_labels(labels: &Value) -> Map<String, Value> {
    let own = |key: &str| {
        ["kubernetes.io/arch", "kubernetes.io/os", "kubernetes.io/hostname"].contains(&key)
            || key.starts_with("beta.kubernetes.io/")
            || key.starts_with("node.kubernetes.io/")
            || key.starts_with("topology.kubernetes.io/")
            || key.starts_with("limpet.dev/")
    };
    let labels = labels.as_object().into_iter().flatten();
    labels
        .filter(|(key, value)| own(key) && value.as_str().is_some_and(|v| v.len() <= 63))
        .take(64)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(status: Value, deleting: bool) -> ObjectStore {
        let mut view = ObjectStore::new();
        let mut pod = json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"},
            "spec": {"nodeName": "n1", "containers": []}, "status": status});
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        view.apply(1, "/pods", "a", "p", Some(pod.to_string().into_bytes().into()));
        let node =
            json!({"metadata": {"name": "n1", "uid": "nu", "labels": {"kubernetes.io/arch": "arm64"}}});
        view.apply(2, "/nodes", "", "n1", Some(node.to_string().into_bytes().into()));
        view
    }

    fn report(uid: &str, status: Value) -> PodReport {
        let (namespace, name) = ("a".into(), "p".into());
        PodReport { uid: uid.into(), namespace, name, version: 1, status: status.to_string().into_bytes() }
    }

    fn merge_of(effect: Effect) -> Value {
        match effect {
            Effect::Write(changes) => match &changes[0] {
                Change::Patch { merge, .. } => merge["status"].clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn conditions_of_others_stay() {
        let scheduled = json!({"type": "PodScheduled", "status": "True", "reason": "by the hub"});
        let gate = json!({"type": "example.com/gate", "status": "True"});
        let view =
            view(json!({"phase": "Pending", "conditions": [scheduled, gate], "message": "old"}), false);
        let new = json!({"phase": "Running", "conditions": [
            {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]});
        let merge = merge_of(pod_report(&view, "n1", &report("u", new)));
        assert_eq!(merge["conditions"], json!([scheduled, {"type": "Ready", "status": "True"}, gate]));
        assert_eq!((&merge["phase"], &merge["message"]), (&json!("Running"), &Value::Null));
        assert!(merge.as_object().unwrap().contains_key("message"), "what is no longer reported goes");
        let new = json!({"phase": "Running", "observedGeneration": 2, "conditions": []});
        let merge = merge_of(pod_report(&view, "n1", &report("u", new)));
        let mut seen = scheduled.clone();
        seen["observedGeneration"] = json!(2);
        assert_eq!(merge["conditions"], json!([seen, gate]));
    }

    /// An eviction puts why the pod goes into the same list, while a report made of the list before is on its way.
    #[test]
    fn a_list_of_conditions_holds_for_the_version_that_it_was_made_of() {
        let version = |effect: Effect| match effect {
            Effect::Write(changes) => match &changes[0] {
                Change::Patch { resource_version, .. } => *resource_version,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let view = view(json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]}), false);
        let seen = view.pod("a", "p").unwrap().meta.resource_version;
        let new = |ready: &str| json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
        assert_eq!(version(pod_report(&view, "n1", &report("u", new("True")))), Some(seen));
        assert_eq!(version(pod_report(&view, "n1", &report("u", new("False")))), None, "nothing of the list is written");
        let node = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
        let seen = view.node("n1").unwrap().meta.resource_version;
        assert_eq!(version(node_report(&view, "n1", node.as_bytes(), Timestamp::UNIX_EPOCH)), Some(seen));
    }

    #[test]
    fn only_its_own_pods_and_never_back_from_finished() {
        let view_done = view(json!({"phase": "Succeeded"}), false);
        let running = json!({"phase": "Running"});
        assert_eq!(pod_report(&view_done, "n1", &report("u", running.clone())), Effect::Nothing);
        let view = view(json!({"phase": "Pending"}), false);
        assert_eq!(pod_report(&view, "n2", &report("u", running.clone())), Effect::Nothing);
        assert_eq!(pod_report(&view, "n1", &report("other", running)), Effect::Nothing);
        assert!(matches!(pod_report(&view, "n1", &report("u", json!([]))), Effect::Refused(_)));
        let same = json!({"phase": "Pending", "conditions": []});
        assert!(matches!(pod_report(&view, "n1", &report("u", same)), Effect::Write(_) | Effect::Nothing));
    }

    #[test]
    fn only_a_pod_that_is_being_deleted_goes() {
        let gone = PodGone { uid: "u".into(), namespace: "a".into(), name: "p".into(), version: 3 };
        assert_eq!(pod_gone(&view(json!({}), false), "n1", &gone), Effect::Nothing);
        assert_eq!(pod_gone(&view(json!({}), true), "n2", &gone), Effect::Nothing);
        assert!(matches!(pod_gone(&view(json!({}), true), "n1", &gone), Effect::Write(changes) if changes.len() == 1));
        // Somebody waits for the end of this one, and its last status was lost.
        let mut view = view(json!({"phase": "Running"}), true);
        let mut pod: Value = view.pod("a", "p").unwrap().value();
        pod["metadata"]["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]);
        view.apply(3, "/pods", "a", "p", Some(pod.to_string().into_bytes().into()));
        let Effect::Write(changes) = pod_gone(&view, "n1", &gone) else { panic!() };
        let Change::Patch { merge, .. } = &changes[0] else { panic!() };
        assert_eq!((&merge["status"]["phase"], changes.len()), (&json!("Failed"), 2));
    }

    #[test]
    fn a_board_that_was_restarted_is_told_of() {
        let mut view = view(json!({}), false);
        let said = |view: &ObjectStore, boot: &str| {
            let body = json!({"status": {"nodeInfo": {"bootID": boot}}}).to_string();
            let Effect::Write(changes) = node_report(view, "n1", body.as_bytes(), Timestamp::UNIX_EPOCH) else {
                return Vec::new();
            };
            let events = changes.into_iter().filter_map(|c| match c {
                Change::Event { reason, message, .. } => Some(format!("{reason}: {message}")),
                _ => None,
            });
            events.collect()
        };
        assert!(said(&view, "one").is_empty(), "it was not known before");
        let node = json!({"metadata": {"name": "n1", "uid": "n1", "resourceVersion": "9"},
            "status": {"nodeInfo": {"bootID": "one"}}});
        view.apply(9, "/nodes", "", "n1", Some(node.to_string().into_bytes().into()));
        assert!(said(&view, "one").is_empty());
        assert!(said(&view, "").is_empty(), "a board that does not say it");
        assert_eq!(said(&view, "two"), ["Rebooted: Node n1 has been rebooted, boot id: two"]);
    }

    #[test]
    fn a_node_gives_itself_no_role() {
        let view = view(json!({}), false);
        let body = json!({"status": {"phase": "x"}, "labels": {"kubernetes.io/arch": "arm64",
            "limpet.dev/board": "pi-4", "node-role.kubernetes.io/control-plane": ""}});
        let Effect::Write(changes) =
            node_report(&view, "n1", body.to_string().as_bytes(), Timestamp::UNIX_EPOCH)
        else {
            panic!()
        };
        let Change::Patch { merge, .. } = &changes[1] else { panic!() };
        assert_eq!(*merge, json!({"metadata": {"labels": {"limpet.dev/board": "pi-4"}}}));
        assert!(matches!(node_report(&view, "n1", b"[]", Timestamp::UNIX_EPOCH), Effect::Refused(_)));
    }
}
