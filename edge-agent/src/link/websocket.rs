//! MQTT inside of a WebSocket: for networks where only HTTPS on port 443 gets out.
//!
//! In: a TLS stream. Out: a stream of bytes, whatever the frames' borders are. Source: RFC 6455; MQTT 3.1.1, section 6.
//! Never: a frame larger than the bound; an answer whose key does not fit (RFC 6455, 4.1).

use super::road::read_head;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BytesMut};
use ring::digest;
use std::{
    io::{Error, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BINARY: u8 = 0x82;
const PONG: u8 = 0x8a;
/// Payload of a frame that is written: one record of TLS.
const WRITE_BYTES_MAX: usize = 16 * 1024;
const CONTROL_BYTES_MAX: u64 = 125;
/// Answers to pings that wait for the socket; who asks more often gets fewer.
const PONGS_BYTES_MAX: usize = 4096;

/// The upgrade; the caller bounds the time.
pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, host: &str, path: &str) -> Result<WebSocket<S>, Error> {
    let mut nonce = [0u8; 16];
    getrandom::fill(&mut nonce).map_err(|e| Error::other(e.to_string()))?;
    let key = STANDARD.encode(nonce);
    let ask = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await?;
    stream.flush().await?;
    let head = read_head(&mut stream).await?;
    let line: String = head.lines().next().unwrap_or_default().chars().take(200).collect();
    if line.split(' ').nth(1) != Some("101") {
        return Err(Error::other(format!("no WebSocket at {path}: {line}")));
    }
    let header = |name: &str| {
        let mut all = head.lines().filter_map(|l| l.split_once(':'));
        all.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_string())
    };
    if header("sec-websocket-accept").as_deref() != Some(accept(&key).as_str()) {
        return Err(Error::new(ErrorKind::InvalidData, "the WebSocket's answer is not to this question"));
    }
    Ok(WebSocket::new(stream))
}

fn accept(key: &str) -> String {
    let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    STANDARD.encode(sum.as_ref())
}

/// Bytes in both directions; frames are made and taken apart inside.
pub struct WebSocket<S> {
    stream: S,
    incoming: BytesMut,
    /// Payload of the present frame that is still to come.
    left: u64,
    outgoing: BytesMut,
    closed: bool,
}

impl<S> WebSocket<S> {
    pub(super) fn new(stream: S) -> WebSocket<S> {
        WebSocket {
            stream,
            incoming: BytesMut::new(),
            left: 0,
            outgoing: BytesMut::new(),
            closed: false,
        }
    }

    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.outgoing.len()
    }

    /// Takes in one frame's header when it is whole; says whether to go on without more bytes.
    fn header(&mut self) -> Result<bool, Error> {
        let bad = |why: &str| Error::new(ErrorKind::InvalidData, format!("a broken WebSocket frame: {why}"));
        let (Some(&first), Some(&second)) = (self.incoming.first(), self.incoming.get(1)) else { return Ok(false) };
        if second & 0x80 != 0 {
            return Err(bad("the hub's are not masked"));
        }
        let (len, head) = match second & 0x7f {
            126 => (self.incoming.get(2..4).map(|b| u64::from(u16::from_be_bytes([b[0], b[1]]))), 4),
            127 => (self.incoming.get(2..10).and_then(|b| b.first_chunk().map(|c| u64::from_be_bytes(*c))), 10),
            small => (Some(u64::from(small)), 2),
        };
        let Some(len) = len else { return Ok(false) };
        match first & 0x0f {
            0..=2 => {
                self.left = len;
                self.incoming.advance(head);
            }
            8 => self.closed = true,
            9 | 10 if len <= CONTROL_BYTES_MAX => {
                let end = head + len as usize;
                if self.incoming.len() < end {
                    return Ok(false);
                }
                self.incoming.advance(head);
                let payload = self.incoming.split_to(len as usize);
                if first & 0x0f == 9 && self.outgoing.len() < PONGS_BYTES_MAX {
                    frame(&mut self.outgoing, PONG, &payload)?;
                }
            }
            other => return Err(bad(&format!("opcode {other}"))),
        }
        Ok(true)
    }
}

/// A masked frame, as clients write them.
fn frame(out: &mut BytesMut, first: u8, payload: &[u8]) -> Result<(), Error> {
    let mut mask = [0u8; 4];
    getrandom::fill(&mut mask).map_err(|e| Error::other(e.to_string()))?;
    out.extend_from_slice(&[first]);
    match payload.len() {
        n @ 0..=125 => out.extend_from_slice(&[0x80 | n as u8]),
        n => {
            out.extend_from_slice(&[0x80 | 126]);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    Ok(())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        loop {
            if this.closed {
                return Poll::Ready(Ok(()));
            }
            if this.left > 0 && !this.incoming.is_empty() {
                let n = (this.left.min(this.incoming.len() as u64) as usize).min(out.remaining());
                out.put_slice(&this.incoming.split_to(n));
                this.left -= n as u64;
                return Poll::Ready(Ok(()));
            }
            if this.left == 0 && this.header()? {
                continue;
            }
            let mut chunk = [0u8; 2048];
            let mut buffer = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                this.closed = true;
            }
            this.incoming.extend_from_slice(buffer.filled());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.outgoing.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing))?;
            if n == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        let part = &bytes[..bytes.len().min(WRITE_BYTES_MAX)];
        frame(&mut this.outgoing, BINARY, part)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[test]
    fn the_key_of_the_specification() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_come_apart_and_together() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let mut socket = WebSocket::new(near);
        // A short frame, a ping, a continuation of 200 bytes with a two-byte length.
        let mut bytes = b"\x82\x02Hi\x89\x01p\x00\x7e\x00\xc8".to_vec();
        bytes.extend([7u8; 200]);
        far.write_all(&bytes).await.unwrap();
        let mut got = [0u8; 202];
        socket.read_exact(&mut got).await.unwrap();
        assert_eq!((&got[..2], got[2..].iter().all(|b| *b == 7)), (&b"Hi"[..], true));
        socket.write_all(b"answer").await.unwrap();
        socket.flush().await.unwrap();
        let mut pong = [0u8; 7];
        far.read_exact(&mut pong).await.unwrap();
        assert_eq!((pong[0], pong[1], pong[6] ^ pong[2]), (PONG, 0x81, b'p'));
        let mut answer = [0u8; 12];
        far.read_exact(&mut answer).await.unwrap();
        let text: Vec<u8> = answer[6..].iter().zip(answer[2..6].iter().cycle()).map(|(b, m)| b ^ m).collect();
        assert_eq!((answer[0], answer[1], &text[..]), (BINARY, 0x86, &b"answer"[..]));
        far.write_all(b"\x88\x00").await.unwrap();
        assert_eq!(socket.read(&mut got).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn broken_frames_end_it() {
        for bytes in [&b"\x82\x82aaaaHi"[..], b"\x83\x00", b"\x89\x7e\x01\x00"] {
            let (near, mut far) = tokio::io::duplex(1024);
            far.write_all(bytes).await.unwrap();
            let mut socket = WebSocket::new(near);
            assert!(socket.read(&mut [0; 10]).await.is_err(), "{bytes:?}");
        }
    }
}
