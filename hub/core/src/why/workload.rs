//! Why a Deployment, ReplicaSet, DaemonSet or StatefulSet has fewer pods than it should.
//!
//! In: the workload and its pods. Out: how many are well, and the verdict about each that is not.
//! Never: names more pods than fit a screen.

use super::{Answer, pod};
use crate::{
    ObjectStore, Timestamp,
    schedule::Config,
    view::{Deployment, Meta, Pod, ReplicaSet},
};
use std::sync::Arc;

pub fn deployment(view: &ObjectStore, config: &Config, d: &Deployment, now: Timestamp) -> Answer {
    let mut answer = Answer::about("deployment", &d.meta);
    if d.spec.paused {
        answer.because("it is paused: changes of its template wait");
        answer.advise(format!("kubectl rollout resume -n {} deployment/{}", d.meta.namespace, d.meta.name));
    }
    for condition in d.status.conditions.iter() {
        let bad = match &*condition.type_ {
            "ReplicaFailure" => &*condition.status == "True",
            _ => &*condition.status == "False",
        };
        if bad {
            answer.because(format!("{}: {}", condition.reason, condition.message));
        }
    }
    let sets = view.controlled_by::<ReplicaSet>(&d.meta.uid);
    let pods: Vec<&Arc<Pod>> = sets.flat_map(|rs| view.controlled_by::<Pod>(&rs.meta.uid)).collect();
    let wanted = d.spec.replicas.unwrap_or(1);
    let available = d.status.available_replicas;
    describe(view, config, &pods, now, &mut answer);
    answer.verdict(match available >= wanted && pods.iter().filter(|p| p.is_active()).all(|p| p.status.ready) {
        true => format!("nothing is wrong: {available} of {wanted} pods are available"),
        false => format!("{available} of {wanted} pods are available"),
    })
}

pub fn replica_set(view: &ObjectStore, config: &Config, rs: &ReplicaSet, now: Timestamp) -> Answer {
    let mut answer = of_pods(view, config, "replicaset", &rs.meta, now);
    if let Some(c) = crate::view::conditions::find(&rs.status.conditions, "ReplicaFailure").filter(|c| &*c.status == "True") {
        answer.because.insert(0, format!("{}: {}", c.reason, c.message));
    }
    if let Some(owner) = rs.meta.controller().filter(|o| &*o.kind == "Deployment") {
        answer.advise(format!("limpet why -n {} deployment/{}", rs.meta.namespace, owner.name));
    }
    answer
}

pub fn of_pods(view: &ObjectStore, config: &Config, kind: &str, meta: &Meta, now: Timestamp) -> Answer {
    let mut answer = Answer::about(kind, meta);
    let pods: Vec<&Arc<Pod>> = view.controlled_by::<Pod>(&meta.uid).collect();
    let ready = pods.iter().filter(|p| p.status.ready && p.is_active()).count();
    describe(view, config, &pods, now, &mut answer);
    let all = pods.len();
    if all == 0 {
        answer.advise(format!("kubectl describe {kind} -n {} {}", meta.namespace, meta.name));
        return answer.verdict("it has no pods");
    }
    answer.verdict(match ready == all {
        true => format!("nothing is wrong: {ready} of its {all} pods are ready"),
        false => format!("{ready} of its {all} pods are ready"),
    })
}

pub(super) fn describe(view: &ObjectStore, config: &Config, pods: &[&Arc<Pod>], now: Timestamp, answer: &mut Answer) {
    for p in pods.iter().filter(|p| !(p.status.ready && p.is_active())) {
        let one = pod::why(view, config, p, now);
        let detail = one.because.first().map(|b| format!(" ({b})")).unwrap_or_default();
        answer.because(format!("{}: {}{detail}", p.meta.name, one.verdict));
        if answer.nodes.is_empty() {
            answer.nodes = one.nodes;
        }
    }
}
