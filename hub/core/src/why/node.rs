//! Why a node is as it is.
//!
//! In: a Node. Out: whether it is there, what keeps pods away from it, what holds updates back.
//! Never: more than the hub knows.

use super::{Answer, ago};
use crate::{
    ObjectStore, Timestamp,
    control::{Policy, UPDATE_LOCK, complaints, device_lock, most_are_away, pool_of},
    nodes::{offline::OFFLINE_SINCE, queued::queued},
    view::Node,
};

pub fn why(view: &ObjectStore, node: &Node, now: Timestamp) -> Answer {
    let mut answer = Answer::about("node", &node.meta);
    let name = &node.meta.name;
    let pods = view.pods_on(name).filter(|p| p.is_active()).count();
    let since = node.meta.annotations.get(OFFLINE_SINCE).and_then(|t| t.parse::<Timestamp>().ok());
    for condition in node.status.conditions.iter() {
        let wrong = match &*condition.type_ {
            "Ready" => &*condition.status != "True" && since.is_none(),
            _ => &*condition.status == "True",
        };
        if wrong {
            answer.because(format!("{}: {} {}", condition.type_, condition.reason, condition.message));
        }
    }
    if node.spec.unschedulable {
        answer.because("it takes no new pods: it is cordoned");
        answer.advise(format!("kubectl uncordon {name}"));
    }
    for taint in node.spec.taints.iter() {
        answer.because(format!("taint {}={}:{} keeps pods away that do not tolerate it", taint.key, taint.value, taint.effect));
    }
    if let Some(lock) = node.meta.annotations.get(UPDATE_LOCK).map(|l| l.to_string()).or_else(|| device_lock(node)) {
        answer.because(format!("it holds updates back: {lock}"));
    }
    complaints(&node.meta.annotations).into_iter().for_each(|wrong| answer.because(wrong));
    if let Some(pool) = pool_of(view, node) {
        answer.because(format!("it belongs to pool {}", pool.meta.name));
    }
    let used = view.used_on(name);
    let can = &node.status.allocatable;
    answer.because(format!(
        "{pods} pods ask for {}m of {}m CPU and {} of {} MiB memory",
        used.requests.cpu_milli,
        can.cpu_milli,
        used.requests.memory >> 20,
        can.memory >> 20
    ));
    let Some(since) = since else {
        let ready = node.status.ready();
        return answer.verdict(if ready { "it is ready" } else { "it is connected, and not ready" });
    };
    for waiting in queued(view, name, since) {
        answer.because(format!("it will be told when it is back: {waiting}"));
    }
    let mine = view.pods_on(name).filter(|p| p.is_active());
    let replaced: Vec<String> = mine
        .filter_map(|p| Some((p, Policy::of(view, p, node).lost_after_s.filter(|_| Policy::of(view, p, node).replace)?)))
        .map(|(p, seconds)| format!("pod {}/{} counts as lost after {seconds} s", p.meta.namespace, p.meta.name))
        .collect();
    if let Some(why) = most_are_away(view, node).filter(|_| !replaced.is_empty()) {
        answer.because(why);
    }
    if replaced.is_empty() {
        answer.because("its pods stay its own however long it is away; a NodePool or annotations can say otherwise");
    }
    replaced.into_iter().for_each(|line| answer.because(line));
    answer.advise("look at its power and its link; it joins again by itself");
    answer.verdict(format!("it is away: last heard of {} ago", ago(since, now)))
}
