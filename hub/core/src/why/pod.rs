//! Why a pod is as it is.
//!
//! In: a pod. Out: the first thing that holds it back, from its gates to its containers. Never: two verdicts.

use super::{Answer, ago};
use crate::{
    ObjectStore, Timestamp,
    control::{LOST_SINCE, complaints, is_lost},
    nodes::{offline::OFFLINE_SINCE, queued::{Waiting, queued}},
    schedule::{Config, explain},
    view::{ConfigMap, Node, PersistentVolumeClaim, Phase, Pod, PodRef, Secret},
};
use serde_json::Value;

pub fn why(view: &ObjectStore, config: &Config, pod: &Pod, now: Timestamp) -> Answer {
    let mut answer = state(view, config, pod, now);
    complaints(&pod.meta.annotations).into_iter().for_each(|wrong| answer.because(wrong));
    answer
}

fn state(view: &ObjectStore, config: &Config, pod: &Pod, now: Timestamp) -> Answer {
    let mut answer = Answer::about("pod", &pod.meta);
    missing(view, pod, &mut answer);
    if pod.meta.deleting.is_some() {
        return going(view, pod, now, answer);
    }
    match pod.status.phase {
        Phase::Succeeded => return answer.verdict("it has done its work: all containers ended with exit code 0"),
        Phase::Failed => return failed(pod, answer),
        _ => {}
    }
    let Some(node) = pod.node.as_deref() else { return waiting(view, config, pod, answer) };
    let Some(node) = view.node(node) else {
        return answer.verdict(format!("it is bound to node {node}, which does not exist"));
    };
    if let Some(since) = away_since(node) {
        return on_absent_board(view, pod, node, since, now, answer);
    }
    containers(pod, node, now, answer)
}

fn away_since(node: &Node) -> Option<Timestamp> {
    node.meta.annotations.get(OFFLINE_SINCE)?.parse().ok()
}

/// Things that the pod names and that are not there.
fn missing(view: &ObjectStore, pod: &Pod, answer: &mut Answer) {
    let namespace = &pod.meta.namespace;
    for reference in &pod.spec.refs {
        let (kind, name, there) = match reference {
            PodRef::ConfigMap(name) => ("ConfigMap", name, view.get::<ConfigMap>(namespace, name).is_some()),
            PodRef::Secret(name) => ("Secret", name, view.get::<Secret>(namespace, name).is_some()),
            PodRef::Claim(name) => {
                ("PersistentVolumeClaim", name, view.get::<PersistentVolumeClaim>(namespace, name).is_some())
            }
            PodRef::Token { .. } => continue,
        };
        if !there {
            answer.because(format!("it names {kind} {name}, which does not exist in namespace {namespace}"));
        }
    }
}

fn going(view: &ObjectStore, pod: &Pod, now: Timestamp, mut answer: Answer) -> Answer {
    let node = pod.node.as_deref().and_then(|n| view.node(n));
    if !pod.meta.finalizers.is_empty() {
        let names: Vec<&str> = pod.meta.finalizers.iter().map(|f| &**f).collect();
        answer.because(format!("its finalizers must be removed by whoever set them: {}", names.join(", ")));
    }
    if let Some((node, since)) = node.and_then(|n| Some((n, away_since(n)?))) {
        let name = &node.meta.name;
        answer.because(format!("board {name} is away since {} ago; it is told when it returns", ago(since, now)));
        answer.advise(format!("if the board will never return: kubectl delete node {name}"));
    }
    let late = pod.meta.deleting.is_some_and(|until| until < now);
    answer.verdict(if late { "it is being deleted and should be gone by now" } else { "it is being deleted, in order" })
}

fn failed(pod: &Pod, mut answer: Answer) -> Answer {
    for (container, code) in pod.status.exits.iter().filter(|e| e.1 != 0) {
        answer.because(format!("container {container} ended with exit code {code}{}", meaning(*code)));
    }
    let message = pod.field("/status/message");
    answer.because.extend(message.as_str().map(String::from));
    let reason = if pod.status.reason.is_empty() { "its containers failed" } else { &*pod.status.reason };
    let verdict = format!("it has failed and will not run again: {reason}");
    answer.advise(format!("kubectl logs -n {} {}", pod.meta.namespace, pod.meta.name));
    answer.verdict(verdict)
}

fn meaning(code: i32) -> &'static str {
    match code {
        126 => " (its command could not be executed)",
        127 => " (its command was not found)",
        137 => " (it was killed: out of memory, or it did not stop in time)",
        139 => " (it crashed: segmentation fault)",
        143 => " (it was asked to stop)",
        _ => "",
    }
}

fn waiting(view: &ObjectStore, config: &Config, pod: &Pod, mut answer: Answer) -> Answer {
    if !pod.spec.scheduling_gates.is_empty() {
        let gates: Vec<&str> = pod.spec.scheduling_gates.iter().map(|g| &**g).collect();
        answer.because(format!("spec.schedulingGates: {}", gates.join(", ")));
        return answer.verdict("it waits for somebody to remove its scheduling gates");
    }
    let nodes = match explain(view, config, pod) {
        Ok(nodes) => nodes,
        Err(why) => return answer.verdict(format!("it has no node: {why}")),
    };
    if nodes.is_empty() {
        answer.advise("join a board: limpet token create, then limpet-agent --join TOKEN on the board");
        return answer.verdict("it has no node: there are none");
    }
    let fitting: Vec<&str> = nodes.iter().filter(|n| n.reasons.is_empty()).map(|n| n.node.as_str()).collect();
    if let Some(first) = fitting.first() {
        return answer.verdict(format!("a node is being chosen; {} would do, such as {first}", fitting.len()));
    }
    let crowded = nodes.iter().filter(|n| n.crowded).count();
    if crowded > 0 {
        answer.because(format!("{crowded} nodes would do if fewer pods ran there"));
    }
    if let Some(node) = &pod.status.nominated_node {
        answer.because(format!("less important pods leave node {node} to make room for it"));
    }
    if let [only] = &nodes[..] {
        answer.because(format!("node {}: {}", only.node, only.reasons.join(", ")));
    }
    let verdict = format!("it has no node: none of the {} will take it", nodes.len());
    answer.nodes = nodes.into_iter().map(|n| (n.node, n.reasons.join(", "))).take(super::NAMED_MAX).collect();
    answer.verdict(verdict)
}

fn on_absent_board(
    view: &ObjectStore,
    pod: &Pod,
    node: &Node,
    since: Timestamp,
    now: Timestamp,
    mut answer: Answer,
) -> Answer {
    let name = &node.meta.name;
    answer.because(format!("node {name} was last heard of {} ago", ago(since, now)));
    answer.because("what is shown of the pod is what the board said then; it goes on without the hub");
    for waiting in queued(view, name, since).iter().filter(|w| concerns(pod, w)) {
        answer.because(format!("it applies when the board is back: {waiting}"));
    }
    if is_lost(pod) {
        let at = pod.meta.annotations.get(LOST_SINCE).unwrap_or_default();
        answer.because(format!("since {at} it counts as lost, and another pod runs in its place"));
    }
    answer.verdict(format!("its board {name} is away"))
}

/// The pod itself, or something that it names.
fn concerns(pod: &Pod, waiting: &Waiting) -> bool {
    let named = |r: &PodRef| match r {
        PodRef::ConfigMap(name) => waiting.kind == "ConfigMap" && **name == *waiting.name,
        PodRef::Secret(name) => waiting.kind == "Secret" && **name == *waiting.name,
        _ => false,
    };
    let own = waiting.kind == "pod" && *pod.meta.name == *waiting.name;
    *pod.meta.namespace == *waiting.namespace && (own || pod.spec.refs.iter().any(named))
}

fn containers(pod: &Pod, node: &Node, now: Timestamp, mut answer: Answer) -> Answer {
    let statuses = |field: &str| pod.field(field).as_array().cloned().unwrap_or_default();
    let mut trouble = 0;
    for status in statuses("/status/initContainerStatuses").iter().chain(&statuses("/status/containerStatuses")) {
        trouble += usize::from(container(status, &mut answer));
    }
    let name = &node.meta.name;
    if trouble > 0 {
        answer.advise(format!("kubectl describe pod -n {} {}", pod.meta.namespace, pod.meta.name));
        return answer.verdict(format!("it is on node {name} and {trouble} of its containers do not run as they should"));
    }
    if pod.status.phase == Phase::Pending {
        let seen = pod.status.started.is_some();
        let what = if seen { "prepares its volumes and images" } else { "has not answered yet" };
        return answer.verdict(format!("it is bound to node {name}, which {what}"));
    }
    if !pod.status.ready {
        answer.because("a readiness probe fails, or a readiness gate is not set");
        return answer.verdict(format!("it runs on node {name} and is not ready"));
    }
    let since = pod.status.ready_since.map(|t| format!(" since {}", ago(t, now))).unwrap_or_default();
    answer.verdict(format!("nothing is wrong: it is ready on node {name}{since}"))
}

/// Whether something is wrong with a container.
fn container(status: &Value, answer: &mut Answer) -> bool {
    let name = status["name"].as_str().unwrap_or_default();
    let text = |v: &Value, field: &str| v[field].as_str().unwrap_or_default().to_owned();
    let state = &status["state"];
    let last = &status["lastState"]["terminated"];
    if state["waiting"].is_object() {
        let reason = text(&state["waiting"], "reason");
        let harmless = ["", "ContainerCreating", "PodInitializing"].contains(&reason.as_str());
        if !harmless {
            answer.because(format!("container {name} waits: {reason} {}", text(&state["waiting"], "message")));
        }
        if let Some(code) = last["exitCode"].as_i64() {
            let count = status["restartCount"].as_i64().unwrap_or(0);
            let meaning = meaning(code as i32);
            answer.because(format!("container {name} last ended with exit code {code}{meaning}, after {count} restarts"));
        }
        return !harmless;
    }
    if let Some(code) = state["terminated"]["exitCode"].as_i64().filter(|c| *c != 0) {
        answer.because(format!("container {name} ended with exit code {code}{}", meaning(code as i32)));
        return true;
    }
    false
}

