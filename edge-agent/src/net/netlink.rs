//! Netlink: an encoder for nested attributes and a socket that waits for its acknowledgements.
//!
//! In: messages. Out: bytes to the kernel, its errors as `std::io::Error`. Never: trusts a length that the kernel did
//! not fill, or mixes the answers of two requests (sequence numbers are compared).

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt::{RcvBuf, SndBuf},
};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd};

pub const REQUEST: u16 = 1;
pub const ACK: u16 = 4;
pub const EXCL: u16 = 0x200;
pub const CREATE: u16 = 0x400;
pub const APPEND: u16 = 0x800;
pub const DUMP: u16 = 0x300;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
const MSG_ERROR: u16 = 2;
const MSG_DONE: u16 = 3;
const RECEIVE_BYTES: usize = 64 * 1024;
/// Answers of one dump.
const DUMP_BYTES_MAX: usize = 16 << 20;

/// One message under construction. Attributes nest with `open` and `close`.
pub struct Message {
    bytes: Vec<u8>,
    open: Vec<usize>,
}

impl Message {
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        let mut message = Message { bytes, open: Vec::new() };
        message.pad();
        message
    }

    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Message {
        let len = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    pub fn text(&mut self, kind: u16, value: &str) -> &mut Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Message {
        self.attr(kind, &value.to_ne_bytes())
    }

    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Message {
        self.attr(kind, &value.to_be_bytes())
    }

    pub fn open(&mut self, kind: u16) -> &mut Message {
        self.open.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    pub fn close(&mut self) -> &mut Message {
        if let Some(at) = self.open.pop() {
            let len = (self.bytes.len() - at) as u16;
            self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        }
        self
    }

    /// A nested attribute whose contents the closure writes.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Message)) -> &mut Message {
        self.open(kind);
        write(self);
        self.close()
    }

    /// Appends raw bytes, aligned: structs inside nested attributes.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Message {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    #[cfg(test)]
    pub fn into_bytes(self) -> Vec<u8> {
        self.finish(0)
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub fn route() -> Result<Socket> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    pub fn netfilter() -> Result<Socket> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Result<Socket> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let _ = setsockopt(&fd, RcvBuf, &(1 << 20));
        Ok(Socket { fd, sequence: 1 })
    }

    /// Sends messages as one batch; the answer to the last one is awaited. An error of any of them is returned.
    pub fn request(&mut self, messages: Vec<Message>) -> Result<()> {
        let Some(last) = messages.len().checked_sub(1) else { return Ok(()) };
        let first = self.sequence;
        let mut bytes = Vec::new();
        for (index, mut message) in messages.into_iter().enumerate() {
            if index == last {
                message.bytes[6] |= ACK as u8;
            }
            bytes.extend(message.finish(self.sequence));
            self.sequence = self.sequence.wrapping_add(1).max(1);
        }
        self.write(&bytes)?;
        let mine = first..=first + last as u32;
        let mut failure = None;
        loop {
            let answer = self.read()?;
            for (kind, sequence, body) in Parts(&answer) {
                if kind != MSG_ERROR || !mine.contains(&sequence) {
                    continue;
                }
                let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                if code != 0 && failure.is_none() {
                    failure = Some(Error::from_raw_os_error(-code));
                }
                if sequence == *mine.end() {
                    return failure.map_or(Ok(()), Err);
                }
            }
            if failure.is_some() {
                // A batch that is refused as a whole may leave its last message without an answer.
                return failure.map_or(Ok(()), Err);
            }
        }
    }

    /// Sends a netfilter batch. The last message but one (the end marker gets no answer) carries the ACK flag; a
    /// refused batch answers with the errors of its messages.
    pub fn batch(&mut self, mut messages: Vec<Message>) -> Result<()> {
        let Some(last) = messages.len().checked_sub(2) else { return Ok(()) };
        messages[last].bytes[6] |= ACK as u8;
        let first = self.sequence;
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(message.finish(self.sequence));
            self.sequence = self.sequence.wrapping_add(1).max(1);
        }
        let _ = setsockopt(&self.fd, SndBuf, &(bytes.len() + 64 * 1024));
        self.write(&bytes)?;
        loop {
            let answer = self.read()?;
            for (kind, sequence, body) in Parts(&answer) {
                if kind != MSG_ERROR || sequence < first {
                    continue;
                }
                return match body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code)) {
                    0 => Ok(()),
                    code => {
                        let err = Error::from_raw_os_error(-code);
                        let index = sequence - first;
                        Err(Error::new(err.kind(), format!("nftables refused message {index} of the batch: {err}")))
                    }
                };
            }
        }
    }

    /// Asks for a list; `each` gets the type and body of every item.
    pub fn dump(&mut self, mut message: Message, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let flags = u16::from_ne_bytes([message.bytes[6], message.bytes[7]]) | DUMP;
        message.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.write(&message.finish(sequence))?;
        let mut total = 0;
        loop {
            let answer = self.read()?;
            total += answer.len();
            if total > DUMP_BYTES_MAX {
                return Err(Error::other("the kernel's list is longer than it can be"));
            }
            for (kind, number, body) in Parts(&answer) {
                match kind {
                    _ if number != sequence => {}
                    MSG_DONE => return Ok(()),
                    MSG_ERROR => {
                        let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code == 0 { Ok(()) } else { Err(Error::from_raw_os_error(-code)) };
                    }
                    kind => each(kind, body),
                }
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        let sent = send(self.fd.as_raw_fd(), bytes, MsgFlags::empty())?;
        if sent == bytes.len() { Ok(()) } else { Err(Error::other("the kernel took only a part of the messages")) }
    }

    fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; RECEIVE_BYTES];
        loop {
            match recv(self.fd.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(len) => {
                    bytes.truncate(len);
                    return Ok(bytes);
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
}

/// The messages of one answer: (type, sequence, body).
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = (u16, u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.get(..HEADER)?;
        let len = u32::from_ne_bytes(*head.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let sequence = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
        let body = self.0.get(HEADER..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    }
}

/// The attributes of a body: (type, value).
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.get(..4)?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}
