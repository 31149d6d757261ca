//! All objects in memory, and the window of recent events.
//!
//! In: whole batches from the writer, in revision order. Out: records, lists at one revision, events for watches.
//! Never: holds the lock while something waits; a batch is published in one piece.

use crate::{Event, EventKind, Key, Options, Record, ResourceId, Revision, limits::WATCH_TAKE_MAX};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tokio::sync::watch;

/// A list at one revision.
#[derive(Clone, Debug)]
pub struct Listing {
    pub revision: Revision,
    pub records: Vec<Record>,
    /// Objects behind the last one of `records` that a limit cut off.
    pub remaining: usize,
}

struct PerResource {
    id: ResourceId,
    objects: BTreeMap<Arc<Key>, Record>,
    /// Newest revision of this resource that has left the window.
    evicted: Revision,
    /// Tells watches of this resource the newest revision of it.
    news: watch::Sender<Revision>,
}

struct State {
    revision: Revision,
    resources: HashMap<ResourceId, PerResource>,
    /// In the order of revisions, which may have gaps; writes of one transaction may share one.
    window: VecDeque<Arc<Event>>,
    window_bytes: usize,
    /// Newest revision that has left the window, of any resource. At the start: the stored revision.
    evicted: Revision,
    /// The revision at which everything was read; nothing older can be watched.
    start: Revision,
}

pub(crate) struct Shared {
    state: RwLock<State>,
    news: watch::Sender<Revision>,
    window_events_max: usize,
    window_bytes_max: usize,
}

/// Memory that an event takes besides its bytes, roughly.
const EVENT_OVERHEAD_BYTES: usize = 256;

fn weight(event: &Event) -> usize {
    event.record.bytes.len() + EVENT_OVERHEAD_BYTES
}

impl PerResource {
    fn new(id: ResourceId, start: Revision) -> PerResource {
        PerResource { id, objects: BTreeMap::new(), evicted: 0, news: watch::Sender::new(start) }
    }
}

impl Shared {
    pub fn new(options: &Options, records: Vec<Record>, revision: Revision) -> Shared {
        let mut resources: HashMap<ResourceId, PerResource> = HashMap::new();
        for record in records {
            let id = Arc::clone(&record.key.resource);
            let entry = resources.entry(Arc::clone(&id)).or_insert_with(|| PerResource::new(id, revision));
            entry.objects.insert(Arc::clone(&record.key), record);
        }
        let state = State {
            revision,
            resources,
            window: VecDeque::new(),
            window_bytes: 0,
            evicted: revision,
            start: revision,
        };
        Shared {
            state: RwLock::new(state),
            news: watch::Sender::new(revision),
            window_events_max: options.window_events.max(1),
            window_bytes_max: options.window_bytes.max(1),
        }
    }

    /// A poisoned lock can only come from a failed allocation in the middle of a batch; the data is still ordered.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &Key) -> Option<Record> {
        self.read().resources.get(&key.resource)?.objects.get(key).cloned()
    }

    pub fn revision(&self) -> Revision {
        self.read().revision
    }

    /// Newest revision that touched a resource, as its watches know it; one that nothing touched yet: where they may begin.
    pub fn newest_of(&self, resource: &str) -> Revision {
        let state = self.read();
        state.resources.get(resource).map_or(state.start, |of| *of.news.borrow())
    }

    pub fn oldest(&self) -> Revision {
        self.read().evicted
    }

    pub fn count(&self, resource: &str) -> usize {
        self.read().resources.get(resource).map_or(0, |r| r.objects.len())
    }

    pub fn resources(&self) -> Vec<(ResourceId, usize)> {
        let state = self.read();
        let mut all: Vec<_> = state.resources.values().map(|r| (Arc::clone(&r.id), r.objects.len())).collect();
        all.sort();
        all
    }

    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Listing {
        let state = self.read();
        let mut listing = Listing { revision: state.revision, records: Vec::new(), remaining: 0 };
        let Some(of) = state.resources.get(resource) else { return listing };
        let first = first_key(&of.id, namespace, after);
        let mut rest = of.objects.range::<Key, _>((first, Bound::Unbounded)).map(|(_, r)| r);
        let wanted = |r: &&Record| namespace.is_none_or(|ns| r.key.namespace == ns);
        let mut rest = rest.by_ref().take_while(wanted);
        listing.records = rest.by_ref().take(limit).cloned().collect();
        listing.remaining = rest.count();
        listing
    }

    /// As `list`, but as it was at the revision `at`: what changed since is undone by the window's events. The
    /// error is the oldest revision for which this works.
    pub fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
        at: Revision,
    ) -> Result<Listing, Revision> {
        let state = self.read();
        let mut listing = Listing { revision: at, records: Vec::new(), remaining: 0 };
        let Some(of) = state.resources.get(resource) else { return Ok(listing) };
        let oldest = of.evicted.max(state.start);
        if at < oldest {
            return Err(oldest);
        }
        let mut past: BTreeMap<&Key, Option<&Record>> = BTreeMap::new();
        for event in state.window.iter().rev().take_while(|e| e.revision() > at) {
            let key = &event.record.key;
            if *key.resource == *resource && namespace.is_none_or(|ns| key.namespace == ns) {
                past.insert(key, event.previous.as_ref());
            }
        }
        let first = first_key(&of.id, namespace, after);
        let range = (first.as_ref(), Bound::Unbounded);
        let wanted = |key: &&Key| namespace.is_none_or(|ns| key.namespace == ns);
        let now = of.objects.range::<Key, _>(range).map(|(key, record)| (&**key, record));
        let now = now.take_while(|(key, _)| wanted(key)).filter(|(key, _)| !past.contains_key(key));
        let then = past.range::<Key, _>(range).filter_map(|(key, record)| Some((*key, (*record)?)));
        let mut all = merged(now, then);
        listing.records = all.by_ref().take(limit).cloned().collect();
        listing.remaining = all.count();
        Ok(listing)
    }

    pub fn list_everything(&self) -> Listing {
        let state = self.read();
        let records = state.resources.values().flat_map(|r| r.objects.values().cloned()).collect();
        Listing { revision: state.revision, records, remaining: 0 }
    }

    /// The shared id of a resource, so that keys do not carry their own copies.
    pub fn intern(&self, key: Key) -> Arc<Key> {
        let state = self.read();
        let Some(of) = state.resources.get(&key.resource) else { return Arc::new(key) };
        match of.objects.get_key_value(&key) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(Key { resource: Arc::clone(&of.id), ..key }),
        }
    }

    /// Makes a batch visible to readers and watches, all at once.
    pub fn publish(&self, events: &[Arc<Event>]) {
        let Some(last) = events.last() else { return };
        let mut touched: Vec<ResourceId> = Vec::new();
        let mut guard = self.write();
        let state = &mut *guard;
        for event in events {
            let id = &event.record.key.resource;
            let start = state.start;
            let of = state
                .resources
                .entry(Arc::clone(id))
                .or_insert_with(|| PerResource::new(Arc::clone(id), start));
            match event.kind {
                EventKind::Delete => drop(of.objects.remove(&*event.record.key)),
                EventKind::Put { .. } => {
                    of.objects.insert(Arc::clone(&event.record.key), event.record.clone());
                }
            }
            if !touched.contains(id) {
                touched.push(Arc::clone(id));
            }
            state.window_bytes += weight(event);
            state.window.push_back(Arc::clone(event));
        }
        state.revision = last.revision().max(state.revision);
        while state.window.len() > self.window_events_max || state.window_bytes > self.window_bytes_max {
            state.evict_oldest();
        }
        for id in &touched {
            if let Some(of) = state.resources.get(id) {
                of.news.send_replace(state.revision);
            }
        }
        let revision = state.revision;
        drop(guard);
        self.news.send_replace(revision);
    }

    /// Everything is as of `revision`, whatever was before: watches that are behind it have to list again.
    pub fn reset(&self, records: Vec<Record>, revision: Revision) {
        let mut guard = self.write();
        let state = &mut *guard;
        state.resources.values_mut().for_each(|of| of.objects.clear());
        state.window.clear();
        state.window_bytes = 0;
        (state.revision, state.evicted, state.start) = (revision, revision, revision);
        for record in records {
            let id = Arc::clone(&record.key.resource);
            let of = state.resources.entry(Arc::clone(&id)).or_insert_with(|| PerResource::new(id, revision));
            of.objects.insert(Arc::clone(&record.key), record);
        }
        for of in state.resources.values() {
            of.news.send_replace(revision);
        }
        drop(guard);
        self.news.send_replace(revision);
    }

    /// Nothing happened up to `revision` that was not published.
    pub fn advance(&self, revision: Revision) {
        let mut state = self.write();
        state.revision = state.revision.max(revision);
        let revision = state.revision;
        drop(state);
        self.news.send_replace(revision);
    }

    /// Waits until `revision` is published.
    pub async fn reached(&self, revision: Revision) {
        let mut news = self.news.subscribe();
        // The sender lives as long as `self`.
        let _ = news.wait_for(|r| *r >= revision).await;
    }

    /// A receiver that changes with each batch that touches `resource` (all, when `None`).
    pub fn subscribe(&self, resource: Option<&str>) -> watch::Receiver<Revision> {
        let Some(resource) = resource else { return self.news.subscribe() };
        if let Some(of) = self.read().resources.get(resource) {
            return of.news.subscribe();
        }
        let mut state = self.write();
        let (id, start) = (ResourceId::from(resource), state.start);
        let of = state.resources.entry(Arc::clone(&id)).or_insert_with(|| PerResource::new(id, start));
        of.news.subscribe()
    }

    /// Appends to `out` events behind `from` that `wanted` likes, at most `WATCH_TAKE_MAX`. Returns the revision up to
    /// which all were looked at, or the oldest revision from which this would work.
    pub fn take(
        &self,
        resource: Option<&str>,
        from: Revision,
        wanted: impl Fn(&Event) -> bool,
        out: &mut VecDeque<Arc<Event>>,
    ) -> Result<Revision, Revision> {
        let state = self.read();
        let oldest = match resource {
            None => state.evicted,
            Some(r) => state.resources.get(r).map_or(0, |of| of.evicted).max(state.start),
        };
        if from < oldest {
            return Err(oldest);
        }
        let skip = state.window.partition_point(|e| e.revision() <= from);
        let mut looked = from;
        for event in state.window.range(skip..) {
            // A piece ends where a revision does.
            if out.len() >= WATCH_TAKE_MAX && event.revision() > looked {
                return Ok(looked);
            }
            looked = event.revision();
            if wanted(event) {
                out.push_back(Arc::clone(event));
            }
        }
        Ok(state.revision.max(from))
    }
}

/// Where a list begins.
fn first_key(id: &ResourceId, namespace: Option<&str>, after: Option<(&str, &str)>) -> Bound<Key> {
    let first = match (namespace, after) {
        (Some(ns), Some((after_ns, name))) if after_ns == ns => Bound::Excluded((ns, name)),
        (Some(ns), _) => Bound::Included((ns, "")),
        (None, Some(after)) => Bound::Excluded(after),
        (None, None) => Bound::Unbounded,
    };
    first.map(|(ns, name)| Key::new(Arc::clone(id), ns, name))
}

/// Two sorted walks as one.
fn merged<'a>(
    a: impl Iterator<Item = (&'a Key, &'a Record)>,
    b: impl Iterator<Item = (&'a Key, &'a Record)>,
) -> impl Iterator<Item = &'a Record> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || {
        let from_a = match (a.peek(), b.peek()) {
            (Some((left, _)), Some((right, _))) => left < right,
            (left, _) => left.is_some(),
        };
        if from_a { a.next() } else { b.next() }.map(|(_, record)| record)
    })
}

impl State {
    fn evict_oldest(&mut self) {
        let Some(event) = self.window.pop_front() else { return };
        self.window_bytes -= weight(&event);
        self.evicted = event.revision();
        if let Some(of) = self.resources.get_mut(&event.record.key.resource) {
            of.evicted = event.revision();
        }
    }
}
