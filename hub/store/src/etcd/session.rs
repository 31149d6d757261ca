//! Keeps one connection to etcd: a session of this writer, and the watch that feeds memory.
//!
//! In: endpoints, one after the other; suspicions of those who got no answer. Out: the session to write in, changes in memory.
//! A session begins by writing the writer's key; its revision is the session's number, and every transaction compares it. What an
//! earlier session sent and nobody heard of has happened before that revision or never will.
//! Never: gives up; it says why it has no session.

use super::{
    EtcdOptions,
    channel::Channel,
    feed::{self, Batch, FeedError},
    txn::{Keys, at_creation, look, looked, put},
    value,
    wire::{
        self, CompareResult, PutRequest, PutResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
        WatchResponse, header,
    },
};
use crate::{Draft, Revision, memory::Shared, seal::Sealer};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::sleep};

const CALL_TIME: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Sealed into the format's row: another hub's key file opens it, or is the wrong one.
pub(super) const PROBE: &[u8] = b"limpet";

/// The connection to write with.
pub(super) struct Session {
    pub channel: Channel,
    pub number: Revision,
}

/// What the writers, the readers and the manager share.
pub(super) struct Inner {
    pub options: EtcdOptions,
    pub keys: Keys,
    pub sealer: Option<Sealer>,
    pub shared: Arc<Shared>,
    pub session: watch::Sender<Option<Arc<Session>>>,
    /// Newest session that somebody got no answer in.
    pub suspect: watch::Sender<Revision>,
    pub closed: watch::Sender<bool>,
    /// This writer's transactions that have no answer yet, and the revisions at which they were seen.
    pending: Mutex<HashMap<u64, Option<Revision>>>,
    /// How often everything was read: what happened in between was not seen.
    loads: AtomicU64,
    why: Mutex<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    pub fn new(options: EtcdOptions, sealer: Option<Sealer>, shared: Arc<Shared>) -> Inner {
        Inner {
            keys: Keys::new(&options.prefix, &options.writer),
            options,
            sealer,
            shared,
            session: watch::Sender::new(None),
            suspect: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            pending: Mutex::default(),
            loads: AtomicU64::new(0),
            why: Mutex::default(),
        }
    }

    pub fn why(&self) -> String {
        lock(&self.why).clone()
    }

    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::Acquire)
    }

    pub fn expect(&self, number: u64) {
        lock(&self.pending).insert(number, None);
    }

    /// The revision at which the transaction was seen.
    pub fn seen(&self, number: u64) -> Option<Revision> {
        lock(&self.pending).get(&number).copied().flatten()
    }

    pub fn forget(&self, number: u64) {
        lock(&self.pending).remove(&number);
    }

    pub fn word(&self, number: u64) -> String {
        format!("{}/{number}", self.options.writer)
    }

    /// Somebody got no answer in this session: the next one settles what happened.
    pub fn suspect(&self, session: Revision) {
        self.suspect.send_if_modified(|newest| {
            let is_news = session > *newest;
            *newest = session.max(*newest);
            is_news
        });
    }

    fn hear(&self, words: Vec<(String, Revision)>) {
        let mut pending = lock(&self.pending);
        for (word, at) in words {
            let own = word.strip_prefix(self.options.writer.as_str()).and_then(|w| w.strip_prefix('/'));
            if let Some(seen) = own.and_then(|n| pending.get_mut(&n.parse().ok()?)) {
                *seen = Some(at);
            }
        }
    }

    /// Connects and loads; the first time this decides whether the hub starts.
    pub async fn begin(&self, turn: usize) -> Result<(Channel, Revision), FeedError> {
        let channel = Channel::connect(&self.options, turn).await?;
        self.check_format(&channel).await?;
        let own = PutRequest { key: self.keys.writer.clone().into_bytes(), value: Vec::new() };
        let answer: PutResponse = channel.ask(wire::PUT, &own, CALL_TIME).await?;
        let number = header(answer.header);
        if self.shared.revision() == 0 {
            self.load(&channel).await?;
        }
        Ok((channel, number))
    }

    async fn load(&self, channel: &Channel) -> Result<(), FeedError> {
        let (records, at) = feed::load(channel, &self.keys, self.sealer.as_ref()).await?;
        self.loads.fetch_add(1, Ordering::AcqRel);
        self.shared.reset(records, at);
        Ok(())
    }

    /// The first hub writes the row, all others must be able to read it.
    async fn check_format(&self, channel: &Channel) -> Result<(), FeedError> {
        let key = &self.keys.format;
        let wrong = |why: String| FeedError::Value { key: key.clone(), why };
        let probe = Draft::opaque(PROBE.to_vec());
        let bytes = value::encode(key, &probe, self.sealer.as_ref()).map_err(|e| wrong(e.to_string()))?;
        let mut read = look(key);
        if let Some(wire::Request::Range(range)) = &mut read.request {
            range.keys_only = false;
        }
        let ask = TxnRequest {
            compare: vec![at_creation(key, CompareResult::Equal)],
            success: vec![put(key, bytes)],
            failure: vec![read],
        };
        let answer: TxnResponse = channel.ask(wire::TXN, &ask, CALL_TIME).await?;
        let Some(found) = answer.responses.into_iter().find_map(looked) else { return Ok(()) };
        let found = value::decode(key, &found.value, self.sealer.as_ref()).map_err(|why| {
            wrong(format!("{why}; a further hub needs pki/ and store.keys of the first one in its data directory"))
        })?;
        if found == probe { Ok(()) } else { Err(wrong("it is not a hub's".into())) }
    }

    /// Runs until the store is closed.
    pub async fn keep(self: Arc<Self>, mut begun: Option<(Channel, Revision)>) {
        let mut closed = self.closed.subscribe();
        let (mut turn, mut pause) = (0usize, PAUSE_MIN);
        loop {
            let life = async {
                let (channel, number) = match begun.take() {
                    Some(begun) => begun,
                    None => self.begin(turn).await?,
                };
                self.follow(channel, number).await
            };
            let error = tokio::select! {
                outcome = life => match outcome {
                    Ok(()) => FeedError::Over("the session ended".into()),
                    Err(error) => error,
                },
                _ = closed.wait_for(|closed| *closed) => return,
            };
            let had_one = self.session.send_replace(None).is_some();
            *lock(&self.why) = error.to_string();
            tracing::warn!(%error, "etcd at {} is away; reads and writes wait", self.options.place());
            pause = if had_one { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            turn = turn.wrapping_add(1);
            tokio::select! {
                () = sleep(pause) => {}
                _ = closed.wait_for(|closed| *closed) => return,
            }
        }
    }

    /// One session: memory follows etcd until something breaks.
    async fn follow(&self, channel: Channel, number: Revision) -> Result<(), FeedError> {
        let mut suspect = self.suspect.subscribe();
        let mut fragments: Vec<wire::Event> = Vec::new();
        'anew: loop {
            let create = WatchCreateRequest {
                key: self.keys.prefix.clone().into_bytes(),
                range_end: self.keys.end.clone().into_bytes(),
                start_revision: wire::signed(self.shared.revision() + 1),
                prev_kv: true,
                fragment: true,
            };
            let mut answers = channel.stream(wire::WATCH, &WatchRequest { create: Some(create) }).await?;
            loop {
                let answer: Option<WatchResponse> = tokio::select! {
                    answer = answers.next() => answer?,
                    _ = suspect.wait_for(|newest| *newest >= number) => {
                        return Err(FeedError::Over("an answer did not come in time".into()));
                    }
                };
                let Some(answer) = answer else { return Err(FeedError::Over("etcd ended the watch".into())) };
                if answer.compact_revision > 0 {
                    tracing::warn!("etcd was compacted past what this hub had seen; everything is read anew");
                    self.load(&channel).await?;
                    continue 'anew;
                }
                if answer.canceled {
                    return Err(FeedError::Over(format!("etcd ended the watch: {}", answer.cancel_reason)));
                }
                if answer.created {
                    let session = Session { channel: channel.clone(), number };
                    self.session.send_replace(Some(Arc::new(session)));
                }
                fragments.extend(answer.events);
                if answer.fragment {
                    continue;
                }
                match self.take(&std::mem::take(&mut fragments)) {
                    Err(FeedError::Compacted) => {
                        self.load(&channel).await?;
                        continue 'anew;
                    }
                    other => other?,
                }
            }
        }
    }

    fn take(&self, events: &[wire::Event]) -> Result<(), FeedError> {
        if events.is_empty() {
            return Ok(());
        }
        let batch = Batch::new(&self.shared, &self.keys, self.sealer.as_ref(), events)?;
        // Known before it is visible: who waits for the revision asks next whether it was its own.
        self.hear(batch.words);
        self.shared.publish(&batch.events);
        self.shared.advance(batch.newest);
        Ok(())
    }
}
