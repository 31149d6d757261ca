//! One reader of the event window.
//!
//! In: a starting revision and a filter. Out: every matching event once, in revision order, or `Lagged`.
//! Never: a queue of its own that could grow; a slow reader falls out of the window and is told.

use crate::{Event, Revision, TooOld, memory::Shared};
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};
use tokio::sync::watch;

/// The reader was too slow: events it did not see have left the window. It must list again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too old resource version: {at} ({oldest})")]
pub struct Lagged {
    pub at: Revision,
    pub oldest: Revision,
}

pub struct Watch {
    /// Weak, so that forgotten watches do not keep the objects of a closed store.
    shared: Weak<Shared>,
    news: watch::Receiver<Revision>,
    resource: Option<String>,
    namespace: Option<String>,
    taken: VecDeque<Arc<Event>>,
    /// All events up to here were delivered or are in `taken`.
    looked: Revision,
}

impl Watch {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        resource: Option<&str>,
        namespace: Option<&str>,
        from: Revision,
    ) -> Result<Watch, TooOld> {
        let mut watch = Watch {
            shared: Arc::downgrade(shared),
            news: shared.subscribe(resource),
            resource: resource.map(Into::into),
            namespace: namespace.map(Into::into),
            taken: VecDeque::new(),
            looked: from,
        };
        watch.refill(shared).map_err(|lag| TooOld { from, oldest: lag.oldest })?;
        Ok(watch)
    }

    /// A watch of everything from a revision that was the head a moment ago.
    pub(crate) fn start_at_head(shared: &Arc<Shared>, from: Revision) -> Watch {
        Watch {
            shared: Arc::downgrade(shared),
            news: shared.subscribe(None),
            resource: None,
            namespace: None,
            taken: VecDeque::new(),
            looked: from,
        }
    }

    /// The next event; waits for it. `None` when the store is gone. After `Lagged` the watch is over.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Lagged>> {
        loop {
            self.news.borrow_and_update();
            if let Some(found) = self.try_next() {
                return Some(found);
            }
            self.news.changed().await.ok()?;
        }
    }

    /// The next event if there is one.
    pub fn try_next(&mut self) -> Option<Result<Arc<Event>, Lagged>> {
        if self.taken.is_empty() {
            let shared = self.shared.upgrade()?;
            if let Err(lag) = self.refill(&shared) {
                return Some(Err(lag));
            }
        }
        self.taken.pop_front().map(Ok)
    }

    /// The newest revision up to which every matching event was delivered, for bookmarks.
    pub fn revision(&mut self) -> Revision {
        if self.taken.is_empty()
            && let Some(shared) = self.shared.upgrade()
        {
            // A lag shows at the next `next`.
            let _ = self.refill(&shared);
        }
        match self.taken.front() {
            Some(event) => event.revision() - 1,
            None => self.looked,
        }
    }

    fn refill(&mut self, shared: &Arc<Shared>) -> Result<(), Lagged> {
        let (resource, namespace) = (self.resource.as_deref(), self.namespace.as_deref());
        let wanted = |event: &Event| {
            let key = &event.record.key;
            resource.is_none_or(|r| *key.resource == *r) && namespace.is_none_or(|n| key.namespace == n)
        };
        match shared.take(resource, self.looked, wanted, &mut self.taken) {
            Ok(looked) => self.looked = looked,
            Err(oldest) => return Err(Lagged { at: self.looked, oldest }),
        }
        Ok(())
    }
}
