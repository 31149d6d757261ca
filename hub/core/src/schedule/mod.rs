//! Which node a pod goes to, or why none will do.
//!
//! In: the view and one pod. Out: a `Placement` or a `WhyNot` in kube-scheduler's words, and the plan for either.
//! Never: remembers anything; after a `Bind` the shell calls `ObjectStore::assume_bound`.

use crate::{Changed, Key, ObjectStore, Plan, Timestamp, view::Pod};

pub const SCHEDULER_NAME: &str = "default-scheduler";

/// The node that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub node: String,
    pub feasible: usize,
}

/// Why no node will do, as kube-scheduler says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyNot {
    pub message: String,
}

/// What an event means for pods that wait for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    Nothing,
    /// This pod became pending.
    Pod(Key),
    /// There may be room now: try all pending pods.
    All,
}

#[derive(Clone, Debug, Default)]
pub struct Scheduler {}

impl Scheduler {
    /// Pods that wait for a node, in the order in which to try them.
    pub fn pending(&self, view: &ObjectStore) -> Vec<Key> {
        let _ = view;
        vec![]
    }

    /// Whom an event wakes. The view already holds the new state.
    pub fn wakes(&self, view: &ObjectStore, changed: &Changed) -> Wake {
        let _ = (view, changed);
        Wake::Nothing
    }

    /// The best node for a pod. Equal scores are broken by `seed`.
    pub fn decide(
        &self,
        view: &ObjectStore,
        pod: &Pod,
        now: Timestamp,
        seed: u64,
    ) -> Result<Placement, WhyNot> {
        let _ = (view, pod, now, seed);
        Err(WhyNot { message: String::new() })
    }

    /// `Bind` and its Event, or the condition and Event that say why not. Empty when the pod needs no scheduling or
    /// when nothing new is to be said.
    pub fn plan(&self, view: &ObjectStore, key: &Key, now: Timestamp, seed: u64) -> Plan {
        let _ = (view, key, now, seed);
        Plan::default()
    }
}
