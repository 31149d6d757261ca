//! The one thread that writes: checks expectations, gives revisions, commits a group with one fsync, publishes,
//! answers.
//!
//! In: requests from all tasks, in order of arrival. Out: durable commits, events to memory, answers.
//! After a failed commit the file is opened again and asked whether the commit happened, so that memory and disk
//! never differ. Never: publishes what is not durable (save relaxed resources), or gives a revision twice.

use crate::{
    Check, Draft, Event, EventKind, Key, Options, Record, Revision, StoreError, Write,
    limits::{GROUP_REQUESTS_MAX, RECORD_BYTES_MAX, RELAXED_WAITING_MAX, REVISIONS_AHEAD},
    memory::Shared,
    redb_log::{Changes, Log},
    seal::Sealer,
};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

pub(crate) enum Request {
    Write {
        checks: Vec<Check>,
        writes: Vec<Write>,
        reply: oneshot::Sender<Result<Vec<Record>, StoreError>>,
        _room: OwnedSemaphorePermit,
    },
    Rotate {
        reply: oneshot::Sender<Result<usize, StoreError>>,
    },
    Close {
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
}

/// Records that are sealed again in one commit.
const RESEALED_AT_ONCE: usize = 256;

type Reply = oneshot::Sender<Result<Vec<Record>, StoreError>>;

/// A commit whose outcome is not known: the disk failed in the middle.
struct InDoubt {
    commit: u64,
    events: Vec<Arc<Event>>,
    flushed: Vec<Arc<Key>>,
    ceiling: Revision,
}

pub(crate) struct Writer {
    log: Option<Log>,
    path: PathBuf,
    sealer: Option<Arc<Sealer>>,
    shared: Arc<Shared>,
    options: Options,
    revision: Revision,
    ceiling: Revision,
    /// Relaxed keys whose version on disk (here) is not the one in memory.
    waiting: BTreeMap<Arc<Key>, Option<Record>>,
    waiting_since: Option<Instant>,
    in_doubt: Option<InDoubt>,
    /// Why the file is not open, when it is not.
    detached: Option<StoreError>,
}

/// Writes of one group that passed their checks, not yet durable.
#[derive(Default)]
struct Group {
    events: Vec<Arc<Event>>,
    /// Newest state of the keys in `events`.
    newest: HashMap<Arc<Key>, Option<Record>>,
    replies: Vec<(Reply, std::ops::Range<usize>)>,
    /// Refused by what this group writes: true for readers, and told, once that is durable and can be read.
    refused: Vec<(Reply, StoreError)>,
}

impl Group {
    fn refuse(&mut self, reply: Reply, error: StoreError) {
        match self.events.is_empty() {
            true => drop(reply.send(Err(error))),
            false => self.refused.push((reply, error)),
        }
    }
}

impl Writer {
    pub fn spawn(
        log: Log,
        shared: Arc<Shared>,
        inbox: Receiver<Request>,
        options: Options,
    ) -> Result<(), StoreError> {
        let revision = shared.revision();
        let writer = Writer {
            path: log.path().into(),
            sealer: log.sealer().cloned(),
            ceiling: log.state.ceiling,
            log: Some(log),
            shared,
            options,
            revision,
            waiting: BTreeMap::new(),
            waiting_since: None,
            in_doubt: None,
            detached: None,
        };
        std::thread::Builder::new()
            .name("store".into())
            .stack_size(512 * 1024)
            .spawn(move || writer.run(&inbox))
            .map_err(|e| StoreError::io("start the store's thread", e))?;
        Ok(())
    }

    fn run(mut self, inbox: &Receiver<Request>) {
        loop {
            let first = match self.until_flush() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(left) => inbox.recv_timeout(left),
            };
            let first = match first {
                Ok(request) => request,
                Err(RecvTimeoutError::Timeout) => {
                    self.flush_when_due();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.close_logged();
                    return;
                }
            };
            self.attach_logged();
            let mut group = Group::default();
            let mut next = Some(first);
            let mut taken = 0;
            while let Some(request) = next.take() {
                taken += 1;
                match request {
                    Request::Write { checks, writes, reply, _room } => {
                        self.stage(&mut group, &checks, writes, reply);
                    }
                    Request::Rotate { reply } => {
                        self.finish(std::mem::take(&mut group));
                        let _ = reply.send(self.rotate());
                    }
                    Request::Close { reply } => {
                        self.finish(group);
                        let _ = reply.send(self.close());
                        return;
                    }
                }
                if taken < GROUP_REQUESTS_MAX {
                    next = inbox.try_recv().ok();
                }
            }
            self.finish(group);
            self.flush_when_due();
        }
    }

    /// Checks all writes of one request against memory and the group so far; takes all of them or none.
    fn stage(&mut self, group: &mut Group, checks: &[Check], writes: Vec<Write>, reply: Reply) {
        if let Err(error) = checks.iter().try_for_each(|check| self.holds(group, check)) {
            return group.refuse(reply, error);
        }
        let (start, revision) = (group.events.len(), self.revision + group.events.len() as u64);
        let mut undo: Vec<(Arc<Key>, Option<Option<Record>>)> = Vec::new();
        let mut failure = None;
        for (write, revision) in writes.into_iter().zip(revision + 1..) {
            match self.check(group, write, revision) {
                Ok(event) => {
                    let key = Arc::clone(&event.record.key);
                    let newest = (!event.is_delete()).then(|| event.record.clone());
                    undo.push((Arc::clone(&key), group.newest.insert(key, newest)));
                    group.events.push(Arc::new(event));
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let Some(error) = failure else {
            group.replies.push((reply, start..group.events.len()));
            return;
        };
        group.events.truncate(start);
        for (key, before) in undo.into_iter().rev() {
            match before {
                Some(before) => group.newest.insert(key, before),
                None => group.newest.remove(&key),
            };
        }
        group.refuse(reply, error);
    }

    /// The newest state of a key: of the group's, if it is in there.
    fn current(&self, group: &Group, key: &Arc<Key>) -> Option<Record> {
        match group.newest.get(key) {
            Some(newest) => newest.clone(),
            None => self.shared.get(key),
        }
    }

    fn holds(&self, group: &Group, check: &Check) -> Result<(), StoreError> {
        let key = self.shared.intern(check.key.clone());
        check.expect.holds(&key, self.current(group, &key).map(|r| r.revision))
    }

    fn check(&self, group: &Group, write: Write, revision: Revision) -> Result<Event, StoreError> {
        let (key, expect, draft) = match write {
            Write::Put { key, expect, draft } => (key, expect, Ok(draft)),
            Write::Delete { key, expect, last } => (key, expect, Err(last)),
        };
        let key = self.shared.intern(key);
        let current = self.current(group, &key);
        expect.holds(&key, current.as_ref().map(|c| c.revision))?;
        let bounded = |d: &Draft| match d.len() > RECORD_BYTES_MAX {
            true => Err(StoreError::TooLarge("object")),
            false => Ok(d.finish(revision)),
        };
        let created = current.as_ref().map_or(revision, |c| c.created);
        match draft {
            Ok(draft) => {
                let kind = EventKind::Put { created: current.is_none() };
                let record = Record { key, revision, created, bytes: bounded(&draft)? };
                Ok(Event { kind, record, previous: current })
            }
            Err(last) => {
                let Some(before) = current else { return Err(StoreError::NotFound(key)) };
                let bytes = last.as_ref().map(bounded).transpose()?.unwrap_or_else(|| before.bytes.clone());
                let record = Record { key, revision, created, bytes };
                Ok(Event { kind: EventKind::Delete, record, previous: Some(before) })
            }
        }
    }

    fn relaxed(&self, key: &Key) -> bool {
        self.options.relaxed.iter().any(|r| **r == *key.resource)
    }

    /// Commits, publishes and answers a group.
    fn finish(&mut self, group: Group) {
        if group.replies.is_empty() {
            return;
        }
        let last = self.revision + group.events.len() as u64;
        let mut durable = Changes::new();
        for event in group.events.iter().filter(|e| !self.relaxed(&e.record.key)) {
            let key = &event.record.key;
            let newest = (!event.is_delete()).then(|| event.record.clone());
            let first = || (event.previous.clone(), None);
            durable.entry(Arc::clone(key)).or_insert_with(first).1 = newest;
        }
        let needs_ceiling = durable.len() < group.newest.len() && last > self.ceiling;
        let ceiling = if needs_ceiling { last + REVISIONS_AHEAD } else { self.ceiling.max(last) };
        let outcome = match durable.is_empty() && !needs_ceiling {
            true => Ok(()),
            false => self.commit(durable, last, ceiling, &group.events, Vec::new()),
        };
        if outcome.is_ok() {
            self.publish(&group.events);
        }
        for (reply, range) in group.replies {
            let records = || group.events[range].iter().map(|e| e.record.clone()).collect();
            // A caller that went away does not undo its write.
            let _ = reply.send(outcome.clone().map(|()| records()));
        }
        for (reply, error) in group.refused {
            // What refused them may never have been written: then the disk's trouble is the reason.
            let _ = reply.send(Err(outcome.as_ref().err().cloned().unwrap_or(error)));
        }
    }

    /// Makes events visible that are not yet.
    fn publish(&mut self, events: &[Arc<Event>]) {
        let seen = events.iter().take_while(|e| e.revision() <= self.revision).count();
        let events = &events[seen..];
        for event in events {
            if self.relaxed(&event.record.key) {
                let key = Arc::clone(&event.record.key);
                self.waiting.entry(key).or_insert_with(|| event.previous.clone());
                self.waiting_since.get_or_insert_with(Instant::now);
            }
        }
        self.shared.publish(events);
        self.revision = events.last().map_or(self.revision, |e| e.revision());
    }

    /// One durable commit, whose outcome is known when this returns `Ok`.
    fn commit(
        &mut self,
        changes: Changes,
        revision: Revision,
        ceiling: Revision,
        events: &[Arc<Event>],
        flushed: Vec<Arc<Key>>,
    ) -> Result<(), StoreError> {
        let Some(log) = self.log.as_mut() else {
            return Err(self.detached.clone().unwrap_or(StoreError::Closed));
        };
        let commit = log.state.commit + 1;
        let error = match log.commit(&changes, revision, ceiling) {
            Ok(()) => {
                self.ceiling = ceiling;
                return Ok(());
            }
            Err(error) => error,
        };
        tracing::error!(%error, "a commit failed");
        self.log = None;
        self.in_doubt = Some(InDoubt { commit, events: events.to_vec(), flushed, ceiling });
        match self.attach() {
            // The commit reached the disk before the error: `attach` found it there and published it.
            Ok(()) if self.log.as_ref().is_some_and(|l| l.state.commit == commit) => Ok(()),
            _ => Err(error),
        }
    }

    /// Before any revision is given: settles what an earlier failure left open.
    fn attach_logged(&mut self) {
        if let Err(error) = self.attach() {
            tracing::error!(%error, "the store cannot be opened again; writes are refused until it can");
        }
    }

    /// Opens the file again after a failure and settles the commit that was in doubt.
    fn attach(&mut self) -> Result<(), StoreError> {
        if self.log.is_some() {
            return Ok(());
        }
        let log = match Log::attach(&self.path, self.options.cache_bytes, self.sealer.clone()) {
            Ok(log) => log,
            Err(error) => {
                self.detached = Some(error.clone());
                return Err(error);
            }
        };
        self.detached = None;
        if let Some(doubt) = self.in_doubt.take()
            && log.state.commit == doubt.commit
        {
            tracing::warn!("the failed commit is on the disk after all");
            self.ceiling = doubt.ceiling;
            for key in doubt.flushed {
                self.waiting.remove(&key);
            }
            self.publish(&doubt.events);
        }
        self.log = Some(log);
        Ok(())
    }

    fn until_flush(&self) -> Option<Duration> {
        let since = self.waiting_since?;
        Some(self.options.relaxed_flush.saturating_sub(since.elapsed()))
    }

    fn flush_when_due(&mut self) {
        let due = self.until_flush().is_some_and(|left| left.is_zero());
        if (due || self.waiting.len() >= RELAXED_WAITING_MAX)
            && let Err(error) = self.flush(self.ceiling)
        {
            tracing::warn!(%error, "relaxed writes wait for the disk");
            self.waiting_since = Some(Instant::now());
        }
    }

    /// Makes relaxed writes durable.
    fn flush(&mut self, ceiling: Revision) -> Result<(), StoreError> {
        self.attach()?;
        let changes: Changes = self
            .waiting
            .iter()
            .map(|(key, disk)| (Arc::clone(key), (disk.clone(), self.shared.get(key))))
            .collect();
        let keys = changes.keys().cloned().collect();
        self.commit(changes, self.revision, ceiling.max(self.revision), &[], keys)?;
        self.waiting.clear();
        self.waiting_since = None;
        Ok(())
    }

    /// A new key, then everything sealed with it. Stopped half-way, the older keys stay and the next rotation goes on.
    fn rotate(&mut self) -> Result<usize, StoreError> {
        self.attach()?;
        let sealer = self.sealer.clone().ok_or_else(|| StoreError::Keys {
            path: self.path.clone(),
            why: "this store seals nothing".into(),
        })?;
        sealer.add_key()?;
        let mut done = 0;
        for resource in sealer.resources() {
            let records = self.shared.list(resource, None, None, usize::MAX).records;
            for part in records.chunks(RESEALED_AT_ONCE) {
                let same = |r: &Record| (Arc::clone(&r.key), (Some(r.clone()), Some(r.clone())));
                let changes: Changes = part.iter().map(same).collect();
                self.commit(changes, self.revision, self.ceiling, &[], Vec::new())?;
                done += part.len();
            }
        }
        sealer.retire_old()?;
        Ok(done)
    }

    /// After a clean close no revision is skipped at the next start.
    fn close(&mut self) -> Result<(), StoreError> {
        self.flush(0)?;
        self.log = None;
        Ok(())
    }

    fn close_logged(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the store did not close cleanly; nothing acknowledged is lost");
        }
    }
}
