//! metrics.k8s.io/v1beta1: what `kubectl top` and autoscalers read.
//!
//! In: an allowed get or list of NodeMetrics or PodMetrics. Out: figures that the nodes gave a moment ago.
//! Source: the metrics API of kubernetes-sigs/metrics-server. Never: stores anything; a pod without figures is absent.

use super::{
    Reply, Target,
    dispatch::{Call, not_allowed},
    negotiate::Shape,
    object, reply,
    selection::Selection,
    target,
};
use crate::run::usage::{ContainerUsage, NodeUsage};
use limpet_objects::{resource::registry, status::Status, time};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const GROUP: &str = "metrics.k8s.io";

/// Whether the target is answered here.
pub fn is_one(target: &Target) -> bool {
    target.resource.group == GROUP
}

pub async fn answer(call: &Call, target: &Target) -> Result<Reply, Status> {
    if !matches!(call.info.verb, "get" | "list") {
        return Err(not_allowed());
    }
    let pods = target.resource.plural == "pods";
    let stored = if pods { "/pods" } else { "/nodes" };
    let objects = objects(call, target, stored)?;
    let nodes: BTreeSet<String> = objects.iter().filter_map(|o| node_of(o, pods)).map(str::to_owned).collect();
    let usage = match call.api.doors.get() {
        Some(doors) => doors.usage.of(nodes).await,
        None => BTreeMap::new(),
    };
    let items: Vec<Value> = objects.iter().filter_map(|o| metrics(o, pods, &usage)).collect();
    if call.info.verb == "get" {
        let one = items.into_iter().next().ok_or_else(|| missing(target, pods))?;
        return Ok(reply::value(200, &one, call.wanted));
    }
    let list = match call.wanted.shape {
        Shape::Table(version) => {
            let mut table = super::verbs::shape::tabulate(call, target, &items, version)?;
            table["metadata"] = json!({});
            table
        }
        _ => json!({"kind": target.resource.list_kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items}),
    };
    Ok(reply::value(200, &list, call.wanted))
}

/// The pods or nodes that are meant, from the store.
fn objects(call: &Call, target: &Target, stored: &str) -> Result<Vec<Value>, Status> {
    let resource = registry().by_storage(stored).ok_or_else(Status::no_such_resource)?;
    if call.info.verb == "get" {
        let key = Target::stored(&call.api.kinds(), stored, &target.namespace, &target.name)?.key();
        let record = call.api.store.get(&key).ok_or_else(|| target.not_found())?;
        return Ok(vec![target::parse(resource, &record.bytes)?]);
    }
    let selection = Selection::parse(&call.query, resource, &target.name)?;
    let records = call.api.store.list(stored, target.namespace()).records;
    let chosen = records.iter().filter(|r| selection.matches(resource, r));
    chosen.map(|r| target::parse(resource, &r.bytes)).collect()
}

fn node_of(object: &Value, pods: bool) -> Option<&str> {
    let running = object["status"]["phase"] == "Running";
    let name = if pods { object["spec"]["nodeName"].as_str().filter(|_| running) } else { object["metadata"]["name"].as_str() };
    name.filter(|n| !n.is_empty())
}

fn missing(target: &Target, pods: bool) -> Status {
    let name = &target.name;
    let words = match pods {
        true => format!("podmetrics.metrics.k8s.io \"{}/{name}\" not found", target.namespace),
        false => format!("nodemetrics.metrics.k8s.io \"{name}\" not found"),
    };
    Status::new(404, "NotFound", words)
}

fn metrics(object: &Value, pods: bool, usage: &BTreeMap<String, Arc<NodeUsage>>) -> Option<Value> {
    let node = usage.get(node_of(object, pods)?)?;
    let (kind, figures) = match pods {
        true => {
            let (namespace, name) = (object["metadata"]["namespace"].as_str()?, object::name(object));
            let (_, _, containers) = node.pods.iter().find(|(ns, n, _)| ns == namespace && n == name)?;
            ("PodMetrics", json!({"containers": containers.iter().map(container).collect::<Vec<_>>()}))
        }
        false => ("NodeMetrics", json!({"usage": amounts(node.node.0, node.node.1)})),
    };
    let meta = &object["metadata"];
    let mut metadata = json!({"name": meta["name"], "creationTimestamp": time::rfc3339(node.at)});
    for field in ["namespace", "labels"] {
        if !meta[field].is_null() {
            metadata[field] = meta[field].clone();
        }
    }
    let mut value = json!({
        "kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": metadata,
        "timestamp": time::rfc3339(node.at), "window": window(node.window_ms),
    });
    for (key, figure) in figures.as_object().into_iter().flatten() {
        value[key.as_str()] = figure.clone();
    }
    Some(value)
}

fn container((name, cpu, memory): &ContainerUsage) -> Value {
    json!({"name": name, "usage": amounts(*cpu, *memory)})
}

fn amounts(nano_cores: u64, bytes: u64) -> Value {
    json!({"cpu": format!("{nano_cores}n"), "memory": format!("{}Ki", bytes / 1024)})
}

/// A duration as Go prints it.
fn window(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{}.{:03}s", ms / 1000, ms % 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_objects() {
        let usage = NodeUsage {
            window_ms: 15_000,
            node: (250_000_000, 512 << 20),
            pods: vec![("a".into(), "p".into(), vec![("c".into(), 1_500_000, 10 << 20)])],
            at: time::parse("2026-11-25T12:00:00Z").unwrap(),
        };
        let usage = BTreeMap::from([("n1".to_string(), Arc::new(usage))]);
        let pod = json!({"metadata": {"name": "p", "namespace": "a", "labels": {"x": "y"}},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let got = metrics(&pod, true, &usage).unwrap();
        assert_eq!(got["containers"], json!([{"name": "c", "usage": {"cpu": "1500000n", "memory": "10240Ki"}}]));
        assert_eq!((&got["window"], &got["timestamp"]), (&json!("15s"), &json!("2026-11-25T12:00:00Z")));
        assert_eq!(got["metadata"]["labels"], json!({"x": "y"}));
        let node = json!({"metadata": {"name": "n1"}});
        assert_eq!(metrics(&node, false, &usage).unwrap()["usage"], json!({"cpu": "250000000n", "memory": "524288Ki"}));
        for (name, phase) in [("other", "Running"), ("p", "Pending")] {
            let mut absent = pod.clone();
            absent["metadata"]["name"] = json!(name);
            absent["status"]["phase"] = json!(phase);
            assert_eq!(metrics(&absent, true, &usage), None);
        }
        assert_eq!((window(15_000), window(1_234)), ("15s".into(), "1.234s".into()));
    }
}
