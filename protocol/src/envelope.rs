//! The frame around every message: version first, then session and sequence, then the message.
//!
//! In: bytes from the network, hostile until parsed. Out: a checked message or a reason.
//! Shape: one byte with the version (bits 0 to 5) and how the rest is written (bit 7: squeezed against the dictionary, from
//! version 2 on), then postcard of `(session, message)`; no byte may be left over.
//! Greetings are always written in version 1, so that each side can read the other's, whatever its age.
//! Never: panics, or allocates more than the bounds allow.

use crate::{dictionary, limits, message::*, squeeze, streams::*};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Newest version of the wire format: 1 the messages, 2 squeezed frames, 3 differences of items and numbered Events,
/// 4 kept logs and messages of workloads.
pub const PROTOCOL_VERSION: u8 = 4;
/// Oldest version that is still spoken: at least two back.
pub const PROTOCOL_VERSION_MIN: u8 = 1;
const GREETING_VERSION: u8 = 1;
const SQUEEZED: u8 = 0x80;
const VERSION_BITS: u8 = 0x3f;

/// The version for two sides of which one speaks `theirs` (oldest, newest) and this one its own; `None` when they have none
/// in common.
pub fn common_version(theirs: (u8, u8), own: (u8, u8)) -> Option<u8> {
    let newest = theirs.1.min(own.1);
    (newest >= theirs.0.max(own.0) && newest > 0).then_some(newest)
}

/// A message with the session that it belongs to. The agent draws a new, larger session number for each connection
/// (kept in its journal); the hub echoes it. A message of another session than the current one is dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Envelope<M> {
    pub session: u64,
    pub message: M,
}

/// Why bytes are not a message. Nobody retries: the sender is broken, hostile or of another version.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("empty message")]
    Empty,
    #[error("message of {0} bytes is over the limit of the receiver")]
    TooLarge(usize),
    #[error(
        "protocol version {0} is not known here (this side speaks {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}); \
         update the older side"
    )]
    Version(u8),
    #[error("message that does not unfold: {0}")]
    Squeezed(#[from] squeeze::SqueezeError),
    #[error("malformed message")]
    Malformed,
    #[error("{0} bytes are left over behind the message")]
    LeftOver(usize),
    #[error("{0} is over its limit")]
    Bound(&'static str),
}

/// Messages know their own bounds.
pub trait Bounded {
    fn check(&self) -> Result<(), DecodeError>;
    /// Greetings are for every version; bulk is not worth the squeezing.
    fn is_greeting(&self) -> bool;
    fn is_bulk(&self) -> bool;
}

impl<M: Serialize + Bounded> Envelope<M> {
    /// Bytes for a peer that speaks `version`. Postcard into a `Vec` cannot fail for these types; an empty vector stands for
    /// the impossible.
    pub fn encode(&self, version: u8) -> Vec<u8> {
        let version = if self.message.is_greeting() { GREETING_VERSION } else { version };
        let plain = self.encode_plain(version);
        if version < 2 || plain.len() < limits::SQUEEZE_BYTES_MIN || self.message.is_bulk() {
            return plain;
        }
        let mut folded = dictionary::PREPARED.fold(&plain[1..]);
        if folded.len() + 1 >= plain.len() {
            return plain;
        }
        folded.insert(0, version | SQUEEZED);
        folded
    }

    /// The same without squeezing, which takes a hundred kilobytes of memory.
    pub fn encode_plain(&self, version: u8) -> Vec<u8> {
        let version = if self.message.is_greeting() { GREETING_VERSION } else { version };
        let mut out = Vec::with_capacity(64);
        out.push(version);
        postcard::to_extend(self, out).unwrap_or_default()
    }
}

impl<M: DeserializeOwned + Bounded> Envelope<M> {
    pub fn decode(bytes: &[u8]) -> Result<Envelope<M>, DecodeError> {
        Envelope::decode_within(bytes, limits::ENVELOPE_BYTES_MAX)
    }

    /// For a receiver with little memory: `max` bounds what comes and what it unfolds to.
    pub fn decode_within(bytes: &[u8], max: usize) -> Result<Envelope<M>, DecodeError> {
        if bytes.len() > max {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let (head, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
        let version = head & VERSION_BITS;
        let squeezed = head & SQUEEZED != 0;
        let known = (PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&version);
        if !known || head & !(VERSION_BITS | SQUEEZED) != 0 || (squeezed && version < 2) {
            return Err(DecodeError::Version(*head));
        }
        let unfolded;
        let rest = if squeezed {
            unfolded = squeeze::unfold(dictionary::WORDS, rest, max)?;
            unfolded.as_slice()
        } else {
            rest
        };
        let (envelope, left) =
            postcard::take_from_bytes::<Envelope<M>>(rest).map_err(|_| DecodeError::Malformed)?;
        if !left.is_empty() {
            return Err(DecodeError::LeftOver(left.len()));
        }
        envelope.message.check()?;
        Ok(envelope)
    }
}

fn bound(ok: bool, what: &'static str) -> Result<(), DecodeError> {
    if ok { Ok(()) } else { Err(DecodeError::Bound(what)) }
}

fn check_extensions(all: &[Extension]) -> Result<(), DecodeError> {
    bound(all.len() <= limits::EXTENSIONS_MAX, "extensions")?;
    bound(all.iter().all(|e| e.bytes.len() <= limits::EXTENSION_BYTES_MAX), "extension")
}

fn check_key(key: &ItemKey) -> Result<(), DecodeError> {
    bound(key.namespace.len() <= 63 && key.name.len() <= 512, "item key")
}

fn check_message(topic: &str, payload: &[u8]) -> Result<(), DecodeError> {
    bound(topic.len() <= limits::MESSAGE_TOPIC_BYTES_MAX, "topic")?;
    bound(payload.len() <= limits::MESSAGE_BYTES_MAX, "message")
}

impl Bounded for Up {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Up::Hello(h) => {
                bound(h.agent_version.len() <= 64 && h.boot_id.len() <= 64, "hello")?;
                check_extensions(&h.extensions)
            }
            Up::Inventory(i) => {
                bound(i.entries.len() <= limits::ITEMS_PER_NODE_MAX, "inventory")?;
                i.entries.iter().try_for_each(|e| check_key(&e.key))
            }
            Up::PodReport(r) => {
                bound(r.status.len() <= limits::STATUS_BYTES_MAX, "pod status")?;
                bound(r.uid.len() <= 64 && r.namespace.len() <= 63 && r.name.len() <= 253, "pod name")
            }
            Up::PodGone(r) => {
                bound(r.uid.len() <= 64 && r.namespace.len() <= 63 && r.name.len() <= 253, "pod name")
            }
            Up::NodeReport(r) => bound(r.body.len() <= limits::STATUS_BYTES_MAX, "node status"),
            Up::Event(e) => bound(e.len() <= limits::EVENT_BYTES_MAX, "event"),
            Up::NumberedEvent(e) => bound(e.json.len() <= limits::EVENT_BYTES_MAX, "event"),
            Up::TokenAsk(a) => check_key(&a.key),
            Up::Stream(f) => f.check(),
            Up::LogPiece(p) => {
                bound(p.text.len() <= limits::LOG_PIECE_BYTES_MAX, "piece of a log")?;
                bound(p.uid.len() <= 64 && p.namespace.len() <= 63 && p.pod.len() <= 253, "pod name")?;
                bound(p.container.len() <= 63, "container name")
            }
            Up::Message(m) => {
                bound(m.namespace.len() <= 63 && m.pod.len() <= 253, "pod name")?;
                check_message(&m.topic, &m.payload)
            }
            Up::Ack(_) => Ok(()),
        }
    }

    fn is_greeting(&self) -> bool {
        matches!(self, Up::Hello(_))
    }

    fn is_bulk(&self) -> bool {
        matches!(self, Up::Stream(_))
    }
}

impl Bounded for Down {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Down::Change(c) => {
                bound(c.puts.len() <= limits::ITEMS_PER_CHANGE_MAX, "items in a change")?;
                bound(c.removals.len() <= limits::ITEMS_PER_NODE_MAX, "removals in a change")?;
                c.removals.iter().try_for_each(|r| check_key(&r.key))?;
                c.puts.iter().try_for_each(|i| {
                    check_key(&i.key)?;
                    bound(i.body.len() <= limits::ITEM_BYTES_MAX, "item body")
                })
            }
            Down::Step(c) => {
                bound(c.puts.len() <= limits::ITEMS_PER_CHANGE_MAX, "items in a step")?;
                bound(c.removals.len() <= limits::ITEMS_PER_NODE_MAX, "removals in a step")?;
                c.removals.iter().try_for_each(|r| check_key(&r.key))?;
                c.puts.iter().try_for_each(|i| {
                    check_key(&i.key)?;
                    bound(i.body.len() <= limits::ITEM_BYTES_MAX, "item body")
                })
            }
            Down::Reported { uid, .. } => bound(uid.len() <= 64, "uid"),
            Down::TokenAnswer(a) => check_key(&a.key),
            Down::Stream(f) => f.check(),
            Down::Goodbye { reason } => bound(reason.len() <= 1024, "reason"),
            Down::Welcome(w) => check_extensions(&w.extensions),
            Down::EventsTaken { .. } | Down::MessagesTaken { .. } => Ok(()),
            Down::LogTaken(t) => bound(t.uid.len() <= 64 && t.container.len() <= 63, "log name"),
            Down::Message(m) => {
                bound(m.namespace.len() <= 63, "namespace")?;
                check_message(&m.topic, &m.payload)
            }
        }
    }

    fn is_greeting(&self) -> bool {
        matches!(self, Down::Welcome(_) | Down::Goodbye { .. })
    }

    fn is_bulk(&self) -> bool {
        matches!(self, Down::Stream(_))
    }
}

impl StreamFrame {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            StreamFrame::Data { bytes, .. } => {
                bound(bytes.len() <= limits::STREAM_FRAME_BYTES_MAX, "stream frame")
            }
            StreamFrame::End { error, .. } => bound(error.len() <= 4096, "stream error"),
            StreamFrame::Open { open, .. } => {
                if let StreamKind::Exec { command, .. } = &open.kind {
                    bound(command.len() <= limits::EXEC_ARGS_MAX, "exec arguments")?;
                }
                bound(open.pod.len() <= 253 && open.namespace.len() <= 63, "pod name")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
