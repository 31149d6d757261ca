//! The bodies that the API server sends.
//!
//! In: bytes, an iterator of bytes (lists: records copied as they are stored) or a stream (watches, logs).
//! Out: an HTTP body. Chunks are gathered to `limits::CHUNK_BYTES` and compressed on the way when asked.
//! Never: holds a whole list in a second copy.

use super::limits;
use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use futures_util::Stream;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::{
    convert::Infallible,
    io::Write,
    pin::Pin,
    task::{Context, Poll},
};

pub type Reply = http::Response<Body>;
type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;
type Flow = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

pub enum Body {
    Full(Option<Bytes>),
    Chunks(Box<Chunks>),
    Flow(Flow),
}

impl Body {
    pub fn empty() -> Body {
        Body::Full(None)
    }

    pub fn full(bytes: impl Into<Bytes>) -> Body {
        Body::Full(Some(bytes.into()))
    }

    pub fn chunks(pieces: impl Iterator<Item = Bytes> + Send + 'static, gzip: bool) -> Body {
        let zip = gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
        Body::Chunks(Box::new(Chunks { pieces: Some(Box::new(pieces)), zip }))
    }

    /// The next piece of what need not be waited for.
    pub fn next_ready(&mut self) -> Option<Bytes> {
        match self {
            Body::Full(bytes) => bytes.take(),
            Body::Chunks(chunks) => chunks.next_chunk(),
            Body::Flow(_) => None,
        }
    }

    pub fn flow(stream: impl Stream<Item = Bytes> + Send + 'static) -> Body {
        Body::Flow(Box::pin(stream))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::full(text)
    }
}

/// Pieces on their way out, gathered and perhaps compressed.
pub struct Chunks {
    pieces: Option<Pieces>,
    zip: Option<GzEncoder<Vec<u8>>>,
}

impl Chunks {
    fn next_chunk(&mut self) -> Option<Bytes> {
        let pieces = self.pieces.as_mut()?;
        let mut plain = BytesMut::with_capacity(if self.zip.is_some() { 0 } else { limits::CHUNK_BYTES });
        for piece in pieces.by_ref() {
            match &mut self.zip {
                // Writing into a Vec cannot fail.
                Some(zip) => {
                    let _ = zip.write_all(&piece);
                    if zip.get_ref().len() >= limits::CHUNK_BYTES {
                        return Some(std::mem::take(zip.get_mut()).into());
                    }
                }
                // A large piece goes out as it is.
                None if plain.is_empty() && piece.len() >= limits::CHUNK_BYTES => return Some(piece),
                None => {
                    plain.extend_from_slice(&piece);
                    if plain.len() >= limits::CHUNK_BYTES {
                        return Some(plain.freeze());
                    }
                }
            }
        }
        self.pieces = None;
        let last: Bytes = match self.zip.take() {
            Some(zip) => zip.finish().unwrap_or_default().into(),
            None => plain.freeze(),
        };
        (!last.is_empty()).then_some(last)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Body::Full(bytes) => bytes.take(),
            Body::Chunks(chunks) => chunks.next_chunk(),
            Body::Flow(flow) => match flow.as_mut().poll_next(cx) {
                Poll::Ready(next) => next,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn gather(mut chunks: Box<Chunks>) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next_chunk() {
            all.extend_from_slice(&chunk);
        }
        all
    }

    #[test]
    fn chunks_are_whole_with_and_without_gzip() {
        let pieces = || (0..5000u32).map(|i| Bytes::from(format!("piece {i},").repeat(10)));
        let expect: Vec<u8> = pieces().flatten().collect();
        let Body::Chunks(plain) = Body::chunks(pieces(), false) else { unreachable!() };
        assert_eq!(gather(plain), expect);
        let Body::Chunks(zipped) = Body::chunks(pieces(), true) else { unreachable!() };
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&gather(zipped)[..]).read_to_end(&mut out).unwrap();
        assert_eq!(out, expect);
    }
}
