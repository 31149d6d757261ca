//! MQTT 3.1.1 as far as the link needs it: CONNECT, SUBSCRIBE, PUBLISH with QoS 0, pings.
//!
//! In: bytes of the connection. Out: packets; bytes to write. A packet that is too large is passed over.
//! Never: a buffer above `max`. Source: MQTT 3.1.1 (OASIS), sections 2.2, 3.1 to 3.3, 3.8, 3.9, 3.12 and 3.13.

use alloc::vec::Vec;

#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    /// The return code; 0 is welcome.
    ConnAck(u8),
    /// The return code of the one filter; 0x80 is a refusal.
    SubAck(u8),
    Publish(Vec<u8>),
    PingResp,
    Other,
}

pub const PING: [u8; 2] = [0xc0, 0];

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn head(out: &mut Vec<u8>, first: u8, mut len: usize) {
    out.push(first);
    loop {
        let more = if len > 127 { 0x80 } else { 0 };
        out.push((len % 128) as u8 | more);
        len /= 128;
        if len == 0 {
            return;
        }
    }
}

/// A clean session without will, user and password: who it is, its certificate says.
pub fn connect(client_id: &str, keepalive_s: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    head(&mut out, 0x10, 12 + client_id.len());
    out.extend([0, 4, b'M', b'Q', b'T', b'T', 4, 2]);
    out.extend(keepalive_s.to_be_bytes());
    text(&mut out, client_id);
    out
}

pub fn subscribe(filter: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    head(&mut out, 0x82, 5 + filter.len());
    out.extend([0, 1]);
    text(&mut out, filter);
    out.push(0);
    out
}

/// Appends to `out`, so that several messages share a record of TLS.
pub fn publish(out: &mut Vec<u8>, topic: &str, payload: &[u8]) {
    head(out, 0x30, 2 + topic.len() + payload.len());
    text(out, topic);
    out.extend_from_slice(payload);
}

/// Takes packets out of a stream of bytes.
pub struct Parser {
    buffer: Vec<u8>,
    max: usize,
    /// Bytes of a packet over the limit that are still to come.
    skip: usize,
}

/// The other side speaks no MQTT: the connection is of no use.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

impl Parser {
    pub fn new(max: usize) -> Parser {
        Parser { buffer: Vec::new(), max, skip: 0 }
    }

    /// Call `next` until there is none before this again: then no more than one packet waits.
    pub fn feed(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.buffer.extend_from_slice(&bytes[skipped..]);
    }

    pub fn next(&mut self) -> Result<Option<Packet>, Broken> {
        loop {
            let Some((len, head)) = length(&self.buffer)? else { return Ok(None) };
            let whole = head + len;
            if len > self.max {
                let here = whole.min(self.buffer.len());
                self.skip = whole - here;
                self.buffer.drain(..here);
                continue;
            }
            if self.buffer.len() < whole {
                return Ok(None);
            }
            let found = packet(self.buffer[0], &self.buffer[head..whole]);
            self.buffer.drain(..whole);
            return found.map(Some);
        }
    }
}

/// Length of the body and of the head; `None` while the head is not whole.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Broken> {
    let mut len = 0;
    for (i, byte) in bytes.iter().skip(1).take(4).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((len, i + 2)));
        }
    }
    if bytes.len() > 4 { Err(Broken) } else { Ok(None) }
}

fn packet(first: u8, body: &[u8]) -> Result<Packet, Broken> {
    match first >> 4 {
        2 => body.get(1).map(|c| Packet::ConnAck(*c)).ok_or(Broken),
        9 => body.get(2).map(|c| Packet::SubAck(*c)).ok_or(Broken),
        // Nothing of the link is retained, and nothing has a packet id.
        3 if first & 0x07 != 0 => Ok(Packet::Other),
        3 => {
            let len = body.first_chunk::<2>().map(|l| usize::from(u16::from_be_bytes(*l)));
            let payload = len.and_then(|l| body.get(l + 2..)).ok_or(Broken)?;
            Ok(Packet::Publish(payload.to_vec()))
        }
        13 => Ok(Packet::PingResp),
        4..=8 | 10 | 11 => Ok(Packet::Other),
        _ => Err(Broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parser: &mut Parser) -> Vec<Result<Packet, Broken>> {
        core::iter::from_fn(|| parser.next().transpose()).take(20).collect()
    }

    #[test]
    fn what_is_written_is_mqtt() {
        // Bytes as in sections 3.1 and 3.8 of the specification.
        assert_eq!(connect("pi-1", 340), b"\x10\x10\x00\x04MQTT\x04\x02\x01\x54\x00\x04pi-1");
        assert_eq!(subscribe("n/a/d/+"), b"\x82\x0c\x00\x01\x00\x07n/a/d/+\x00");
        let mut out = Vec::new();
        publish(&mut out, "n/a/u/s", &[7; 200]);
        assert_eq!((&out[..5], out.len()), (&[0x30, 0xd1, 0x01, 0, 7][..], 3 + 2 + 7 + 200));
    }

    #[test]
    fn packets_come_in_any_pieces_and_large_ones_are_passed_over() {
        let mut bytes = b"\x20\x02\x00\x00\x90\x03\x00\x01\x00".to_vec();
        publish(&mut bytes, "t", b"Hi");
        publish(&mut bytes, "t", &[0; 5000]);
        bytes.extend(b"\x31\x05\x00\x01tHi\xd0\x00");
        let want = [Packet::ConnAck(0), Packet::SubAck(0), Packet::Publish(b"Hi".to_vec()), Packet::Other, Packet::PingResp];
        for size in [1, 3, 100, 100_000] {
            let mut parser = Parser::new(1000);
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                parser.feed(piece);
                found.extend(all(&mut parser).into_iter().flatten());
                assert!(parser.buffer.len() <= 1000 + 5, "{size}");
            }
            assert_eq!(found, want, "{size}");
        }
        for broken in [&b"\x30\x02\x00\x05"[..], b"\x30\xff\xff\xff\xff\x01", b"\x20\x01\x00", b"\x00\x00", b"\x10\x00"] {
            let mut parser = Parser::new(1000);
            parser.feed(broken);
            assert_eq!(parser.next(), Err(Broken), "{broken:?}");
        }
    }
}
