//! MQTT as far as the link needs it: CONNECT, SUBSCRIBE, PUBLISH with QoS 0, pings. 3.1.1 towards a hub; 5 towards other brokers
//! that speak it, because a topic has a number there.
//!
//! In: a connected stream. Out: packets written, packets read, each within a bound.
//! Everything that must arrive is numbered and acknowledged by `limpet-protocol`, so QoS 1 would only add packets.
//! Never: more of MQTT than this; a packet larger than the limit; a buffer that stays large after a large packet.
//! Source: MQTT 3.1.1 and 5.0 (OASIS), sections 2.2, 3.1 to 3.3, 3.8, 3.9, 3.12 to 3.14.

use bytes::{Buf, Bytes, BytesMut};
use std::io::{Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Which MQTT is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1
    V4,
    V5,
}

/// What the other side wants, as it says in version 5 when it lets somebody in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Topics may have a number.
    pub aliases: bool,
    /// It wants to hear something at least this often.
    pub keepalive_s: Option<u16>,
}

/// What the hub sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    /// The return code; 0 is welcome.
    ConnAck(u8, Welcome),
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

/// A length of one to four bytes; how many it has.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Error> {
    let mut len = 0usize;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((len, i + 1)));
        }
    }
    if bytes.len() >= 4 { Err(broken("a length of more than four bytes")) } else { Ok(None) }
}

/// `user`: towards a hub's own broker how this client would like to be treated (see `limpet-broker`), not who it is, which the
/// certificate says. A password only counts with a user.
pub fn connect(version: Version, client_id: &str, keepalive_s: u16, user: Option<&str>, password: Option<&str>) -> Vec<u8> {
    let password = password.filter(|_| user.is_some());
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', if version == Version::V5 { 5 } else { 4 }];
    body.push(0x02 | if user.is_some() { 0x80 } else { 0 } | if password.is_some() { 0x40 } else { 0 });
    body.extend(keepalive_s.to_be_bytes());
    if version == Version::V5 {
        // No properties: the session ends with the connection, and topics of the other side have no numbers.
        body.push(0);
    }
    text(&mut body, client_id);
    for word in [user, password].into_iter().flatten() {
        text(&mut body, word);
    }
    let mut out = Vec::with_capacity(body.len() + 4);
    frame(&mut out, 0x10, &[&body]);
    out
}

pub fn subscribe(version: Version, filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
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

/// Version 5, and always on the topic with the number 1. `topic`: what that is, the first time; not needed after it.
pub fn publish_numbered(out: &mut Vec<u8>, topic: Option<&str>, payload: &[u8]) {
    let mut head = Vec::with_capacity(topic.map_or(0, str::len) + 6);
    text(&mut head, topic.unwrap_or_default());
    // Three bytes of properties: the topic's number.
    head.extend([3, TOPIC_ALIAS, 0, 1]);
    frame(out, 0x30, &[&head, payload]);
}

/// Version 5 without a number.
pub fn publish_v5(out: &mut Vec<u8>, topic: &str, payload: &[u8]) {
    let mut head = Vec::with_capacity(topic.len() + 3);
    text(&mut head, topic);
    head.push(0);
    frame(out, 0x30, &[&head, payload]);
}

pub const PING: [u8; 2] = [0xc0, 0];
/// Properties of version 5 (section 2.2.2.2).
const SERVER_KEEP_ALIVE: u8 = 0x13;
const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
const TOPIC_ALIAS: u8 = 0x23;

/// Takes packets out of a stream of bytes.
pub struct Reader<R> {
    stream: R,
    buffer: BytesMut,
    bytes_max: usize,
    version: Version,
    /// What is over the limit is passed over, instead of ending the connection.
    passes_over: bool,
    /// Bytes of such a packet that are still to come.
    skip: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(stream: R, bytes_max: usize) -> Reader<R> {
        Reader { stream, buffer: BytesMut::new(), bytes_max, version: Version::V4, passes_over: false, skip: 0 }
    }

    /// Towards a broker where others may publish what they like.
    pub fn patient(stream: R, bytes_max: usize, version: Version) -> Reader<R> {
        Reader { passes_over: true, version, ..Reader::new(stream, bytes_max) }
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
                    return packet(self.version, first, body);
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
    Ok(length(rest)?.map(|(len, bytes)| (*first, len, bytes + 1)))
}

/// What stands before the rest of a packet in version 5, and the rest.
fn properties(bytes: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let short = || broken("properties that do not end");
    let (len, head) = length(bytes)?.ok_or_else(short)?;
    bytes[head..].split_at_checked(len).ok_or_else(short)
}

/// Of all properties of a CONNACK (section 3.2.2.3) two matter here.
fn welcome(mut properties: &[u8]) -> Result<Welcome, Error> {
    let mut welcome = Welcome::default();
    while let Some((id, rest)) = properties.split_first() {
        let short = || broken("a property that does not end");
        let number = rest.first_chunk::<2>().map(|n| u16::from_be_bytes(*n));
        let len = match *id {
            // A byte, two, four; texts and their length; pairs of texts.
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
            SERVER_KEEP_ALIVE | 0x21 | TOPIC_ALIAS_MAXIMUM => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => 2 + usize::from(number.ok_or_else(short)?),
            0x26 => {
                let key = 2 + usize::from(number.ok_or_else(short)?);
                let value = rest.get(key..).and_then(|r| r.first_chunk::<2>()).ok_or_else(short)?;
                key + 2 + usize::from(u16::from_be_bytes(*value))
            }
            other => return Err(broken(&format!("a property with the number {other}"))),
        };
        properties = rest.get(len..).ok_or_else(short)?;
        match *id {
            TOPIC_ALIAS_MAXIMUM => welcome.aliases = number.is_some_and(|n| n > 0),
            SERVER_KEEP_ALIVE => welcome.keepalive_s = number,
            _ => {}
        }
    }
    Ok(welcome)
}

fn packet(version: Version, first: u8, mut body: Bytes) -> Result<Packet, Error> {
    let v5 = version == Version::V5;
    match first >> 4 {
        2 => {
            let code = *body.get(1).ok_or_else(|| broken("a short CONNACK"))?;
            // Who does not speak version 5 says so as in its own.
            let wanted = if v5 && body.len() > 2 { welcome(properties(&body[2..])?.0)? } else { Welcome::default() };
            Ok(Packet::ConnAck(code, wanted))
        }
        9 => {
            let short = || broken("a short SUBACK");
            let rest = body.get(2..).ok_or_else(short)?;
            let codes = if v5 { properties(rest)?.1 } else { rest };
            codes.first().map(|c| Packet::SubAck(*c)).ok_or_else(short)
        }
        // Nothing of the link is retained.
        3 if first & 1 == 1 => Ok(Packet::Other),
        3 => {
            let topic = body.first_chunk::<2>().map(|l| usize::from(u16::from_be_bytes(*l)));
            // QoS above 0 has a packet id that nobody waits for.
            let id = if first & 0x06 == 0 { 0 } else { 2 };
            let skip = topic.map(|l| l + 2 + id).filter(|s| *s <= body.len());
            body.advance(skip.ok_or_else(|| broken("a PUBLISH whose topic does not end"))?);
            if v5 {
                let payload = properties(&body)?.1.len();
                body.advance(body.len() - payload);
            }
            Ok(Packet::Publish(body))
        }
        // Version 5 lets the other side say why it ends the connection.
        14 if v5 => {
            let code = body.first().copied().unwrap_or(0);
            Err(Error::new(ErrorKind::ConnectionAborted, format!("it ends the connection with code {code}")))
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

    async fn all(bytes: &[u8], version: Version) -> Vec<Result<Packet, String>> {
        let mut reader = Reader { version, ..Reader::new(bytes, 1000) };
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
        assert_eq!(connect(Version::V4, "pi-1", 340, None, Some("no user, no password")), want);
        let v4 = |user, password| connect(Version::V4, "a", 5, user, password);
        assert_eq!(v4(Some("q"), Some("pw")), b"\x10\x14\x00\x04MQTT\x04\xc2\x00\x05\x00\x01a\x00\x01q\x00\x02pw");
        assert_eq!(v4(Some("q"), None), b"\x10\x10\x00\x04MQTT\x04\x82\x00\x05\x00\x01a\x00\x01q");
        assert_eq!(subscribe(Version::V4, "n/a/d/+"), b"\x82\x0c\x00\x01\x00\x07n/a/d/+\x00");
        assert_eq!(connect(Version::V5, "a", 5, None, None), b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x01a");
        assert_eq!(subscribe(Version::V5, "t"), b"\x82\x07\x00\x01\x00\x00\x01t\x00");
        let numbered = |topic| {
            let mut out = Vec::new();
            publish_numbered(&mut out, topic, b"Hi");
            out
        };
        assert_eq!(numbered(Some("t")), b"\x30\x09\x00\x01t\x03\x23\x00\x01Hi");
        assert_eq!(numbered(None), b"\x30\x08\x00\x00\x03\x23\x00\x01Hi");
        let mut out = Vec::new();
        publish(&mut out, "n/a/u/s", &[7; 200]);
        assert_eq!(out[..5], [0x30, 0xd1, 0x01, 0, 7]);
        assert_eq!(out.len(), 3 + 2 + 7 + 200);
    }

    #[tokio::test]
    async fn reads_packets_and_refuses_the_rest() {
        let good = [&b"\x20\x02\x00\x00\x90\x03\x00\x01\x00\x30\x05\x00\x01tHi\xd0\x00"[..], b"\x40\x02\x00\x01"].concat();
        let packets = all(&good, Version::V4).await;
        let want = [
            Packet::ConnAck(0, Welcome::default()),
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
            let last = all(bytes, Version::V4).await.pop().unwrap().unwrap_err();
            assert!(last.contains(words), "{bytes:?}: {last}");
        }
    }

    /// As Mosquitto 2.0 writes it, with every sort of property; and what is none.
    #[tokio::test]
    async fn version_5_says_more() {
        let greeting = b"\x20\x12\x00\x00\x0f\x22\x00\x0a\x13\x00\x3c\x26\x00\x01a\x00\x01b\x28\x01";
        let good = [&greeting[..], b"\x90\x04\x00\x01\x00\x00\x30\x06\x00\x01t\x00Hi\x30\x08\x00\x01t\x02\x01\x01Hi"].concat();
        let packets = all(&good, Version::V5).await;
        let welcome = Welcome { aliases: true, keepalive_s: Some(60) };
        let hi = || Packet::Publish(Bytes::from_static(b"Hi"));
        let want = [Packet::ConnAck(0, welcome), Packet::SubAck(0), hi(), hi()];
        assert!(packets.iter().zip(&want).all(|(p, w)| p.as_ref() == Ok(w)) && packets.len() == 5, "{packets:?}");
        let refused = all(b"\x20\x02\x00\x01", Version::V5).await;
        assert_eq!(refused[0], Ok(Packet::ConnAck(1, Welcome::default())), "by a broker of version 3.1.1");
        for (bytes, words) in [
            (&b"\xe0\x02\x8d\x00"[..], "code 141"),
            (b"\x30\x04\x00\x01t\x7f", "do not end"),
            (b"\x30\x03\x00\x01t", "do not end"),
            (b"\x20\x05\x00\x00\x02\x22\x00", "does not end"),
            (b"\x20\x05\x00\x00\x02\x77\x00", "number 119"),
            (b"\x20\x06\x00\x00\x03\x1f\x00\x09", "does not end"),
            (b"\x90\x03\x00\x01\x00", "short SUBACK"),
        ] {
            let last = all(bytes, Version::V5).await.pop().unwrap().unwrap_err();
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
        let mut reader = Reader::patient(&bytes[..], 1000, Version::V4);
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
                for version in [Version::V4, Version::V5] {
                    let _ = packet(version, first, Bytes::copy_from_slice(&bytes[head..]));
                }
            }
        }
    }
}
