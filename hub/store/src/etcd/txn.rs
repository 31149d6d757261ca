//! One transaction of the hub as one of etcd's.
//!
//! In: checks and writes, who writes. Out: the request, and from its answer the records or why it was refused.
//! Each one compares that its writer is still in its session and moves the head; so an old session's request that comes late does
//! nothing, and whoever knows the head's revision knows how far to read.
//! Never: more operations than etcd takes by default.

use super::{
    value,
    wire::{
        Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, Request,
        RequestOp, Response, ResponseOp, Target, TxnRequest, TxnResponse, revision, signed,
    },
};
use crate::{Check, Draft, Expect, Key, Record, Revision, StoreError, Write, limits::RECORD_BYTES_MAX, seal::Sealer};
use std::sync::Arc;

/// etcd's default of `--max-txn-ops` is 128; a write takes two.
const WRITES_MAX: usize = 50;

/// Where the hub keeps what is not an object.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub prefix: String,
    /// Behind the last key of the prefix.
    pub end: String,
    pub objects: String,
    pub head: String,
    pub format: String,
    pub writer: String,
}

impl Keys {
    pub fn new(prefix: &str, writer: &str) -> Keys {
        Keys {
            prefix: format!("{prefix}/"),
            // '0' comes right behind '/'.
            end: format!("{prefix}0"),
            objects: format!("{prefix}/objects/"),
            head: format!("{prefix}/head"),
            format: format!("{prefix}/format"),
            writer: format!("{prefix}/writers/{writer}"),
        }
    }

    fn of(&self, key: &Key) -> Result<String, StoreError> {
        value::key(self.prefix.trim_end_matches('/'), key).ok_or(StoreError::BadKey)
    }
}

struct One {
    key: Arc<Key>,
    at: String,
    expect: Expect,
    /// `None` at the end of `Ask::ones`: only a check.
    act: Act,
}

enum Act {
    Check,
    Put(Draft, Vec<u8>),
    Delete(Option<Draft>),
}

/// A transaction that can be asked for in one session after the other.
pub(super) struct Ask {
    ones: Vec<One>,
}

/// What etcd answered.
pub(super) enum Outcome {
    Written(Revision, Vec<Record>),
    /// The error is true for readers from this revision on.
    Refused(StoreError, Revision),
    /// Another session of the same writer began.
    Fenced,
}

impl Ask {
    pub fn new(keys: &Keys, sealer: Option<&Sealer>, checks: Vec<Check>, writes: Vec<Write>) -> Result<Ask, StoreError> {
        if checks.len() + writes.len() > WRITES_MAX {
            return Err(StoreError::TooLarge("number of writes in one transaction"));
        }
        let mut ones = Vec::with_capacity(checks.len() + writes.len());
        for write in writes {
            let (key, expect, act) = match write {
                Write::Put { key, expect, draft } => {
                    if draft.len() > RECORD_BYTES_MAX {
                        return Err(StoreError::TooLarge("object"));
                    }
                    let sealer = sealer.filter(|s| s.seals(&key.resource));
                    let bytes = value::encode(&keys.of(&key)?, &draft, sealer)?;
                    (key, expect, Act::Put(draft, bytes))
                }
                Write::Delete { key, expect, last } => (key, expect, Act::Delete(last)),
            };
            ones.push(One { at: keys.of(&key)?, key: Arc::new(key), expect, act });
        }
        for Check { key, expect } in checks {
            ones.push(One { at: keys.of(&key)?, key: Arc::new(key), expect, act: Act::Check });
        }
        Ok(Ask { ones })
    }

    /// `word`: what the head says, so that the writer knows its own.
    pub fn request(&self, keys: &Keys, session: Revision, word: String) -> TxnRequest {
        let mut compare = vec![at_revision(&keys.writer, session)];
        let mut success = vec![put(&keys.head, word.into_bytes())];
        for one in &self.ones {
            compare.extend(one.compare());
            match &one.act {
                Act::Check => {}
                Act::Put(_, bytes) => success.extend([put(&one.at, bytes.clone()), look(&one.at)]),
                Act::Delete(_) => {
                    let delete = DeleteRangeRequest { key: one.at.clone().into_bytes(), prev_kv: true };
                    success.push(RequestOp { request: Some(Request::DeleteRange(delete)) });
                }
            }
        }
        let failure = [&keys.head, &keys.writer].into_iter().chain(self.ones.iter().map(|o| &o.at));
        TxnRequest { compare, success, failure: failure.map(|at| look(at)).collect() }
    }

    pub fn outcome(&self, session: Revision, answer: TxnResponse) -> Outcome {
        let at = super::wire::header(answer.header);
        if answer.succeeded {
            let mut kvs = answer.responses.into_iter().filter_map(written);
            let mut record = |one: &One| {
                let found = kvs.next().flatten();
                one.record(at, found)
            };
            let writes = self.ones.iter().filter(|one| !matches!(one.act, Act::Check));
            return Outcome::Written(at, writes.map(&mut record).collect());
        }
        let mut seen = answer.responses.into_iter().map(looked);
        let mut next = || seen.next().flatten();
        let head = next().map_or(0, |kv| revision(kv.mod_revision));
        if next().map(|kv| revision(kv.mod_revision)) != Some(session) {
            return Outcome::Fenced;
        }
        for one in &self.ones {
            let current = next().map(|kv| revision(kv.mod_revision));
            if let Err(error) = one.holds(current) {
                return Outcome::Refused(error, head);
            }
        }
        // It failed, and what is there now would do: the comparison and the look are one moment, so this cannot be.
        Outcome::Fenced
    }
}

impl One {
    fn compare(&self) -> Option<Compare> {
        match (self.expect, &self.act) {
            (Expect::Absent, _) => Some(at_creation(&self.at, CompareResult::Equal)),
            (Expect::Revision(wanted), _) => Some(at_revision(&self.at, wanted)),
            (Expect::Any, Act::Delete(_)) => Some(at_creation(&self.at, CompareResult::Greater)),
            (Expect::Any, _) => None,
        }
    }

    fn holds(&self, current: Option<Revision>) -> Result<(), StoreError> {
        if matches!(self.act, Act::Delete(_)) && current.is_none() {
            return Err(StoreError::NotFound(Arc::clone(&self.key)));
        }
        self.expect.holds(&self.key, current)
    }

    /// `found`: after a put what is there, after a delete what was.
    fn record(&self, revision: Revision, found: Option<KeyValue>) -> Record {
        let created = found.as_ref().map_or(revision, |kv| super::wire::revision(kv.create_revision));
        let bytes = match &self.act {
            Act::Put(draft, _) | Act::Delete(Some(draft)) => draft.finish(revision),
            Act::Delete(None) | Act::Check => bytes::Bytes::new(),
        };
        Record { key: Arc::clone(&self.key), revision, created, bytes }
    }

    /// Its own last words are as they were; a caller that gave none gets what memory knew.
    fn needs_bytes(&self) -> bool {
        matches!(self.act, Act::Delete(None))
    }
}

impl Ask {
    /// The records of a transaction of which only the revision is known; `before` is what memory held of a key.
    pub fn records_at(&self, at: Revision, created: impl Fn(&Key) -> Option<Revision>) -> Vec<Record> {
        let writes = self.ones.iter().filter(|one| !matches!(one.act, Act::Check));
        let record = |one: &One| {
            let mut record = one.record(at, None);
            record.created = created(&one.key).unwrap_or(at);
            record
        };
        writes.map(record).collect()
    }

    /// Keys of deletes without last words.
    pub fn silent(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.ones.iter().filter(|one| one.needs_bytes()).map(|one| &one.key)
    }
}

pub(super) fn put(key: &str, value: Vec<u8>) -> RequestOp {
    RequestOp { request: Some(Request::Put(PutRequest { key: key.as_bytes().to_vec(), value })) }
}

/// Revisions only.
pub(super) fn look(key: &str) -> RequestOp {
    let range = RangeRequest { key: key.as_bytes().to_vec(), keys_only: true, ..RangeRequest::default() };
    RequestOp { request: Some(Request::Range(range)) }
}

pub(super) fn at_creation(key: &str, result: CompareResult) -> Compare {
    Compare {
        result: result as i32,
        target: CompareTarget::Create as i32,
        key: key.as_bytes().to_vec(),
        value: Some(Target::CreateRevision(0)),
    }
}

fn at_revision(key: &str, wanted: Revision) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.as_bytes().to_vec(),
        value: Some(Target::ModRevision(signed(wanted))),
    }
}

pub(super) fn looked(op: ResponseOp) -> Option<KeyValue> {
    match op.response {
        Some(Response::Range(mut range)) => range.kvs.pop(),
        _ => None,
    }
}

/// Of the answers to puts only the look behind each counts.
fn written(op: ResponseOp) -> Option<Option<KeyValue>> {
    match op.response? {
        Response::Range(mut range) => Some(range.kvs.pop()),
        Response::DeleteRange(mut deleted) => Some(deleted.prev_kvs.pop()),
        Response::Put(_) => None,
    }
}
