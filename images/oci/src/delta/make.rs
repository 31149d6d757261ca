//! Makes recipe and pack of a layer. On the hub.
//!
//! In: the layer's blob, any compression. Out: a recipe; the pack goes to a writer piece by piece.
//! Never: keeps more than one piece, and the names of those that were, in memory.
//!
//! The archive is read only as far as needed to see where the contents of files begin and end. A mistake there costs some
//! matches and nothing else: every byte is in the recipe or in the pack.

use super::recipe::{Piece, Recipe};
use super::{ARCHIVE_BYTES_MAX, PIECE_BYTES_MIN, cut, name};
use crate::decompress::Decompressed;
use crate::digest::{Algorithm, Digest, Hasher};
use std::collections::HashMap;
use std::io::{Error, Read, Result, Write};

const BLOCK: usize = 512;
/// Plain pieces are flushed at this size, so that none is large.
const PLAIN_BYTES_MAX: usize = 1 << 20;

/// The recipe, and the digest of the archive.
pub fn make(blob: impl Read, pack: &mut impl Write) -> Result<(Recipe, Digest)> {
    let mut archive = Counted { inner: Decompressed::new(blob)?, hasher: Hasher::new(Algorithm::Sha256), count: 0 };
    let mut out = Maker { pieces: Vec::new(), plain: Vec::new(), seen: HashMap::new(), named: 0, pack };
    let mut block = [0u8; BLOCK];
    loop {
        let got = read_full(&mut archive, &mut block)?;
        out.add_plain(&block[..got])?;
        if got < BLOCK {
            break;
        }
        let size = content_bytes(&block);
        if size < PIECE_BYTES_MIN {
            // Its bytes follow as blocks like any others, unless they look like headers: then matches are lost, no more.
            let mut rest = size.next_multiple_of(BLOCK as u64);
            while rest > 0 {
                let got = read_full(&mut archive, &mut block)?;
                out.add_plain(&block[..got])?;
                rest = if got < BLOCK { 0 } else { rest - BLOCK as u64 };
            }
            continue;
        }
        out.flush_plain();
        let mut content = (&mut archive).take(size);
        cut::each(&mut content, |piece| out.add_piece(piece))?;
        let padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        let got = read_full(&mut archive, &mut block[..padding])?;
        out.add_plain(&block[..got])?;
    }
    out.flush_plain();
    let pieces = out.pieces;
    Ok((Recipe { archive_bytes: archive.count, pieces }, archive.hasher.finish()))
}

/// Bytes of a regular file's content; of what is no regular file's header, zero.
fn content_bytes(header: &[u8; BLOCK]) -> u64 {
    if !matches!(header[156], b'0' | 0 | b'7') || header[0] == 0 {
        return 0;
    }
    let field = &header[124..136];
    if field[0] & 0x80 != 0 {
        let bytes = field[4..].iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        return if bytes > ARCHIVE_BYTES_MAX { 0 } else { bytes };
    }
    let text = std::str::from_utf8(field).unwrap_or_default();
    u64::from_str_radix(text.trim_matches(|c| c == '\0' || c == ' '), 8).unwrap_or(0)
}

/// As much as there is.
fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match from.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(got)
}

struct Maker<'a, W> {
    pieces: Vec<Piece>,
    plain: Vec<u8>,
    /// Index among the named pieces.
    seen: HashMap<u64, (u32, u32)>,
    named: u32,
    pack: &'a mut W,
}

impl<W: Write> Maker<'_, W> {
    fn add_plain(&mut self, bytes: &[u8]) -> Result<()> {
        self.plain.extend_from_slice(bytes);
        if self.plain.len() >= PLAIN_BYTES_MAX {
            self.flush_plain();
        }
        Ok(())
    }

    fn flush_plain(&mut self) {
        if !self.plain.is_empty() {
            self.pieces.push(Piece::Plain(std::mem::take(&mut self.plain)));
        }
    }

    fn add_piece(&mut self, piece: &[u8]) -> Result<()> {
        let name = name(piece);
        let length = piece.len() as u32;
        match self.seen.get(&name) {
            Some((index, same)) if *same == length => {
                self.pieces.push(Piece::Again(*index));
                return Ok(());
            }
            _ => {}
        }
        let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(5));
        packer.write_all(piece)?;
        let packed = packer.finish()?;
        self.pack.write_all(&packed)?;
        self.seen.insert(name, (self.named, length));
        self.named += 1;
        self.pieces.push(Piece::Named { name, length, packed: packed.len() as u32 });
        Ok(())
    }
}

struct Counted<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let got = self.inner.read(buffer)?;
        self.count += got as u64;
        if self.count > ARCHIVE_BYTES_MAX {
            return Err(Error::other("the layer is too large for a recipe"));
        }
        self.hasher.update(&buffer[..got]);
        Ok(got)
    }
}
