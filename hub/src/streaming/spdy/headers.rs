//! SPDY/3 header blocks: name-value pairs in one zlib stream per direction and connection.
//!
//! In: pairs, or a compressed block. Out: the compressed block, or pairs.
//! Never: inflates beyond its bound. The streams have state: blocks go through in the order of the wire.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::super::limits::{SPDY_HEADERS_BYTES_MAX, SPDY_HEADERS_MAX};
use super::SpdyError;
use super::dictionary::dictionary;

/// Names are lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    #[cfg(test)]
    pub fn of(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect())
    }
}

pub struct Deflater(Compress);

impl Deflater {
    pub fn new() -> Result<Deflater, SpdyError> {
        let mut zip = Compress::new(Compression::fast(), true);
        zip.set_dictionary(dictionary()).map_err(|_| SpdyError("cannot set the header dictionary"))?;
        Ok(Deflater(zip))
    }

    pub fn block(&mut self, headers: &Headers) -> Result<Vec<u8>, SpdyError> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&(headers.0.len() as u32).to_be_bytes());
        for (name, value) in &headers.0 {
            for text in [name, value] {
                plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
                plain.extend_from_slice(text.as_bytes());
            }
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let taken = (self.0.total_in() - start) as usize;
            out.reserve(256);
            let before = out.len();
            self.0
                .compress_vec(&plain[taken..], &mut out, FlushCompress::Sync)
                .map_err(|_| SpdyError("cannot compress headers"))?;
            let all_in = (self.0.total_in() - start) as usize == plain.len();
            // A sync flush is complete when there was room to spare.
            if all_in && (out.len() < out.capacity() || out.len() == before) {
                return Ok(out);
            }
        }
    }
}

pub struct Inflater(Decompress);

impl Inflater {
    pub fn new() -> Inflater {
        Inflater(Decompress::new(true))
    }

    pub fn block(&mut self, compressed: &[u8]) -> Result<Headers, SpdyError> {
        let bad = SpdyError("the header block is not zlib");
        let mut plain = Vec::new();
        let start = self.0.total_in();
        loop {
            let taken = (self.0.total_in() - start) as usize;
            let (before_in, before_out) = (self.0.total_in(), plain.len());
            plain.reserve(1024);
            match self.0.decompress_vec(&compressed[taken..], &mut plain, FlushDecompress::Sync) {
                Ok(Status::Ok | Status::BufError) => {}
                Ok(Status::StreamEnd) => return Err(SpdyError("the header stream has ended")),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(dictionary()).map_err(|_| bad)?;
                    continue;
                }
                Err(_) => return Err(bad),
            }
            if plain.len() > SPDY_HEADERS_BYTES_MAX {
                return Err(SpdyError("the header block is too large"));
            }
            let still = self.0.total_in() == before_in && plain.len() == before_out;
            let all_in = (self.0.total_in() - start) as usize == compressed.len();
            if still || (all_in && plain.len() < plain.capacity()) {
                break;
            }
        }
        parse(&plain)
    }
}

fn parse(mut plain: &[u8]) -> Result<Headers, SpdyError> {
    let count = number(&mut plain)? as usize;
    if count > SPDY_HEADERS_MAX {
        return Err(SpdyError("too many headers"));
    }
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, value) = (text(&mut plain)?, text(&mut plain)?);
        pairs.push((name.to_ascii_lowercase(), value));
    }
    Ok(Headers(pairs))
}

const SHORT: SpdyError = SpdyError("the header block is cut off");

fn number(rest: &mut &[u8]) -> Result<u32, SpdyError> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    *rest = after;
    Ok(u32::from_be_bytes(*bytes))
}

fn text(rest: &mut &[u8]) -> Result<String, SpdyError> {
    let length = number(rest)? as usize;
    let (bytes, after) = rest.split_at_checked(length).ok_or(SHORT)?;
    *rest = after;
    String::from_utf8(bytes.to_vec()).map_err(|_| SpdyError("a header is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_round_trip_through_one_stream() {
        let (mut zip, mut unzip) = (Deflater::new().unwrap(), Inflater::new());
        let long = "x".repeat(20_000);
        let blocks = [
            Headers::of(&[("streamtype", "error"), ("port", "80"), ("requestid", "0")]),
            Headers::of(&[]),
            Headers::of(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
            Headers::of(&[("long", &long), ("more", "y")]),
            Headers::of(&[("streamtype", "data")]),
        ];
        for (i, headers) in blocks.iter().enumerate() {
            let block = zip.block(headers).unwrap();
            if i == 0 {
                // CMF, FLG and the dictionary's id.
                assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
            }
            assert_eq!(&unzip.block(&block).unwrap(), headers);
        }
    }

    #[test]
    fn hostile_blocks_are_refused() {
        let refuse = |plain: &[u8]| parse(plain).unwrap_err();
        assert_eq!(refuse(&[0, 0, 0]), SHORT);
        assert_eq!(refuse(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), SHORT);
        assert_eq!(refuse(&[0xff; 4]), SpdyError("too many headers"));
        assert!(Inflater::new().block(b"garbage").is_err());
        let huge = "x".repeat(SPDY_HEADERS_BYTES_MAX);
        let bomb = Deflater::new().unwrap().block(&Headers::of(&[("a", &huge)])).unwrap();
        assert!(bomb.len() < 1000);
        assert_eq!(Inflater::new().block(&bomb), Err(SpdyError("the header block is too large")));
    }
}
