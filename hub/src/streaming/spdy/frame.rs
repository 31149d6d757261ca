//! SPDY/3.1 frames (draft-mbelshe-httpbis-spdy-00, section 2.2), as far as Kubernetes' clients use them.
//!
//! In: bytes in pieces of any size, or frames. Out: frames, or bytes.
//! Never: keeps more than one frame; SETTINGS and WINDOW_UPDATE are read and mean nothing (no peer counts
//! windows).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::super::limits::{SPDY_CONTROL_BYTES_MAX, SPDY_DATA_BYTES_MAX};
use super::SpdyError;
use super::headers::{Deflater, Headers, Inflater};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    Data {
        id: u32,
        fin: bool,
        bytes: Bytes,
    },
    Reset {
        id: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: u32,
        status: u32,
    },
    /// SETTINGS, HEADERS, WINDOW_UPDATE and what is unknown.
    Ignored {
        kind: u16,
    },
}

pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 3;
pub const CANCEL: u32 = 5;

const HEAD: usize = 8;
const CONTROL: u32 = 0x8003_0000;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;
const ID: u32 = 0x7fff_ffff;

/// Bytes to frames.
pub struct Decoder {
    buffer: BytesMut,
    headers: Inflater,
}

impl Decoder {
    pub fn new() -> Decoder {
        Decoder { buffer: BytesMut::new(), headers: Inflater::new() }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame. An error ends the connection.
    pub fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        if self.buffer.len() < HEAD {
            return Ok(None);
        }
        let mut head = &self.buffer[..HEAD];
        let first = head.get_u32();
        let flags_and_length = head.get_u32();
        let (flags, length) = ((flags_and_length >> 24) as u8, (flags_and_length & 0x00ff_ffff) as usize);
        let control = first & 0x8000_0000 != 0;
        let bound = if control { SPDY_CONTROL_BYTES_MAX } else { SPDY_DATA_BYTES_MAX };
        if length > bound {
            return Err(SpdyError("a frame is too large"));
        }
        if control && first & 0xffff_0000 != CONTROL {
            return Err(SpdyError("a control frame is not of SPDY version 3"));
        }
        if self.buffer.len() < HEAD + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let body = self.buffer.split_to(length).freeze();
        if !control {
            return Ok(Some(Frame::Data { id: first & ID, fin: flags & FIN != 0, bytes: body }));
        }
        self.control(first as u16, flags & FIN != 0, body).map(Some)
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: Bytes) -> Result<Frame, SpdyError> {
        let needed = match kind {
            SYN_STREAM => 10,
            SYN_REPLY | PING | HEADERS => 4,
            RST_STREAM | GOAWAY => 8,
            _ => 0,
        };
        if body.len() < needed {
            return Err(SpdyError("a control frame is too short"));
        }
        Ok(match kind {
            SYN_STREAM => {
                let id = body.get_u32() & ID;
                // Associated stream, priority and slot.
                body.advance(6);
                Frame::SynStream { id, fin, headers: self.headers.block(&body)? }
            }
            SYN_REPLY => {
                let id = body.get_u32() & ID;
                Frame::SynReply { id, fin, headers: self.headers.block(&body)? }
            }
            RST_STREAM => Frame::Reset { id: body.get_u32() & ID, status: body.get_u32() },
            PING => Frame::Ping { id: body.get_u32() },
            GOAWAY => Frame::GoAway { last: body.get_u32() & ID, status: body.get_u32() },
            HEADERS => {
                // Read all the same: the zlib stream runs on through it.
                body.advance(4);
                self.headers.block(&body)?;
                Frame::Ignored { kind }
            }
            kind => Frame::Ignored { kind },
        })
    }
}

/// Frames to bytes.
pub struct Encoder {
    headers: Deflater,
}

impl Encoder {
    pub fn new() -> Result<Encoder, SpdyError> {
        Ok(Encoder { headers: Deflater::new()? })
    }

    /// The bytes of a frame, in the order in which they must be sent.
    pub fn frame(&mut self, frame: &Frame) -> Result<BytesMut, SpdyError> {
        let mut out = BytesMut::new();
        match frame {
            Frame::SynStream { id, fin, headers } => {
                let block = self.headers.block(headers)?;
                head(&mut out, SYN_STREAM, *fin, 10 + block.len());
                out.put_u32(*id);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => {
                let block = self.headers.block(headers)?;
                head(&mut out, SYN_REPLY, *fin, 4 + block.len());
                out.put_u32(*id);
                out.put_slice(&block);
            }
            Frame::Data { id, fin, bytes } => {
                out.reserve(HEAD + bytes.len());
                out.put_u32(*id);
                out.put_u32((u32::from(u8::from(*fin)) << 24) | bytes.len() as u32);
                out.put_slice(bytes);
            }
            Frame::Reset { id, status } => {
                head(&mut out, RST_STREAM, false, 8);
                out.put_u32(*id);
                out.put_u32(*status);
            }
            Frame::Ping { id } => {
                head(&mut out, PING, false, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last, status } => {
                head(&mut out, GOAWAY, false, 8);
                out.put_u32(*last);
                out.put_u32(*status);
            }
            Frame::Ignored { .. } => {}
        }
        Ok(out)
    }
}

fn head(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.reserve(HEAD + length);
    out.put_u32(CONTROL | u32::from(kind));
    out.put_u32((u32::from(u8::from(fin)) << 24) | length as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let headers = Headers::of(&[("streamtype", "data"), ("port", "8080"), ("requestid", "3")]);
        vec![
            Frame::SynStream { id: 1, fin: true, headers: headers.clone() },
            Frame::SynReply { id: 1, fin: false, headers: Headers::default() },
            Frame::Data { id: 1, fin: false, bytes: Bytes::from_static(b"hello") },
            Frame::Data { id: 1, fin: true, bytes: Bytes::new() },
            Frame::SynStream { id: 3, fin: false, headers },
            Frame::Reset { id: 3, status: CANCEL },
            Frame::Ping { id: 7 },
            Frame::GoAway { last: 3, status: 0 },
        ]
    }

    #[test]
    fn frames_round_trip_in_pieces_of_any_size() {
        for size in [1, 3, 7, 1000] {
            let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::new());
            let bytes: Vec<u8> = frames().iter().flat_map(|f| encoder.frame(f).unwrap().to_vec()).collect();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames(), "{size}");
        }
    }

    #[test]
    fn the_bytes_of_frames_without_headers_are_golden() {
        let cases: [(Frame, &[u8]); 5] = [
            (
                Frame::Data { id: 5, fin: true, bytes: Bytes::from_static(b"hi") },
                &[0, 0, 0, 5, 1, 0, 0, 2, b'h', b'i'],
            ),
            (Frame::Reset { id: 3, status: 5 }, &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5]),
            (Frame::Ping { id: 1 }, &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]),
            (Frame::GoAway { last: 9, status: 0 }, &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0]),
            (Frame::Data { id: 1, fin: false, bytes: Bytes::new() }, &[0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (frame, bytes) in cases {
            assert_eq!(&Encoder::new().unwrap().frame(&frame).unwrap()[..], bytes);
            let mut decoder = Decoder::new();
            decoder.push(bytes);
            assert_eq!(decoder.next(), Ok(Some(frame)));
        }
    }

    /// A SYN_STREAM as another implementation of zlib writes it: made with Python's zlib and the draft's
    /// dictionary from {"streamtype": "error", "port": "80", "requestid": "0"}.
    #[test]
    fn a_foreign_syn_stream_is_read() {
        let mut decoder = Decoder::new();
        decoder.push(FOREIGN);
        let headers = Headers::of(&[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
        assert_eq!(decoder.next(), Ok(Some(Frame::SynStream { id: 1, fin: false, headers })));
    }

    #[rustfmt::skip]
    const FOREIGN: &[u8] = &[
        0x80, 0x03, 0x00, 0x01, 0x00, 0x00, 0x00, 0x3c, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0x25, 0x3a, 0x70, 0x3a, 0x2b, 0x29, 0x4a,
        0x4d, 0xcc, 0x85, 0x16, 0x25, 0xac, 0xa9, 0xa0, 0x80, 0x86, 0x14, 0xcb, 0x45, 0xa0, 0x24, 0xcc,
        0x64, 0x61, 0x00, 0x24, 0x39, 0x8b, 0x20, 0x91, 0x98, 0x09, 0x4a, 0xdc, 0x8c, 0x06, 0x00, 0x00,
        0x00, 0x00, 0xff, 0xff,
    ];

    #[test]
    fn hostile_frames_are_refused() {
        let cases: [(&[u8], &str); 4] = [
            (&[0x80, 2, 0, 1, 0, 0, 0, 0], "a control frame is not of SPDY version 3"),
            (&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], "a frame is too large"),
            (&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff], "a frame is too large"),
            (&[0x80, 3, 0, 3, 0, 0, 0, 2, 1, 1], "a control frame is too short"),
        ];
        for (bytes, words) in cases {
            let mut decoder = Decoder::new();
            decoder.push(bytes);
            assert_eq!(decoder.next().unwrap_err().to_string(), words);
        }
        let mut decoder = Decoder::new();
        decoder.push(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0]);
        assert_eq!(decoder.next(), Ok(Some(Frame::Ignored { kind: 4 })));
        assert_eq!(decoder.next(), Ok(None));
    }
}
