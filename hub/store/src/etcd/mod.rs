//! The backend that hubs share: an etcd.
//!
//! In: transactions. Out: records at etcd's own revisions; memory follows etcd's watch, and a write is answered when it has it.
//! A write whose answer is lost is settled by the next session: it was made, or it is made again, but never twice.
//! Never: a read from etcd to answer a question of a client; only the newest revision is asked for.

mod channel;
mod feed;
mod keys;
mod options;
mod session;
mod txn;
mod value;
mod wire;

pub use options::{EtcdFiles, EtcdOptions};

use crate::{
    Check, KeyStep, Record, Revision, StoreError, Write,
    backend::{Answer, Backend},
    limits,
    memory::Shared,
    seal::Sealer,
};
use channel::CallError;
use session::{Inner, Session};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout_at},
};
use txn::{Ask, Outcome};
use wire::{CompactionRequest, CompactionResponse, RangeRequest, RangeResponse, TxnResponse};

/// For one answer of etcd.
const CALL_TIME: Duration = Duration::from_secs(5);
/// For a write, sessions that settle it included; longer than etcd needs to elect a leader.
const WRITE_TIME: Duration = Duration::from_secs(12);
const READ_TIME: Duration = Duration::from_secs(6);
const START_TIME: Duration = Duration::from_secs(20);

pub(crate) struct Etcd {
    inner: Arc<Inner>,
    room: Semaphore,
    numbers: AtomicU64,
    readers: Arc<Readers>,
}

/// Who waits for the newest revision; those who come while etcd is asked wait for the next question.
#[derive(Default)]
struct Readers {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    asks: bool,
    replies: Vec<oneshot::Sender<Result<Revision, StoreError>>>,
}

/// Forgets a transaction's number, however its caller ends.
struct Pending<'i>(&'i Inner, u64);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.inner.closed.send_replace(true);
    }
}

impl Etcd {
    /// Connects to one of the endpoints and reads everything. Fails when none answers, or when what is there is not for this hub.
    pub async fn start(options: EtcdOptions, sealer: Option<Sealer>, shared: Arc<Shared>) -> Result<Etcd, StoreError> {
        let inner = Arc::new(Inner::new(options, sealer, shared));
        let (ends, mut turn) = (Instant::now() + START_TIME, 0usize);
        let begun = loop {
            match inner.begin(turn).await {
                Ok(begun) => break begun,
                Err(feed::FeedError::Value { key, why }) => {
                    let prefix = inner.options.prefix.clone();
                    return Err(StoreError::Foreign { prefix, why: format!("{key}: {why}") });
                }
                Err(error) if Instant::now() > ends => {
                    return Err(StoreError::Away(format!("{} ({error})", inner.options.place())));
                }
                Err(error) => tracing::warn!(%error, "etcd does not answer yet"),
            }
            turn += 1;
            tokio::time::sleep(Duration::from_millis(300)).await;
        };
        tokio::spawn(Arc::clone(&inner).keep(Some(begun)));
        // Numbers differ from those of an earlier life of the same writer.
        let numbers = AtomicU64::new(std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos() as u64));
        let etcd = Etcd { inner, room: Semaphore::new(limits::GROUP_REQUESTS_MAX), numbers, readers: Arc::default() };
        etcd.session(0, ends.max(Instant::now() + CALL_TIME)).await?;
        Ok(etcd)
    }

    /// A session with a number above this one.
    async fn session(&self, above: Revision, ends: Instant) -> Result<Arc<Session>, StoreError> {
        session(&self.inner, above, ends).await
    }

    async fn transact(&self, checks: Vec<Check>, writes: Vec<Write>) -> Result<Vec<Record>, StoreError> {
        let inner = &*self.inner;
        let _room = self.room.acquire().await.map_err(|_| StoreError::Closed)?;
        let ask = Ask::new(&inner.keys, inner.sealer.as_ref(), checks, writes)?;
        let ends = Instant::now() + WRITE_TIME;
        let last_words: Vec<_> = ask.silent().map(|key| (Arc::clone(key), inner.shared.get(key))).collect();
        let mut above = 0;
        let (revision, mut records) = loop {
            let session = self.session(above, ends).await?;
            let pending = Pending(inner, self.numbers.fetch_add(1, Ordering::Relaxed));
            inner.expect(pending.1);
            let loads = inner.loads();
            let request = ask.request(&inner.keys, session.number, inner.word(pending.1));
            match session.channel.ask::<TxnResponse>(wire::TXN, &request, CALL_TIME).await {
                Ok(answer) => match ask.outcome(session.number, answer) {
                    Outcome::Written(at, records) => break (at, records),
                    Outcome::Refused(error, at) => {
                        // Who reads again shall read what was faster. Away: it will come.
                        let _ = timeout_at(ends, inner.shared.reached(at)).await;
                        return Err(error);
                    }
                    Outcome::Fenced => {
                        inner.suspect(session.number);
                        above = session.number;
                    }
                },
                Err(error) if error.is_refusal() => {
                    let error = refused(error);
                    // The write that finds the quota used up is refused and made: etcd looks before and after.
                    if matches!(error, StoreError::Quota)
                        && let Some(at) = self.made_after_all(pending.1, ends).await?
                    {
                        let created = |key: &crate::Key| inner.shared.get(key).map(|record| record.created);
                        break (at, ask.records_at(at, created));
                    }
                    return Err(error);
                }
                Err(error) => {
                    inner.suspect(session.number);
                    let doubt = || StoreError::Doubt(error.to_string());
                    let next = self.session(session.number, ends).await.map_err(|_| doubt())?;
                    timeout_at(ends, inner.shared.reached(next.number)).await.map_err(|_| doubt())?;
                    if let Some(at) = inner.seen(pending.1) {
                        let created = |key: &crate::Key| inner.shared.get(key).map(|record| record.created);
                        break (at, ask.records_at(at, created));
                    }
                    if inner.loads() != loads {
                        return Err(doubt());
                    }
                    above = session.number;
                }
            }
        };
        // Durable it is; a feed that stays away does not change that.
        let _ = timeout_at(ends, inner.shared.reached(revision)).await;
        for (key, known) in last_words {
            if let Some(record) = records.iter_mut().find(|r| r.key == key) {
                record.bytes = known.map_or_else(bytes::Bytes::new, |known| known.bytes);
            }
        }
        Ok(records)
    }

    /// After etcd's answer: the revision at which the transaction was made, if it was.
    async fn made_after_all(&self, number: u64, ends: Instant) -> Result<Option<Revision>, StoreError> {
        let loads = self.inner.loads();
        let reached = async {
            let newest = self.newest(ends).await?;
            timeout_at(ends, self.inner.shared.reached(newest)).await.map_err(|_| StoreError::Closed)
        };
        let doubt = || StoreError::Doubt("its space quota is used up".into());
        reached.await.map_err(|_| doubt())?;
        let seen = self.inner.seen(number);
        if seen.is_none() && self.inner.loads() != loads { Err(doubt()) } else { Ok(seen) }
    }

    async fn newest(&self, ends: Instant) -> Result<Revision, StoreError> {
        let (reply, answer) = oneshot::channel();
        let asks = {
            let mut waiting = self.readers.lock();
            waiting.replies.push(reply);
            std::mem::replace(&mut waiting.asks, true)
        };
        if !asks {
            tokio::spawn(Arc::clone(&self.readers).ask(Arc::clone(&self.inner)));
        }
        match timeout_at(ends, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::Away(self.inner.why())),
        }
    }
}

impl Readers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for everybody who waits, until nobody does.
    async fn ask(self: Arc<Self>, inner: Arc<Inner>) {
        loop {
            let replies = {
                let mut waiting = self.lock();
                let replies = std::mem::take(&mut waiting.replies);
                if replies.is_empty() {
                    waiting.asks = false;
                    return;
                }
                replies
            };
            let newest = head(&inner).await;
            for reply in replies {
                let _ = reply.send(newest.clone());
            }
        }
    }
}

/// The revision of the newest write, as a majority of etcd's members knows it.
async fn head(inner: &Inner) -> Result<Revision, StoreError> {
    let ends = Instant::now() + CALL_TIME;
    let mut above = 0;
    loop {
        let session = session(inner, above, ends).await?;
        let key = inner.keys.head.clone().into_bytes();
        let ask = RangeRequest { key, keys_only: true, ..RangeRequest::default() };
        match session.channel.ask::<RangeResponse>(wire::RANGE, &ask, CALL_TIME / 2).await {
            Ok(answer) => return Ok(answer.kvs.first().map_or(0, |kv| wire::revision(kv.mod_revision))),
            Err(error) if error.is_refusal() => return Err(refused(error)),
            Err(_) => {
                inner.suspect(session.number);
                above = session.number;
            }
        }
    }
}

async fn session(inner: &Inner, above: Revision, ends: Instant) -> Result<Arc<Session>, StoreError> {
    let (mut sessions, mut closed) = (inner.session.subscribe(), inner.closed.subscribe());
    if *closed.borrow_and_update() {
        return Err(StoreError::Closed);
    }
    let is_fit = |session: &Option<Arc<Session>>| session.as_ref().is_some_and(|s| s.number > above);
    tokio::select! {
        found = sessions.wait_for(is_fit) => {
            found.ok().and_then(|found| found.clone()).ok_or(StoreError::Closed)
        }
        _ = closed.wait_for(|closed| *closed) => Err(StoreError::Closed),
        () = tokio::time::sleep_until(ends) => Err(StoreError::Away(inner.why())),
    }
}

/// What etcd's refusal means here.
fn refused(error: CallError) -> StoreError {
    let text = error.to_string();
    match () {
        () if text.contains("database space exceeded") => StoreError::Quota,
        () if text.contains("request is too large") => StoreError::TooLarge("object"),
        () => StoreError::Away(text),
    }
}

impl Backend for Etcd {
    fn write(&self, checks: Vec<Check>, writes: Vec<Write>) -> Answer<'_, Vec<Record>> {
        Box::pin(self.transact(checks, writes))
    }

    fn catch_up(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let ends = Instant::now() + READ_TIME;
            let newest = self.newest(ends).await?;
            let reached = timeout_at(ends, self.inner.shared.reached(newest)).await;
            reached.map_err(|_| StoreError::Away(self.inner.why()))
        })
    }

    fn rotate(&self) -> Answer<'_, usize> {
        const WHY: &str = "with an etcd the key for Secrets is changed by a running hub, which tells the others first";
        Box::pin(std::future::ready(Err(StoreError::NotHere(WHY))))
    }

    fn make_key(&self) -> Result<(u32, String), StoreError> {
        self.sealer()?.make_key()
    }

    fn key_step(&self, step: KeyStep) -> Answer<'_, ()> {
        Box::pin(self.step(step))
    }

    fn seal_again(&self, resources: Vec<&'static str>) -> Answer<'_, usize> {
        Box::pin(self.seal_all_again(resources))
    }

    fn compact(&self, before: Revision) -> Answer<'_, ()> {
        Box::pin(async move {
            let session = self.session(0, Instant::now() + CALL_TIME).await?;
            let ask = CompactionRequest { revision: wire::signed(before) };
            match session.channel.ask::<CompactionResponse>(wire::COMPACT, &ask, CALL_TIME).await {
                Ok(_) => Ok(()),
                // Somebody else was faster.
                Err(CallError::Status { code: 11, .. }) => Ok(()),
                Err(error) => Err(refused(error)),
            }
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        self.inner.closed.send_replace(true);
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_shared(&self) -> bool {
        true
    }
}
