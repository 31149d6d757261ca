//! HTTP/2 frames (RFC 9113, 4 and 6).
//!
//! In: a stream. Out: frames without padding and priority, header blocks whole. Never: more than 16 KiB for one frame.

use super::Stream;
use std::io::{Error, Result};
use tokio::io::AsyncReadExt;

pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// What everybody may send who was not told otherwise; we tell nobody otherwise.
pub const FRAME_BYTES_MAX: usize = 16 * 1024;
const BLOCK_BYTES_MAX: usize = 32 * 1024;

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub body: Vec<u8>,
}

impl Frame {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The last of its stream.
    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.has(END_STREAM)
    }

    /// What SETTINGS and PING are answered with.
    pub fn reply(&self) -> Option<Vec<u8>> {
        match self.kind {
            SETTINGS if !self.has(ACK) => Some(one(SETTINGS, ACK, 0, &[])),
            PING if !self.has(ACK) => Some(one(PING, ACK, 0, &self.body)),
            _ => None,
        }
    }
}

/// The next frame; a header block comes as one frame however it was cut.
pub async fn read(from: &mut Stream) -> Result<Frame> {
    let mut frame = read_one(from).await?;
    while frame.kind == HEADERS && !frame.has(END_HEADERS) {
        let more = read_one(from).await?;
        if more.kind != CONTINUATION || more.stream != frame.stream {
            return Err(Error::other("a header block is interrupted"));
        }
        if frame.body.len() + more.body.len() > BLOCK_BYTES_MAX {
            return Err(Error::other("a header block is too large"));
        }
        frame.body.extend_from_slice(&more.body);
        frame.flags |= more.flags & END_HEADERS;
        if more.body.is_empty() && !more.has(END_HEADERS) {
            return Err(Error::other("a header block does not go on"));
        }
    }
    Ok(frame)
}

async fn read_one(from: &mut Stream) -> Result<Frame> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(Error::other("a frame is too large"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    let mut frame = Frame { kind: head[3], flags: head[4], stream, body };
    strip(&mut frame).ok_or_else(|| Error::other("a frame's padding is longer than the frame"))?;
    Ok(frame)
}

/// Takes padding and priority off.
fn strip(frame: &mut Frame) -> Option<()> {
    if !matches!(frame.kind, DATA | HEADERS) {
        return Some(());
    }
    let (mut from, mut to) = (0, frame.body.len());
    if frame.has(PADDED) {
        to = to.checked_sub(usize::from(*frame.body.first()?))?;
        from = 1;
    }
    if frame.kind == HEADERS && frame.has(PRIORITY) {
        from += 5;
    }
    frame.body = frame.body.get(from..to)?.to_vec();
    Some(())
}

pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    let length = (body.len() as u32).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}

pub fn one(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, kind, flags, stream, body);
    out
}

/// SETTINGS: header blocks are to be written without a table (SETTINGS_HEADER_TABLE_SIZE 0).
pub fn put_settings(out: &mut Vec<u8>) {
    put(out, SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
}

/// A body in as many frames as it takes; `flags` go on the last.
pub fn put_data(out: &mut Vec<u8>, flags: u8, stream: u32, body: &[u8]) {
    let mut pieces = body.chunks(FRAME_BYTES_MAX).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { flags } else { 0 };
        put(out, DATA, flags, stream, piece);
    }
}
