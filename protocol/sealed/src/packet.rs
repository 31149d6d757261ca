//! The outside of packets, which everybody sees.
//!
//! In: bytes from a broker, hostile until parsed. Out: which sort of packet it is, fields. First byte: version and sort.
//! Never: believes a field; what is here only says which check comes next.

use crate::SealError;

pub(crate) const VERSION: u8 = 1;
pub(crate) const HELLO: u8 = VERSION << 4 | 1;
pub(crate) const ANSWER: u8 = VERSION << 4 | 2;
pub(crate) const SEALED: u8 = VERSION << 4 | 3;
pub(crate) const RESET: u8 = VERSION << 4 | 4;
/// Within a session: a sign of life that says nothing else, and so needs no more than a number and a proof.
pub(crate) const BEAT: u8 = VERSION << 4 | 5;
/// A greeting of a node that makes and takes `BEAT`s. Hubs from before them do not answer it.
pub(crate) const HELLO_BEATS: u8 = VERSION << 4 | 6;

/// Names a session among those of a node; comes out of its keys.
pub type SessionId = [u8; 4];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Node to hub: begins a session.
    Hello,
    /// Hub to node.
    Answer,
    /// Of a session.
    Sealed,
    /// Hub to node: the session is not known any more.
    Reset,
}

pub fn kind(packet: &[u8]) -> Option<Kind> {
    Some(match *packet.first()? {
        HELLO | HELLO_BEATS => Kind::Hello,
        ANSWER => Kind::Answer,
        SEALED | BEAT => Kind::Sealed,
        RESET => Kind::Reset,
        _ => return None,
    })
}

/// Which session a sealed packet says that it belongs to.
pub fn session_of(packet: &[u8]) -> Option<SessionId> {
    match packet {
        [SEALED | BEAT, rest @ ..] => rest.first_chunk().copied(),
        _ => None,
    }
}

/// Takes fields from the front.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], SealError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(SealError::Malformed)?;
        self.0 = rest;
        Ok(*array)
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], SealError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(SealError::Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }
}
