//! Why a Service reaches nobody.
//!
//! In: a Service, its pods and EndpointSlices. Out: whom it selects, who of them answers, what keeps the others out.
//! Never: a connection.

use super::{Answer, pod};
use crate::{
    ObjectStore, Timestamp,
    nodes::offline::OFFLINE_SINCE,
    schedule::Config,
    view::{EndpointSlice, Labels, Pod, Service},
};
use std::sync::Arc;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub fn why(view: &ObjectStore, config: &Config, service: &Service, now: Timestamp) -> Answer {
    let mut answer = Answer::about("service", &service.meta);
    let spec = &service.spec;
    let namespace = &service.meta.namespace;
    if &*spec.type_ == "ExternalName" {
        return answer.verdict("it is a name for a host elsewhere: it has no pods");
    }
    if spec.selector.is_empty() {
        let own = |s: &&Arc<EndpointSlice>| s.meta.labels.get(SERVICE_NAME) == Some(&*service.meta.name);
        let n: usize = view.list::<EndpointSlice>(namespace).filter(own).map(|s| endpoints(s)).sum();
        return answer.verdict(format!("it selects no pods: somebody else keeps its endpoints, {n} at this time"));
    }
    let chosen = |p: &&Arc<Pod>| spec.selector.iter().all(|(k, v)| p.meta.labels.get(k) == Some(v));
    let pods: Vec<&Arc<Pod>> = view.list::<Pod>(namespace).filter(chosen).filter(|p| !p.is_finished()).collect();
    if pods.is_empty() {
        near_misses(view, namespace, &spec.selector, &mut answer);
        answer.advise(format!("kubectl get pods -n {namespace} --show-labels"));
        return answer.verdict(format!("it reaches nobody: no pod has the labels {}", words(&spec.selector)));
    }
    let (good, bad): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = pods.iter().copied().partition(|p| p.status.ready && p.is_active());
    for port in spec.ports.iter() {
        unserved(port, &pods, &mut answer);
    }
    for p in &bad {
        answer.because(format!("{} does not answer: {}", p.meta.name, pod::why(view, config, p, now).verdict));
    }
    let away = |p: &&&Arc<Pod>| {
        let node = p.node.as_deref().and_then(|n| view.node(n));
        node.is_some_and(|n| n.meta.annotations.contains_key(OFFLINE_SINCE))
    };
    let gone = good.iter().filter(away).count();
    if gone > 0 {
        answer.because(format!("{gone} of those that answer are on boards that are away: they answer pods of their own board"));
    }
    answer.because("a Service reaches pods of its caller's own board");
    let all = pods.len();
    let served = bad.is_empty() && spec_is_served(&answer);
    answer.verdict(match (good.len(), served) {
        (0, _) => format!("it reaches nobody: none of its {all} pods is ready"),
        (n, true) => format!("nothing is wrong: {n} of its {all} pods answer"),
        (n, false) => format!("{n} of its {all} pods answer"),
    })
}

fn spec_is_served(answer: &Answer) -> bool {
    !answer.because.iter().any(|b| b.starts_with("port "))
}

fn endpoints(slice: &EndpointSlice) -> usize {
    slice.field("/endpoints").as_array().map_or(0, Vec::len)
}

fn words(labels: &Labels) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

/// Labels of the selector that pods have with another value: most often a slip of the pen.
fn near_misses(view: &ObjectStore, namespace: &str, selector: &Labels, answer: &mut Answer) {
    for (key, value) in selector.iter() {
        let others = view.list::<Pod>(namespace).filter_map(|p| p.meta.labels.get(key));
        let mut others: Vec<&str> = others.filter(|v| *v != value).collect();
        others.sort_unstable();
        others.dedup();
        if !others.is_empty() {
            let shown = others.len().min(5);
            answer.because(format!("{key} of pods in this namespace is {}, not {value}", others[..shown].join(", ")));
        }
    }
}

/// A target port by a name that no container has.
fn unserved(port: &crate::view::ServicePort, pods: &[&Arc<Pod>], answer: &mut Answer) {
    let crate::view::IntOrString::Text(name) = &port.target_port else { return };
    let has = |p: &&&Arc<Pod>| {
        let containers = p.field("/spec/containers");
        let mut ports = containers.as_array().into_iter().flatten().flat_map(|c| c["ports"].as_array().into_iter().flatten());
        ports.any(|port| port["name"] == **name)
    };
    if !pods.iter().any(|p| has(&p)) {
        answer.because(format!("port {} leads to a port called {name:?}, which none of its pods has", port.port));
    }
}
