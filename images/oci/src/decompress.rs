//! A layer's bytes, decompressed as they come: plain tar, gzip or zstd, told apart by their first bytes.
//!
//! In: the blob as a reader. Out: the archive as a reader.
//! Never: believes the media type (registries and builders mix them up), or takes a zstd window past the bound.

use crate::limits::ZSTD_WINDOW_BYTES_MAX;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufReader, Read};

const BUFFER: usize = 64 * 1024;
/// Magic, descriptor, window, dictionary id and content size of a zstd frame (RFC 8878, 3.1.1.1).
const ZSTD_HEADER_MAX: usize = 18;

pub enum Decompressed<R: Read> {
    Plain(Peek<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Peek<R>>>>),
    Zstd(Box<ZstdFrames<R>>),
}

impl<R: Read> Decompressed<R> {
    /// Reads the first bytes of `blob` to see what it is.
    pub fn new(blob: R) -> io::Result<Decompressed<R>> {
        let mut blob = Peek { front: Vec::new(), inner: blob };
        Ok(match blob.peek(4)? {
            [0x1f, 0x8b, ..] => {
                Decompressed::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, blob))))
            }
            magic if is_zstd(magic) || is_skippable(magic) => {
                Decompressed::Zstd(Box::new(ZstdFrames { source: blob, decoder: FrameDecoder::new(), open: false }))
            }
            _ => Decompressed::Plain(blob),
        })
    }

    /// Reads what is left of the blob behind the archive, so that a digest over it is complete.
    pub fn drain(self) -> io::Result<()> {
        let mut sink = io::sink();
        match self {
            Decompressed::Plain(mut r) => io::copy(&mut r, &mut sink),
            Decompressed::Gzip(gzip) => io::copy(&mut gzip.into_inner(), &mut sink),
            Decompressed::Zstd(mut zstd) => io::copy(&mut zstd.source, &mut sink),
        }
        .map(|_| ())
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decompressed::Plain(r) => r.read(buf),
            Decompressed::Gzip(r) => r.read(buf),
            Decompressed::Zstd(r) => r.read(buf),
        }
    }
}

/// A reader that can look a few bytes ahead.
pub struct Peek<R> {
    front: Vec<u8>,
    inner: R,
}

impl<R: Read> Peek<R> {
    /// The next `count` bytes, or what is left.
    fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        let missing = count.saturating_sub(self.front.len());
        (&mut self.inner).take(missing as u64).read_to_end(&mut self.front)?;
        Ok(&self.front)
    }
}

impl<R: Read> Read for Peek<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.front.is_empty() {
            return self.inner.read(buf);
        }
        let count = buf.len().min(self.front.len());
        buf[..count].copy_from_slice(&self.front[..count]);
        self.front.drain(..count);
        Ok(count)
    }
}

/// Frame after frame, skippable ones skipped (zstd:chunked and pzstd write several).
pub struct ZstdFrames<R> {
    source: Peek<R>,
    decoder: FrameDecoder,
    open: bool,
}

impl<R: Read> ZstdFrames<R> {
    /// Opens the next frame; false at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            let head = self.source.peek(ZSTD_HEADER_MAX)?;
            if head.is_empty() {
                return Ok(false);
            }
            if is_skippable(head) {
                let length = head.get(4..8).and_then(|l| l.try_into().ok()).map(u32::from_le_bytes);
                let length = 8 + u64::from(length.ok_or(io::ErrorKind::UnexpectedEof)?);
                if io::copy(&mut (&mut self.source).take(length), &mut io::sink())? < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
            // The decoder itself checks the window of its second frame only, and keeps a window's worth in memory.
            let window = window_bytes(head).ok_or_else(|| invalid("the zstd stream is malformed"))?;
            if window > ZSTD_WINDOW_BYTES_MAX {
                return Err(invalid(&format!(
                    "the zstd stream needs a window of {window} bytes, more than the {ZSTD_WINDOW_BYTES_MAX} allowed: \
                     compress the layer with a lower level"
                )));
            }
            self.decoder.init(&mut self.source).map_err(|e| invalid(&e.to_string()))?;
            self.open = true;
            return Ok(true);
        }
    }
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.open && !self.next_frame()? {
                return Ok(0);
            }
            if self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let some = BlockDecodingStrategy::UptoBytes(buf.len());
                self.decoder.decode_blocks(&mut self.source, some).map_err(|e| invalid(&e.to_string()))?;
            }
            match self.decoder.read(buf)? {
                0 if self.decoder.is_finished() => {
                    // A frame without a checksum has nothing to compare.
                    if self.decoder.get_checksum_from_data().is_some_and(|s| Some(s) != self.decoder.get_calculated_checksum()) {
                        return Err(invalid("the zstd stream's checksum does not fit: it is damaged"));
                    }
                    self.open = false;
                }
                0 => {}
                got => return Ok(got),
            }
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn is_zstd(magic: &[u8]) -> bool {
    magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

fn is_skippable(magic: &[u8]) -> bool {
    matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// How much a frame wants to be remembered (RFC 8878, 3.1.1.1.2); None: no zstd frame.
fn window_bytes(head: &[u8]) -> Option<u64> {
    if !is_zstd(head) {
        return None;
    }
    let descriptor = *head.get(4)?;
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let window = u64::from(*head.get(5)?);
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * (window & 7));
    }
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = head.get(5 + dictionary..5 + dictionary + size_bytes)?;
    let size = field.iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
    Some(if size_bytes == 2 { size + 256 } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decompressed::new(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn text() -> Vec<u8> {
        (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    #[test]
    fn formats_are_told_apart_by_content() {
        let text = text();
        let gzip = crate::builder::gzip(&text);
        let zstd = compress_to_vec(text.as_slice(), CompressionLevel::Fastest);
        assert_eq!(all(&text).unwrap(), text);
        assert_eq!(all(&gzip).unwrap(), text);
        assert_eq!(all(&zstd).unwrap(), text);
        assert_eq!(all(b"").unwrap(), b"");
        assert_eq!(all(b"ab").unwrap(), b"ab");
    }

    #[test]
    fn several_members_and_skippable_frames() {
        let text = text();
        let gzip = crate::builder::gzip(&text);
        assert_eq!(all(&[gzip.clone(), gzip].concat()).unwrap().len(), 2 * text.len());
        let zstd = compress_to_vec(text.as_slice(), CompressionLevel::Fastest);
        let skip = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let joined = [skip.clone(), zstd.clone(), skip.clone(), zstd, skip].concat();
        assert_eq!(all(&joined).unwrap().len(), 2 * text.len());
        assert!(all(&[0x50, 0x2a, 0x4d, 0x18, 9, 0, 0, 0, 1]).is_err());
    }

    #[test]
    fn a_huge_window_is_refused_before_memory_is_taken() {
        let head = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0];
        let error = all(&head).unwrap_err().to_string();
        assert!(error.contains("window"), "{error}");
        let single = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0];
        assert!(all(&single).unwrap_err().to_string().contains("window"));
    }

    /// Whatever a registry sends ends in bytes or in an error: no panic, no endless loop.
    #[test]
    fn damaged_streams_end() {
        let text = text();
        let streams =
            [crate::builder::gzip(&text), compress_to_vec(&text[..20_000], CompressionLevel::Fastest)];
        let mut seed = 1u64;
        for stream in &streams {
            for _ in 0..200 {
                let mut bytes = stream.clone();
                for _ in 0..3 {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let at = (seed >> 33) as usize % bytes.len();
                    bytes[at] ^= 1 << (seed >> 60 & 7);
                }
                bytes.truncate((seed >> 20) as usize % bytes.len() + 1);
                if let Ok(mut reader) = Decompressed::new(bytes.as_slice()) {
                    let _ = io::copy(&mut (&mut reader).take(64 << 20), &mut io::sink());
                }
            }
        }
    }
}
