//! The frame around every message: version first, then session and sequence, then the message.
//!
//! In: bytes from the network, hostile until parsed. Out: a checked message or a reason.
//! Shape: one version byte, then postcard of `(session, message)`; no byte may be left over.
//! Never: panics, or allocates more than the input's length allows.

use crate::{limits, message::*, streams::*};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Version of the wire format. A receiver accepts exactly the versions that it knows.
pub const PROTOCOL_VERSION: u8 = 1;

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
    #[error("message of {0} bytes is over the limit of {max}", max = limits::ENVELOPE_BYTES_MAX)]
    TooLarge(usize),
    #[error("protocol version {0} is not known here (this side speaks {PROTOCOL_VERSION}); update the older side")]
    Version(u8),
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
}

impl<M: Serialize> Envelope<M> {
    /// Bytes for the wire. Postcard into a `Vec` cannot fail for these types; an empty vector stands for the impossible.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(PROTOCOL_VERSION);
        postcard::to_extend(self, out).unwrap_or_default()
    }
}

impl<M: DeserializeOwned + Bounded> Envelope<M> {
    pub fn decode(bytes: &[u8]) -> Result<Envelope<M>, DecodeError> {
        if bytes.len() > limits::ENVELOPE_BYTES_MAX {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let (version, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if *version != PROTOCOL_VERSION {
            return Err(DecodeError::Version(*version));
        }
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

fn check_key(key: &ItemKey) -> Result<(), DecodeError> {
    bound(key.namespace.len() <= 63 && key.name.len() <= 512, "item key")
}

impl Bounded for Up {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Up::Hello(h) => bound(h.agent_version.len() <= 64 && h.boot_id.len() <= 64, "hello"),
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
            Up::TokenAsk(a) => check_key(&a.key),
            Up::Stream(f) => f.check(),
            Up::Ack(_) | Up::Alive => Ok(()),
        }
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
            Down::Reported { uid, .. } => bound(uid.len() <= 64, "uid"),
            Down::TokenAnswer(a) => check_key(&a.key),
            Down::Stream(f) => f.check(),
            Down::Goodbye { reason } => bound(reason.len() <= 1024, "reason"),
            Down::Welcome(_) => Ok(()),
        }
    }
}

impl Bounded for StreamFrame {
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
mod tests {
    use super::*;
    use alloc::{string::String, vec};

    fn hello() -> Envelope<Up> {
        Envelope { session: 7, message: Up::Hello(Hello { boot_id: "b".into(), ..Hello::default() }) }
    }

    #[test]
    fn encodes_and_decodes() {
        let bytes = hello().encode();
        assert_eq!(Envelope::<Up>::decode(&bytes), Ok(hello()));
    }

    #[test]
    fn refuses_what_is_not_a_message() {
        assert_eq!(Envelope::<Up>::decode(&[]), Err(DecodeError::Empty));
        let mut bytes = hello().encode();
        bytes.push(0);
        assert_eq!(Envelope::<Up>::decode(&bytes), Err(DecodeError::LeftOver(1)));
        bytes[0] = 9;
        assert_eq!(Envelope::<Up>::decode(&bytes), Err(DecodeError::Version(9)));
        let cut = hello().encode();
        for end in 1..cut.len() {
            assert!(Envelope::<Up>::decode(&cut[..end]).is_err());
        }
    }

    #[test]
    fn bounds_hold() {
        let big = StreamFrame::Data { id: 1, lane: 0, bytes: vec![0; limits::STREAM_FRAME_BYTES_MAX + 1] };
        let bytes = Envelope { session: 1, message: Up::Stream(big) }.encode();
        assert_eq!(Envelope::<Up>::decode(&bytes), Err(DecodeError::Bound("stream frame")));
        let gone = Up::PodGone(PodGone {
            uid: String::from_utf8(vec![b'a'; 100]).unwrap_or_default(),
            namespace: String::new(),
            name: String::new(),
            version: 1,
        });
        assert!(Envelope::<Up>::decode(&Envelope { session: 1, message: gone }.encode()).is_err());
    }
}
