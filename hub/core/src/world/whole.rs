//! All of it together: objects, controllers, scheduler, kubelet.
//!
//! In: steps, time. Out: rest. Never: time that passes by itself.

use super::{Api, Managers};
use crate::{
    Change, Changed,
    clocks::{Even, WallClock},
    control::{self, Controller, Settings},
    schedule::{Config, Scheduler},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// Steps after which a world that still moves counts as never settling.
const STEPS_MAX: usize = 1_000;

pub struct World {
    api: Api,
    /// Whether the pretend kubelet runs pods.
    pub kubelet: bool,
    /// Names of pods that never become ready contain one of these.
    pub sick: Vec<String>,
    /// Exit code of pods that end, by a part of their name.
    pub exit_codes: Vec<(String, i32)>,
    /// How often a controller was asked about a key.
    pub looks: usize,
    /// Name of a pod whose board reports a condition between the next decision on the pod and what it decided.
    pub reports_meanwhile: Option<&'static str>,
    seed: u64,
    managers: Managers,
    clock: Arc<SetNowAndThen>,
}

/// The wall clock of a hub that always was.
struct SetNowAndThen(Mutex<Even>);

impl WallClock for SetNowAndThen {
    fn even(&self, _now: crate::Timestamp) -> Even {
        *self.0.lock().unwrap()
    }
}

impl std::ops::Deref for World {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl std::ops::DerefMut for World {
    fn deref_mut(&mut self) -> &mut Api {
        &mut self.api
    }
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
        World::with_metrics(Arc::new(control::NoMetrics))
    }

    pub fn with_metrics(metrics: Arc<dyn control::Metrics>) -> World {
        let tokens = Arc::new(Scribe);
        let (ca_pem, cluster_info) = ("CA".into(), "KUBECONFIG".into());
        let clock = Arc::new(SetNowAndThen(Mutex::new(Even::ALWAYS)));
        let settings = Settings { ca_pem, cluster_info, tokens, metrics, clock: clock.clone() };
        // Nobody rests: time stands still while the world settles.
        let scheduler = Scheduler::new(Config { backoff_first_s: 0, backoff_max_s: 0, ..Config::default() });
        World {
            api: Api::new("2026-11-23T10:00:00Z".parse().unwrap(), scheduler),
            kubelet: true,
            sick: vec![],
            exit_codes: vec![],
            looks: 0,
            reports_meanwhile: None,
            seed: 1,
            managers: Managers::new(control::all(&settings)),
            clock,
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
        while let Some(t) = self.managers.wake_at().filter(|t| *t <= end) {
            self.now = self.now.max(t);
            self.settle();
            budget = budget
                .checked_sub(1)
                .unwrap_or_else(|| panic!("timers never rest: {:?}", self.managers.timers().take(3).collect::<Vec<_>>()));
        }
        self.now = end;
        self.settle();
    }

    /// The wall clock is set by so much; waits that have begun stay as long as they were.
    pub fn turn(&mut self, seconds: i64) {
        let by = |at: crate::Timestamp| at.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        self.now = by(self.now);
        self.managers.shift(by);
        *self.clock.0.lock().unwrap() = Even { since: self.now, was_set: true };
    }

    fn controllers_step(&mut self) -> bool {
        let World { api, managers, .. } = self;
        for changed in std::mem::take(&mut api.changed) {
            managers.observe(&api.view, &changed);
        }
        managers.tick(api.now);
        let mut moved = false;
        for work in managers.take() {
            self.seed += 1;
            self.looks += 1;
            let plan = self.managers.plan(&self.api.view, &work, self.api.now, self.seed);
            moved |= !plan.changes.is_empty();
            self.report_meanwhile(&plan.changes);
            if self.managers.carry_out(&mut self.api, &work, plan.changes).is_err() {
                self.managers.set_timer(&work, Some(self.api.now));
            }
        }
        moved || !self.changed.is_empty()
    }

    fn schedule_step(&mut self) -> bool {
        let mut moved = false;
        while let Some(key) = self.api.scheduler.next(self.api.now) {
            self.seed += 1;
            let plan = self.api.scheduler.plan(&self.api.view, &key, self.api.now, self.seed);
            moved |= !plan.changes.is_empty();
            let disturbed = self.report_meanwhile(&plan.changes);
            let api = &mut self.api;
            for change in plan.changes {
                api.assume(&change);
                if let Err(why) = api.apply(&change) {
                    assert!(disturbed, "{why}");
                    api.scheduler.failed(&key, api.now);
                    break;
                }
            }
        }
        moved
    }

    fn report_meanwhile(&mut self, decided: &[Change]) -> bool {
        let of_status = |c: &Change, pod: &str| {
            matches!(c, Change::Patch { resource, name, subresource: Some("status"), .. } if resource == "/pods" && name == pod)
        };
        let Some(name) = self.reports_meanwhile.take_if(|name| decided.iter().any(|c| of_status(c, name))) else {
            return false;
        };
        let key = self.objects.keys().find(|key| &*key.resource == "/pods" && &*key.name == name).cloned();
        let key = key.unwrap_or_else(|| panic!("no pod {name}"));
        let mut conditions = self.objects[&key]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.push(json!({"type": "Reported", "status": "True"}));
        self.edit(&key, &json!({"status": {"conditions": conditions}}));
        true
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
        for (i, c) in self.managers.list().iter().enumerate().filter(|(_, c)| woken(&***c)) {
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
                let armed = self.managers.timer(&(i, key.clone()));
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
