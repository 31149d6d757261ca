//! `limpet why`: what holds an object back, in plain words, and what to do about it.
//!
//! In: the view, what is asked about, the time. Out: a verdict, what leads to it, advice; for a pod that waits, every
//! node's answer. Never: a guess: each sentence is read from an object or asked of the scheduler itself.

mod batch;
mod claim;
mod namespace;
mod node;
mod pod;
mod pool;
mod rollout;
mod service;
mod workload;

use crate::{ObjectStore, Timestamp, schedule::Config, view::*};
use serde::Serialize;

/// Nodes, pods and units that one answer names.
const NAMED_MAX: usize = 50;

/// The answer to one question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// `pod default/web-1`
    pub about: String,
    /// One sentence.
    pub verdict: String,
    /// What leads to it, the most important first.
    pub because: Vec<String>,
    /// What to do.
    pub advice: Vec<String>,
    /// (node, its answer), for pods without a node.
    pub nodes: Vec<(String, String)>,
}

impl Answer {
    fn about(kind: &str, meta: &Meta) -> Answer {
        let name = match &*meta.namespace {
            "" => meta.name.to_string(),
            namespace => format!("{namespace}/{}", meta.name),
        };
        Answer { about: format!("{kind} {name}"), ..Answer::default() }
    }

    fn verdict(mut self, text: impl Into<String>) -> Answer {
        self.verdict = text.into();
        self
    }

    fn because(&mut self, text: impl Into<String>) {
        if self.because.len() < NAMED_MAX {
            self.because.push(text.into());
        }
    }

    fn advise(&mut self, text: impl Into<String>) {
        self.advice.push(text.into());
    }
}

/// What can be asked about; kubectl's short names too.
pub const KINDS: &str = "pod, node, deployment, replicaset, daemonset, statefulset, job, cronjob, persistentvolumeclaim (pvc), \
                         service, namespace, fleetrollout, nodepool";

/// `None`: there is no such object. `Err`: this kind cannot be asked about.
pub fn why(
    view: &ObjectStore,
    config: &Config,
    kind: &str,
    namespace: &str,
    name: &str,
    now: Timestamp,
) -> Result<Option<Answer>, String> {
    Ok(match kind {
        "pod" | "pods" | "po" => view.pod(namespace, name).map(|p| pod::why(view, config, p, now)),
        "node" | "nodes" | "no" => view.node(name).map(|n| node::why(view, n, now)),
        "replicaset" | "replicasets" | "rs" => {
            view.get::<ReplicaSet>(namespace, name).map(|r| workload::replica_set(view, config, r, now))
        }
        "job" | "jobs" => view.get::<Job>(namespace, name).map(|j| batch::job(view, config, j, now)),
        "cronjob" | "cronjobs" | "cj" => view.get::<CronJob>(namespace, name).map(|c| batch::cron_job(view, c, now)),
        "persistentvolumeclaim" | "persistentvolumeclaims" | "pvc" => {
            view.get::<PersistentVolumeClaim>(namespace, name).map(|c| claim::why(view, c))
        }
        "service" | "services" | "svc" => {
            view.get::<Service>(namespace, name).map(|s| service::why(view, config, s, now))
        }
        "namespace" | "namespaces" | "ns" => view.get::<Namespace>("", name).map(|n| namespace::why(view, n)),
        "nodepool" | "nodepools" | "pool" => view.get::<NodePool>("", name).map(|p| pool::why(view, p, now)),
        "fleetrollout" | "fleetrollouts" | "rollout" | "fr" => {
            view.get::<FleetRollout>(namespace, name).map(|r| rollout::why(view, r, now))
        }
        "deployment" | "deployments" | "deploy" => {
            view.get::<Deployment>(namespace, name).map(|d| workload::deployment(view, config, d, now))
        }
        "daemonset" | "daemonsets" | "ds" => {
            view.get::<DaemonSet>(namespace, name).map(|d| workload::of_pods(view, config, "daemonset", &d.meta, now))
        }
        "statefulset" | "statefulsets" | "sts" => {
            view.get::<StatefulSet>(namespace, name).map(|s| workload::of_pods(view, config, "statefulset", &s.meta, now))
        }
        other => return Err(format!("{other:?} cannot be asked about; there are {KINDS}")),
    })
}

/// `12m`, `3d4h`: how long ago.
fn ago(since: Timestamp, now: Timestamp) -> String {
    limpet_objects::table::human(now.as_second() - since.as_second())
}

#[cfg(test)]
mod tests;
