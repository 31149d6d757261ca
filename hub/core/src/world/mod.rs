//! A world for tests: objects, all controllers, the scheduler and a pretend kubelet, without any clock or network.
//!
//! In: objects and changes. Out: the state in which nothing changes any more, or a panic when there is none.
//! Never: forgives a controller that was not woken for something that it would have changed.

mod api;
mod budgets;
pub mod dice;
mod hostile;
mod identity;
mod idle;
mod invariants;
mod jobs;
mod kubelet;
mod random;
mod rollouts;

use crate::{
    Change, Changed, Key, ObjectStore, Plan, Timestamp,
    control::{self, Controller, Settings},
    schedule::{Config, Scheduler},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Steps after which a world that still moves counts as never settling.
const STEPS_MAX: usize = 1_000;

pub struct World {
    pub view: ObjectStore,
    pub now: Timestamp,
    pub objects: BTreeMap<Key, Value>,
    /// (kind, name, reason, message) of all Events.
    pub events: Vec<(String, String, String, String)>,
    /// Whether the pretend kubelet runs pods.
    pub kubelet: bool,
    /// Boards whose kubelets neither hear nor say anything; what they run goes on.
    pub away: BTreeSet<String>,
    /// What runs, by (node, uid of its pod): namespace and name of the pod, also of one that the API no longer knows.
    pub at_work: BTreeMap<(String, String), String>,
    /// Names of pods that never become ready contain one of these.
    pub sick: Vec<String>,
    /// A resource that the API lets nobody create, and why.
    pub refuse: Option<(&'static str, &'static str)>,
    /// So many of the refused resource are let in before the refusals begin.
    pub room: usize,
    /// Why the API lets nobody delete pods.
    pub keep_pods: Option<&'static str>,
    /// Resource and name of an object that the API lets nobody patch, and why.
    pub refuse_patches_of: Option<(&'static str, &'static str, &'static str)>,
    /// Exit code of pods that end, by a part of their name.
    pub exit_codes: Vec<(String, i32)>,
    /// How often a controller was asked about a key.
    pub looks: usize,
    revision: u64,
    seed: u64,
    changed: Vec<Changed>,
    controllers: Vec<Box<dyn Controller>>,
    timers: BTreeMap<(usize, Key), Timestamp>,
    /// Asked after every single change.
    pub always: Option<fn(&World)>,
    pub scheduler: Scheduler,
}

/// Signs by writing the claims down.
struct Scribe;

impl control::accounttoken::TokenSigner for Scribe {
    fn sign(&self, claims: &Value) -> Option<String> {
        Some(claims.to_string())
    }
}

impl World {
    pub fn new() -> World {
        World::with_metrics(std::sync::Arc::new(control::NoMetrics))
    }

    pub fn with_metrics(metrics: std::sync::Arc<dyn control::Metrics>) -> World {
        let tokens = std::sync::Arc::new(Scribe);
        let settings = Settings { ca_pem: "CA".into(), cluster_info: "KUBECONFIG".into(), tokens, metrics };
        World {
            view: ObjectStore::new(),
            now: "2026-11-23T10:00:00Z".parse().unwrap(),
            objects: BTreeMap::new(),
            events: vec![],
            kubelet: true,
            away: BTreeSet::new(),
            at_work: BTreeMap::new(),
            sick: vec![],
            refuse: None,
            room: 0,
            keep_pods: None,
            refuse_patches_of: None,
            exit_codes: vec![],
            looks: 0,
            revision: 0,
            seed: 1,
            changed: vec![],
            controllers: control::all(&settings),
            timers: BTreeMap::new(),
            always: None,
            // Nobody rests: time stands still while the world settles.
            scheduler: Scheduler::new(Config { backoff_first_s: 0, backoff_max_s: 0, ..Config::default() }),
        }
    }

    pub fn with_nodes(n: usize) -> World {
        let mut w = World::new();
        for i in 0..n {
            w.node(&format!("n{i}"), json!({}), json!([]));
        }
        w
    }

    pub fn node(&mut self, name: &str, labels: Value, taints: Value) {
        let mut labels = labels;
        labels["kubernetes.io/hostname"] = json!(name);
        self.create("/nodes", json!({
            "metadata": {"name": name, "labels": labels}, "spec": {"taints": taints},
            "status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "110", "ephemeral-storage": "10Gi"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}}));
    }

    /// Runs controllers until nothing changes, and asserts that it is a fixed point for all of them.
    pub fn settle(&mut self) {
        let mut budget = STEPS_MAX;
        loop {
            let moved = self.controllers_step() || self.schedule_step() || self.kubelet_step();
            if !moved {
                break;
            }
            budget = budget.checked_sub(1).unwrap_or_else(|| panic!("never settles: {}", self.last_events()));
        }
        self.assert_fixed_point();
    }

    /// At most so many steps: the world may still be moving afterwards.
    pub fn steps(&mut self, n: usize) {
        for _ in 0..n {
            let _ = self.controllers_step() || self.schedule_step() || self.kubelet_step();
        }
    }

    /// One step of everybody, for tests that look in between.
    pub fn step(&mut self) -> bool {
        self.controllers_step() || self.schedule_step() || self.kubelet_step()
    }

    /// Lets time pass to each timer in turn, for `seconds` in all.
    pub fn pass(&mut self, seconds: i64) {
        let end = self.now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        self.settle();
        let mut budget = STEPS_MAX;
        while let Some(t) = self.timers.values().min().copied().filter(|t| *t <= end) {
            self.now = self.now.max(t);
            self.settle();
            let timers = || self.timers.iter().filter(|(_, t)| **t <= self.now).take(3);
            budget = budget
                .checked_sub(1)
                .unwrap_or_else(|| panic!("timers never rest: {:?}", timers().collect::<Vec<_>>()));
        }
        self.now = end;
        self.settle();
    }

    fn controllers_step(&mut self) -> bool {
        let mut todo: BTreeSet<(usize, Key)> = BTreeSet::new();
        let changed = std::mem::take(&mut self.changed);
        for (i, c) in self.controllers.iter().enumerate() {
            for change in &changed {
                let resource = &*change.key.resource;
                if c.resources().contains(&resource) || c.resources() == ["*"] {
                    todo.extend(c.keys_for(&self.view, change).into_iter().map(|k| (i, k)));
                }
            }
        }
        let due: Vec<_> =
            self.timers.iter().filter(|(_, t)| **t <= self.now).map(|(k, _)| k.clone()).collect();
        todo.extend(due);
        let mut moved = false;
        for (i, key) in todo {
            self.seed += 1;
            self.looks += 1;
            let plan = self.controllers[i].reconcile(&self.view, &key, self.now, self.seed);
            self.timers.remove(&(i, key.clone()));
            if let Some(t) = plan.again_at {
                self.timers.insert((i, key.clone()), t);
            }
            moved |= self.carry_out(i, &key, plan);
        }
        moved || !self.changed.is_empty()
    }

    fn carry_out(&mut self, controller: usize, key: &Key, plan: Plan) -> bool {
        let moved = !plan.changes.is_empty();
        for change in plan.changes {
            if let Err(error) = self.apply(&change) {
                // As in the shell: what only came too late is tried again, and nobody is told.
                let passing = error.starts_with("conflict on") || error.starts_with("uid of") || error.ends_with("not found");
                if !passing {
                    let plan = self.controllers[controller].refused(&self.view, key, &change, &error, self.now);
                    plan.changes.iter().for_each(|c| self.apply(c).unwrap());
                }
                self.timers.insert((controller, key.clone()), self.now);
                break;
            }
        }
        moved
    }

    fn schedule_step(&mut self) -> bool {
        let mut moved = false;
        while let Some(key) = self.scheduler.next(self.now) {
            self.seed += 1;
            let plan = self.scheduler.plan(&self.view, &key, self.now, self.seed);
            for change in plan.changes {
                moved = true;
                if let Change::Bind { namespace, name, uid, node } = &change {
                    let assumed = self.view.assume_bound(namespace, name, uid, node);
                    assumed.iter().for_each(|c| self.scheduler.observe(&self.view, c, self.now));
                }
                self.apply(&change).unwrap();
            }
        }
        moved
    }

    /// Lets only the scheduler work: no controller touches what the test set up.
    pub fn scheduler_only(&mut self) {
        while self.schedule_step() {}
    }

    /// Every controller, asked about every object, has nothing to do.
    fn assert_fixed_point(&mut self) {
        self.assert_sums();
        // An autoscaler looks at its period, not when something changes.
        let woken = |c: &dyn Controller| c.name() != "horizontalpodautoscaler-controller";
        for (i, c) in self.controllers.iter().enumerate().filter(|(_, c)| woken(&***c)) {
            let mut keys = BTreeSet::new();
            for key in self.objects.keys() {
                let new = self.view.object(key).cloned();
                let changed = Changed { key: key.clone(), old: None, new };
                if c.resources().contains(&&*key.resource) || c.resources() == ["*"] {
                    keys.extend(c.keys_for(&self.view, &changed));
                }
            }
            for key in keys {
                let mut plan = c.reconcile(&self.view, &key, self.now, 7);
                // The same said again is counted, not written anew.
                plan.changes.retain(|c| !self.was_said(c));
                assert!(plan.changes.is_empty(), "{} was not woken for {key}: {:#?}", c.name(), plan.changes);
                let armed = self.timers.get(&(i, key.clone())).copied();
                if let Some(t) = plan.again_at {
                    assert!(t > self.now, "{} wants {key} again at once", c.name());
                    assert!(
                        armed.is_some_and(|a| a <= t),
                        "{} has no timer for {key} at {t}: {armed:?}",
                        c.name()
                    );
                }
            }
        }
    }

    fn was_said(&self, change: &Change) -> bool {
        let Change::Event { regarding: r, reason, message, .. } = change else { return false };
        self.events.iter().any(|e| (&e.0, &e.1, &e.2, &e.3) == (&r.kind, &r.name, reason, message))
    }

    fn assert_sums(&self) {
        for node in self.view.nodes_with_pods() {
            let mut fresh = crate::view::Used::default();
            self.view.pods_on(node).filter(|p| !p.is_finished()).for_each(|p| fresh.add(p));
            let kept = self.view.used_on(node);
            let sums = |u: &crate::view::Used| {
                (u.requests.cpu_milli, u.requests.pods, u.assumed_memory, u.anti_affine)
            };
            assert_eq!(sums(&fresh), sums(&kept), "{node}");
        }
    }

    fn last_events(&self) -> String {
        self.events.iter().rev().take(12).map(|e| format!("{} {}: {} {}\n", e.0, e.1, e.2, e.3)).collect()
    }
}
