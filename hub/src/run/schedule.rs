//! Runs the core's scheduler.
//!
//! In: changes of the view. Out: bindings and reasons. Pods are decided one after the other, each decision counted
//! in the view at once, while the bindings become durable side by side. A binding that is refused leaves the view again, and
//! whoever watches the view is told, as of any other change.
//! Never: waits for one pod's binding before it decides on the next, or wakes without a reason.
//!
//! Whoever needs both takes the view's lock before the scheduler's.

use super::{
    Applier, Listener,
    attempts::{Attempts, Ended},
    clock,
};
use limpet_hub_core::{
    Change, Changed, Key, ObjectStore,
    schedule::{Figures, SCHEDULER_NAME, Scheduler, Waiting},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// Bindings that become durable at the same time.
const BINDINGS_MAX: usize = 256;

pub struct Scheduling {
    scheduler: Mutex<Scheduler>,
    news: Notify,
    applier: Arc<Applier>,
    attempts: Attempts,
    /// Who else is told of bindings that are taken back.
    others: Vec<Arc<dyn Listener>>,
}

/// A decision on its way to the store.
struct Decided {
    key: Key,
    profile: String,
    changes: Vec<Change>,
    begin: std::time::Instant,
}

impl Scheduling {
    pub fn new(scheduler: Scheduler, applier: Arc<Applier>, others: Vec<Arc<dyn Listener>>) -> Arc<Scheduling> {
        let (scheduler, news, attempts) = (Mutex::new(scheduler), Notify::new(), Attempts::default());
        Arc::new(Scheduling { scheduler, news, applier, attempts, others })
    }

    /// Starts the scheduler; it ends with the runtime.
    pub fn start(self: &Arc<Self>) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(BINDINGS_MAX));
            loop {
                let Ok(room) = Arc::clone(&room).acquire_owned().await else { return };
                this.applier.lead().wait().await;
                let key = this.next().await;
                let decided = this.decide(key);
                if decided.changes.is_empty() {
                    continue;
                }
                let this = Arc::clone(&this);
                tokio::spawn(async move {
                    this.carry_out(decided).await;
                    drop(room);
                });
            }
        });
    }

    /// Pods that wait, by queue, for metrics.
    pub fn waiting(&self) -> Waiting {
        self.scheduler().waiting()
    }

    /// Attempts and how long they took, for metrics.
    pub fn text(&self) -> String {
        self.attempts.text()
    }

    pub fn figures(&self) -> Figures {
        self.scheduler().figures()
    }

    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> Key {
        loop {
            let (key, wake) = {
                let mut scheduler = self.scheduler();
                (scheduler.next(clock::steady()), scheduler.wake_at())
            };
            match (key, wake) {
                (Some(key), _) => return key,
                (None, None) => self.news.notified().await,
                (None, Some(at)) => {
                    let _ = tokio::time::timeout_at(clock::steady_instant(at), self.news.notified()).await;
                }
            }
        }
    }

    fn decide(&self, key: Key) -> Decided {
        let begin = std::time::Instant::now();
        let world = self.applier.world();
        let (plan, profile) = {
            let view = world.read();
            let name = view.pod(&key.namespace, &key.name).map(|p| p.spec.scheduler_name.to_string());
            let plan = self.scheduler().plan(&view, &key, clock::steady(), clock::seed());
            (plan, name.filter(|n| !n.is_empty()).unwrap_or_else(|| SCHEDULER_NAME.into()))
        };
        self.attempts.decided(begin.elapsed());
        for why in &plan.why {
            tracing::debug!(%key, "{}: {}", why.reason, why.message);
        }
        let mut bound = false;
        for change in &plan.changes {
            if let Change::Bind { namespace, name, uid, node } = change {
                self.count(namespace, name, uid, node, &[]);
                bound = true;
            }
        }
        if !bound && plan.why.iter().any(|w| w.reason == "Unschedulable") {
            self.attempts.ended(&profile, Ended::Unschedulable, begin.elapsed());
        }
        Decided { key, profile, changes: plan.changes, begin }
    }

    /// Counts a binding in the view, or with an empty node no more, and lets the scheduler know, and `others`. What the store
    /// says of the pod comes before all of it or after.
    fn count(&self, namespace: &str, name: &str, uid: &str, node: &str, others: &[Arc<dyn Listener>]) {
        let mut view = self.applier.world().write();
        if let Some(changed) = view.assume_bound(namespace, name, uid, node) {
            self.scheduler().observe(&view, &changed, clock::steady());
            others.iter().for_each(|other| other.changed(&view, &changed));
        }
    }

    async fn carry_out(&self, decided: Decided) {
        let Decided { key, profile, changes, begin } = decided;
        let bound = changes.iter().find_map(|c| match c {
            Change::Bind { uid, .. } => Some(uid.clone()),
            _ => None,
        });
        match self.applier.apply("default-scheduler", changes).await {
            Ok(_) if bound.is_some() => self.attempts.ended(&profile, Ended::Scheduled, begin.elapsed()),
            Ok(_) => {}
            Err(status) => {
                if let Some(uid) = bound {
                    self.count(&key.namespace, &key.name, &uid, "", &self.others);
                }
                tracing::debug!(%key, "not bound: {}", status.message);
                self.attempts.ended(&profile, Ended::Error, begin.elapsed());
                self.scheduler().failed(&key, clock::steady());
                self.news.notify_one();
            }
        }
    }
}

impl Listener for Scheduling {
    fn is_of_leader(&self) -> bool {
        true
    }

    fn changed(&self, view: &ObjectStore, changed: &Changed) {
        self.scheduler().observe(view, changed, clock::steady());
        self.news.notify_one();
    }

    fn reloaded(&self, _view: &ObjectStore) {
        self.scheduler().reset();
    }
}
