//! The core's view of the cluster, kept in step with the store.
//!
//! In: the store's snapshot and every event after it. Out: `read` for decisions, calls to listeners in the order of
//! revisions, and `reached` for those who must see their own writes. When the feed falls out of the store's window the
//! view is loaded anew and every object is announced again.
//! Never: holds the lock while something waits.

use super::Lead;
use limpet_hub_core::{Changed, ObjectStore};
use limpet_store::{Event, Record, Revision, Store, Watch};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// Told of every change, in order, after the view holds it. Must not block.
pub trait Listener: Send + Sync {
    fn changed(&self, view: &ObjectStore, changed: &Changed);
    /// The view was loaded anew: objects may have vanished without a `changed`. `changed` follows for all that exist.
    fn reloaded(&self, _view: &ObjectStore) {}
    /// Whether it acts for the leader only. Then it is told of nothing while another hub leads, and of everything when this one
    /// begins to.
    fn is_of_leader(&self) -> bool {
        false
    }
}

pub struct World {
    view: Arc<RwLock<ObjectStore>>,
    reached: watch::Sender<Revision>,
}

/// A loaded world that nobody feeds yet.
pub struct Feed {
    world: Arc<World>,
    store: Store,
    watch: Watch,
    /// What listeners have not been told yet.
    news: Vec<Changed>,
}

/// Events taken in between two looks at `reached`.
const BATCH: usize = 64;

impl World {
    /// Loads everything; decisions can be made at once. `Feed::run` keeps it in step.
    pub fn load(store: &Store) -> (Arc<World>, Feed) {
        let world = Arc::new(World {
            view: Arc::new(RwLock::new(ObjectStore::new())),
            reached: watch::Sender::new(0),
        });
        let (news, watch) = world.reload(store);
        let feed = Feed { world: Arc::clone(&world), store: store.clone(), watch, news };
        (world, feed)
    }

    /// The view as of now. Do not keep it across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, ObjectStore> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same view, for those who only read it (authorization).
    pub fn view(&self) -> Arc<RwLock<ObjectStore>> {
        Arc::clone(&self.view)
    }

    /// For assumptions of the scheduler only.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, ObjectStore> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the view holds `revision` and the listeners know of it.
    pub async fn reached(&self, revision: Revision) {
        let mut receiver = self.reached.subscribe();
        // The sender lives as long as `self`.
        let _ = receiver.wait_for(|r| *r >= revision).await;
    }

    fn reload(&self, store: &Store) -> (Vec<Changed>, Watch) {
        let (listing, watch) = store.snapshot();
        let mut fresh = ObjectStore::new();
        let news = listing.records.iter().map(|r| take(&mut fresh, r, true)).collect();
        *self.write() = fresh;
        self.reached.send_replace(listing.revision);
        (news, watch)
    }
}

fn of_term(all: &[Arc<dyn Listener>], leads: bool) -> Vec<Arc<dyn Listener>> {
    all.iter().filter(|listener| leads || !listener.is_of_leader()).cloned().collect()
}

fn take(view: &mut ObjectStore, record: &Record, exists: bool) -> Changed {
    let key = &record.key;
    let raw = exists.then(|| record.bytes.clone());
    view.apply(record.revision, &key.resource, &key.namespace, &key.name, raw)
}

impl Feed {
    /// Runs until the store is closed.
    pub async fn run(self, listeners: Vec<Arc<dyn Listener>>) {
        self.run_led(listeners, Lead::alone()).await;
    }

    /// As `run`, where other hubs may lead.
    pub async fn run_led(mut self, all: Vec<Arc<dyn Listener>>, lead: Lead) {
        let mut terms = lead.terms();
        let mut listeners = of_term(&all, terms.borrow_and_update().is_some());
        self.tell(&listeners);
        loop {
            let first = tokio::select! {
                biased;
                Ok(()) = terms.changed() => {
                    let leads = terms.borrow_and_update().is_some();
                    listeners = of_term(&all, leads);
                    if leads {
                        self.begin(&listeners);
                    }
                    continue;
                }
                first = self.watch.next() => first,
            };
            let Some(first) = first else { return };
            let mut next = Some(first);
            let mut taken = 0;
            while let Some(event) = next.take() {
                match event {
                    Ok(event) => self.take(&event, &listeners),
                    Err(lagged) => {
                        tracing::warn!(%lagged, "the view fell behind the store and is loaded anew");
                        self.begin(&listeners);
                    }
                }
                taken += 1;
                if taken < BATCH {
                    next = self.watch.try_next();
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Loads everything and announces it.
    fn begin(&mut self, listeners: &[Arc<dyn Listener>]) {
        (self.news, self.watch) = self.world.reload(&self.store);
        let view = self.world.read();
        listeners.iter().for_each(|l| l.reloaded(&view));
        drop(view);
        self.tell(listeners);
    }

    fn tell(&mut self, listeners: &[Arc<dyn Listener>]) {
        let view = self.world.read();
        for changed in self.news.drain(..) {
            listeners.iter().for_each(|l| l.changed(&view, &changed));
        }
        self.news = Vec::new();
    }

    fn take(&mut self, event: &Event, listeners: &[Arc<dyn Listener>]) {
        let changed = take(&mut self.world.write(), &event.record, !event.is_delete());
        let view = self.world.read();
        listeners.iter().for_each(|l| l.changed(&view, &changed));
        drop(view);
        self.world.reached.send_replace(event.revision());
    }
}
