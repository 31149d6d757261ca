//! Says of each node whether it is there.
//!
//! In: when nodes were heard of, changes of Node objects, time. Out: the core's plans, applied.
//! Never: decides; `hub-core::nodes::offline` does.

use crate::run::{Applier, Listener, Peers, clock, control::instant, peers::LinkEnds, queue::Queue};
use limpet_hub_core::{
    Changed, ObjectStore,
    clocks::WallClock,
    nodes::offline::{Liveness, OFFLINE_SINCE, reconcile},
    view::Node,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const WORKERS: usize = 4;
const COMPONENT: &str = "node-lifecycle";

pub struct Offline {
    liveness: Mutex<Liveness>,
    queue: Queue<String>,
    applier: Arc<Applier>,
    /// For what is said about nodes that are connected nowhere: that is the leader's to say.
    of_leader: Arc<Applier>,
    peers: Arc<Peers>,
}

impl Offline {
    pub fn new(applier: Arc<Applier>, of_leader: Arc<Applier>, peers: Arc<Peers>) -> Arc<Offline> {
        let liveness = Mutex::new(Liveness::new(clock::even()));
        Arc::new(Offline { liveness, queue: Queue::new(), applier, of_leader, peers })
    }

    pub fn start(self: &Arc<Self>) {
        for _ in 0..WORKERS {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                loop {
                    let node = this.queue.next().await;
                    this.work(node).await;
                }
            });
        }
        let (this, mut times_set) = (Arc::clone(self), clock::times_set());
        tokio::spawn(async move {
            while times_set.changed().await.is_ok() {
                this.clock_was_set();
            }
        });
    }

    /// Since when boards are away is written by the clock as it is now.
    fn clock_was_set(&self) {
        self.liveness().clock_was_set();
        let view = self.applier.world().read();
        let away = view.all::<Node>().filter(|n| n.meta.annotations.contains_key(OFFLINE_SINCE));
        away.for_each(|n| self.queue.add(n.meta.name.to_string()));
    }

    fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&self, node: String) {
        let is_here = self.is_connected(&node);
        if !is_here && (!self.of_leader.lead().leads() || self.peers.holder(&node).is_some()) {
            return self.queue.done(node);
        }
        let applier = if is_here { &self.applier } else { &self.of_leader };
        let plan = {
            let liveness = self.liveness();
            let view = self.applier.world().read();
            let now = clock::now();
            // A clock that was set is noticed here at the latest.
            clock::Clock.even(now);
            reconcile(&view, &liveness, &node, now, clock::even())
        };
        match applier.apply(COMPONENT, plan.changes).await {
            Ok(_) => {
                if let Some(at) = plan.again_at {
                    self.queue.add_at(node.clone(), instant(at));
                }
                self.queue.done(node);
            }
            Err(status) => {
                tracing::debug!(node, "node lifecycle, again: {}", status.message);
                self.queue.failed(node);
            }
        }
    }

    /// A connection to this hub was made.
    pub(super) fn connected(&self, node: &str) {
        self.peers.connected(node);
        self.heard(node);
    }

    /// Every message counts; only the first one after silence is looked at.
    pub(super) fn heard(&self, node: &str) {
        let mut liveness = self.liveness();
        let news = !liveness.is_connected(node);
        liveness.heard(node, clock::even());
        drop(liveness);
        if news {
            self.queue.add(node.into());
        }
    }

    /// `silent`: for how long nothing was heard before the connection ended.
    pub(super) fn disconnected(&self, node: &str, silent: Duration) {
        let now = clock::even();
        self.peers.disconnected(node);
        self.liveness().disconnected(node, now.checked_sub(silent).unwrap_or(now));
        self.queue.add(node.into());
    }

    /// What a board that is away must know has changed: its Node says what waits.
    pub(super) fn look_at_away(&self, node: &str) {
        if !self.is_connected(node) {
            self.queue.add(node.into());
        }
    }

    pub fn is_connected(&self, node: &str) -> bool {
        self.liveness().is_connected(node)
    }
}

impl LinkEnds for Offline {
    fn link_ended(&self, node: &str) {
        if !self.is_connected(node) {
            self.liveness().disconnected(node, clock::even());
            self.queue.add(node.into());
        }
    }
}

impl Listener for Offline {
    fn changed(&self, _view: &ObjectStore, changed: &Changed) {
        if !changed.is::<Node>() {
            return;
        }
        match changed.new_as::<Node>() {
            Some(node) => self.liveness().observe(node, (clock::now(), clock::even())),
            None => self.liveness().forget(&changed.key.name),
        }
        self.queue.add(changed.key.name.to_string());
    }
}
