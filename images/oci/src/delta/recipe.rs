//! The recipe's bytes.
//!
//! In: pieces, or a file that may be anything. Out: the other of the two. Never: an unfolded recipe larger than its bound,
//! or one whose pieces do not add up to the archive that it promises.
//!
//! gzip around: `LMPR1`, length of the archive, then pieces until the end. Numbers are LEB128. A piece is one of
//! `0 length bytes` (as it is), `1 name(8, little endian) length packed` (in the pack right after the one before),
//! `2 index` (the same as the index-th piece of kind 1, counted from 0).

use super::{ARCHIVE_BYTES_MAX, Name, RECIPE_UNFOLDED_BYTES_MAX, cut};
use flate2::read::GzDecoder;
use std::io::{Error, ErrorKind, Read, Result, Write};

const MAGIC: &[u8; 5] = b"LMPR1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Headers and small files.
    Plain(Vec<u8>),
    /// `packed` bytes in the pack.
    Named { name: Name, length: u32, packed: u32 },
    /// A piece that came before, by its place among the named ones.
    Again(u32),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    pub archive_bytes: u64,
    pub pieces: Vec<Piece>,
}

impl Recipe {
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(MAGIC)?;
        number(&mut out, self.archive_bytes)?;
        for piece in &self.pieces {
            match piece {
                Piece::Plain(bytes) => {
                    out.write_all(&[0])?;
                    number(&mut out, bytes.len() as u64)?;
                    out.write_all(bytes)?;
                }
                Piece::Named { name, length, packed } => {
                    out.write_all(&[1])?;
                    out.write_all(&name.to_le_bytes())?;
                    number(&mut out, u64::from(*length))?;
                    number(&mut out, u64::from(*packed))?;
                }
                Piece::Again(index) => {
                    out.write_all(&[2])?;
                    number(&mut out, u64::from(*index))?;
                }
            }
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Recipe> {
        let mut from = GzDecoder::new(bytes).take(RECIPE_UNFOLDED_BYTES_MAX);
        let mut magic = [0; 5];
        from.read_exact(&mut magic)?;
        if &magic != MAGIC {
            return Err(bad("it begins with something else"));
        }
        let archive_bytes = read_number(&mut from)?;
        if archive_bytes > ARCHIVE_BYTES_MAX {
            return Err(bad("its archive is too large"));
        }
        let mut recipe = Recipe { archive_bytes, pieces: Vec::new() };
        let (mut sum, mut named) = (0u64, Vec::new());
        while let Some(kind) = read_kind(&mut from)? {
            let (piece, length) = read_piece(&mut from, kind, &named)?;
            if let Piece::Named { length, .. } = piece {
                named.push(length);
            }
            sum += length;
            if sum > archive_bytes || length == 0 {
                return Err(bad("its pieces are more than its archive"));
            }
            recipe.pieces.push(piece);
        }
        match sum == archive_bytes {
            true => Ok(recipe),
            false => Err(bad("its pieces are less than its archive")),
        }
    }

    /// Named pieces with their place in the pack.
    pub fn packed(&self) -> impl Iterator<Item = Packed> + '_ {
        let mut offset = 0;
        self.pieces.iter().filter_map(move |piece| match piece {
            Piece::Named { name, length, packed } => {
                let at = offset;
                offset += u64::from(*packed);
                Some(Packed { name: *name, length: *length, offset: at, packed: *packed })
            }
            _ => None,
        })
    }
}

/// One piece in the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    pub name: Name,
    pub length: u32,
    pub offset: u64,
    pub packed: u32,
}

fn read_piece(from: &mut impl Read, kind: u8, named: &[u32]) -> Result<(Piece, u64)> {
    match kind {
        0 => {
            let length = read_number(from)?;
            let mut bytes = Vec::new();
            from.take(length).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != length {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Ok((Piece::Plain(bytes), length))
        }
        1 => {
            let mut name = [0; 8];
            from.read_exact(&mut name)?;
            let (length, packed) = (read_number(from)?, read_number(from)?);
            // What does not shrink grows by a few bytes.
            if length > cut::MAX as u64 || packed > 2 * cut::MAX as u64 || packed == 0 {
                return Err(bad("a piece is too large"));
            }
            let piece = Piece::Named { name: u64::from_le_bytes(name), length: length as u32, packed: packed as u32 };
            Ok((piece, length))
        }
        2 => {
            let index = read_number(from)?;
            let length = usize::try_from(index).ok().and_then(|i| named.get(i)).ok_or_else(|| bad("it refers ahead"))?;
            Ok((Piece::Again(index as u32), u64::from(*length)))
        }
        _ => Err(bad("a piece is of no known kind")),
    }
}

fn read_kind(from: &mut impl Read) -> Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

fn number(out: &mut impl Write, mut value: u64) -> Result<()> {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        out.write_all(&[if value == 0 { byte } else { byte | 0x80 }])?;
        if value == 0 {
            return Ok(());
        }
    }
}

fn read_number(from: &mut impl Read) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(bad("a number is too long"))
}

fn bad(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the recipe is not right: {why}"))
}
