//! MQTT 3.1.1 as far as the link needs it: CONNECT, SUBSCRIBE, PUBLISH with QoS 0, pings.
//!
//! In: a connected stream. Out: packets written, packets read, each within a bound.
//! Everything that must arrive is numbered and acknowledged by `limpet-protocol`, so QoS 1 would only add packets.
//! Never: more of MQTT than this; a packet larger than the limit; a buffer that stays large after a large packet.
//! Source: MQTT 3.1.1 (OASIS), sections 2.2, 3.1 to 3.3, 3.8, 3.9, 3.12 to 3.14.

use bytes::{Buf, Bytes, BytesMut};
use std::io::{Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What the hub sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    /// The return code; 0 is welcome.
    ConnAck(u8),
    /// The return code of the one filter; 0x80 is a refusal.
    SubAck(u8),
    Publish(Bytes),
    PingResp,
    /// Answers to what this client does not send, and acknowledgements: passed over.
    Other,
}

/// A read buffer that grew beyond this is given back once it is empty.
const BUFFER_BYTES_KEPT: usize = 16 * 1024;

fn broken(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the hub speaks broken MQTT: {why}"))
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn frame(out: &mut Vec<u8>, first: u8, parts: &[&[u8]]) {
    out.push(first);
    let mut len: usize = parts.iter().map(|p| p.len()).sum();
    loop {
        let byte = (len % 128) as u8;
        len /= 128;
        out.push(if len > 0 { byte | 0x80 } else { byte });
        if len == 0 {
            break;
        }
    }
    parts.iter().for_each(|p| out.extend_from_slice(p));
}

/// `user`: towards a hub's own broker how this client would like to be treated (see `limpet-broker`), not who it is, which the
/// certificate says. A password only counts with a user.
pub fn connect(client_id: &str, keepalive_s: u16, user: Option<&str>, password: Option<&str>) -> Vec<u8> {
    let password = password.filter(|_| user.is_some());
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4];
    body.push(0x02 | if user.is_some() { 0x80 } else { 0 } | if password.is_some() { 0x40 } else { 0 });
    body.extend(keepalive_s.to_be_bytes());
    text(&mut body, client_id);
    for word in [user, password].into_iter().flatten() {
        text(&mut body, word);
    }
    let mut out = Vec::with_capacity(body.len() + 4);
    frame(&mut out, 0x10, &[&body]);
    out
}

pub fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(0);
    let mut out = Vec::with_capacity(body.len() + 4);
    frame(&mut out, 0x82, &[&body]);
    out
}

/// QoS 0. Appends to `out`, so that several messages share a record of TLS.
pub fn publish(out: &mut Vec<u8>, topic: &str, payload: &[u8]) {
    let mut head = Vec::with_capacity(topic.len() + 2);
    text(&mut head, topic);
    frame(out, 0x30, &[&head, payload]);
}

pub const PING: [u8; 2] = [0xc0, 0];

/// Takes packets out of a stream of bytes.
pub struct Reader<R> {
    stream: R,
    buffer: BytesMut,
    bytes_max: usize,
    /// What is over the limit is passed over, instead of ending the connection.
    passes_over: bool,
    /// Bytes of such a packet that are still to come.
    skip: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(stream: R, bytes_max: usize) -> Reader<R> {
        Reader { stream, buffer: BytesMut::new(), bytes_max, passes_over: false, skip: 0 }
    }

    /// Towards a broker where others may publish what they like.
    pub fn patient(stream: R, bytes_max: usize) -> Reader<R> {
        Reader { passes_over: true, ..Reader::new(stream, bytes_max) }
    }

    /// The next packet; an error when the stream ends. May be dropped while it waits: nothing that was read is lost.
    pub async fn next(&mut self) -> Result<Packet, Error> {
        loop {
            let skipped = self.skip.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skip -= skipped;
            if let Some((first, len, head)) = header(&self.buffer)? {
                if len > self.bytes_max {
                    if self.passes_over {
                        self.skip = head + len;
                        continue;
                    }
                    return Err(broken("a packet over the limit"));
                }
                if self.buffer.len() >= head + len {
                    self.buffer.advance(head);
                    let body = self.buffer.split_to(len).freeze();
                    return packet(first, body);
                }
                self.buffer.reserve(head + len - self.buffer.len());
            } else if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_BYTES_KEPT {
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(512);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "the hub closed the connection"));
            }
        }
    }
}

/// First byte, length of the body, length of the header; `None` while it is not whole.
fn header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, Error> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut len = 0usize;
    for (i, byte) in rest.iter().take(4).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((*first, len, i + 2)));
        }
    }
    if rest.len() >= 4 { Err(broken("a length of more than four bytes")) } else { Ok(None) }
}

fn packet(first: u8, mut body: Bytes) -> Result<Packet, Error> {
    match first >> 4 {
        2 => body.get(1).map(|c| Packet::ConnAck(*c)).ok_or_else(|| broken("a short CONNACK")),
        9 => body.get(2).map(|c| Packet::SubAck(*c)).ok_or_else(|| broken("a short SUBACK")),
        // Nothing of the link is retained.
        3 if first & 1 == 1 => Ok(Packet::Other),
        3 => {
            let topic = body.first_chunk::<2>().map(|l| usize::from(u16::from_be_bytes(*l)));
            // QoS above 0 has a packet id that nobody waits for.
            let id = if first & 0x06 == 0 { 0 } else { 2 };
            let skip = topic.map(|l| l + 2 + id).filter(|s| *s <= body.len());
            body.advance(skip.ok_or_else(|| broken("a PUBLISH whose topic does not end"))?);
            Ok(Packet::Publish(body))
        }
        13 => Ok(Packet::PingResp),
        4..=8 | 10 | 11 => Ok(Packet::Other),
        other => Err(broken(&format!("a packet of type {other}"))),
    }
}

/// Writes and pushes it onto the wire.
pub async fn write<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8]) -> Result<(), Error> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(bytes: &[u8]) -> Vec<Result<Packet, String>> {
        let mut reader = Reader::new(bytes, 1000);
        let mut packets = Vec::new();
        loop {
            let next = reader.next().await.map_err(|e| e.to_string());
            let end = next.is_err();
            packets.push(next);
            if end {
                return packets;
            }
        }
    }

    #[test]
    fn what_is_written_is_mqtt() {
        // Bytes as in section 3.1 and 3.8 of the specification.
        let want = b"\x10\x10\x00\x04MQTT\x04\x02\x01\x54\x00\x04pi-1";
        assert_eq!(connect("pi-1", 340, None, Some("no user, no password")), want);
        assert_eq!(connect("a", 5, Some("q"), Some("pw")), b"\x10\x14\x00\x04MQTT\x04\xc2\x00\x05\x00\x01a\x00\x01q\x00\x02pw");
        assert_eq!(connect("a", 5, Some("q"), None), b"\x10\x10\x00\x04MQTT\x04\x82\x00\x05\x00\x01a\x00\x01q");
        assert_eq!(subscribe("n/a/d/+"), b"\x82\x0c\x00\x01\x00\x07n/a/d/+\x00");
        let mut out = Vec::new();
        publish(&mut out, "n/a/u/s", &[7; 200]);
        assert_eq!(out[..5], [0x30, 0xd1, 0x01, 0, 7]);
        assert_eq!(out.len(), 3 + 2 + 7 + 200);
    }

    #[tokio::test]
    async fn reads_packets_and_refuses_the_rest() {
        let good = [&b"\x20\x02\x00\x00\x90\x03\x00\x01\x00\x30\x05\x00\x01tHi\xd0\x00"[..], b"\x40\x02\x00\x01"].concat();
        let packets = all(&good).await;
        let want = [
            Packet::ConnAck(0),
            Packet::SubAck(0),
            Packet::Publish(Bytes::from_static(b"Hi")),
            Packet::PingResp,
            Packet::Other,
        ];
        assert!(packets.iter().zip(&want).all(|(p, w)| p.as_ref() == Ok(w)) && packets.len() == 6, "{packets:?}");
        for (bytes, words) in [
            (&b"\x30\x02\x00\x05"[..], "does not end"),
            (b"\x30\xff\xff\xff\xff\x01", "four bytes"),
            (b"\x30\xff\xff\x01", "over the limit"),
            (b"\x20\x01\x00", "short CONNACK"),
            (b"\x00\x00", "type 0"),
            (b"\x10\x00", "type 1"),
            (b"\x30\x05\x00", "closed"),
        ] {
            let last = all(bytes).await.pop().unwrap().unwrap_err();
            assert!(last.contains(words), "{bytes:?}: {last}");
        }
    }

    #[tokio::test]
    async fn a_patient_reader_passes_over_what_is_too_large() {
        let mut bytes = Vec::new();
        for len in [5, 5000, 6] {
            publish(&mut bytes, "t", &vec![7; len]);
        }
        bytes.extend(b"\x31\x05\x00\x01tHi");
        let mut reader = Reader::patient(&bytes[..], 1000);
        let mut lens = Vec::new();
        while let Ok(packet) = reader.next().await {
            lens.push(if let Packet::Publish(payload) = packet { payload.len() } else { 0 });
        }
        assert_eq!(lens, [5, 6, 0], "the last one is retained");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for seed in 0..20_000u32 {
            let mut x = seed.wrapping_mul(2_654_435_761) | 1;
            let mut bytes = [0u8; 12];
            for b in &mut bytes {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                *b = x as u8;
            }
            if let Ok(Some((first, _, head))) = header(&bytes) {
                let _ = packet(first, Bytes::copy_from_slice(&bytes[head..]));
            }
        }
    }
}
