//! Objects as bytes, drafts that wait for their revision, events, and the form of a record on disk.
//!
//! In: canonical JSON from the API. Out: records with the revision written in.
//! Never: parses JSON; the place of the revision is marked by whoever made the bytes.

use crate::{Key, Revision, StoreError, seal::Sealer};
use bytes::Bytes;
use memchr::memmem;
use std::sync::Arc;

/// One object as stored. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub key: Arc<Key>,
    /// Revision of the last change.
    pub revision: Revision,
    /// Revision at which the object was created.
    pub created: Revision,
    /// Canonical JSON with `metadata.resourceVersion` in it.
    pub bytes: Bytes,
}

/// JSON split where the decimal revision goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    head: Vec<u8>,
    tail: Option<Vec<u8>>,
}

impl Draft {
    /// Splits at the only occurrence of `marker` (unquoted; the quotes stay). `None` when it is absent or not unique,
    /// so a marker must be something that the object's author cannot guess or that was checked before.
    pub fn from_marked(json: &[u8], marker: &str) -> Option<Draft> {
        let marker = marker.as_bytes();
        if marker.is_empty() {
            return None;
        }
        let at = memmem::find(json, marker)?;
        let tail = &json[at + marker.len()..];
        // Two that overlap are not unique either.
        if memmem::find(&json[at + 1..], marker).is_some() {
            return None;
        }
        Some(Draft { head: json[..at].to_vec(), tail: Some(tail.to_vec()) })
    }

    /// From the two parts around the revision's decimal digits.
    pub fn from_parts(head: Vec<u8>, tail: Vec<u8>) -> Draft {
        Draft { head, tail: Some(tail) }
    }

    /// Bytes without a revision in them (the hub's own records, which are no API objects).
    pub fn opaque(bytes: Vec<u8>) -> Draft {
        Draft { head: bytes, tail: None }
    }

    /// The bytes around the place of the revision; without such a place there is no second part.
    pub(crate) fn parts(&self) -> (&[u8], Option<&[u8]>) {
        (&self.head, self.tail.as_deref())
    }

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.tail.as_ref().map_or(0, |t| t.len() + 20)
    }

    pub(crate) fn finish(&self, revision: Revision) -> Bytes {
        let Some(tail) = &self.tail else { return Bytes::copy_from_slice(&self.head) };
        let digits = revision.to_string();
        let mut out = Vec::with_capacity(self.head.len() + digits.len() + tail.len());
        out.extend_from_slice(&self.head);
        out.extend_from_slice(digits.as_bytes());
        out.extend_from_slice(tail);
        Bytes::from(out)
    }
}

/// What must be true of the object as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// It does not exist (create).
    Absent,
    /// It exists and its last change is this one.
    Revision(Revision),
    /// Anything for a put; existence for a delete.
    Any,
}

/// A condition on an object that is not written. `Expect::Any` holds always.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    pub key: Key,
    pub expect: Expect,
}

#[derive(Clone, Debug)]
pub enum Write {
    Put { key: Key, expect: Expect, draft: Draft },
    /// `last`: the final state for the event, whose resourceVersion becomes the deletion's revision. Without it the
    /// event carries the bytes as they were.
    Delete { key: Key, expect: Expect, last: Option<Draft> },
}

impl Write {
    pub fn key(&self) -> &Key {
        match self {
            Write::Put { key, .. } | Write::Delete { key, .. } => key,
        }
    }
}

impl Expect {
    /// Whether an object at this revision (`None`: no object) is what was expected, for a put.
    pub(crate) fn holds(self, key: &Arc<Key>, current: Option<Revision>) -> Result<(), StoreError> {
        match (self, current) {
            (Expect::Absent, Some(_)) => Err(StoreError::Exists(Arc::clone(key))),
            (Expect::Revision(_), None) => Err(StoreError::NotFound(Arc::clone(key))),
            (Expect::Revision(wanted), Some(current)) if wanted != current => {
                Err(StoreError::Conflict { key: Arc::clone(key), current })
            }
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    Put { created: bool },
    Delete,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub kind: EventKind,
    /// The state after a put; for a delete the final state with the deletion's revision.
    pub record: Record,
    /// The state before.
    pub previous: Option<Record>,
}

impl Event {
    pub fn revision(&self) -> Revision {
        self.record.revision
    }

    pub fn is_delete(&self) -> bool {
        self.kind == EventKind::Delete
    }
}

/// Bytes in front of the JSON in a stored record: CRC-32, created, revision.
const HEADER: usize = 4 + 8 + 8;
/// In `created`: the JSON is sealed. Revisions never come near.
const SEALED: u64 = 1 << 63;

/// CRC-32 over key, revisions and JSON, so that a record under a wrong key is noticed too.
fn crc(key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

/// What a sealed record is bound to: it opens under no other key and in no other version.
fn bound(key: &[u8], created: Revision, revision: Revision) -> Vec<u8> {
    [key, &created.to_le_bytes(), &revision.to_le_bytes()].concat()
}

/// The record's value in redb.
pub(crate) fn encode(key: &[u8], record: &Record, sealer: Option<&Sealer>) -> Result<Vec<u8>, StoreError> {
    let sealer = sealer.filter(|s| s.seals(&record.key.resource));
    let sealed = sealer.map(|s| s.seal(&bound(key, record.created, record.revision), &record.bytes)).transpose()?;
    let (flag, body) = sealed.as_deref().map_or((0, &record.bytes[..]), |sealed| (SEALED, sealed));
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(record.created | flag).to_le_bytes());
    out.extend_from_slice(&record.revision.to_le_bytes());
    out.extend_from_slice(body);
    let sum = crc(key, &out[4..]);
    out[..4].copy_from_slice(&sum.to_le_bytes());
    Ok(out)
}

/// A value of the file whose checksum is right.
pub(crate) struct Stored<'v> {
    pub created: Revision,
    pub revision: Revision,
    pub is_sealed: bool,
    body: &'v [u8],
    sum: u32,
}

impl Stored<'_> {
    /// Its share in the digest of a table of format 1, which was made from the checksum.
    pub fn share_1(&self) -> u64 {
        spread((u64::from(self.sum) << 32) ^ self.revision)
    }

    pub fn json(&self, key: &[u8], sealer: Option<&Sealer>) -> Result<Bytes, String> {
        if !self.is_sealed {
            return Ok(Bytes::copy_from_slice(self.body));
        }
        let sealer = sealer.ok_or("it holds sealed records, and there is no key file")?;
        sealer.open_sealed(&bound(key, self.created, self.revision), self.body).map(Bytes::from)
    }
}

/// The parts of a value, or why it is not what was written.
pub(crate) fn decode<'v>(key: &[u8], value: &'v [u8]) -> Result<Stored<'v>, &'static str> {
    let number = |at: usize| value.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let stored: [u8; 4] = value.get(..4).and_then(|s| s.try_into().ok()).ok_or("a record is cut short")?;
    let created = number(4).ok_or("a record is cut short")?;
    let revision = number(12).ok_or("a record is cut short")?;
    let sum = crc(key, &value[4..]);
    if sum != u32::from_le_bytes(stored) {
        return Err("a record's checksum does not match");
    }
    let is_sealed = created & SEALED != 0;
    Ok(Stored { created: created & !SEALED, revision, is_sealed, body: &value[HEADER..], sum })
}

/// A record's share in the digest of the whole table: sums of shares notice a lost, doubled or stale record. It is made without
/// the record's bytes, so that it tells nothing of a sealed one.
pub(crate) fn share(key: &[u8], created: Revision, revision: Revision) -> u64 {
    spread((u64::from(crc(key, &created.to_le_bytes())) << 32) ^ revision)
}

fn spread(x: u64) -> u64 {
    let mut x = x ^ 0x9e37_79b9_7f4a_7c15;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_takes_its_revision_at_the_only_marker() {
        let draft = Draft::from_marked(br#"{"rv":"@@","x":1}"#, "@@").expect("one marker");
        assert_eq!(&draft.finish(42)[..], br#"{"rv":"42","x":1}"#);
        assert_eq!(Draft::from_marked(b"none", "@@"), None);
        assert_eq!(Draft::from_marked(b"@@ @@", "@@"), None);
        assert_eq!(Draft::from_marked(b"x", ""), None);
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let key = Key::new("/pods", "default", "web");
        let record = Record { key: Arc::new(key.clone()), revision: 9, created: 3, bytes: Bytes::from_static(b"{}") };
        let good = encode(&key.encode(), &record, None).expect("encoded");
        let stored = decode(&key.encode(), &good).expect("whole");
        assert_eq!((stored.created, stored.revision, stored.is_sealed), (3, 9, false));
        assert_eq!(stored.json(&key.encode(), None).as_deref(), Ok(&b"{}"[..]));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&key.encode(), &bad).is_err(), "bit {bit}");
        }
        assert!(decode(b"/pods\0default\0other", &good).is_err());
        assert!(decode(&key.encode(), &good[..10]).is_err());
    }
}
