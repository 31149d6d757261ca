//! Why a namespace does not go.
//!
//! In: a Namespace and what is in it. Out: what keeps it. Never: deletes anything.

use super::Answer;
use crate::{
    ObjectStore,
    view::{Namespace, Object},
};
use std::collections::BTreeMap;

pub fn why(view: &ObjectStore, namespace: &Namespace) -> Answer {
    let mut answer = Answer::about("namespace", &namespace.meta);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
    for (resource, object) in view.in_namespace(&namespace.meta.name) {
        *counts.entry(resource.trim_start_matches('/')).or_default() += 1;
        for finalizer in Object::meta(object).finalizers.iter() {
            *finalizers.entry(finalizer.to_string()).or_default() += 1;
        }
    }
    let all: usize = counts.values().sum();
    if namespace.meta.deleting.is_none() {
        return answer.verdict(format!("nothing is wrong: it is in use, with {all} objects"));
    }
    for (resource, n) in counts {
        answer.because(format!("{n} of {resource} are left"));
    }
    for (finalizer, n) in finalizers {
        answer.because(format!("{n} of them wait for finalizer {finalizer}, which whoever set it has to remove"));
    }
    if all == 0 {
        let left: Vec<&str> = namespace.spec.finalizers.iter().map(|f| &**f).collect();
        return answer.verdict(format!("it is being deleted; finalizers: {}", left.join(", ")));
    }
    answer.advise("pods on boards that are away are gone when these return; kubectl delete node NAME when they never will");
    answer.verdict(format!("it is being deleted, and goes with the last of {all} objects"))
}
