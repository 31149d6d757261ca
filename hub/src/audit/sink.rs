//! A place for events, seen from the requests' side.
//!
//! In: lines of JSON. Out: a queue that somebody else empties: the file's thread, or the webhook's task.
//! Never: waits while an event is given; blocks a request on a webhook.

use super::LogMode;
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use tokio::sync::{Notify, mpsc};

/// What both ends know.
pub struct Queue {
    pub name: &'static str,
    queued: AtomicUsize,
    lost: AtomicU64,
    /// Given by requests, and where they belong or given up; both only grow.
    given: AtomicU64,
    settled: AtomicU64,
    changed: Notify,
    /// Someone waits for the end: be quick.
    pub hurry: Notify,
}

/// The requests' end.
pub struct Sink {
    sender: mpsc::UnboundedSender<Bytes>,
    queue: Arc<Queue>,
    size_max: usize,
    mode: LogMode,
}

/// The other end.
pub struct Outlet {
    pub receiver: mpsc::UnboundedReceiver<Bytes>,
    pub queue: Arc<Queue>,
}

pub fn channel(name: &'static str, size_max: usize, mode: LogMode) -> (Sink, Outlet) {
    // The queue's own count is its bound.
    let (sender, receiver) = mpsc::unbounded_channel();
    let queue = Arc::new(Queue {
        name,
        queued: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
        given: AtomicU64::new(0),
        settled: AtomicU64::new(0),
        changed: Notify::new(),
        hurry: Notify::new(),
    });
    (Sink { sender, queue: Arc::clone(&queue), size_max, mode }, Outlet { receiver, queue })
}

impl Queue {
    /// So many events are where they belong, or given up.
    pub fn done(&self, count: usize) {
        self.queued.fetch_sub(count, Ordering::AcqRel);
        self.settled.fetch_add(count as u64, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    pub fn lose(&self, count: usize) {
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Sink {
    pub fn name(&self) -> &'static str {
        self.queue.name
    }

    pub fn lost(&self) -> u64 {
        self.queue.lost.load(Ordering::Relaxed)
    }

    async fn fewer_than(&self, count: usize) {
        loop {
            let changed = self.queue.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if self.queue.queued.load(Ordering::Acquire) < count {
                return;
            }
            changed.await;
        }
    }

    /// Waits until there is room, where requests have to.
    pub async fn room(&self) {
        if self.mode != LogMode::Batch && self.queue.queued.load(Ordering::Acquire) >= self.size_max {
            self.fewer_than(self.size_max).await;
        }
    }

    pub fn send(&self, line: Bytes) {
        let before = self.queue.queued.fetch_add(1, Ordering::AcqRel);
        self.queue.given.fetch_add(1, Ordering::AcqRel);
        let full = self.mode == LogMode::Batch && before >= self.size_max;
        if full || self.sender.send(line).is_err() {
            self.queue.lose(1);
            self.queue.done(1);
        }
    }

    /// Before an event is given: what `is_kept` compares with.
    pub fn mark(&self) -> u64 {
        self.lost()
    }

    /// Whether everything that was given up to now is where it belongs and nothing was lost since `mark`. Only the strict mode
    /// wants to know, and waits for it.
    pub async fn is_kept(&self, mark: u64) -> bool {
        if self.mode != LogMode::BlockingStrict {
            return true;
        }
        let given = self.queue.given.load(Ordering::Acquire);
        loop {
            let changed = self.queue.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.queue.settled.load(Ordering::Acquire) >= given {
                return self.lost() == mark;
            }
            changed.await;
        }
    }

    pub async fn end(&self) {
        self.queue.hurry.notify_one();
        self.fewer_than(1).await;
    }
}
