//! Runs the core's scheduler.
//!
//! In: changes of the view. Out: bindings and reasons. Pods are decided one after the other, each decision counted
//! in the view at once, while the bindings become durable side by side.
//! Never: waits for one pod's binding before it decides on the next.

use super::{Applier, Listener, clock, queue::Queue};
use limpet_hub_core::{
    Change, Changed, Key, ObjectStore,
    schedule::{Scheduler, Wake},
};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bindings that become durable at the same time.
const BINDINGS_MAX: usize = 64;

pub struct Scheduling {
    scheduler: Scheduler,
    queue: Queue<Key>,
    applier: Arc<Applier>,
}

impl Scheduling {
    pub fn new(scheduler: Scheduler, applier: Arc<Applier>) -> Arc<Scheduling> {
        Arc::new(Scheduling { scheduler, queue: Queue::new(), applier })
    }

    /// Starts the scheduler; it ends with the runtime.
    pub fn start(self: &Arc<Self>) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(BINDINGS_MAX));
            loop {
                let Ok(room) = Arc::clone(&room).acquire_owned().await else { return };
                let key = this.queue.next().await;
                let (changes, again_at) = this.decide(&key);
                if let Some(at) = again_at {
                    this.queue.add_at(key.clone(), super::control::instant(at));
                }
                if changes.is_empty() {
                    this.queue.done(key);
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

    /// Pods that wait to be looked at, for metrics.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    fn decide(&self, key: &Key) -> (Vec<Change>, Option<limpet_hub_core::Timestamp>) {
        let world = self.applier.world();
        let plan = {
            let view = world.read();
            self.scheduler.plan(&view, key, clock::now(), clock::seed())
        };
        for why in &plan.why {
            tracing::debug!(%key, "{}: {}", why.reason, why.message);
        }
        for change in &plan.changes {
            if let Change::Bind { namespace, name, uid, node } = change {
                world.write().assume_bound(namespace, name, uid, node);
            }
        }
        (plan.changes, plan.again_at)
    }

    async fn carry_out(&self, key: Key, changes: Vec<Change>) {
        let bound = changes.iter().find_map(|c| match c {
            Change::Bind { uid, .. } => Some(uid.clone()),
            _ => None,
        });
        match self.applier.apply("default-scheduler", changes).await {
            Ok(_) => self.queue.done(key),
            Err(status) => {
                if let Some(uid) = bound {
                    self.applier.world().write().assume_bound(&key.namespace, &key.name, &uid, "");
                }
                tracing::debug!(%key, "not bound: {}", status.message);
                self.queue.failed(key);
            }
        }
    }
}

impl Listener for Scheduling {
    fn changed(&self, view: &ObjectStore, changed: &Changed) {
        match self.scheduler.wakes(view, changed) {
            Wake::Nothing => {}
            Wake::Pod(key) => self.queue.add(key),
            Wake::All => self.scheduler.pending(view).into_iter().for_each(|key| self.queue.add(key)),
        }
    }
}
