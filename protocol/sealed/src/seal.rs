//! Sealed packets: ChaCha20-Poly1305, each with its number.
//!
//! In: what is to be said; packets. Out: packets; what was said. Shape: sort, session, number (clear, and bound to the rest),
//! then the sealed rest. Number, direction and node are part of what is authenticated; the number is the nonce, which is sound
//! because each key is for one direction of one session. ChaCha20 is quick and even in time on boards without AES.
//! A sign of life has nothing to hide: it is its number and a proof of it (HMAC-SHA256 with a key of its own, 64 bits), where
//! both sides know that; most of what an idle board costs at a broker is such packets.
//! Never: the same number twice; a packet out of its turn.

use crate::{
    PART_BYTES_MAX, SealError,
    packet::{BEAT as BEAT_PACKET, Fields, SEALED, SessionId},
};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hmac,
};

const HEAD_BYTES: usize = 9;
const TAG_BYTES: usize = 16;
const TEXT_BYTES_MAX: usize = 1024;
/// As long as the tags of CCM_8 (RFC 6655), which were made for small devices: a forger has one guess a packet, and each wrong
/// one is counted and told.
const PROOF_BYTES: usize = 8;
/// Sort, session, the lower half of the number, proof.
const BEAT_BYTES: usize = 7 + PROOF_BYTES;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Up = b'u' as isize,
    Down = b'd' as isize,
}

/// What a sealed packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inside {
    /// The node's signature: its first packet.
    Confirm(Vec<u8>),
    /// The hub lets the node in: its first packet.
    Ready,
    /// Nothing but a sign of life.
    Beat,
    /// So many parts of this session were taken.
    Credit(u32),
    /// The session is over; a sentence why.
    Over(String),
    /// A piece of a message on a channel (a letter).
    Part { channel: u8, last: bool, bytes: Vec<u8> },
}

const CONFIRM: u8 = 0;
const READY: u8 = 1;
const BEAT: u8 = 2;
const CREDIT: u8 = 3;
const OVER: u8 = 4;
const PART: u8 = 0x40;
const LAST: u8 = 0x41;

impl Inside {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Inside::Confirm(signature) => {
                out.push(CONFIRM);
                out.extend_from_slice(signature);
            }
            Inside::Ready => out.push(READY),
            Inside::Beat => out.push(BEAT),
            Inside::Credit(parts) => {
                out.push(CREDIT);
                out.extend_from_slice(&parts.to_be_bytes());
            }
            Inside::Over(reason) => {
                out.push(OVER);
                let end = reason.char_indices().map(|(i, c)| i + c.len_utf8()).take_while(|e| *e <= TEXT_BYTES_MAX).last();
                out.extend_from_slice(&reason.as_bytes()[..end.unwrap_or(0)]);
            }
            Inside::Part { channel, last, bytes } => {
                out.extend_from_slice(&[if *last { LAST } else { PART }, *channel]);
                out.extend_from_slice(bytes);
            }
        }
    }

    fn read(plain: &[u8]) -> Result<Inside, SealError> {
        let broken = Err(SealError::Broken("a sealed packet that says nothing known"));
        let Some((kind, rest)) = plain.split_first() else { return broken };
        Ok(match (*kind, rest) {
            (CONFIRM, signature) => Inside::Confirm(signature.to_vec()),
            (READY, []) => Inside::Ready,
            (BEAT, []) => Inside::Beat,
            (CREDIT, &[a, b, c, d]) => Inside::Credit(u32::from_be_bytes([a, b, c, d])),
            (OVER, text) if text.len() <= TEXT_BYTES_MAX => Inside::Over(String::from_utf8_lossy(text).into_owned()),
            (PART | LAST, [channel, bytes @ ..]) if bytes.len() <= PART_BYTES_MAX => {
                Inside::Part { channel: *channel, last: *kind == LAST, bytes: bytes.to_vec() }
            }
            _ => return broken,
        })
    }
}

/// What one direction of a session is made of.
pub(crate) struct LineKeys<'a> {
    pub direction: Direction,
    pub id: SessionId,
    pub key: &'a [u8; 32],
    /// For signs of life; `None`: the other side does not know them, and they are sealed as everything else.
    pub beats: Option<&'a [u8; 32]>,
}

/// What both ends have in common.
struct Line {
    key: LessSafeKey,
    beats: Option<hmac::Key>,
    id: SessionId,
    next: u32,
    /// Direction and node.
    bound: Vec<u8>,
}

impl Line {
    fn new(node: &str, keys: &LineKeys<'_>) -> Result<Line, SealError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, keys.key).map_err(|_| SealError::Key("of a wrong length".into()))?;
        let mut bound = vec![keys.direction as u8];
        bound.extend_from_slice(node.as_bytes());
        let beats = keys.beats.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key));
        Ok(Line { key: LessSafeKey::new(key), beats, id: keys.id, next: 0, bound })
    }

    /// Of a sign of life with this number; `None` where there are none.
    fn beat(&self, number: u32) -> Option<[u8; BEAT_BYTES]> {
        let mut context = hmac::Context::with_key(self.beats.as_ref()?);
        context.update(&[BEAT_PACKET]);
        context.update(&self.id);
        context.update(&number.to_be_bytes());
        context.update(&self.bound);
        let mut packet = [BEAT_PACKET; BEAT_BYTES];
        packet[1..5].copy_from_slice(&self.id);
        packet[5..7].copy_from_slice(&(number as u16).to_be_bytes());
        packet[7..].copy_from_slice(&context.sign().as_ref()[..PROOF_BYTES]);
        Some(packet)
    }

    fn nonce(number: u32) -> Nonce {
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn head(&self, number: u32) -> [u8; HEAD_BYTES] {
        let mut head = [SEALED; HEAD_BYTES];
        head[1..5].copy_from_slice(&self.id);
        head[5..].copy_from_slice(&number.to_be_bytes());
        head
    }

    fn aad(&self, head: &[u8; HEAD_BYTES]) -> Aad<Vec<u8>> {
        Aad::from([head.as_slice(), &self.bound].concat())
    }
}

/// Makes packets.
pub struct Sealer(Line);

impl Sealer {
    pub(crate) fn new(node: &str, keys: &LineKeys<'_>) -> Result<Sealer, SealError> {
        Line::new(node, keys).map(Sealer)
    }

    pub fn id(&self) -> SessionId {
        self.0.id
    }

    pub fn seal(&mut self, inside: &Inside) -> Result<Vec<u8>, SealError> {
        let line = &mut self.0;
        let number = line.next;
        // The last number stays unused, so that the counter never turns over.
        line.next = number.checked_add(1).ok_or(SealError::UsedUp)?;
        if let (Inside::Beat, Some(beat)) = (inside, line.beat(number)) {
            return Ok(beat.to_vec());
        }
        let head = line.head(number);
        let mut text = Vec::new();
        inside.write(&mut text);
        let tag = line.key.seal_in_place_separate_tag(Line::nonce(number), line.aad(&head), &mut text);
        let tag = tag.map_err(|_| SealError::UsedUp)?;
        Ok([head.as_slice(), &text, tag.as_ref()].concat())
    }
}

/// Takes packets, each in its turn.
pub struct Opener(Line);

impl Opener {
    pub(crate) fn new(node: &str, keys: &LineKeys<'_>) -> Result<Opener, SealError> {
        Line::new(node, keys).map(Opener)
    }

    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// What was said. An error leaves the opener as it was; `Lost` comes only for a genuine packet.
    pub fn open(&mut self, packet: &[u8]) -> Result<Inside, SealError> {
        if packet.first() == Some(&BEAT_PACKET) {
            return self.beat(packet);
        }
        let line = &mut self.0;
        if packet.len() < HEAD_BYTES + TAG_BYTES + 1 || packet[0] != SEALED {
            return Err(SealError::Malformed);
        }
        let mut fields = Fields(&packet[1..]);
        if fields.array::<4>()? != line.id {
            return Err(SealError::Foreign);
        }
        let number = u32::from_be_bytes(fields.array()?);
        if number < line.next {
            return Err(SealError::Repeated { number });
        }
        let head = line.head(number);
        let mut text = fields.0.to_vec();
        let plain = line.key.open_in_place(Line::nonce(number), line.aad(&head), &mut text).map_err(|_| SealError::Forged)?;
        if number > line.next {
            return Err(SealError::Lost { expected: line.next, got: number });
        }
        let inside = Inside::read(plain)?;
        line.next = number.checked_add(1).ok_or(SealError::UsedUp)?;
        Ok(inside)
    }

    /// The packet has the lower half of its number: the nearest one to what is expected is meant.
    fn beat(&mut self, packet: &[u8]) -> Result<Inside, SealError> {
        let line = &mut self.0;
        let packet: &[u8; BEAT_BYTES] = packet.try_into().map_err(|_| SealError::Malformed)?;
        if packet[1..5] != line.id {
            return Err(SealError::Foreign);
        }
        let ahead = u16::from_be_bytes([packet[5], packet[6]]).wrapping_sub(line.next as u16) as i16;
        let number = line.next.checked_add_signed(ahead.into()).ok_or(SealError::Malformed)?;
        if ahead < 0 {
            return Err(SealError::Repeated { number });
        }
        let genuine = line.beat(number).ok_or(SealError::Malformed)?;
        // Every byte is looked at, wherever the first difference is.
        if genuine.iter().zip(packet).fold(0, |differs, (a, b)| differs | (a ^ b)) != 0 {
            return Err(SealError::Forged);
        }
        if ahead > 0 {
            return Err(SealError::Lost { expected: line.next, got: number });
        }
        line.next = number.checked_add(1).ok_or(SealError::UsedUp)?;
        Ok(Inside::Beat)
    }
}
