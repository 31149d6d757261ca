//! Runs the core's scheduler.
//!
//! In: changes of the view. Out: bindings and reasons. Pods are decided one after the other, each decision counted
//! in the view at once, while the bindings become durable side by side.
//! Never: waits for one pod's binding before it decides on the next, or wakes without a reason.
//!
//! Whoever needs both takes the view's lock before the scheduler's.

use super::{Applier, Listener, clock};
use limpet_hub_core::{
    Change, Changed, Key, ObjectStore,
    schedule::{Figures, Scheduler, Waiting},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// Bindings that become durable at the same time.
const BINDINGS_MAX: usize = 256;

pub struct Scheduling {
    scheduler: Mutex<Scheduler>,
    news: Notify,
    applier: Arc<Applier>,
}

impl Scheduling {
    pub fn new(scheduler: Scheduler, applier: Arc<Applier>) -> Arc<Scheduling> {
        Arc::new(Scheduling { scheduler: Mutex::new(scheduler), news: Notify::new(), applier })
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
                let changes = this.decide(&key);
                if changes.is_empty() {
                    continue;
                }
                let this = Arc::clone(&this);
                tokio::spawn(async move {
                    this.carry_out(key, changes).await;
                    drop(room);
                });
            }
        });
    }

    /// Pods that wait, by queue, for metrics.
    pub fn waiting(&self) -> Waiting {
        self.scheduler().waiting()
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
                (scheduler.next(clock::now()), scheduler.wake_at())
            };
            match (key, wake) {
                (Some(key), _) => return key,
                (None, None) => self.news.notified().await,
                (None, Some(at)) => {
                    let _ = tokio::time::timeout_at(super::control::instant(at), self.news.notified()).await;
                }
            }
        }
    }

    fn decide(&self, key: &Key) -> Vec<Change> {
        let world = self.applier.world();
        let plan = {
            let view = world.read();
            self.scheduler().plan(&view, key, clock::now(), clock::seed())
        };
        for why in &plan.why {
            tracing::debug!(%key, "{}: {}", why.reason, why.message);
        }
        for change in &plan.changes {
            if let Change::Bind { namespace, name, uid, node } = change {
                self.assume(namespace, name, uid, node);
            }
        }
        plan.changes
    }

    /// Counts a binding in the view, and lets the scheduler know.
    fn assume(&self, namespace: &str, name: &str, uid: &str, node: &str) {
        let mut view = self.applier.world().write();
        if let Some(changed) = view.assume_bound(namespace, name, uid, node) {
            self.scheduler().observe(&view, &changed, clock::now());
        }
    }

    async fn carry_out(&self, key: Key, changes: Vec<Change>) {
        let bound = changes.iter().find_map(|c| match c {
            Change::Bind { uid, .. } => Some(uid.clone()),
            _ => None,
        });
        if let Err(status) = self.applier.apply("default-scheduler", changes).await {
            if let Some(uid) = bound {
                self.assume(&key.namespace, &key.name, &uid, "");
            }
            tracing::debug!(%key, "not bound: {}", status.message);
            self.scheduler().failed(&key, clock::now());
            self.news.notify_one();
        }
    }
}

impl Listener for Scheduling {
    fn is_of_leader(&self) -> bool {
        true
    }

    fn changed(&self, view: &ObjectStore, changed: &Changed) {
        self.scheduler().observe(view, changed, clock::now());
        self.news.notify_one();
    }

    fn reloaded(&self, _view: &ObjectStore) {
        self.scheduler().reset();
    }
}
