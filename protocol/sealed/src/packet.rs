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

/// Names a session among those of a node; comes out of its keys.
pub type SessionId = [u8; 4];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Node to hub: begins a session.
    Hello,
    /// Hub to node.
    Answer,
    Sealed,
    /// Hub to node: the session is not known any more.
    Reset,
}

pub fn kind(packet: &[u8]) -> Option<Kind> {
    Some(match *packet.first()? {
        HELLO => Kind::Hello,
        ANSWER => Kind::Answer,
        SEALED => Kind::Sealed,
        RESET => Kind::Reset,
        _ => return None,
    })
}

/// Which session a sealed packet says that it belongs to.
pub fn session_of(packet: &[u8]) -> Option<SessionId> {
    packet.strip_prefix(&[SEALED])?.first_chunk().copied()
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
