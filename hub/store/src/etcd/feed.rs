//! From etcd into memory: everything at one revision, then every change after it.
//!
//! In: pages of a range, the watch's answers. Out: batches for `Shared`, whole revisions only, and the writer's own words.
//! Never: an event whose object cannot be read; the feed ends there and says why.

use super::{
    channel::{CallError, Channel},
    txn::Keys,
    value,
    wire::{self, EventType, KeyValue, RangeRequest, RangeResponse, header, revision},
};
use crate::{Event, EventKind, Key, Record, Revision, memory::Shared, seal::Sealer};
use std::{collections::HashMap, sync::Arc, time::Duration};

const PAGE_OBJECTS: i64 = 200;
const PAGE_TIME: Duration = Duration::from_secs(30);

/// Why the feed ends. The manager begins anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{key}: {why}")]
    Value { key: String, why: String },
    /// What is missing has been compacted away; everything is read anew.
    #[error("etcd has compacted revisions that this hub had not seen")]
    Compacted,
    #[error("{0}")]
    Over(String),
}

/// etcd's code for a revision that was compacted or is not there yet.
const OUT_OF_RANGE: u32 = 11;

/// All objects at one revision.
pub(super) async fn load(
    channel: &Channel,
    keys: &Keys,
    sealer: Option<&Sealer>,
) -> Result<(Vec<Record>, Revision), FeedError> {
    let (mut records, mut at, mut from) = (Vec::new(), 0, keys.prefix.clone().into_bytes());
    loop {
        let ask = RangeRequest {
            key: from,
            range_end: keys.end.clone().into_bytes(),
            limit: PAGE_OBJECTS,
            revision: wire::signed(at),
            keys_only: false,
        };
        let page: RangeResponse = channel.ask(wire::RANGE, &ask, PAGE_TIME).await.map_err(|error| match error {
            CallError::Status { code: OUT_OF_RANGE, .. } => FeedError::Compacted,
            other => FeedError::Call(other),
        })?;
        if at == 0 {
            at = header(page.header);
        }
        let last = page.kvs.last().map(|kv| [&kv.key[..], &[0]].concat());
        for kv in &page.kvs {
            if let Some(key) = object_key(keys, &kv.key)? {
                records.push(record(Arc::new(key), kv, sealer)?);
            }
        }
        match last {
            Some(next) if page.more => from = next,
            _ => return Ok((records, at)),
        }
    }
}

/// `None`: the key is not an object's.
fn object_key(keys: &Keys, key: &[u8]) -> Result<Option<Key>, FeedError> {
    let name = || String::from_utf8_lossy(key).into_owned();
    let Some(rest) = key.strip_prefix(keys.objects.as_bytes()) else { return Ok(None) };
    let parsed = std::str::from_utf8(rest).ok().and_then(value::parse);
    parsed.map(Some).ok_or_else(|| FeedError::Value { key: name(), why: "it is not the key of an object".into() })
}

fn draft(kv: &KeyValue, sealer: Option<&Sealer>) -> Result<crate::Draft, FeedError> {
    let key = String::from_utf8_lossy(&kv.key);
    value::decode(&key, &kv.value, sealer).map_err(|why| FeedError::Value { key: key.into_owned(), why })
}

fn record(key: Arc<Key>, kv: &KeyValue, sealer: Option<&Sealer>) -> Result<Record, FeedError> {
    let at = revision(kv.mod_revision);
    let bytes = draft(kv, sealer)?.finish(at);
    Ok(Record { key, revision: at, created: revision(kv.create_revision), bytes })
}

/// A batch of the watch.
#[derive(Default)]
pub(super) struct Batch {
    pub events: Vec<Arc<Event>>,
    /// What writers said with their writes, and at which revision.
    pub words: Vec<(String, Revision)>,
    /// Newest revision in the batch.
    pub newest: Revision,
}

impl Batch {
    /// Whole revisions, in order; what memory has already is left out.
    pub fn new(
        shared: &Shared,
        keys: &Keys,
        sealer: Option<&Sealer>,
        events: &[wire::Event],
    ) -> Result<Batch, FeedError> {
        let seen = shared.revision();
        let mut batch = Batch::default();
        let mut newest: HashMap<Arc<Key>, Option<Record>> = HashMap::new();
        for event in events {
            let Some(kv) = &event.kv else { continue };
            let at = revision(kv.mod_revision);
            if at <= seen {
                continue;
            }
            batch.newest = batch.newest.max(at);
            if kv.key == keys.head.as_bytes() {
                batch.words.push((String::from_utf8_lossy(&kv.value).into_owned(), at));
            }
            let Some(key) = object_key(keys, &kv.key)? else { continue };
            let key = shared.intern(key);
            let previous = newest.get(&key).cloned().unwrap_or_else(|| shared.get(&key));
            if event.kind == EventType::Put as i32 {
                let record = record(Arc::clone(&key), kv, sealer)?;
                let kind = EventKind::Put { created: kv.create_revision == kv.mod_revision };
                newest.insert(key, Some(record.clone()));
                batch.events.push(Arc::new(Event { kind, record, previous }));
                continue;
            }
            let Some(before) = previous else { continue };
            // Compacted in the meantime.
            let Some(old) = &event.prev_kv else { return Err(FeedError::Compacted) };
            let bytes = draft(old, sealer)?.finish(at);
            let record = Record { key: Arc::clone(&key), revision: at, created: before.created, bytes };
            newest.insert(key, None);
            batch.events.push(Arc::new(Event { kind: EventKind::Delete, record, previous: Some(before) }));
        }
        Ok(batch)
    }
}
