//! Which pods must go so that a more important one gets a node.
//!
//! In: a pod that fits nowhere, and the reasons. Out: a node and its victims: as few, as unimportant and as little
//! against disruption budgets as can be. Semantics:
//! https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
//! Never: takes a pod of the same or a higher priority, or one whose absence would not help.

use super::{
    filter::Rules,
    place::{Objection, spot},
    queue::Nominations,
    reason::Reason,
    room::Spot,
};
use crate::{
    Timestamp,
    view::{Node, NodePods, Pod, PodDisruptionBudget},
};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

/// Nodes that are tried at least, where there are so many; more of them in a large fleet.
const CANDIDATES_MIN: usize = 100;
const CANDIDATES_PERCENT: usize = 10;

/// A node and the pods that must leave it.
#[derive(Clone, Debug)]
pub struct Preemption {
    pub node: Arc<Node>,
    pub victims: Vec<Arc<Pod>>,
    violations: usize,
}

/// Why nobody is preempted: nodes by reason, in kube-scheduler's words; or one sentence for all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPreemption {
    Never(&'static str),
    Nodes(BTreeMap<String, usize>),
}

pub const WAITS_FOR_VICTIMS: &str = "not eligible due to a terminating pod on the nominated node.";
const UNHELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

pub fn preempt(
    rules: &Rules<'_>,
    nominations: &Nominations,
    objections: &[Objection<'_>],
) -> Result<Preemption, NoPreemption> {
    let pod = rules.pod;
    if pod.spec.never_preempts {
        return Err(NoPreemption::Never("not eligible due to preemptionPolicy=Never."));
    }
    if waits_for_victims(rules, nominations, objections) {
        return Err(NoPreemption::Never(WAITS_FOR_VICTIMS));
    }
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    let helpful = |r: &[Reason]| r.iter().all(|r| r.preemptible);
    let hopeless = objections.iter().filter(|o| !helpful(&o.1)).count();
    if hopeless > 0 {
        words.insert(UNHELPFUL.into(), hopeless);
    }
    let possible: Vec<&Objection<'_>> = objections.iter().filter(|o| helpful(&o.1)).collect();
    let most = CANDIDATES_MIN.max(objections.len() * CANDIDATES_PERCENT / 100);
    let budgets: Vec<&Arc<PodDisruptionBudget>> = rules.view.all::<PodDisruptionBudget>().collect();
    let mut found: Vec<Preemption> = Vec::new();
    for (node, _) in possible {
        if found.len() >= most {
            break;
        }
        let Some((_, pods)) = rules.view.node_and_pods(&node.meta.name) else { continue };
        match on_node(rules, nominations, node, pods, &budgets) {
            Ok(preemption) => found.push(preemption),
            Err(text) => *words.entry(text).or_insert(0) += 1,
        }
    }
    found.into_iter().min_by_key(cost).ok_or(NoPreemption::Nodes(words))
}

/// Smaller is better: budgets, then the highest priority, then their sum, then how many, then how old.
fn cost(p: &Preemption) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let highest = p.victims.iter().map(|v| v.spec.priority).max().unwrap_or(i32::MIN);
    let sum = p.victims.iter().map(|v| i64::from(v.spec.priority) + i64::from(i32::MAX) + 1).sum();
    let oldest = p.victims.iter().filter(|v| v.spec.priority == highest).map(|v| started(v)).min();
    (p.violations, highest, sum, p.victims.len(), Reverse(oldest.unwrap_or(Timestamp::MAX)))
}

fn started(pod: &Pod) -> Timestamp {
    pod.status.started.unwrap_or_else(|| pod.meta.created_at())
}

/// Whether room is being made for this pod already.
fn waits_for_victims(rules: &Rules<'_>, nominations: &Nominations, objections: &[Objection<'_>]) -> bool {
    let Some(node) = nominations.of(&super::place::key_of(rules.pod)) else { return false };
    let hopeless = |o: &Objection<'_>| *o.0.meta.name == *node && o.1.iter().any(|r| !r.preemptible);
    !objections.iter().any(hopeless)
        && rules.view.pods_on(node).any(|p| {
            !p.is_finished() && p.meta.deleting.is_some() && p.spec.priority < rules.pod.spec.priority
        })
}

/// The victims on one node, or why it would not help to take any.
fn on_node(
    rules: &Rules<'_>,
    nominations: &Nominations,
    node: &Arc<Node>,
    pods: &NodePods,
    budgets: &[&Arc<PodDisruptionBudget>],
) -> Result<Preemption, String> {
    let mut trial = Trial::new(rules, spot(rules, nominations, node, pods));
    let lower = |p: &&Arc<Pod>| p.spec.priority < rules.pod.spec.priority && p.node.is_some();
    let mut lower: Vec<Arc<Pod>> = trial.spot.running().filter(lower).cloned().collect();
    if lower.is_empty() {
        return Err(NO_VICTIMS.into());
    }
    lower.iter().for_each(|p| trial.shift(p, -1));
    if let Some(reason) = trial.against().first() {
        return Err(reason.text.to_string());
    }
    // The most important ones are given their place back first.
    lower.sort_by_key(|p| (Reverse(p.spec.priority), started(p)));
    let (violating, others) = split_by_budget(lower, budgets);
    let mut preemption = Preemption { node: Arc::clone(node), victims: Vec::new(), violations: 0 };
    for (pods, violates) in [(violating, true), (others, false)] {
        for pod in pods {
            trial.shift(&pod, 1);
            if !trial.against().is_empty() {
                trial.shift(&pod, -1);
                preemption.violations += usize::from(violates);
                preemption.victims.push(pod);
            }
        }
    }
    preemption.victims.sort_by_key(|p| (Reverse(p.spec.priority), started(p)));
    Ok(preemption)
}

/// A node on which pods are thought away and brought back.
struct Trial<'r, 'a> {
    rules: &'r Rules<'a>,
    spot: Spot<'r>,
    /// Own copies, where other pods matter.
    pods: super::pods::PodRules,
    spread: super::spread::SpreadRules,
    depends: bool,
}

impl<'r, 'a> Trial<'r, 'a> {
    fn new(rules: &'r Rules<'a>, spot: Spot<'r>) -> Trial<'r, 'a> {
        let depends = rules.pods.depends_on_pods() || rules.spread.depends_on_pods();
        Trial { rules, spot, pods: rules.pods.clone(), spread: rules.spread.clone(), depends }
    }

    fn shift(&mut self, pod: &Arc<Pod>, n: i64) {
        if n < 0 { self.spot.think_away(Arc::clone(pod)) } else { self.spot.bring_back(pod) }
        if self.depends {
            self.pods.shift(self.rules.view, self.rules.pod, pod, self.spot.node, n);
            self.spread.shift(self.rules.view, pod, self.spot.node, n);
        }
    }

    fn against(&self) -> Vec<Reason> {
        self.rules.against_with(&self.spot, &self.pods, &self.spread)
    }
}

/// Pods whose eviction some budget does not allow, and the rest; each eviction uses a budget up.
fn split_by_budget(
    pods: Vec<Arc<Pod>>,
    budgets: &[&Arc<PodDisruptionBudget>],
) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut left: Vec<i64> = budgets.iter().map(|b| b.status.disruptions_allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            let meant = budget.meta.namespace == pod.meta.namespace
                && budget.spec.selector.as_ref().is_some_and(|s| s.matches(&pod.meta.labels))
                && !pod.meta.labels.is_empty()
                && !budget.status.disrupted_pods.contains_key(&pod.meta.name);
            if meant {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}
