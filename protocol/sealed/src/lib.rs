//! Packets between a hub and a node that a broker carries and neither reads nor changes unnoticed.
//!
//! In: each side's own key, the other side's packets. Out: packets to carry, and what came, in order, or why not.
//! A node greets (`Asking`), the hub answers (`answer`), the node confirms; then both send sealed packets (`Sealer`, `Opener`),
//! each with its number. What was forged, repeated, left out, swapped or meant for another node is refused.
//! Never: sockets, clocks, files; randomness comes from the caller.

mod flow;
mod handshake;
mod key;
mod packet;
mod reset;
mod seal;

pub use flow::{Debt, Joiner, Window, answered_every, parts, unanswered_max};
pub use handshake::{Answered, Asking, Greeting, Pending, Session, answer};
pub use key::{Elsewhere, Key, Point, certified_point, spki};
pub use packet::{Kind, SessionId, kind, session_of};
pub use reset::Reset;
pub use seal::{Inside, Opener, Sealer};
pub use ring::rand::{SecureRandom, SystemRandom};

/// Payload bytes of one sealed packet; a longer message goes in several. Below the limits of usual brokers (128 KiB and up).
pub const PART_BYTES_MAX: usize = 32 * 1024;
/// Any packet: a full part, or an answer with a certificate.
pub const PACKET_BYTES_MAX: usize = PART_BYTES_MAX + 64;
/// Parts that may be under way in one direction before the other side has told that it took some.
pub const WINDOW_PARTS: u32 = 16;
/// DER of the hub's certificate.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;

/// Why a packet is not taken. The receiver drops it; only `Lost` and `Broken` end a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("not a packet of this link")]
    Malformed,
    /// Of another session or another handshake: late, or somebody's copy.
    #[error("a packet of another session")]
    Foreign,
    #[error("a packet that was not made by the other side")]
    Forged,
    #[error("packet {number} has come before")]
    Repeated { number: u32 },
    /// Genuine, so something before it is missing or comes later.
    #[error("packet {got} came instead of {expected}")]
    Lost { expected: u32, got: u32 },
    /// The other side has the key and breaks the rules.
    #[error("{0}")]
    Broken(&'static str),
    #[error("no key: {0}")]
    Key(String),
    #[error("the session has used up its numbers")]
    UsedUp,
}
